"""The evaluator of SemEval-2025 Task 4 as a convention.

Source: the organisers' evaluation code, and Ramakrishna et al., "SemEval-2025 Task 4: Unlearning
sensitive content from Large Language Models" (2025).
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from ngdiff.evaluation import texts
from ngdiff.evaluation.definition import Convention
from ngdiff.lm.tokens import Example

if TYPE_CHECKING:
    import numpy as np

    from ngdiff.lm.model import LM

COLUMNS = ("id", "task", "input", "expected_output", "model_output", "nll")


class SemEval(Convention):
    """The numbers of the task's own evaluator. What differs from the definition:

    - Weights are bfloat16, and a row is evaluated by itself.
    - An EOS that the tokenizer appends to the input stays.
    - The generation configuration alone says where a generation stops. Spaces before punctuation
      are removed.
    - What is scored is what pandas reads back from the written file: an empty output is the word
      "nan". An id of two digits (…qa10) has no kind, so its row is left out.
    """

    name = "semeval"
    suites = ("semeval",)
    budget = 1

    def ids(self, lm: LM, text: str) -> list[int]:
        return texts.ids(lm.tokenizer, text)

    def stops(self, lm: LM, rows: Sequence[Example] = ()) -> set[int]:
        return texts.declared(lm.model)

    def weights(self, model: Any) -> AbstractContextManager[None]:
        from ngdiff.evaluation import single  # torch

        return single.rounded(model)

    def likelihood(self, model: Any, rows: Sequence[Example]) -> list[np.ndarray]:
        from ngdiff.evaluation import single  # torch

        return [single.likelihood(model, row) for row in rows]

    def reply(self, lm: LM, ids: list[int]) -> str:
        return lm.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=True)

    def kind(self, id: str) -> str | None:
        from ngdiff.evaluation import terms  # scipy

        return terms.kind(id)

    def judged(self, items: Mapping[int, dict[str, Any]]) -> list[dict[str, Any]]:
        import pandas

        return pandas.read_csv(io.StringIO(csv_text(items, COLUMNS))).to_dict("records")


def csv_text(items: Mapping[int, Any], columns: Sequence[str]) -> str:
    """Return the items as the evaluator writes them.

    But a field with a carriage return is quoted: bare, it is read as the end of the row.
    """
    import pandas

    rows = [[item[column] for column in columns] for item in items.values()]
    frame = pandas.DataFrame(rows, columns=list(columns))
    return frame.to_csv(index=False, lineterminator="\r\n")
