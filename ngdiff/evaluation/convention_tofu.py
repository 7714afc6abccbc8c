"""TOFU's own code as a convention.

Source: github.com/locuslab/tofu, data_module.py (`convert_raw_data_to_model_format`),
evaluate_util.py and config/eval_everything.yaml.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ngdiff.evaluation import texts
from ngdiff.evaluation.definition import Convention, Encoded
from ngdiff.lm import tokens
from ngdiff.lm.tokens import IGNORE, Example, fits

if TYPE_CHECKING:
    from torch import Tensor

    from ngdiff.data.benchmark import Row
    from ngdiff.lm.model import LM
    from ngdiff.methods.objectives import Objective


class TOFU(Convention):
    """The numbers of locuslab/tofu. What differs from the definition:

    - The answer tag ("Answer: ") has labels too, and generation is not given it.
    - A row is cut to its first 200 tokens, and a cut row has no EOS. Prompt and generation have 200
      tokens together.
    - Only the first 300 rows of each set are used. Its code has no hold-out set; here all hold-out
      rows are used.
    - The generation for a row that was cut is compared with what is left of its answer.
    - Training cuts rows to 500 tokens and pads them to 500 by EOS, so that a row's own EOS counts
      as padding. KL is averaged over the whole padded batch.

    Its DPO stands in a branch that cannot run: the formula is kept.
    """

    name = "tofu"
    suites: tuple[str, ...] = ("tofu",)
    cut = 200
    longest = 200

    def first(self, rows: list[Row]) -> list[Row]:
        return rows[:300]

    def encode(self, lm: LM, question: str, answer: str) -> Encoded:
        if not question:
            return super().encode(lm, question, answer)
        ids = tokens.encode(lm.tokenizer, lm.prompt, question, answer).input_ids[: self.cut]
        untagged = replace(lm.prompt, answer_start="")
        given = tokens.encode(lm.tokenizer, untagged, question, "").input_ids[:-1]
        return Encoded(ids, labels(lm, question, answer, ids, len(given)), given)

    def truth(self, lm: LM, answer: str, row: Encoded) -> str:
        if row.input_ids[-1] == tokens.end_id(lm.tokenizer, lm.prompt):
            return answer
        tag = lm.prompt.answer_start or lm.prompt.question_end
        after = texts.text(lm.tokenizer, row.input_ids).split(tag)[1:] if tag else []
        if after or lm.prompt.answer_start:
            return after[0] if after else ""  # the tag was cut off
        # what a template writes between question and answer may leave no text
        return texts.text(lm.tokenizer, [label for label in row.labels if label != IGNORE])

    def stops(self, lm: LM, rows: Sequence[Example] = ()) -> set[int]:
        return super().stops(lm)  # the last label of a row that was cut ends no answer

    def training(self) -> Convention:
        return TOFUTraining()

    def objective(self, objective: Objective) -> Objective:
        from ngdiff.methods import variants  # torch

        return variants.variant(variants.TOFU, objective)


class TOFUTraining(TOFU):
    """locuslab/tofu in training: a row is cut to 500 tokens, and padded to as many by EOS."""

    cut = 500

    def padding(self, lm: LM) -> int:
        eos = lm.tokenizer.eos_token_id
        return super().padding(lm) if eos is None else eos

    def width(self, lm: LM) -> int | None:
        return min(self.cut, lm.context or self.cut)

    def mask(self, lm: LM, ids: Tensor, mask: Tensor, rows: Sequence[Example]) -> Tensor:
        mask = mask.clone()
        for line, row in zip(mask, rows, strict=True):
            line[len(row) - (row.input_ids[-1] == lm.tokenizer.eos_token_id) :] = 0
        return mask


def labels(lm: LM, question: str, answer: str, ids: list[int], start: int) -> list[int]:
    """Return the labels of a row: its tokens from `start` on, which may be none.

    Raises ValueError for a row longer than the context.
    """
    fits(ids, lm.context, question, answer)
    return [IGNORE] * min(start, len(ids)) + ids[start:]
