"""All figures: one update, landscapes, runs, their comparison, benchmarks; the style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ngdiff.store.rows import read_rows, stamp, write_rows


def saved(
    path: Path,
    rows: Sequence[Mapping[str, Any]],
    config: Mapping[str, Any],
    seconds: float,
    made: str = "",
) -> list[dict[str, Any]]:
    """Write the rows, stamped, to `path` and read them back.

    What is drawn from them is so a function of the file alone. made: how they were made, in words,
    which the caption of their figure repeats.
    """
    more: dict[str, Any] = {"made": made} if made else {}
    more["stamp"] = stamp(config, None, seconds)
    write_rows(path, [{**row, **more} for row in rows])
    return read_rows(path)
