"""What the rows of the long comparison mean: the decision rules of E1 to E5 as code.

`ngdiff.study.evidence` says what is run, data/results/LOG.md why. Every function takes saved rows
and returns rows; `ngdiff.book.evidence` makes tables and sentences of them.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ngdiff.methods.recipes import family
from ngdiff.store.rows import read_rows
from ngdiff.study import evidence, protocol
from ngdiff.study.claims import OURS, claims
from ngdiff.study.evidence import file_name as file_name
from ngdiff.study.intervals import Interval, grouped, interval, mean, paired, select
from ngdiff.study.trial import Trial

Row = dict[str, Any]
WORKS = 0.9  # E4: the share of the utility that a working rate keeps at least
BLOWN = 5.0  # E4: how many times the start's retain loss is too much
DRAWS = 2000  # of E2's bootstrap
PARTS = ("tuning", "compare", "adapt", "bands", "fixed", "levels", "geometry")


@dataclass(frozen=True)
class Evidence:
    """The saved rows: part → data set → rows."""

    parts: Mapping[str, Mapping[str, list[Row]]] = field(repr=False)

    def of(self, part: str, name: str) -> list[Row]:
        """Return the rows of a part and a data set; [] where they were not run."""
        return self.parts.get(part, {}).get(name, [])

    @property
    def names(self) -> list[str]:
        """Return the data sets that were compared, in their order."""
        known = [rows.name for rows in evidence.sets("tofu", "lume")]
        return [name for name in known if self.of("compare", name)]

    @property
    def rows(self) -> list[Row]:
        """Return every row."""
        return [row for found in self.parts.values() for rows in found.values() for row in rows]


def load(folder: Path) -> Evidence:
    """Return the evidence that a folder holds; parts that were not run are missing.

    The tuning runs are those of `ngdiff.study.protocol`.
    """
    found: dict[str, dict[str, list[Row]]] = {part: {} for part in PARTS}
    for rows in evidence.sets("tofu", "lume"):
        files = {part: folder / file_name(part, rows.name) for part in PARTS}
        files["tuning"] = protocol.file_of(Trial(data=rows.populations[0]))
        for part, path in files.items():
            if path.is_file():
                found[part][rows.name] = read_rows(path)
    return Evidence(found)


# ------------------------------------------------------------------------------------------ E1
def against(found: Evidence, name: str) -> list[Row]:
    """Return the claims of a data set against every method (`ngdiff.study.claims`)."""
    rows = claims(found.of("compare", name), found.of("tuning", name), ())
    return [row for row in rows if row["name"].startswith("against ")]


# ------------------------------------------------------------------------------------------ E2
def regrets(found: Evidence) -> list[Row]:
    """Return a row a way to weigh the gradients: its regret on each data set, and the largest.

    Regret is the best mean score of these ways on a data set minus the way's own. `low`, `high`:
    the 95 % bootstrap interval of the largest regret, the units of every set drawn anew. `best`: in
    which share of the draws the way has the smallest largest regret.
    """
    ways = [(method, "constant") for method in evidence.CONTROLS] + [(OURS, "autolr")]
    scores = {
        name: {way: _scores(select(rows, method=way[0], stepsize=way[1])) for way in ways}
        for name in found.names
        if (rows := found.of("compare", name))
    }
    if not scores:
        return []
    generator = random.Random(0)
    draws = [_largest(_drawn(scores, generator)) for _ in range(DRAWS)]
    winners = [min(draw, key=lambda way: draw[way]) for draw in draws]
    regret = _regret({name: _means(by_way) for name, by_way in scores.items()})
    rows = []
    for way in ways:
        spread = sorted(draw[way] for draw in draws)
        rows.append(
            {
                "method": way[0],
                "stepsize": way[1],
                **{name: regret[name][way] for name in regret},
                "largest": max(regret[name][way] for name in regret),
                "low": spread[round(0.025 * (DRAWS - 1))],
                "high": spread[round(0.975 * (DRAWS - 1))],
                "best": winners.count(way) / DRAWS,
            }
        )
    return sorted(rows, key=lambda row: row["largest"])


Way = tuple[str, str]


def _scores(rows: Sequence[Row]) -> list[float]:
    """Return the mean score of every unit."""
    return [mean(values) for _, values in sorted(grouped(rows, "score").items())]


def _means(by_way: Mapping[Way, Sequence[float]]) -> dict[Way, float]:
    return {way: mean(values) for way, values in by_way.items()}


def _drawn(
    scores: Mapping[str, Mapping[Way, Sequence[float]]], generator: random.Random
) -> dict[str, dict[Way, float]]:
    """Return mean scores over units drawn anew: the same units for every way of a data set."""
    drawn = {}
    for name, by_way in scores.items():
        units = len(next(iter(by_way.values())))
        chosen = [int(generator.random() * units) for _ in range(units)]
        drawn[name] = {way: mean([values[i] for i in chosen]) for way, values in by_way.items()}
    return drawn


def _regret(means: Mapping[str, Mapping[Way, float]]) -> dict[str, dict[Way, float]]:
    return {
        name: {way: max(by_way.values()) - value for way, value in by_way.items()}
        for name, by_way in means.items()
    }


def _largest(means: Mapping[str, Mapping[Way, float]]) -> dict[Way, float]:
    regret = _regret(means)
    return {way: max(of[way] for of in regret.values()) for way in next(iter(regret.values()))}


# ------------------------------------------------------------------------------------------ E3
def adapting(rows: Sequence[Row]) -> list[Row]:
    """Return a row a rule: mean score, share that reached the level, spread over the starts.

    `spread` is an interval over units of the best minus the worst score over the starting rates.
    """
    found = []
    for rule in evidence.RULES:
        mine = select(rows, stepsize=rule)
        found.append(
            {
                "stepsize": rule,
                "score": mean([r["score"] for r in mine]),
                "worst": min(r["score"] for r in mine),
                "reached": mean([r["stopped"] == "forget_level" for r in mine]),
                "updates": mean([r["updates"] for r in mine]),
                "forwards": mean([r["forwards"] for r in mine]),
                "spread": _spread(mine),
                "n": len(mine),
            }
        )
    return found


def _spread(rows: Sequence[Row]) -> Interval:
    starts: dict[tuple[str, int, int], list[float]] = {}
    for r in rows:
        starts.setdefault((r["data"], r["target_seed"], r["seed"]), []).append(r["score"])
    wide = [
        {"data": data, "target_seed": t, "seed": s, "spread": max(v) - min(v)}
        for (data, t, s), v in starts.items()
    ]
    return interval(grouped(wide, "spread"))


def adapts(rows: Sequence[Row]) -> tuple[str, Interval]:
    """Return the better one of "once" and "once-half", and AutoLR's score minus its score."""
    scores = {rule: mean([r["score"] for r in select(rows, stepsize=rule)]) for rule in FIRST}
    other = max(FIRST, key=lambda rule: scores[rule])
    gaps: dict[Any, list[float]] = {}
    for lr in sorted({r["lr"] for r in rows}):
        left, right = (select(rows, stepsize=rule, lr=lr) for rule in ("autolr", other))
        for unit, values in paired(left, right, "score").items():
            gaps.setdefault(unit, []).extend(values)
    return other, interval(gaps)


FIRST = ("once", "once-half")


# ------------------------------------------------------------------------------------------ E4
def bands(rows: Sequence[Row], levels: Sequence[Row]) -> list[Row]:
    """Return a row a method and optimizer: the width of its band, and how often runs end badly.

    A rate works if its run reached the level and kept 90 % of the utility. `decades` is the mean
    over units of the longest row of working rates (half a decade from one to the next); None where
    no rate works in some unit. `nan`: the share of runs whose retain loss is not finite. `blown`:
    that of runs with one above five times the start's, NaN counted.
    """
    most, found = too_much(levels), []
    for method in dict.fromkeys(r["method"] for r in rows):
        for optimizer, rates in evidence.BANDS.items():
            mine = select(rows, method=method, optimizer=optimizer)
            units = sorted({(r["data"], r["target_seed"]) for r in mine})
            widths = []
            for data, target in units:
                works = {
                    r["lr"]
                    for r in select(mine, data=data, target_seed=target)
                    if r["stopped"] == "forget_level" and r["kept"] >= WORKS
                }
                widths.append(_longest([lr in works for lr in rates]))
            nan = [not _finite(r["loss_retain"]) for r in mine]
            over = [
                not r["loss_retain"] <= most[r["data"], r["target_seed"]]
                for r in mine
                if _finite(r["loss_retain"])
            ]
            found.append(
                {
                    "method": method,
                    "optimizer": optimizer,
                    "decades": mean([(w - 1) / 2 for w in widths]) if all(widths) else None,
                    "working": sum(widths),
                    "nan": mean(nan),
                    "blown": (sum(over) + sum(nan)) / len(mine),
                    "n": len(mine),
                }
            )
    return found


def too_much(levels: Sequence[Row]) -> dict[tuple[str, int], float]:
    """Return (population, seed of the models) → the retain loss above which a run has blown up."""
    start = select(levels, model="start")
    return {(r["data"], r["target_seed"]): BLOWN * r["loss_retain"] for r in start}


def _finite(value: float | None) -> bool:
    return value is not None and value - value == 0


def _longest(works: Iterable[bool]) -> int:
    """Return the length of the longest row of True."""
    best = now = 0
    for each in works:
        now = now + 1 if each else 0
        best = max(best, now)
    return best


# ------------------------------------------------------------------------------------------ tables
def shown(found: Evidence, name: str, values: Sequence[str]) -> list[Row]:
    """Return a row a run of E1 on a data set: means over units, `reached`, and the bill.

    The highest score comes first. `tuning_runs`, `tuning_seconds`: what choosing its weight and
    rate took.
    """
    rows, tuning = found.of("compare", name), found.of("tuning", name)
    groups: dict[tuple[str, str, float], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["stepsize"], row["lr"]), []).append(row)
    lines = []
    for (method, stepsize, lr), mine in groups.items():
        constant = stepsize == "constant"
        seen = [r for r in tuning if family(r["method"]) == family(method)] if constant else []
        known = {key: [r[key] for r in mine if _finite(r.get(key))] for key in values}
        lines.append(
            {
                "method": method,
                "stepsize": stepsize,
                "lr": lr,
                **{key: mean(found_) if found_ else None for key, found_ in known.items()},
                "reached": mean([r["stopped"] == "forget_level" for r in mine]),
                "tuning_runs": len(seen),
                "tuning_seconds": sum(r["seconds"] for r in seen),
                "n": len(mine),
            }
        )
    return sorted(lines, key=lambda row: -row["score"])
