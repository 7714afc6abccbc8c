"""What the rows of a comparison say: differences, swings, verdicts, and what a new run must match.

Intervals are those of `ngdiff.study.intervals`. A verdict is corrected by Holm for the number of
methods of its table.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from ngdiff.methods.lookup import label
from ngdiff.methods.recipes import MIXED, family
from ngdiff.study.intervals import Interval, Row, grouped, holm, interval, mean, paired, select

OURS = "ngdiff"


LEVEL = 0.05  # of p after Holm, for a verdict


def verdict(
    found: Interval | None, method: str, ours: str = "NGDiff", p: float | None = None
) -> str:
    """Return who is better, and how sure that is.

    "… better": p, after Holm, is below .05. "… in every pair": there are too few units for a test,
    and the range of the pairs does not contain zero. "undecided": neither. "not matched": there are
    no pairs to compare (`found` is None).
    """
    if found is None:
        return "not matched"
    above, below = f"{ours} + AutoLR", f"tuned {method}"
    if found.kind == "95 %":
        sure = p is not None and p < LEVEL
        return f"{above if found.mean > 0 else below} better" if sure else "undecided"
    winner = {"above": above, "below": below}.get(found.sign)
    return f"{winner} in every pair" if winner else "undecided"


def claims(
    rows: Sequence[Row],
    grid: Sequence[Row],
    starts: Sequence[Row],
    fixed: Sequence[Row] = (),
    value: str = "score",
    ours: str = OURS,
) -> list[Row]:
    """Return the claims table as rows: name, what is measured, value, interval, n, verdict.

    rows: the reported matched trials.
    grid: the tuning trials.
    starts: our method with AutoLR from each starting rate, on the reported seeds.
    fixed: the trials of the fixed budget, which have no stop.
    ours: the method that the others are compared with.

    A claim against a method has more keys. `method` is its tuned candidate, `lr` its rate.
    `reached` is the share of its runs that reached the hold-out level. `both_*` is the interval
    over pairs in which both runs did so. The verdict is about these, by `p_holm`. `edge` says
    whether its rate is an end of those tried: then a better one may lie outside. `tuning_runs` and
    `tuning_seconds` are what choosing its rate took. `ties` is how many tuning runs have the chosen
    one's score, `ties_low` and `ties_high` the range of their retain losses.
    """
    return [
        *_against(rows, grid, value, ours),
        *_ascent(rows, fixed),
        *_swings(rows, grid, starts, value),
    ]


def _claim(name: str, what: str, found: Interval, **more: Any) -> Row:
    return {"name": name, "what": what, **vars(found), "verdict": "", **more}


def _against(rows: Sequence[Row], grid: Sequence[Row], value: str, ours: str) -> Iterator[Row]:
    """Yield our method + AutoLR against every method at its tuned weight and rate."""
    auto = select(rows, method=ours, stepsize="autolr")
    constant = select(rows, stepsize="constant")
    theirs = {name: [r for r in constant if family(r["method"]) == name] for name in _names(rows)}
    theirs = {name: runs for name, runs in theirs.items() if paired(auto, runs, value)}
    both = {name: paired(_reached(auto), _reached(runs), value) for name, runs in theirs.items()}
    there = {name: interval(gaps) for name, gaps in both.items() if gaps}
    tests = {name: found.p for name, found in there.items() if found.p is not None}
    corrected = holm(dict.fromkeys(theirs, 1.0) | tests)  # a method without a test counts too
    p = {name: corrected[name] for name in tests}
    none = Interval(math.nan, None, None, 0)
    for name, runs in theirs.items():
        method, rate = runs[0]["method"], runs[0]["lr"]
        seen = [r for r in grid if family(r["method"]) == name]
        tried = {r["lr"] for r in seen if r["method"] == method}
        tuned = f"tuned in {len(seen)} runs" if len(seen) > 1 else "not tuned"
        yield _claim(
            f"against {name}",
            f"{value}: {label(ours)} + AutoLR − {label(method)} at {rate:g}, {tuned}",
            interval(paired(auto, runs, value)),
            verdict=verdict(there.get(name), name, label(ours), p.get(name)),
            p_holm=p.get(name),
            method=method,
            lr=rate,
            reached=len(_reached(runs)) / len(runs),
            edge=len(tried) > 1 and rate in (min(tried), max(tried)),
            **_ties(seen, method, rate, value),
            tuning_runs=len(seen),
            tuning_seconds=sum(r.get("seconds", 0.0) for r in seen),
            **{f"both_{k}": v for k, v in vars(there.get(name, none)).items()},
        )


def _ties(seen: Sequence[Row], method: str, rate: float, value: str) -> Row:
    """Return how many tuning runs that reached the level tie with the chosen one, itself counted,
    and the range of their retain losses; 0 where the chosen run did not reach it.
    """
    chosen = [r[value] for r in _reached(select(seen, method=method, lr=rate))]
    tied = [r for r in _reached(seen) if chosen and r[value] == chosen[0]]
    losses = [r["loss_retain"] for r in tied if r.get("loss_retain") is not None]
    ends = (min(losses), max(losses)) if losses else (None, None)
    return {"ties": len(tied), "ties_low": ends[0], "ties_high": ends[1]}


def _names(rows: Sequence[Row]) -> list[str]:
    """Return the methods of rows, whatever their retain weights, in the order of the rows."""
    return list(dict.fromkeys(family(r["method"]) for r in rows))


def _ascent(rows: Sequence[Row], fixed: Sequence[Row]) -> Iterator[Row]:
    """Yield what pure ascent keeps, with the stop and without one."""
    what = "share of the start's utility that GradAscent keeps"
    if ascent := select(rows, method="gradascent", stepsize="constant"):
        kept = interval(grouped(ascent, "kept"))
        yield _claim("ascent keeps, at matched forgetting", f"{what} at its tuned rate", kept)
    for lr in sorted({r["lr"] for r in select(fixed, method="gradascent")}):
        ascent = select(fixed, method="gradascent", lr=lr)
        name, steps = f"ascent keeps, without a stop at {lr:g}", ascent[0]["updates"]
        yield _claim(name, f"{what} after {steps} steps", interval(grouped(ascent, "kept")))


def _swings(
    rows: Sequence[Row], grid: Sequence[Row], starts: Sequence[Row], value: str
) -> Iterator[Row]:
    """Yield how far a score moves: over GradDiff's c, over constant rates, over AutoLR's starts."""
    mixed = [r for r in select(rows, stepsize="constant") if r["method"].startswith(MIXED)]
    if len(cs := sorted({r["method"].removeprefix(MIXED) for r in mixed})) > 1:
        what = f"{value}: best − worst over c in ({', '.join(cs)}), each at its own rate"
        yield _claim("swing of graddiff with c", what, interval(spreads(mixed, value)))
    for method in _names(grid):
        seen = [r for r in grid if family(r["method"]) == method]
        best = max(seen, key=lambda r: r[value])["method"]  # of its retain weights
        reach = {r["lr"]: r[value] for r in select(seen, method=best)}
        if len(reach) > 1:
            over = f"{len(reach)} constant rates {min(reach):g} … {max(reach):g}"
            size = max(reach.values()) - min(reach.values())
            yield _claim(
                f"swing of {method}",
                f"{value} over {over}: best − worst, one run each",
                Interval(size, None, None, len(reach)),
            )
    if swings := spreads(starts, value):
        rates = {r["lr"] for r in starts}
        over = f"{len(rates)} starting rates {min(rates):g} … {max(rates):g}"
        what = f"{value} over {over}: best − worst"
        yield _claim("AutoLR over starting rates", what, interval(swings))


def _reached(rows: Sequence[Row]) -> list[Row]:
    """Return the runs that ended at the hold-out level."""
    return select(rows, stopped="forget_level")


def spreads(rows: Sequence[Row], value: str) -> dict[Any, list[float]]:
    """Return unit → best − worst value, for each order of the rows."""
    groups: dict[tuple, list[float]] = {}
    for row in rows:
        place = row.get("data", ""), row["target_seed"], row["seed"]
        groups.setdefault(place, []).append(row[value])
    wide = [
        {"data": data, "target_seed": t, "seed": s, "spread": max(v) - min(v)}
        for (data, t, s), v in groups.items()
        if len(v) > 1
    ]
    return grouped(wide, "spread")


def table(rows: Sequence[Row], values: Sequence[str], name: Callable[[Row], Any]) -> list[Row]:
    """Return a row for each group: the means of `values`, and `n`, the number of rows.

    name: gives the group of a row; groups keep the order of their first rows. A mean is None where
    a row of the group has no value.
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


def _scores(files: Mapping[str, list[Row] | None], prefixes: Sequence[str]) -> Iterator[Row]:
    """Yield the mean score of every run of matched rows, and of the long comparison's."""
    compared = [name for name in files if name.startswith("evidence_compare_")]
    for source in (*(f"{prefix}matched.parquet" for prefix in prefixes), *compared):
        rows, what = files.get(source) or [], source.removesuffix(".parquet").replace("_", " ")
        for group in table(rows, ("score",), _run_of):
            scores = [r["score"] for r in rows if _run_of(r) == group["group"]]
            yield {
                "name": f"{what}: {group['group']}: score",
                "value": group["score"],
                "tolerance": max(
                    0.03 if len(scores) > 1 else 0.05,
                    (max(scores) - min(scores)) / math.sqrt(len(scores)),
                ),
                "source": source,
            }


def _run_of(row: Row) -> str:
    return f"{family(row['method'])}, {row['stepsize']}"


def summary(files: dict[str, list[Row] | None]) -> list[Row]:
    """Return what a new run is compared with: rows {name, value, tolerance, source}.

    files: the saved rows by file name. A verdict is a row whose value is words. A tolerance is the
    range of the runs over √n, and at least .03 (.05 for one run). The last bits of a matrix product
    already change a run.
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
    prefixes = ("", "tofu_", "muse_", "semeval_")
    found += _scores(files, prefixes)
    for prefix in prefixes:
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
