"""A convention is how a benchmark's numbers are made. `Convention` is the definition, corrected.

A published convention (`ngdiff.evaluation.conventions`) is a subclass that overrides what its own
code does differently. Callers use the object and never test which one it is. Nothing here loads
torch before a model is used, because `ngdiff score` does without.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ngdiff.data.benchmark import BARE, Benchmark, Row
from ngdiff.data.real.muse import published_a_ret
from ngdiff.data.real.semeval_rows import kind
from ngdiff.evaluation import muse_texts, texts
from ngdiff.lm.tokens import IGNORE, Example, encode

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ngdiff.lm.model import LM
    from ngdiff.methods.objectives import Objective


@dataclass(frozen=True, repr=False)
class Encoded(Example):
    """A row as tokens: `input_ids`, `labels`, and `given`, the tokens that generation starts
    from.
    """

    given: list[int]

    @classmethod
    def of(cls, example: Example) -> Encoded:
        """Return the example with the tokens before its first label as `given`."""
        return cls(example.input_ids, example.labels, example.prompt_ids)


def unanswered(row: Example) -> bool:
    """Return whether a row has no token of an answer."""
    return row.labels[-1:] in ([], [IGNORE])


class Convention:
    """The definition of each benchmark, corrected where published code looks wrong.

    name     what reports and the command line call it
    suites   the benchmarks that it can evaluate; (): all
    eps      added to denominators
    floor    whether extraction strength is at least 1/n (and 0 for no token)
    empty    Min-K % and Min-K %++ of an answer without a token
    stemmer  whether MUSE's ROUGE stems words
    longest  tokens that prompt and generation have together; None for no limit
    budget   tokens in one forward of SemEval's generations, padding included
    """

    name = "ngdiff"
    suites: tuple[str, ...] = ()
    eps = 0.0
    floor = False
    empty = math.nan
    stemmer = False
    longest: int | None = None
    budget = 16384

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    def evaluates(self, suite: str) -> bool:
        """Return whether it says how a benchmark is evaluated."""
        return not self.suites or suite in self.suites

    def check(self, meta: Mapping[str, Any], name: str) -> None:
        """Raise ValueError where `meta` is of another convention's report; `name` names it."""
        if (theirs := meta.get("convention")) != self.name:
            raise ValueError(
                f"{name} has convention {theirs!r}, this evaluation {self.name!r}: evaluate both "
                "with the same one"
            )

    # Questions and answers: TOFU's rows, and the rows of `ngdiff losses`
    # ---------------------------

    def encode(self, lm: LM, question: str, answer: str) -> Encoded:
        """Return the row as tokens, with labels on the answer and its EOS.

        Without a question the answer is a document, and all of it has labels. A row of whose answer
        nothing is kept has no label (`unanswered`). Raises ValueError for a row that is longer than
        the model's context.
        """
        return Encoded.of(lm.encode(question, answer))

    def first(self, rows: list[Row]) -> list[Row]:
        """Return the rows of one of TOFU's sets that are evaluated."""
        return rows

    def truth(self, lm: LM, answer: str, row: Encoded) -> str:
        """Return the text that a generation is compared with; `row` is the answer's encoded row."""
        return answer

    def compressed(self, lm: LM, answer: str, row: Encoded) -> str:
        """Return the text that the zlib attack compresses."""
        return answer

    def decode(self, lm: LM, ids: list[int]) -> str:
        """Return a generation as text, without special tokens."""
        return lm.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def stops(self, lm: LM, rows: Sequence[Example] = ()) -> set[int]:
        """Return the tokens that end a generation: each EOS, and the last label of each row."""
        return texts.stop_tokens(lm.model, lm.tokenizer, rows)

    def hidden(self, lm: LM) -> int | None:
        """Return the token that attention skips wherever it stands. None: padding hides nothing."""
        return None

    # Documents and prompts: MUSE's rows, and SemEval's --------------------------------------------

    def ids(self, lm: LM, text: str) -> list[int]:
        """Return the tokens of a text, without the EOS that some tokenizers append."""
        ids = texts.ids(lm.tokenizer, text)
        return ids[:-1] if ids[-1:] == [lm.tokenizer.eos_token_id] else ids

    def opening(self, lm: LM, text: str) -> list[int]:
        """Return the tokens of a MUSE prompt.

        Its last space is left to the model: most vocabularies join it to the next word.
        """
        return self.ids(lm, text.rstrip(" "))

    def asked(self, lm: LM, text: str, answer: str) -> tuple[list[int], str]:
        """Return what generation is given of knowmem's pairs and question, and the true answer."""
        return self.opening(lm, text), answer

    def document(self, lm: LM, text: str) -> list[int]:
        """Return the tokens of a document whose membership is scored."""
        return self.ids(lm, text)

    def scored(self, values: np.ndarray) -> np.ndarray:
        """Return the values of a MUSE text's tokens that are scored, shape (tokens,)."""
        return values

    def a_ret(self, bench: Benchmark) -> float | None:
        """Return privleak's A_ret where no retrained model is given; None where it is not known."""
        return published_a_ret(bench)

    def continuation(self, lm: LM, head: str, tail: str, n: int) -> Encoded:
        """Return verbmem's prompt and true continuation as tokens, with labels on the first n.

        Both are tokenised together. MUSE's continuations have lost their first space: one joins the
        two where neither has it. A text longer than the context loses the beginning of its prompt,
        then the end of its continuation.
        """
        seam = "" if head[-1:].isspace() or tail[:1].isspace() else " "
        example = encode(lm.tokenizer, BARE, head, seam + tail)
        start, ids = len(example.prompt_ids), example.input_ids[:-1]  # without EOS
        window = muse_texts.window(lm, ids, start, n)
        return Encoded(window.input_ids, window.labels, self.opening(lm, head))

    def continued(self, lm: LM, tail: str, n: int, row: Encoded) -> str:
        """Return what verbmem's generation is compared with: n tokens of the true continuation."""
        return texts.text(lm.tokenizer, self.ids(lm, tail)[:n])

    def response(self, lm: LM, ids: list[int], asked: bool) -> str:
        """Return a MUSE generation as text; an `asked` one is cut where the next question
        begins.
        """
        text = texts.text(lm.tokenizer, ids)
        return muse_texts.one_answer(text) if asked else text

    # SemEval's rows -------------------------------------------------------------------------------

    def weights(self, model: Any) -> AbstractContextManager[None]:
        """Return a context in which the model has the weights that are evaluated."""
        return nullcontext()

    def likelihood(self, model: Any, rows: Sequence[Example]) -> list[np.ndarray]:
        """Return the log-probabilities of each row's labelled tokens, each of shape (tokens,)."""
        from ngdiff.evaluation import forward

        return [stats.logp for stats in forward.likelihood(model, rows)]

    def reply(self, lm: LM, ids: list[int]) -> str:
        """Return a SemEval generation as text, all of it."""
        return lm.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )

    def kind(self, id: str) -> str | None:
        """Return "sc" or "qa", as the row's id says; None for a row that is not scored."""
        return kind(id)

    def judged(self, items: Mapping[int, dict[str, Any]]) -> list[dict[str, Any]]:
        """Return SemEval's items as rows for `ngdiff.evaluation.terms`, under an id of their
        kind.
        """
        return [item | {"id": f"{self.kind(item['id'])}0"} for item in items.values()]

    # Training: what `ngdiff losses` compares with other implementations ---------------------------

    def training(self) -> Convention:
        """Return the convention by which rows are encoded in training."""
        return self

    def objective(self, objective: Objective) -> Objective:
        """Return the objective as this convention's code computes it, with the same settings."""
        return objective

    def padding(self, lm: LM) -> int:
        """Return the token that pads a batch."""
        return lm.pad_id

    def width(self, lm: LM) -> int | None:
        """Return how many tokens a row is padded to; None for the longest row of the batch."""
        return None

    def mask(self, lm: LM, ids: Tensor, mask: Tensor, rows: Sequence[Example]) -> Tensor:
        """Return the attention mask of padded rows; ids, mask (batch, time), mask 1 on real
        tokens.
        """
        return mask
