"""Answers that ROUGE cannot see.

Google's scorer keeps the letters a–z and the digits 0–9. An answer in another script scores 0
whatever is said, or 1 for the same digits. The value stays the scorer's; a line counts them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

WORD = re.compile(r"[a-z]", re.IGNORECASE | re.ASCII)


def blind(answer: str) -> bool:
    """Return whether an answer has no word that ROUGE counts: a number alone is one, a digit
    within words of another script is none.
    """
    if not answer.strip() or WORD.search(answer):
        return False
    digits = any(letter in "0123456789" for letter in answer)
    return not digits or any(letter.isalpha() for letter in answer)


def unseen(answers: Iterable[str]) -> list[str]:
    """Return a line with the number of true answers without a word for ROUGE, if not 0."""
    found = list(answers)
    lost = [answer for answer in found if blind(answer)]
    if not lost:
        return []
    return [
        f"{len(lost)} of {len(found)} true answers contain no word that ROUGE counts (a–z "
        f"and 0–9 alone; the first: {lost[0][:40]!r}): their ROUGE says nothing"
    ]
