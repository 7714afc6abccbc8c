"""What the rows of a comparison say: paired differences with intervals, swings, verdicts, and what
a new run must match.

Runs of one target share their models, so the target is the unit: with three targets or more an
interval is Student's t over the means of the targets, with fewer it is no more than the range of
the values (data/results/LOG.md says why not a bootstrap of all pairs). Verdicts are not corrected
for the number of comparisons.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
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
    """Of values grouped by target seed: mean of the targets' means, t₀.₉₇₅ · s/√k to either side
    with k ≥ 3 targets.
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


def verdict(found: Interval | None, method: str) -> str:
    """Who is better, in words that say how sure: `better` where a 95 % interval leaves zero out,
    `in every pair` where there is a range only, else `undecided`; `not matched` where there are no
    pairs to compare."""
    if found is None:
        return "not matched"
    winner = {"above": "NGDiff + AutoLR", "below": f"tuned {method}"}.get(found.sign)
    return (
        f"{winner} {'better' if found.kind == '95 %' else 'in every pair'}"
        if winner
        else "undecided"
    )


def claims(
    rows: Sequence[Row],
    grid: Sequence[Row],
    starts: Sequence[Row],
    fixed: Sequence[Row] = (),
    value: str = "score",
) -> list[Row]:
    """The claims table as rows: name, what is measured, value, interval, n, verdict.

    rows: reported matched trials; grid: the tuning trials; starts: NGDiff + AutoLR from each
    starting rate, reported seeds only; fixed: trials of the fixed budget, without a stop. Against
    every method at its tuned rate also: `reached`, the share of its runs that reached the hold-out
    level within the budget; `arrived_*`, the interval over the pairs in which both runs did, which
    the verdict is about; and `edge`, whether its rate is an end of the grid, so that a better one
    may lie outside.
    """
    auto = select(rows, method=OURS, stepsize="autolr")
    table: list[Row] = []

    def add(name: str, what: str, found: Interval, **more: Any) -> None:
        table.append({"name": name, "what": what, **vars(found), "verdict": "", **more})

    for method in dict.fromkeys(r["method"] for r in rows):
        theirs = select(rows, method=method, stepsize="constant")
        if gaps := paired(auto, theirs, value):
            tried, rate = {r["lr"] for r in select(grid, method=method)}, theirs[0]["lr"]
            tuning = (
                f"tuned over {len(tried)} rates" if len(tried) > 1 else f"at {rate:g}, not tuned"
            )
            both = paired(_arrived(auto), _arrived(theirs), value)
            there = interval(both) if both else None
            add(
                f"against {method}",
                f"{value}: NGDiff + AutoLR − {method}, {tuning}",
                interval(gaps),
                verdict=verdict(there, method),
                reached=len(_arrived(theirs)) / len(theirs),
                edge=len(tried) > 1 and rate in (min(tried), max(tried)),
                **{
                    f"arrived_{k}": v
                    for k, v in vars(there or Interval(math.nan, None, None, 0)).items()
                },
            )
    what = "share of the start's utility that GradAscent keeps"
    if ascent := select(rows, method="gradascent", stepsize="constant"):
        add(
            "ascent keeps, at matched forgetting",
            f"{what} at its tuned rate",
            interval(grouped(ascent, "kept")),
        )
    for lr in sorted({r["lr"] for r in select(fixed, method="gradascent")}):
        ascent = select(fixed, method="gradascent", lr=lr)
        name, steps = f"ascent keeps, without a stop at {lr:g}", ascent[0]["updates"]
        add(name, f"{what} after {steps} steps", interval(grouped(ascent, "kept")))
    mixed = [
        r
        for r in rows
        if r["method"].removeprefix("graddiff-") in MIXTURES and r["stepsize"] == "constant"
    ]
    if len(cs := sorted({r["method"].removeprefix("graddiff-") for r in mixed})) > 1:
        what = f"{value}: best − worst over c in ({', '.join(cs)}), each at its own rate"
        add("swing of graddiff with c", what, interval(_spreads(mixed, value)))
    for method in dict.fromkeys(r["method"] for r in grid):
        reach = {r["lr"]: r[value] for r in select(grid, method=method)}
        if len(reach) > 1:
            what = (
                f"{value} over {len(reach)} constant rates {min(reach):g} … {max(reach):g}: "
                "best − worst, one run each"
            )
            add(
                f"swing of {method}",
                what,
                Interval(max(reach.values()) - min(reach.values()), None, None, len(reach)),
            )
    if swings := _spreads(starts, value):
        rates = {r["lr"] for r in starts}
        what = (
            f"{value} over {len(rates)} starting rates {min(rates):g} … {max(rates):g}: best − "
            "worst"
        )
        add("AutoLR over starting rates", what, interval(swings))
    return table


def _arrived(rows: Sequence[Row]) -> list[Row]:
    """The runs that ended at the hold-out level."""
    return select(rows, stopped="forget_level")


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _spreads(rows: Sequence[Row], value: str) -> dict[int, list[float]]:
    """target seed → best − worst of the rows of each seed."""
    groups: dict[tuple, list[float]] = {}
    for row in rows:
        groups.setdefault((row["target_seed"], row["seed"]), []).append(row[value])
    wide = [
        {"target_seed": t, "spread": max(v) - min(v)} for (t, _), v in groups.items() if len(v) > 1
    ]
    return grouped(wide, "spread")


def table(rows: Sequence[Row], values: Sequence[str], name: Callable[[Row], Any]) -> list[Row]:
    """Means by group, with the number of rows: `name(row)` groups the rows in their order; None
    where a row has no value.
    """
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(name(row), []).append(row)

    def middle(found: list[float | None]) -> float | None:
        return None if None in found else mean([v for v in found if v is not None])

    return [
        {
            "group": key,
            **{value: middle([m.get(value) for m in members]) for value in values},
            "n": len(members),
        }
        for key, members in groups.items()
    ]


def summary(files: dict[str, list[Row] | None]) -> list[Row]:
    """The numbers a new run is compared with: {name, value, tolerance, source}, and the verdicts,
    which are words.

    A tolerance is the spread over the seeds, at least .03 (.05 where there is one seed): a run
    moves with the last bits of a matrix product.
    """
    found: list[Row] = []

    def add(source: str, name: str, value: Any, tolerance: float | None = None) -> None:
        if value is not None:
            found.append({"name": name, "value": value, "tolerance": tolerance, "source": source})

    for row in files.get(source := "start.jsonl") or []:
        for metric in ("model_utility", "forget_Q_A_ROUGE", "mia_loss"):
            add(source, f"{row['model']}: {metric}", row[metric], 0.05)
    for row in files.get(source := "learning_rate.jsonl") or []:
        add(
            source,
            f"learning rate: {row['stepsize']} from {row['lr']:g}: score",
            row["score"],
            0.05,
        )
    for prefix in ("", "grid_", "tofu_", "muse_", "semeval_"):
        source, rows = f"{prefix}matched.parquet", files.get(f"{prefix}matched.parquet") or []
        for group in table(rows, ("score",), lambda r: f"{r['method']}, {r['stepsize']}"):
            scores = [
                r["score"] for r in rows if f"{r['method']}, {r['stepsize']}" == group["group"]
            ]
            add(
                source,
                f"{prefix}matched: {group['group']}: score",
                group["score"],
                max(0.03 if len(scores) > 1 else 0.05, max(scores) - min(scores)),
            )
        for row in files.get(source := f"{prefix}claims.jsonl") or []:
            if row["verdict"]:
                add(source, f"{prefix}{row['name']}: verdict", row["verdict"])
            elif row["low"] is not None:
                add(
                    source,
                    f"{prefix}{row['name']}",
                    row["mean"],
                    max(0.03, row["high"] - row["low"]),
                )
    return found
