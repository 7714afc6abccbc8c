"""JSON documents of other tools: read whole, checked where they are used.

Every error names file, field and row.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ngdiff.store.document import shown
from ngdiff.store.textfile import parsed, text_of


def read(path: Path) -> dict[str, Any]:
    """The object in a JSON file; NaN and Infinity are read, as Python writes them.

    Errors: FileNotFoundError; ValueError with file and line for what is not UTF-8, not JSON, cut
    short, or no object.
    """
    try:
        written = text_of(path)
        document = parsed(written)
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


def indexed(value: Any, where: str) -> dict[str, Any]:
    """A JSON object {index: value}; of a list, a value's position is its index.

    Error: ValueError that says `where`.
    """
    if isinstance(value, list):
        value = {str(i): inner for i, inner in enumerate(value)}
    return mapping(value, where)


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
