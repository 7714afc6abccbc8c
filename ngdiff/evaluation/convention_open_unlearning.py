"""open-unlearning's code as a convention.

Source: github.com/locuslab/open-unlearning, src/data/utils.py (`preprocess_chat_instance`,
`preprocess_pretraining_instance`), src/data/collators.py and src/evals/metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ngdiff.data.benchmark import BARE, Benchmark, Prompt
from ngdiff.evaluation import muse_texts, texts
from ngdiff.evaluation.convention_muse import Muse
from ngdiff.evaluation.convention_tofu import labels
from ngdiff.evaluation.definition import Encoded
from ngdiff.lm import tokens
from ngdiff.lm.tokens import IGNORE, Example

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from ngdiff.lm.model import LM
    from ngdiff.methods.objectives import Objective

DOCUMENT = 2048  # tokens of a document, or of a continuation, that are looked at


class OpenUnlearning(Muse):
    """The numbers of locuslab/open-unlearning.

    In TOFU and in `ngdiff losses` this differs from the definition:

    - 1e-10 is added to denominators. Extraction strength is at least 1/n, and without a token these
      scores are 0.
    - The answer begins after as many tokens as the prompt has alone. So a token made of the
      prompt's last space and the answer's first word has no label.
    - A chat template renders the answer too. Without one, prompt and answer are cut to 512 tokens.
      Then EOS follows where it is not the last token.
    - A document gets no EOS, and its first token no label.
    - The true answer, and the text for zlib, are decoded from tokens.
    - The generation configuration alone says where a generation stops.
    - The mask hides every token that equals the padding. A tokenizer that came without a padding
      token is padded with EOS, which hides a template's EOS in the prompt.
    - KL and UNDIAL are averaged over the whole padded batch; RMU's mean is taken of a B×B matrix.

    In MUSE it does what the convention `muse` does, and more. ROUGE stems words, and texts are
    stripped. A space joins prompt and continuation even where there is one. The last token of what
    is scored is dropped as if it were EOS. Documents and continuations are cut to 2048 tokens,
    pairs and question to 512.
    """

    name = "open-unlearning"
    suites = ("tofu", "muse")
    eps = 1e-10
    floor = True
    empty = 0.0
    stemmer = True
    cut = 512

    def encode(self, lm: LM, question: str, answer: str) -> Encoded:
        if question:
            given, ids = _alone(lm.tokenizer, lm.prompt, question, answer, self.cut)
            return Encoded(ids, labels(lm, question, answer, ids, len(given)), given)
        ids = self.ids(lm, answer)
        given = tokens.encode(lm.tokenizer, BARE, "", "").input_ids[:-1]  # BOS, if there is one
        return Encoded(ids, labels(lm, question, answer, ids, 1), given)

    def truth(self, lm: LM, answer: str, row: Encoded) -> str:
        return self._answer(lm, row.given, row.input_ids)

    def _answer(self, lm: LM, given: list[int], ids: list[int]) -> str:
        return self.decode(lm, ids).replace(self.decode(lm, given), "").strip()

    def compressed(self, lm: LM, answer: str, row: Encoded) -> str:
        return _labelled(lm, row)

    def decode(self, lm: LM, ids: list[int]) -> str:
        options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": True}
        return lm.tokenizer.decode(ids, **options).strip()

    def stops(self, lm: LM, rows: Sequence[Example] = ()) -> set[int]:
        return texts.declared(lm.model)

    def hidden(self, lm: LM) -> int | None:
        pad = lm.tokenizer.pad_token_id
        return lm.tokenizer.eos_token_id if pad is None else pad

    # MUSE

    def asked(self, lm: LM, text: str, answer: str) -> tuple[list[int], str]:
        given, ids = _alone(lm.tokenizer, BARE, text, answer, self.cut)
        return given, self._answer(lm, given, ids)

    def a_ret(self, bench: Benchmark) -> float | None:
        return None

    def document(self, lm: LM, text: str) -> list[int]:
        return self.ids(lm, text)[: DOCUMENT + len(self.ids(lm, ""))]

    def scored(self, values: np.ndarray) -> np.ndarray:
        return values[:-1]

    def continuation(self, lm: LM, head: str, tail: str, n: int) -> Encoded:
        given = self.ids(lm, head)
        window = muse_texts.window(lm, self.ids(lm, f"{head} {tail}"), len(given), DOCUMENT)
        return Encoded(window.input_ids, window.labels, given)

    def continued(self, lm: LM, tail: str, n: int, row: Encoded) -> str:
        return _labelled(lm, row).strip()

    def response(self, lm: LM, ids: list[int], asked: bool) -> str:
        return super().response(lm, ids, asked).strip()

    # Training

    def objective(self, objective: Objective) -> Objective:
        from ngdiff.methods import variants  # torch

        return variants.variant(variants.OPEN_UNLEARNING, objective)

    def padding(self, lm: LM) -> int:
        hidden = self.hidden(lm)
        return super().padding(lm) if hidden is None else hidden

    def mask(self, lm: LM, ids: Tensor, mask: Tensor, rows: Sequence[Example]) -> Tensor:
        hidden = self.hidden(lm)
        return mask if hidden is None else (ids != hidden).long()


def _labelled(lm: LM, row: Encoded) -> str:
    """Return the text of the labelled tokens."""
    return texts.text(lm.tokenizer, [label for label in row.labels if label != IGNORE])


@lru_cache(maxsize=8192)  # the same rows are evaluated for every model that shares a tokenizer
def _alone(
    tokenizer: Any, prompt: Prompt, question: str, answer: str, cut: int
) -> tuple[list[int], list[int]]:
    """Return the tokens of the prompt alone, and those of prompt, answer and EOS."""
    if prompt.templated and tokenizer.chat_template:
        from ngdiff.lm.chat import chat_prompt, render  # transformers

        if prompt == chat_prompt(tokenizer):
            # the template is given text and gives text: its special tokens are its own
            both = render(tokenizer, question), render(tokenizer, question, answer)
            options = {"add_special_tokens": False, "verbose": False}
            given, ids = ([*tokenizer(text, **options)["input_ids"]] for text in both)
            return given, _ended(tokenizer, ids)
    head = prompt.text(question)
    given, ids = (texts.ids(tokenizer, text)[:cut] for text in (head, head + answer))
    return given, _ended(tokenizer, ids)


def _ended(tokenizer: Any, ids: list[int]) -> list[int]:
    end = tokens.end_id(tokenizer, BARE)
    return ids if ids[-1:] == [end] else [*ids, end]
