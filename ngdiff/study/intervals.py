"""Means with intervals over the units of a comparison: what its claims are made of.

Runs of one population share its rows, and runs of one model that model. So the unit is the
population; where there is one only, it is the seed of the models. With three units or more an
interval is Student's t over the means of the units. With fewer it is the range of the values.
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
    """A mean and how far it can be trusted; `n` values went in.

    kind: `95 %` (Student's t over units), `range` (fewer than three units, three values at least),
    or `` (fewer values: no interval). p: of the t test that the mean is 0, two-sided; None without
    an interval.
    """

    mean: float
    low: float | None
    high: float | None
    n: int
    kind: str = ""
    p: float | None = None

    @property
    def sign(self) -> str:
        """`above`, `below` or `undecided` against zero."""
        if self.low is None or self.high is None:
            return "undecided"
        return "above" if self.low > 0 else "below" if self.high < 0 else "undecided"


def interval(by_unit: Mapping[Any, Sequence[float]]) -> Interval:
    """Return the interval of values grouped by unit: the mean of the units' means, t₀.₉₇₅ · s/√k to
    either side with k ≥ 3 units.
    """
    from scipy import stats

    values = [value for of_unit in by_unit.values() for value in of_unit]
    if not values:
        raise ValueError("no values to average: the rows of this comparison are missing")
    means, k = [mean(of_unit) for of_unit in by_unit.values()], len(by_unit)
    if k < 3:
        ends = (
            (min(values), max(values), len(values), "range")
            if len(values) >= 3
            else (None, None, len(values))
        )
        return Interval(mean(values), *ends)
    middle, spread = mean(means), math.sqrt(sum((m - mean(means)) ** 2 for m in means) / (k - 1))
    error = spread / math.sqrt(k)
    half = float(stats.t.ppf(0.975, k - 1)) * error
    p = 2 * float(stats.t.sf(abs(middle) / error, k - 1)) if error else float(middle == 0)
    return Interval(middle, middle - half, middle + half, len(values), "95 %", p)


def holm(p: Mapping[str, float]) -> dict[str, float]:
    """Return p-values corrected for their number, by name (Holm 1979): max over the smaller ones of
    (m − rank)·p, at most 1.
    """
    corrected, least = {}, 0.0
    for rank, name in enumerate(sorted(p, key=lambda name: p[name])):
        least = max(least, min(1.0, (len(p) - rank) * p[name]))
        corrected[name] = least
    return corrected


def grouped(rows: Iterable[Row], value: str) -> dict[Any, list[float]]:
    """unit → the values of its rows."""
    rows = list(rows)
    return _by_unit({_run(row): row[value] for row in rows}, _several(rows))


def paired(ours: Iterable[Row], theirs: Iterable[Row], value: str) -> dict[Any, list[float]]:
    """unit → ours − theirs, paired by population, seed of the models and seed of the order. Pairs
    that only one of them has are left out.
    """
    ours, theirs = list(ours), list(theirs)
    left, right = ({_run(r): r[value] for r in rows} for rows in (ours, theirs))
    pairs = {run: left[run] - right[run] for run in sorted(left.keys() & right.keys())}
    return _by_unit(pairs, _several([*ours, *theirs]))


def _run(row: Row) -> tuple[str, int, int]:
    """Return where a run belongs: population, seed of the models, seed of the order."""
    return row.get("data", ""), row["target_seed"], row["seed"]


def _several(rows: Sequence[Row]) -> bool:
    """Return whether rows are of more than one population."""
    return len({row.get("data", "") for row in rows}) > 1


def _by_unit(values: Mapping[tuple[str, int, int], float], several: bool) -> dict[Any, list[float]]:
    """Return the values of runs by population; by seed of the models where there is one only."""
    found: dict[Any, list[float]] = {}
    for (data, target, _), value in values.items():
        found.setdefault(data if several else target, []).append(value)
    return found


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
