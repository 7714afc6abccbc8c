"""JSON as this package writes it: strict, in UTF-8, with a line end after the last line.

A number that is not finite becomes null, since JSON has no such number; `Report` spells infinities
before it is written. Scalars and arrays of numpy and torch become plain numbers and lists.
Files in another tool's format are written as that tool writes them, not by this module.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any


def plain(value: Any) -> Any:
    """Return `value` in Python scalars, lists and string-keyed dicts.

    A float that is not finite becomes None, another object its repr.
    """
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):  # numpy and torch scalars and arrays
        return plain(value.tolist())
    return str(value) if isinstance(value, Path) else repr(value)


def text(value: Any) -> str:
    """Return `value` as a JSON document of many lines, which ends in a line end."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False, indent=1) + "\n"


def line(value: Any) -> str:
    """Return `value` as one line of JSON, which ends in a line end."""
    return json.dumps(plain(value), ensure_ascii=False, allow_nan=False) + "\n"


def shown(value: Any) -> str:
    """Return a value as JSON, cut to what fits in a message."""
    written = json.dumps(value, ensure_ascii=False)
    return written if len(written) <= 60 else f"{written[:57]}…"


def not_finite(value: Any, where: str = "") -> Iterator[str]:
    """Yield for each number that becomes null where it stands and what it is: "scores 3 is nan"."""
    if isinstance(value, float) and not math.isfinite(value):
        yield f"{where} is {value}".strip()
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from not_finite(inner, f"{where} {key}".strip())
    elif isinstance(value, (list, tuple)):
        for i, inner in enumerate(value):
            yield from not_finite(inner, f"{where} {i}".strip())
    elif hasattr(value, "tolist"):
        yield from not_finite(value.tolist(), where)
