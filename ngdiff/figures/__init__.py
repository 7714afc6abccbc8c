"""Figures: `style` (colours, names, saving), `theory` (quadratics, gradient space), `runs`
(unlearning runs).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ngdiff.store.rows import read_rows, stamp, write_rows


def saved(
    path: Path, rows: Sequence[Mapping[str, Any]], config: Mapping[str, Any], seconds: float
) -> list[dict[str, Any]]:
    """The rows, stamped, written to `path` and read back: what is drawn from them is a function of
    the file alone.
    """
    mark = stamp(config, None, seconds)
    write_rows(path, [{**row, "stamp": mark} for row in rows])
    return read_rows(path)
