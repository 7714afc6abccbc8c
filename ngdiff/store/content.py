"""What stands for content: the key of a configuration, the digest of a file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def _canonical(value: Any) -> Any:
    """Return `value` as JSON with one spelling per content.

    A dataclass carries its class name, and a mapping is sorted by key.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise ValueError(f"a content key cannot hold {value}: leave the field out, or use None")
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
        return {"dataclass": type(value).__qualname__, "fields": _canonical(fields)}
    if isinstance(value, Mapping):
        pairs = [[_canonical(k), _canonical(v)] for k, v in value.items()]
        return {"mapping": sorted(pairs, key=lambda pair: json.dumps(pair[0]))}
    if isinstance(value, (list, tuple)):
        return [_canonical(v) for v in value]
    if isinstance(value, Path):
        return {"path": str(value)}
    raise TypeError(
        f"a content key cannot hold a {type(value).__name__}: "
        "pass JSON-able values or dataclasses of them"
    )


def content_key(*parts: Any) -> str:
    """First 16 hex digits of the sha256 of the canonical JSON of `parts`.

    Parts are dataclasses, mappings, sequences and scalars. Equal content gives an equal key in
    every process and on every machine; any changed field changes it. Raises TypeError on an object
    without canonical form and ValueError on NaN or infinity.
    """
    text = json.dumps(_canonical(parts), separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def changed(folder: Path, digests: Mapping[str, str | None]) -> str | None:
    """Return the first file of a folder whose bytes are not those of its sha256, else None.

    A file without a sha256 counts as changed.
    """
    return next(
        (name for name, hex in digests.items() if hex is None or sha256(folder / name) != hex), None
    )


def digests(folder: Path) -> dict[str, str | None]:
    """Return the sha256 of every file below a folder, by its path there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): sha256(path) for path in files}


def sha256(path: Path) -> str | None:
    """The sha256 of a file's bytes in hex digits; None where there is no file."""
    if not path.is_file():
        return None
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
