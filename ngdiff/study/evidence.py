"""The long comparison: six data sets, every rival, and five questions with their decision rules.

    E1  Does NGDiff + AutoLR, untuned, beat each rival at its tuned weight and rate?
    E2  Which weight control has the smallest largest regret over the six data sets?
    E3  Does AutoLR adapt after its first search?
    E4  Over how many decades of rates does a method work, under AdamW and under SGD?
    E5  What do fixed steps and the bare three-point rule give? (No winner is named.)

This file says what is run; it was written before the first of these runs (data/results/LOG.md).
`ngdiff.study.verdicts` says what the rows mean.

A *unit* is what the statistics count: a population of the generated sets, a seed of the models of
the real ones, of which there is one population each. Runs are trials, so each is cached as it ends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ngdiff.evaluation.suites import TOFU
from ngdiff.store.rows import read_rows, stamp, write_rows
from ngdiff.study import geometry, protocol
from ngdiff.study.claims import OURS
from ngdiff.study.plan import AUTOMATIC, RIVALS, STARTS, levels
from ngdiff.study.trial import Trial
from ngdiff.study.trials import history, run_all
from ngdiff.study.tuning import Chosen, extended, tuned, tuning

Row = dict[str, Any]
MIXTURES = ("graddiff-0.5", "graddiff-0.7", "graddiff-0.9", "graddiff-0.97", "graddiff-0.99")
CONTROLS = (*MIXTURES, "lossnorm", OURS)  # E2: how the two gradients are weighed
RULES = ("autolr", "once", "once-half", "three-point", "three-point-bounded")
BANDS = {
    "adamw": tuple(10 ** (k / 2) for k in range(-10, -1)),  # 1e-5 … 1e-1
    "sgd": tuple(10 ** (k / 2) for k in range(-6, 3)),  # 1e-3 … 10
}
BANDED = ("gradascent", "graddiff-0.5", "graddiff-0.9", "graddiff-0.99", "lossnorm", OURS)
SAVED = 24  # runs after which a file is written
FIXED = ("gradascent", "graddiff-0.1", "graddiff-0.5", "graddiff-0.9", "lossnorm", "npo", OURS)


@dataclass(frozen=True)
class Rows:
    """A data set of the comparison. populations: spellings of its rows (`evaluation.spelling`).
    targets: seeds of the models of each population. orders: seeds of the order of the rows.
    """

    name: str
    populations: tuple[str, ...]
    targets: tuple[int, ...] = (0,)
    orders: tuple[int, ...] = (0, 1)

    @property
    def units(self) -> list[tuple[str, int]]:
        """Return (population, seed of the models) of every unit."""
        return [(data, target) for data in self.populations for target in self.targets]


def sets(tofu: str = "", lume: str = "") -> tuple[Rows, ...]:
    """Return the data sets; the real ones where their folders are given.

    tofu, lume: a folder with the rows of TOFU, and of SemEval-2025 Task 4.
    """
    made = (
        Rows("authors", ("", *(f"authors-{seed}" for seed in (3, 4, 5, 6)))),
        Rows("authors-all", ("authors-all",), (0, 1, 2)),
        Rows("news", ("news", "news-1", "news-2")),
        Rows("dossiers", ("dossiers", "dossiers-1", "dossiers-2")),
    )
    real = {TOFU.name: tofu, "lume": lume and f"semeval:{lume}"}
    return *made, *(Rows(name, (place,), (0, 1, 2)) for name, place in real.items() if place)


def compared() -> tuple[str, ...]:
    """Return the methods of E1 and E2: the rivals, the mixtures of E2, and NGDiff."""
    return tuple(dict.fromkeys((*RIVALS, *MIXTURES, OURS)))


def reported(rows: Rows, chosen: Chosen) -> list[Trial]:
    """Return the matched runs of E1 and E2: tuned methods, NGDiff + AutoLR, NGDiff + the bare rule.

    chosen: method → its candidate and rate (`ngdiff.study.tuning.tuned`).
    """
    runs = [(key, "constant", lr) for key, lr in chosen.values()]
    runs += [(OURS, rule, 1e-3) for rule in AUTOMATIC]
    return [
        Trial(*run, order, target, data=data)
        for run in runs
        for data, target in rows.units
        for order in rows.orders
    ]


def adapting(rows: Rows, starts: Sequence[float] = STARTS) -> list[Trial]:
    """Return the runs of E3: five rules from starting rates.

    None of them is a rate that the search visits from another one.
    """
    return [
        Trial(OURS, rule, lr, rows.orders[0], target, data=data)
        for rule in RULES
        for lr in starts
        for data, target in rows.units
    ]


def bands(rows: Rows, units: int = 2) -> list[Trial]:
    """Return the runs of E4: constant rates in half decades, under both optimizers."""
    return [
        Trial(method, "constant", lr, rows.orders[0], target, data=data, optimizer=optimizer)
        for method in BANDED
        for optimizer, rates in BANDS.items()
        for lr in rates
        for data, target in rows.units[:units]
    ]


def walks(rows: Rows, chosen: Chosen, units: int = 5) -> list[Trial]:
    """Return the runs of E5: the profile's steps, no stop; NGDiff under the bare rule and AutoLR.

    Every method has its published weights, and the rate of its tuned candidate. GradDiff(0.1) is
    tuned nowhere, and has GradDiff(0.5)'s.
    """
    rates = {name: lr for name, (_, lr) in chosen.items()} | {
        "graddiff-0.1": chosen["graddiff-0.5"][1]
    }
    runs = [(method, "constant", rates[method]) for method in FIXED]
    runs += [(OURS, rule, 1e-3) for rule in ("three-point", "autolr")]
    return [
        Trial(*run, rows.orders[0], target, "fixed", data=data)
        for run in runs
        for data, target in rows.units[:units]
    ]


def experiments(
    known: Sequence[Rows],
    run: Callable[[str, Rows, list[Trial]], list[Row]],
    describe: Callable[[Rows, list[Trial]], None],
) -> None:
    """Run everything, the comparisons first.

    run: (part, data set, its trials) -> their rows; it saves them. Tuning comes first on every data
    set, and its rows choose what the others run. describe: saves what is known of a data set beside
    its compared trials: its models, and where runs of NGDiff + AutoLR went.
    """
    by_name = {rows.name: rows for rows in known}
    chosen: dict[str, Chosen] = {}

    def compare(name: str) -> None:
        if (rows := by_name.get(name)) is None:
            return
        data, target = rows.units[0]
        settings: dict[str, Any] = {"target_seed": target, "data": data}
        trials = tuning(compared(), **settings)
        done = extended(trials, lambda todo: run("tuning", rows, todo), **settings)
        chosen[name] = tuned(done)
        trials = reported(rows, chosen[name])
        run("compare", rows, trials)
        describe(rows, trials)

    for name in ("authors", TOFU.name, "lume", "news", "dossiers", "authors-all"):
        compare(name)
    authors = by_name["authors"]
    run("adapt", authors, adapting(authors))
    run("fixed", authors, walks(authors, chosen["authors"]))
    if tofu := by_name.get(TOFU.name):
        run("adapt", tofu, adapting(tofu, (STARTS[0], STARTS[-1])))
        run("fixed", tofu, walks(tofu, chosen[tofu.name], units=1))
    run("bands", authors, bands(authors))


def carry_out(
    folder: Path,
    tofu: str = "",
    lume: str = "",
    refresh: bool = False,
    say: Callable[[str], None] = print,
) -> None:
    """Run the long comparison and save its rows in a folder, a file a part and data set; the tuning
    runs beside those of the pages (`ngdiff.study.protocol`).

    Every run is cached as it ends, and saved with its part's file some runs later. A run that a
    file has is not made again, whatever code made it: its stamp says which. refresh: make all runs
    again. tofu, lume: as in `sets`; without them the real rows are left out, which is said.
    """
    known = sets(tofu, lume)
    for name, place in (("TOFU", tofu), ("LUME", lume)):
        if not place:
            say(f"{name}: no folder is given, so its rows are left out")

    def run(part: str, rows: Rows, trials: list[Trial]) -> list[Row]:
        say(f"{rows.name}: {part}, {len(trials)} runs")
        every = partial(run_all, say=say)
        if part == "tuning":
            return protocol.tuning_rows(trials, refresh, every, save=True)
        return kept(folder / file_name(part, rows.name), trials, every, refresh)

    def describe(rows: Rows, trials: list[Trial]) -> None:
        files = [folder / file_name(part, rows.name) for part in ("levels", "geometry")]
        if all(path.is_file() for path in files) and not refresh:
            return
        known = [row for data in rows.populations for row in levels(rows.targets, data=data)]
        write_rows(files[0], stamped(known, rows))
        ours = [trial for trial in trials if (trial.method, trial.stepsize) == (OURS, "autolr")]
        went = [trial.row() | geometry.summary(history(trial)) for trial in ours]
        write_rows(files[1], stamped(went, rows))

    experiments(known, run, describe)


def kept(
    path: Path,
    wanted: Sequence[Trial],
    run: Callable[[list[Trial]], list[Row]],
    refresh: bool = False,
) -> list[Row]:
    """Return the rows of trials in their order: those that a file has, the others run and saved.

    The file is written after every `SAVED` runs. refresh: run them all.
    """
    keys = {trial: protocol.identity(trial) for trial in wanted}
    rows = {} if refresh or not path.is_file() else {r["setting"]: r for r in read_rows(path)}

    def here() -> list[Row]:
        return [rows[key["setting"]] for key in keys.values() if key["setting"] in rows]

    todo = [trial for trial, key in keys.items() if key["setting"] not in rows]
    for first in range(0, len(todo), SAVED):
        part = todo[first : first + SAVED]
        for trial, row in zip(part, run(part), strict=True):
            rows[keys[trial]["setting"]] = row | keys[trial]
        write_rows(path, here())
    return here()


def stamped(rows: list[Row], of: Rows) -> list[Row]:
    """Return rows that no run made with a stamp of their own."""
    made = stamp({"profile": "tiny", "set": of.name}, None, 0.0)
    return [row | {"stamp": made} for row in rows]


def file_name(part: str, name: str) -> str:
    """Return the file of a part's rows of a data set."""
    return f"evidence_{part}_{name}.parquet"
