"""MUSE's own code as a convention.

Source: github.com/swj0419/muse_bench, metrics/verbmem.py, metrics/knowmem.py, metrics/privleak.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ngdiff.evaluation import texts
from ngdiff.evaluation.definition import Convention

if TYPE_CHECKING:
    from ngdiff.lm.model import LM


class Muse(Convention):
    """The numbers of swj0419/muse_bench. What differs from the definition:

    - Prompts are tokenised verbatim: knowmem's ends in a space that is a token of its own.
    - An EOS that the tokenizer appends stays.

    It also removes spaces before punctuation, which ROUGE hardly sees; this is not done here.
    """

    name = "muse"
    suites: tuple[str, ...] = ("muse",)

    def ids(self, lm: LM, text: str) -> list[int]:
        return texts.ids(lm.tokenizer, text)

    def opening(self, lm: LM, text: str) -> list[int]:
        return self.ids(lm, text)
