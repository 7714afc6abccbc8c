"""`ngdiff bench rates`: learning-rate rules on test problems.

Every rule runs on every problem of `ngdiff.timing.problems` with every optimizer, untuned, from
starting rates six decades apart. What it is held against is the best constant rate of a grid, known
only afterwards: the one that reaches the level with the least retain loss. NGDiff is the direction;
a column is for walks down R alone (GradDiff(1.0)), which should not end above their start.
"""

from __future__ import annotations

import itertools
import math
import statistics
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ngdiff.core.directions import GradDiff, NGDiff
from ngdiff.core.info import ForgetLevel
from ngdiff.core.loop import unlearn
from ngdiff.core.stepsize import Constant
from ngdiff.store import code
from ngdiff.store.cache import probe_file
from ngdiff.store.progress import Progress
from ngdiff.store.rows import read_rows, stamp, write_rows
from ngdiff.store.table import Column, Table
from ngdiff.timing.designs import DESIGNS, ENDS, Design
from ngdiff.timing.problems import OPTIMIZERS, ORDERED, PROBLEMS, Rowed

Row = dict[str, Any]
RATES = tuple(10 ** (k / 2) for k in range(-12, 3))  # constants: half decades from 1e-6 to 10
DESCENT = ("quadratic 10", "quadratic 100", "quadratic 1000", "rosenbrock", "logistic", "mlp")
KEY = ("problem", "optimizer", "seed", "direction", "design", "lr")


# -------------------------------------------------------------------------------------------- runs
@dataclass(frozen=True)
class Cell:
    """One run: what `KEY` names. constant: `lr` is kept, and `design` is "constant"."""

    problem: str
    optimizer: str
    seed: int
    direction: str
    design: str
    lr: float

    @property
    def key(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in KEY)

    def run(self, problem: Rowed) -> Row:
        """Return its row: whether and when it reached the level, R there, what it cost."""
        made = {d.name: d.make for d in DESIGNS} | {"constant": Constant}
        descent = self.direction == "descent"
        stop = () if descent else ForgetLevel(problem.level)
        began, first = time.perf_counter(), problem.retain(problem.model)
        run = unlearn(
            problem,
            GradDiff(1.0) if descent else NGDiff(),
            made[self.design](self.lr),
            steps=problem.steps,
            seed=self.seed,
            optimizer=OPTIMIZERS[self.optimizer],
            stop=stop,
        )
        updates = [info for info in run.history if info.updated]
        return {
            **{name: getattr(self, name) for name in KEY},
            "reached": run.stopped == "forget_level",
            "stopped": run.stopped,
            "updates": len(updates),
            "forwards": updates[-1].forwards if updates else 0,
            "fresh": getattr(made[self.design](self.lr), "fresh", 0),
            "retain_start": first,
            "retain": problem.retain(run.model),
            "last_rate": updates[-1].eta if updates else None,
            "seconds": time.perf_counter() - began,
        }


def cells(problems: Iterable[str], seeds: Iterable[int], designs: Sequence[Design]) -> list[Cell]:
    """Return all runs, those of one problem together."""
    found = []
    for problem, optimizer, seed in itertools.product(problems, OPTIMIZERS, seeds):
        if seed and problem not in ORDERED:
            continue
        at = partial(Cell, problem, optimizer, seed)
        found += [at("NGDiff", "constant", lr) for lr in RATES]
        found += [at("NGDiff", d.name, lr) for d in designs for lr in d.starts]
        if problem in DESCENT:
            found += [at("descent", d.name, lr) for d in designs for lr in ENDS]
    return found


def measure(
    path: Path | None, problems: Iterable[str], seeds: Iterable[int], designs: Sequence[Design]
) -> list[Row]:
    """Run what `path` does not hold yet, save every problem's rows as they are done; return all.

    Rows of other code are replaced, and their number is printed.
    """
    mark = {"code": code.fingerprint(__name__)[:16]}
    todo, done = cells(problems, seeds, designs), {}
    if path is not None and path.exists():
        rows = read_rows(path)
        saved = [row for row in rows if row["stamp"]["config"] == mark]
        done = {tuple(row[name] for name in KEY): row for row in saved}
        if older := len(rows) - len(saved):
            print(f"{path}: {older} rows of other code will be replaced", file=sys.stderr)
    progress, made = Progress("run", len(todo)), {}
    for n, cell in enumerate(todo, 1):
        if cell.key not in done:
            if cell.problem not in made:
                made = {cell.problem: PROBLEMS[cell.problem]()}
            row = cell.run(made[cell.problem])
            done[cell.key] = row | {"stamp": stamp(mark, cell.seed, row["seconds"])}
            last = n == len(todo) or todo[n].problem != cell.problem
            if path is not None and (last or n % 50 == 0):
                write_rows(path, list(done.values()))
        progress(n)
    return [done[cell.key] for cell in todo]


# ---------------------------------------------------------------------------------------- verdicts
def ratios(rows: Iterable[Row]) -> list[Row]:
    """Return the rows of designs, each with `ratio`: its R over that of the best constant.

    The best constant of the same problem, optimizer and order of rows; where none reached the
    level, there is no comparison and the row is left out.
    """
    rows = [row for row in rows if row["direction"] == "NGDiff"]
    best: dict[tuple[Any, ...], Row] = {}
    for row in rows:
        at = row["problem"], row["optimizer"], row["seed"]
        counts = row["design"] == "constant" and row["reached"] and _finite(row["retain"])
        if counts and (at not in best or row["retain"] < best[at]["retain"]):
            best[at] = row
    found = []
    for row in rows:
        beside = best.get((row["problem"], row["optimizer"], row["seed"]))
        if row["design"] == "constant" or beside is None:
            continue
        ratio = row["retain"] / beside["retain"] if _finite(row["retain"]) else math.inf
        more = {"ratio": ratio, "best_rate": beside["lr"], "best_updates": beside["updates"]}
        found.append(row | more)
    return found


def summary(rows: Sequence[Row]) -> list[Row]:
    """Return a line a design: runs that reached the level, their ratios, and plain descent."""
    found, held = [], ratios(rows)
    for name in dict.fromkeys(row["design"] for row in held):
        mine = [row for row in held if row["design"] == name]
        reached = [row for row in mine if row["reached"]]
        down = [r for r in rows if r["direction"] == "descent" and r["design"] == name]
        ends = [r["retain"] / r["retain_start"] if _finite(r["retain"]) else math.inf for r in down]
        at = sorted(row["ratio"] for row in reached) or [math.nan]
        found.append(
            {
                "design": name,
                "why": next((d.why for d in DESIGNS if d.name == name), ""),
                "runs": len(mine),
                "reached": len(reached),
                "share": len(reached) / len(mine),
                "median": statistics.median(at),
                "most": at[-1],
                "above_3": sum(x > 3 for x in at),
                "descent": max(ends, default=None),
            }
        )
    return found


def by_problem(rows: Sequence[Row], design: str = "AutoLR") -> list[Row]:
    """Return a line a problem and optimizer: the best constant, and a design from each start."""
    held = [row for row in ratios(rows) if row["design"] == design]
    found = []
    for at in dict.fromkeys((row["problem"], row["optimizer"]) for row in held):
        mine = [row for row in held if (row["problem"], row["optimizer"]) == at]
        reached = [row["ratio"] for row in mine if row["reached"]]
        found.append(
            {
                "problem": at[0],
                "optimizer": at[1],
                "best_rate": mine[0]["best_rate"],
                "best_updates": mine[0]["best_updates"],
                "reached": f"{len(reached)}/{len(mine)}",
                "median": statistics.median(reached) if reached else None,
                "most": max(reached, default=None),
                "updates": statistics.median(row["updates"] for row in mine),
                "forwards": statistics.median(row["forwards"] for row in mine),
            }
        )
    return found


def _finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


SUMMARY = (
    Column("design"),
    Column("why", "what it changes"),
    Column("reached", "reached", "d", "right"),
    Column("runs", "of", "d", "right"),
    Column("median", "R ratio, median", ".2f", "right"),
    Column("most", "at worst", ".2f", "right"),
    Column("above_3", "above 3", "d", "right"),
    Column("descent", "descent: R end ÷ start, at worst", ".2g", "right"),
)
PROBLEM = (
    Column("problem"),
    Column("optimizer"),
    Column("best_rate", "best constant", ".0e", "right"),
    Column("best_updates", "updates", "d", "right"),
    Column("reached", "AutoLR reached", "", "right"),
    Column("median", "R ratio, median", ".2f", "right"),
    Column("most", "at worst", ".2f", "right"),
    Column("updates", "updates", ".0f", "right"),
    Column("forwards", "probe forwards", ".0f", "right"),
)


def table(
    save: Path | None = None, problems: str = "", seeds: int = 2, designs: str = ""
) -> list[Row]:
    """Run `ngdiff bench rates` and print both tables.

    save: where the rows go as they are done (.parquet or .jsonl). A later call goes on from there.
    problems, designs: some of them only, separated by commas. seeds: orders of the rows.

    Errors: ValueError for an unknown name.
    """
    if save is not None:
        probe_file(save)
    some = _chosen(problems, PROBLEMS, "problem")
    kinds = {d.name: d for d in DESIGNS}
    wanted = [kinds[name] for name in _chosen(designs, kinds, "design")]
    rows = measure(save and Path(save), some, range(seeds), wanted)
    print(Table(PROBLEM, by_problem(rows, wanted[0].name)).text())
    print(Table(SUMMARY, summary(rows)).text())
    return rows


def _chosen(given: str, known: Mapping[str, Any], what: str) -> list[str]:
    names = [name.strip() for name in given.split(",") if name.strip()] or list(known)
    if strange := [name for name in names if name not in known]:
        raise ValueError(f"unknown {what} {strange[0]!r}; choose some of: {', '.join(known)}")
    return names
