"""Saved rows that may be missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ngdiff.store.rows import read_rows

NOT_RUN = "not run"


def saved(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file, [] where there is none."""
    return read_rows(path) if path.exists() else []
