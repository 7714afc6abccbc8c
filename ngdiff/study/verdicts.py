"""What the rows of the long comparison mean: the decision rules of E1 to E5 as code.

`ngdiff.study.evidence` says what is run, data/results/LOG.md why. Every function takes saved rows
and returns rows; `ngdiff.book.evidence` makes tables and sentences of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ngdiff.methods.recipes import family
from ngdiff.store.rows import read_rows
from ngdiff.study import evidence, protocol, regret
from ngdiff.study.claims import claims, spreads
from ngdiff.study.evidence import file_name as file_name
from ngdiff.study.intervals import Interval, interval, mean, paired, select
from ngdiff.study.trial import Trial

Row = dict[str, Any]
WORKS = 0.9  # E4: the share of the utility that a working rate keeps at least
BLOWN = 5.0  # E4: how many times the start's retain loss is too much
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


def load(folder: Path) -> Evidence:
    """Return the evidence that a folder holds; parts that were not run are missing.

    folder: data/results/<profile> of a checkout. The tuning runs lie in data/protocol beside it
    (`ngdiff.study.protocol`). Those of methods that only a page runs are left out.
    """
    found: dict[str, dict[str, list[Row]]] = {part: {} for part in PARTS}
    for rows in evidence.sets("tofu", "lume"):
        files = {part: folder / file_name(part, rows.name) for part in PARTS}
        tuning = protocol.file_of(Trial(data=rows.populations[0]))
        files["tuning"] = protocol_of(folder) / tuning.parent.name / tuning.name
        for part, path in files.items():
            if path.is_file():
                found[part][rows.name] = read_rows(path)
    methods = evidence.compared()
    for name, known in found["tuning"].items():
        found["tuning"][name] = [r for r in known if family(r["method"]) in methods]
    return Evidence(found)


def protocol_of(folder: Path) -> Path:
    """Return data/protocol of the checkout whose data/results/<profile> is the folder."""
    return folder.parent.parent / "protocol"


# ------------------------------------------------------------------------------------------ E1
def against(found: Evidence, name: str) -> list[Row]:
    """Return the claims of a data set against every method (`ngdiff.study.claims`)."""
    rows = claims(found.of("compare", name), found.of("tuning", name), ())
    return [row for row in rows if row["name"].startswith("against ")]


# ------------------------------------------------------------------------------------------ E2
def regrets(found: Evidence) -> list[Row]:
    """Return the regrets of the data sets (`ngdiff.study.regret`)."""
    return regret.regrets(_compared(found))


def weighed(found: Evidence) -> list[str]:
    """Return the data sets on which every way of E2 was run."""
    return list(regret.scored(_compared(found)))


def _compared(found: Evidence) -> dict[str, list[Row]]:
    return {name: found.of("compare", name) for name in found.names}


# ------------------------------------------------------------------------------------------ E3
def adapting(rows: Sequence[Row]) -> list[Row]:
    """Return a row a rule: mean score, share that reached the level, spread over the starts.

    `spread` is an interval over units of the best minus the worst score over the starting rates;
    None where there is one start. Rules that were not run are left out.
    """
    found = []
    for rule in evidence.RULES:
        if not (mine := select(rows, stepsize=rule)):
            continue
        wide = spreads(mine, "score")
        found.append(
            {
                "stepsize": rule,
                "score": mean([r["score"] for r in mine]),
                "worst": min(r["score"] for r in mine),
                "reached": mean([r["stopped"] == "forget_level" for r in mine]),
                "updates": mean([r["updates"] for r in mine]),
                "forwards": mean([r["forwards"] for r in mine]),
                "spread": interval(wide) if wide else None,
                "n": len(mine),
            }
        )
    return found


def adapts(rows: Sequence[Row]) -> tuple[str, Interval] | None:
    """Return the better one of "once" and "once-half", and AutoLR's score minus its score.

    None where one of the three was not run.
    """
    runs = {rule: select(rows, stepsize=rule) for rule in (*FIRST, "autolr")}
    if not all(runs.values()):
        return None
    scores = {rule: mean([r["score"] for r in runs[rule]]) for rule in FIRST}
    other = max(FIRST, key=lambda rule: scores[rule])
    gaps: dict[Any, list[float]] = {}
    for lr in sorted({r["lr"] for r in rows}):
        left, right = (select(rows, stepsize=rule, lr=lr) for rule in ("autolr", other))
        for unit, values in paired(left, right, "score").items():
            gaps.setdefault(unit, []).extend(values)
    return (other, interval(gaps)) if gaps else None


FIRST = ("once", "once-half")


# ------------------------------------------------------------------------------------------ E4
def bands(rows: Sequence[Row], levels: Sequence[Row]) -> list[Row]:
    """Return a row a method and optimizer: the width of its band, and how often runs end badly.

    A rate works if its run reached the level and kept 90 % of the utility. `decades` is the mean
    over units of the longest row of working rates (half a decade from one to the next); None where
    no rate works in some unit. `edge`: some such row ends with the rates that were tried, so the
    band may be wider. `nan`: the share of runs whose retain loss is not finite. `blown`: that of
    runs with one above five times the start's, NaN counted; None where a start is not known.
    """
    most, found = too_much(levels), []
    for method in dict.fromkeys(r["method"] for r in rows):
        for optimizer, rates in evidence.BANDS.items():
            if not (mine := select(rows, method=method, optimizer=optimizer)):
                continue
            widths, edge = [], False
            for data, target in sorted({(r["data"], r["target_seed"]) for r in mine}):
                lrs = {r["lr"] for r in select(mine, data=data, target_seed=target) if works(r)}
                working = [lr in lrs for lr in rates]
                widths.append(wide := _longest(working))
                edge |= wide > 0 and (all(working[:wide]) or all(working[-wide:]))
            levels_of = [most.get((r["data"], r["target_seed"])) for r in mine]
            over = [blown(r, level) for r, level in zip(mine, levels_of, strict=True)]
            found.append(
                {
                    "method": method,
                    "optimizer": optimizer,
                    "decades": mean([(w - 1) / 2 for w in widths]) if all(widths) else None,
                    "edge": edge,
                    "nan": mean([not _finite(r["loss_retain"]) for r in mine]),
                    "blown": None if None in levels_of else mean(over),
                    "n": len(mine),
                }
            )
    return found


def works(row: Row) -> bool:
    """Return whether a run reached the level and kept 90 % of the utility."""
    return row["stopped"] == "forget_level" and row["kept"] >= WORKS


def blown(row: Row, most: float | None) -> bool:
    """Return whether a run ended in NaN, or with a retain loss above `most` (None: not known)."""
    loss = row["loss_retain"]
    return not _finite(loss) or (most is not None and loss > most)


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
    """Return a row a run of E1 on a data set: means over its runs, `reached`, and the bill.

    The highest score comes first. A mean is None where the data set has no such value, and NaN
    where it has, but not for every run. `tuning_runs`, `tuning_seconds`: what choosing its weight
    and rate took.
    """
    rows, tuning = found.of("compare", name), found.of("tuning", name)
    known = [key for key in values if any(row.get(key) is not None for row in rows)]
    groups: dict[tuple[str, str, float], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["stepsize"], row["lr"]), []).append(row)
    lines = []
    for (method, stepsize, lr), mine in groups.items():
        constant = stepsize == "constant"
        seen = [r for r in tuning if family(r["method"]) == family(method)] if constant else []
        lines.append(
            {
                "method": method,
                "stepsize": stepsize,
                "lr": lr,
                **{key: whole_mean(mine, key) if key in known else None for key in values},
                "reached": mean([r["stopped"] == "forget_level" for r in mine]),
                "tuning_runs": len(seen),
                "tuning_seconds": sum(r["seconds"] for r in seen),
                "n": len(mine),
            }
        )
    return sorted(lines, key=lambda row: -row["score"])


def whole_mean(rows: Sequence[Row], key: str) -> float:
    """Return the mean of a value over rows: NaN where one of them has no finite value."""
    values = [row.get(key) for row in rows]
    return mean([v for v in values if v is not None]) if all(map(_finite, values)) else math.nan
