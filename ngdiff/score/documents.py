"""JSON documents of other tools: read whole, checked where they are used.

Every error names file, field and row.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ngdiff.store.textfile import text_of

# Llama-3's template inserts the day of the run into the question
TODAY = re.compile(r"Today Date: [^\n]*")


def read(path: Path) -> dict[str, Any]:
    """The object in a JSON file; NaN and Infinity are read, as Python writes them.

    Errors: FileNotFoundError; ValueError with file and line for what is not UTF-8, not JSON, cut
    short, or no object.
    """
    try:
        written = text_of(path)
        document = json.loads(written)
    except json.JSONDecodeError as error:
        begun = written.lstrip()[:1] in ("{", "[")
        end = "the file is damaged or cut short" if begun else "this command takes a JSON file"
        why = f"not JSON ({error.msg}): {end}"
        raise ValueError(f"{path}, line {error.lineno}: {why}") from error
    if not isinstance(document, dict):
        raise ValueError(f"{path}: a JSON object is needed, this is a {type(document).__name__}")
    return document


def mapping(value: Any, where: str) -> dict[str, Any]:
    """A JSON object with something in it. Error: ValueError that says `where`."""
    if not isinstance(value, dict) or not value:
        raise ValueError(
            f"{where}: {shown(value)}, where an object {{index: value}} with at least one row is "
            "needed"
        )
    return value


def array(value: Any, where: str) -> list[Any]:
    """A JSON array with something in it. Error: ValueError that says `where`."""
    if not isinstance(value, list) or not value:
        raise ValueError(
            f"{where}: {shown(value)}, where a list with at least one element is needed"
        )
    return value


def number(value: Any, where: str) -> float:
    """A JSON number, NaN and infinities included.

    Error: ValueError that says `where` (null, text, true, …).
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{where}: {shown(value)}, where a number is needed")
    return float(value)


def shown(value: Any) -> str:
    """A value as JSON, cut to what fits in a message."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}…"


Text = tuple[str, str]  # what a row asks, and its true answer


def same_rows(
    rows: Mapping[str, Text], reference: Mapping[str, Text], path: Path, other: Path
) -> list[str]:
    """Whether two results can be of the same rows, by index -> (question, answer).

    Gives warnings where one cannot be sure.

    Results of different sizes are legal, and so are samples of a split with indices of their own.
    Another split is not: no row in common; or the smaller result is the end of the larger one, as
    forget05 is of forget10.

    Errors: ValueError naming both files, the first index that differs, and its two texts.
    """
    if not rows or not reference:
        return [
            f"no texts to compare: whether {path} and {other} are of the same rows cannot be told"
        ]
    ours, theirs = ({i: _bare(text) for i, text in texts.items()} for texts in (rows, reference))
    differs = next((i for i in ours if i in theirs and not _same(ours[i], theirs[i])), None)
    small, large = sorted((list(ours.values()), list(theirs.values())), key=len)
    told: dict[str, list[Text]] = {}  # answer -> the rows that have it
    for text in large:
        told.setdefault(text[1], []).append(text)
    apart = not any(_same(text, other) for text in small for other in told.get(text[1], ()))
    if differs is None and not apart:
        return []
    first = next(iter(ours)) if differs is None else differs
    texts = f"index {first} is {shown(ours[first][0])} in {path}"
    if first in theirs:
        texts += f" and {shown(theirs[first][0])} in {other}"
    last = len(small) < len(large) and all(map(_same, small, large[-len(small) :]))
    if apart or last:
        why = (
            "they share no row"
            if apart
            else f"the {len(small)} rows of one are the last of the other's {len(large)}"
        )
        raise ValueError(
            f"{path} and {other} are of different splits ({why}): {texts}. Give the reference of "
            "this split"
        )
    return [f"{texts}: not the same rows at the same index; is {other} of the same split?"]


def _same(one: Text, other: Text) -> bool:
    """One tool saves the question, another the whole prompt it stands in."""
    return one[1] == other[1] and (one[0] in other[0] or other[0] in one[0])


def _bare(text: Text) -> Text:
    question, answer = text
    return TODAY.sub("", question).strip(), answer.strip()
