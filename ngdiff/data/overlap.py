"""Rows that stand in two sets, told from the text up to white space, case and letter forms.

To forget a row and to keep it are opposite aims, and a hold-out row must be unseen. People's files
hold such pairs in other spellings, so equality of bytes is not enough.
"""

from __future__ import annotations

import unicodedata
import warnings
from collections.abc import Callable, Mapping, Sequence

from ngdiff.data.benchmark import Row

SHOWN = 3  # pairs that a message names

Pair = tuple[str, str, str]  # the places of two rows, and what they share, folded


def folded(text: str) -> str:
    """Return a text with one space between words, in one case and one form of each letter."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(text.lower().split())


def check(rows: Mapping[str, Sequence[Row]], places: Mapping[str, Sequence[str]]) -> None:
    """Refuse rows that are in two of the sets "forget", "retain" and "holdout" (if there is one).

    Forget and retain rows are the same where they ask the same, or are the same document. A
    hold-out row is another row where question and answer are. An answer of a forget row that is
    also that of a retain row, to another question, is a warning.

    Errors: ValueError with the number of pairs and the places of the first few.
    """
    both = _pairs(rows, places, "forget", "retain", _asked)
    if both:
        raise ValueError(
            f"{_many(both, 'forget row is', 'forget rows are')} a retain row too, but for white "
            f"space and case: {_named(both)}. A row cannot be forgotten and kept: remove it from "
            "one of the two files"
        )
    for other in ("forget", "retain") if "holdout" in rows else ():
        if seen := _pairs(rows, places, "holdout", other, _whole):
            raise ValueError(
                f"{_many(seen, 'hold-out row is', 'hold-out rows are')} a {other} row too, but for "
                f"white space and case: {_named(seen)}. Hold-out rows must be ones the model was "
                "never trained on: remove them"
            )
    if same := _pairs(rows, places, "forget", "retain", _answered):
        warnings.warn(
            f"{_many(same, 'forget row has', 'forget rows have')} the answer of a retain row to "
            f"another question: {_named(same)}. Such an answer is to be forgotten and kept: look "
            "whether both rows state the same fact",
            stacklevel=3,
        )


def _asked(row: Row) -> str:
    return folded(row["question"] or row["answer"])


def _whole(row: Row) -> str:
    return f"{folded(row['question'])}\n{folded(row['answer'])}"


def _answered(row: Row) -> str:
    return folded(row["answer"]) if row["question"] else ""


def _pairs(
    rows: Mapping[str, Sequence[Row]],
    places: Mapping[str, Sequence[str]],
    one: str,
    other: str,
    key: Callable[[Row], str],
) -> list[Pair]:
    """Return the rows of one set that have the key of a row of the other; "" is no key."""
    wanted: dict[str, int] = {}
    for i, row in enumerate(rows[other]):
        wanted.setdefault(key(row), i)
    wanted.pop("", None)
    return [
        (places[one][i], places[other][wanted[found]], found)
        for i, row in enumerate(rows[one])
        if (found := key(row)) in wanted
    ]


def _many(pairs: Sequence[Pair], single: str, several: str) -> str:
    return f"{len(pairs)} {single if len(pairs) == 1 else several}"


def _named(pairs: Sequence[Pair]) -> str:
    """Return the first pairs in words, and how many more there are."""
    named = [f"{one} and {other} ({text[:60]!r})" for one, other, text in pairs[:SHOWN]]
    more = len(pairs) - len(named)
    return "; ".join(named) + (f"; and {more} more" if more else "")
