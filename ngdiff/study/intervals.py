"""Means with intervals over the seeds of a comparison: what its claims are made of.

Runs of one target share their models, so the target is the unit. With three targets or more an
interval is Student's t over the means of the targets. With fewer it is the range of the values.
data/results/LOG.md says why it is not a bootstrap of all pairs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]


def select(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """The rows whose fields have the wanted values."""
    return [row for row in rows if all(row.get(k) == v for k, v in wanted.items())]


@dataclass(frozen=True)
class Interval:
    """A mean and how far it can be trusted; `n` values went in. kind: `95 %` (Student's t over
    targets), `range` (fewer than three targets, three values at least), or `` (fewer values: no
    interval)."""

    mean: float
    low: float | None
    high: float | None
    n: int
    kind: str = ""

    @property
    def sign(self) -> str:
        """`above`, `below` or `undecided` against zero."""
        if self.low is None or self.high is None:
            return "undecided"
        return "above" if self.low > 0 else "below" if self.high < 0 else "undecided"


def interval(by_target: Mapping[int, Sequence[float]]) -> Interval:
    """Return the interval of values grouped by target seed: the mean of the targets' means, t₀.₉₇₅
    · s/√k to either side with k ≥ 3 targets.
    """
    from scipy import stats

    values = [value for of_target in by_target.values() for value in of_target]
    if not values:
        raise ValueError("no values to average: the rows of this comparison are missing")
    means, k = [mean(of_target) for of_target in by_target.values()], len(by_target)
    if k < 3:
        ends = (
            (min(values), max(values), len(values), "range")
            if len(values) >= 3
            else (None, None, len(values))
        )
        return Interval(mean(values), *ends)
    middle, spread = mean(means), math.sqrt(sum((m - mean(means)) ** 2 for m in means) / (k - 1))
    half = float(stats.t.ppf(0.975, k - 1)) * spread / math.sqrt(k)
    return Interval(middle, middle - half, middle + half, len(values), "95 %")


def grouped(rows: Iterable[Row], value: str) -> dict[int, list[float]]:
    """target seed → the values of its rows."""
    found: dict[int, list[float]] = {}
    for row in rows:
        found.setdefault(row["target_seed"], []).append(row[value])
    return found


def paired(ours: Iterable[Row], theirs: Iterable[Row], value: str) -> dict[int, list[float]]:
    """target seed → ours − theirs, paired by (target seed, seed); pairs that only one of them has
    are left out.
    """
    left, right = (
        {(r["target_seed"], r["seed"]): r[value] for r in rows} for rows in (ours, theirs)
    )
    gaps: dict[int, list[float]] = {}
    for pair in sorted(left.keys() & right.keys()):
        gaps.setdefault(pair[0], []).append(left[pair] - right[pair])
    return gaps


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
