"""What the rows of a comparison say: paired differences with intervals, swings, verdicts, and what a new run must match.

Differences are paired by (target seed, seed), with bootstrap intervals; a verdict also asks that every target seed
agree, since the pairs of one target share their models.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

OURS = "ngdiff"
MIXTURES = ("0.1", "0.5", "0.9")  # c of the plain GradDiffs
Row = dict[str, Any]


def select(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """The rows whose fields have the wanted values."""
    return [row for row in rows if all(row.get(k) == v for k, v in wanted.items())]


@dataclass(frozen=True)
class Interval:
    """A mean over seeds with its 95 % bootstrap interval; `n` values went in. With n < 3 there is no interval, and with
    n = 3 it is their range: the mean of three draws is the smallest value once in 27 times."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def sign(self) -> str:
        """`above`, `below` or `undecided` against zero."""
        if self.low is None or self.high is None:
            return "undecided"
        return "above" if self.low > 0 else "below" if self.high < 0 else "undecided"


def interval(values: Sequence[float]) -> Interval:
    """Percentile bootstrap of the mean over seeds (10 000 resamples, seeded)."""
    import numpy as np
    from scipy import stats

    data = np.asarray(values, dtype=float)
    if len(data) == 0:
        raise ValueError("no values to average: the rows of this comparison are missing")
    if len(data) < 3:
        return Interval(float(data.mean()), None, None, len(data))
    if np.ptp(data) == 0:
        return Interval(float(data[0]), float(data[0]), float(data[0]), len(data))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap((data,), np.mean, n_resamples=10_000, method="percentile", rng=0)
    low, high = found.confidence_interval
    return Interval(float(data.mean()), float(low), float(high), len(data))


def paired(ours: Iterable[Row], theirs: Iterable[Row], value: str) -> dict[int, list[float]]:
    """target seed → ours − theirs, paired by (target seed, seed); pairs that only one of them has are left out."""
    left, right = ({(r["target_seed"], r["seed"]): r[value] for r in rows} for rows in (ours, theirs))
    gaps: dict[int, list[float]] = {}
    for pair in sorted(left.keys() & right.keys()):
        gaps.setdefault(pair[0], []).append(left[pair] - right[pair])
    return gaps


def verdict(gaps: dict[int, list[float]]) -> str:
    """`above`, `below` or `undecided`: the interval over all pairs leaves zero out, and every target's mean agrees."""
    found = interval([gap for of_target in gaps.values() for gap in of_target]).sign
    sign = {"above": 1, "below": -1}.get(found, 0)
    return found if all(sign * sum(of_target) > 0 for of_target in gaps.values()) else "undecided"


def claims(
    rows: Sequence[Row], grid: Sequence[Row], starts: Sequence[Row], fixed: Sequence[Row] = (), value: str = "score"
) -> list[Row]:
    """The claims table as rows: name, what is measured, value, interval, n, verdict.

    rows: reported matched trials; grid: the tuning trials; starts: NGDiff + AutoLR from each starting rate, reported
    seeds only; fixed: trials of the fixed budget, without a stop. Against every
    method at its tuned rate also: `reached`, the share of its runs that reached the hold-out level within the budget, and
    `edge`, whether its rate is an end of the grid, so that a better one may lie outside.
    """
    auto = select(rows, method=OURS, stepsize="autolr")
    table: list[Row] = []

    def add(name: str, what: str, found: Interval, **more: Any) -> None:
        table.append({"name": name, "what": what, **vars(found), "verdict": "", **more})

    for method in dict.fromkeys(r["method"] for r in rows):
        theirs = select(rows, method=method, stepsize="constant")
        if gaps := paired(auto, theirs, value):
            tried, rate = {r["lr"] for r in select(grid, method=method)}, theirs[0]["lr"]
            tuning = f"tuned over {len(tried)} rates" if len(tried) > 1 else f"at {rate:g}, not tuned"
            word = {"above": "NGDiff + AutoLR better", "below": f"{method} better"}.get(verdict(gaps), "undecided")
            add(
                f"against {method}", f"{value}: NGDiff + AutoLR − {method}, {tuning}",
                interval([gap for of_target in gaps.values() for gap in of_target]), verdict=word,
                reached=_mean([r["stopped"] == "forget_level" for r in theirs]),
                edge=len(tried) > 1 and rate in (min(tried), max(tried)),
            )  # fmt: skip
    for kind, where in ((rows, "at matched forgetting"), (fixed, "without a stop")):
        if ascent := select(kind, method="gradascent", stepsize="constant"):
            what = f"share of the start's utility that GradAscent keeps {where}"
            add(f"ascent keeps, {where}", what, interval([r["kept"] for r in ascent]))
    mixed = [r for r in rows if r["method"].removeprefix("graddiff-") in MIXTURES and r["stepsize"] == "constant"]
    if len(cs := sorted({r["method"].removeprefix("graddiff-") for r in mixed})) > 1:
        what = f"{value}: best − worst over c in ({', '.join(cs)}), each at its own rate"
        add("swing of graddiff with c", what, interval(_spreads(mixed, value)))
    for method in dict.fromkeys(r["method"] for r in grid):
        reach = {r["lr"]: r[value] for r in select(grid, method=method)}
        if len(reach) > 1:
            what = (
                f"{value} over {len(reach)} constant rates {min(reach):g} … {max(reach):g}: best − worst, one run each"
            )
            add(f"swing of {method}", what, Interval(max(reach.values()) - min(reach.values()), None, None, len(reach)))
    if swings := _spreads(starts, value):
        rates = {r["lr"] for r in starts}
        what = f"{value} over {len(rates)} starting rates {min(rates):g} … {max(rates):g}: best − worst"
        add("AutoLR over starting rates", what, interval(swings))
    return table


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _spreads(rows: Sequence[Row], value: str) -> list[float]:
    """Best − worst of the rows of each (target seed, seed)."""
    groups: dict[tuple, list[float]] = {}
    for row in rows:
        groups.setdefault((row["target_seed"], row["seed"]), []).append(row[value])
    return [max(v) - min(v) for v in groups.values() if len(v) > 1]


def table(rows: Sequence[Row], values: Sequence[str], name: Callable[[Row], Any]) -> list[Row]:
    """Means by group, with the number of rows: `name(row)` groups the rows in their order."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(name(row), []).append(row)
    return [
        {"group": key, "n": len(members), **{value: _mean([m[value] for m in members]) for value in values}}
        for key, members in groups.items()
    ]


def summary(files: dict[str, list[Row] | None]) -> list[Row]:
    """The numbers a new run is compared with: {name, value, tolerance, source}, and the verdicts, which are words.

    A tolerance is the spread over the seeds, at least .03 (.05 where there is one seed): a run moves with the last bits
    of a matrix product.
    """
    found: list[Row] = []

    def add(source: str, name: str, value: Any, tolerance: float | None = None) -> None:
        if value is not None:
            found.append({"name": name, "value": value, "tolerance": tolerance, "source": source})

    for row in files.get(source := "start.jsonl") or []:
        for metric in ("model_utility", "forget_Q_A_ROUGE", "mia_loss"):
            add(source, f"{row['model']}: {metric}", row[metric], 0.05)
    for row in files.get(source := "learning_rate.jsonl") or []:
        add(source, f"learning rate: {row['stepsize']} from {row['lr']:g}: score", row["score"], 0.05)
    for prefix in ("", "grid_"):
        source, rows = f"{prefix}matched.parquet", files.get(f"{prefix}matched.parquet") or []
        for group in table(rows, ("score",), lambda r: f"{r['method']}, {r['stepsize']}"):
            scores = [r["score"] for r in rows if f"{r['method']}, {r['stepsize']}" == group["group"]]
            add(
                source,
                f"{prefix}matched: {group['group']}: score",
                group["score"],
                max(0.03, max(scores) - min(scores)),
            )
        for row in files.get(source := f"{prefix}claims.jsonl") or []:
            if row["verdict"]:
                add(source, f"{prefix}{row['name']}: verdict", row["verdict"])
            elif row["low"] is not None:
                add(source, f"{prefix}{row['name']}", row["mean"], max(0.03, row["high"] - row["low"]))
    return found
