"""The comparison on equal terms: its protocol as code (data/results/LOG.md says since when).

Every method makes matched runs (see `trials`). A method's constant rate, and its retain weight
where it has one, are chosen on the tuning seed, which is never reported. They are those with the
highest score among the runs that reached the level. Then the method runs on the reported seeds.
NGDiff also runs with AutoLR and with the bare three-point rule, which are tuned on no run.
(AutoLR's design was chosen with some runs on generated benchmarks in sight: the log.)
`ngdiff.study.claims` says what the rows mean. The long comparison is `ngdiff.study.evidence`.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ngdiff.data.benchmark import Benchmark
from ngdiff.evaluation.spelling import which
from ngdiff.methods.definition import Method
from ngdiff.methods.lookup import method
from ngdiff.methods.recipes import tagged
from ngdiff.profiles import Profile
from ngdiff.store.rows import stamp, write_rows
from ngdiff.study import protocol, trials
from ngdiff.study.claims import OURS, claims
from ngdiff.study.intervals import Row
from ngdiff.study.setup import Setup
from ngdiff.study.trial import Trial
from ngdiff.study.trials import run_all
from ngdiff.study.tuning import RATES, TUNING_SEED, Chosen, extended, tuned, tuning

STARTS = (2e-5, 3.7e-4, 1.3e-3, 2.6e-2)  # AutoLR's: no two differ by a power of √10, its steps
AUTOMATIC = ("autolr", "three-point")  # the step-size rules that are tuned on no run
MODELS = ("start", "retain-only")
RIVALS = tagged("rival")  # of every page
PUBLISHED = tagged("published")  # of TOFU's tables, beside RIVALS


@dataclass(frozen=True)
class Plan:
    """What a comparison runs. `rates`: those that tuning starts with; `extend`: it goes on along
    LADDER for as long as the best rate is an end of what was tried. `seeds`: the reported ones.
    `automatic`: step-size rules that `ours` runs with too; `starts_from`: AutoLR's starting rates;
    `targets`: seeds of the models; `fixed_seeds`: those of the second table (none named: the first
    reported one); `walked`: its methods (None: all). `unmatched`: report also a rate that scored
    higher on the tuning seed than the tuned one, but did not reach the level. `mmlu`: measure MMLU
    of reported runs too. `ours`: the method whose runs with AutoLR the others are compared with.
    `rules`: which of the two tables are made. Methods are those of `Trial`.
    Errors: ValueError where the tuning seed is to be reported, and for two methods of one name."""

    name: str
    methods: tuple[str | Method, ...]
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    automatic: tuple[str, ...] = AUTOMATIC
    starts_from: tuple[float, ...] = STARTS
    extend: bool = False
    targets: tuple[int, ...] = (0,)
    fixed_seeds: tuple[int, ...] = ()
    walked: tuple[str, ...] | None = None
    unmatched: bool = False
    mmlu: bool = False
    ours: str | Method = OURS
    rules: tuple[str, ...] = ("matched", "fixed")

    def __post_init__(self) -> None:
        if TUNING_SEED in self.seeds:
            raise ValueError(
                f"seed {TUNING_SEED} chooses the rates and is never reported: leave it out of seeds"
            )
        known = [method(m) for m in self.methods]
        keys, names = [m.key for m in known], [m.name for m in known]
        if twice := {name for all_ in (keys, names) for name in all_ if all_.count(name) > 1}:
            raise ValueError(
                f"two methods are called {', '.join(sorted(twice))}: give each a name of its own"
            )

    @property
    def by_key(self) -> dict[str, str | Method]:
        """Return the methods under the names that their rows have."""
        return {method(m).key: m for m in (*self.methods, self.ours)}

    def tuning(self, **settings: Any) -> list[Trial]:
        """Return the runs that tuning starts with: one a candidate and rate, on the tuning seed."""
        return tuning(self.methods, self.rates, **settings)

    def chosen_from(
        self, rows_of: Callable[[list[Trial]], list[Row]], **settings: Any
    ) -> list[Row]:
        """Return the rows of all tuning runs: those it starts with, and what `extend` adds."""
        wanted = self.tuning(**settings)
        return extended(wanted, rows_of, **settings) if self.extend else rows_of(wanted)

    def reported(self, chosen: Chosen, rule: str, **settings: Any) -> list[Trial]:
        """Each method's tuned candidate at its rate, and `ours` under the automatic rules.

        A fixed budget, the second table, runs on one model and `fixed_seeds`. Pure ascent runs at
        every rate, since its tuned one may be too slow to change anything.
        """
        settings |= {"mmlu": self.mmlu}
        targets, seeds = (
            ((0,), self.fixed_seeds or self.seeds[:1])
            if rule == "fixed"
            else (self.targets, self.seeds)
        )
        constant = list(chosen.items())
        if rule == "fixed":
            kept = self.walked
            constant = [(m, found) for m, found in constant if kept is None or m in kept]
            if "gradascent" in dict(constant):
                others = (lr for lr in self.rates if lr != chosen["gradascent"][1])
                constant += [("gradascent", ("gradascent", lr)) for lr in others]
        runs = [(self.by_key.get(key, key), "constant", lr) for _, (key, lr) in constant]
        runs += [(self.ours, automatic, 1e-3) for automatic in self.automatic]
        pairs = [(t, s) for t in targets for s in seeds]
        return [Trial(*run, s, t, rule, **settings) for run in runs for t, s in pairs]

    def short(self, rows: Iterable[Row], **settings: Any) -> list[Trial]:
        """A method's best rate of all, where that is not its tuned one: `rows` are the tuning
        ones.
        """
        rows = list(rows)
        chosen = tuned(rows)
        best = [found for m, found in tuned(rows, only_reached=False).items() if found != chosen[m]]
        settings |= {"mmlu": self.mmlu}
        return [
            Trial(self.by_key.get(key, key), "constant", lr, s, t, **settings)
            for key, lr in best
            for t in self.targets
            for s in self.seeds
        ]

    @property
    def runs(self) -> int:
        """Return how many runs it takes; those of `short`, and of longer tuning, are left out."""
        keys = (method(m).key for m in self.methods)
        chosen = {key: (key, self.rates[0]) for key in keys}
        reported = sum(len(self.reported(chosen, rule)) for rule in self.rules)
        return len(self.tuning()) + len(self.starts()) + reported

    def starts(self, **settings: Any) -> list[Trial]:
        """Return our method + AutoLR from each starting rate."""
        pairs = [(t, s) for t in self.targets for s in self.seeds]
        return [
            Trial(self.ours, "autolr", lr, s, t, **settings)
            for lr in self.starts_from
            for t, s in pairs
        ]


def plan(name: str, seeds: tuple[int, ...], rates: tuple[float, ...] = RATES) -> Plan:
    """smoke: does it run at all; live: page 06; real: a look at real rows; tofu, muse, semeval: the
    pages of the benchmarks, tuned from `rates` on. All but smoke and real have the same rivals.
    """
    everyone, one = (*RIVALS, OURS), seeds[:1]
    page: dict[str, Any] = {
        "starts_from": (),
        "rules": ("matched",),
        "unmatched": True,
        "extend": True,
    }
    plans = {
        "smoke": Plan(
            "smoke", ("gradascent", "graddiff-0.9", OURS), (1e-3,), one, starts_from=(2e-3,)
        ),
        "tofu": Plan("tofu", (*everyone, *PUBLISHED), rates, one, **page),
        "muse": Plan("muse", everyone, rates, seeds, **page),
        "semeval": Plan("semeval", everyone, rates, seeds, **page),
        "live": Plan(
            "live",
            everyone,
            rates,
            seeds,
            starts_from=(STARTS[0], STARTS[-1]),
            walked=("gradascent", "graddiff-0.5", "graddiff-0.9", "npo", OURS),
            extend=True,
        ),
        "real": Plan(
            "real",
            ("graddiff-0.5", "graddiff-0.9", OURS),
            (1e-3,),
            one,
            starts_from=(STARTS[0], STARTS[-1]),
        ),
    }
    if name not in plans:
        raise ValueError(f"unknown plan {name!r}; choose one of: {', '.join(plans)}")
    return plans[name]


def carry_out(
    P: Plan, folder: Path | None = None, prefix: str = "", refresh: bool = False, **settings: Any
) -> dict[str, list[Row]]:
    """Run a plan's reported trials at the tuned rates and save their rows.

    The rates come from the committed tuning rows (`ngdiff.study.protocol`); `refresh` tunes again.
    Files written: <folder>/<prefix>{matched, starts, fixed}.parquet, unmatched.parquet too where
    the plan asks for it, claims.jsonl, and levels.jsonl (start and retain-only reference of each
    seed of the models); none without a folder. The result also holds `tuning`.
    """
    began = time.perf_counter()
    tuning_rows = _tuning(P, refresh, settings)
    chosen = tuned(tuning_rows)
    reported: dict[str, list[Trial]] = {"starts": P.starts(**settings)}
    reported |= {rule: P.reported(chosen, rule, **settings) for rule in P.rules}
    if P.unmatched:
        reported["unmatched"] = P.short(tuning_rows, **settings)
    done = _run(reported)
    ours = method(P.ours).key
    found = claims(done["matched"], tuning_rows, done["starts"], done.get("fixed", ()), ours=ours)
    known = levels(P.targets, **settings)
    named = {**settings, "data": known[0]["data"], "plan": repr(P)}  # no folder of this machine
    made = stamp(named, None, time.perf_counter() - began)
    small = {"claims": found, "levels": known}
    small = {name: [row | {"stamp": made} for row in rows] for name, rows in small.items()}
    if folder is not None:
        for name, rows in done.items():
            if not rows:  # no run of this kind was wanted
                continue
            write_rows(folder / f"{prefix}{name}.parquet", rows)
        for name, rows in small.items():
            write_rows(folder / f"{prefix}{name}.jsonl", rows)
    return done | {"tuning": tuning_rows, **small}


def _tuning(P: Plan, refresh: bool, settings: dict[str, Any]) -> list[Row]:
    """Return the rows that weights and rates are chosen from, committed or run now."""

    def run(todo: list[Trial]) -> list[Row]:
        return _run({"tuning": todo})["tuning"]

    return P.chosen_from(lambda todo: protocol.tuning_rows(todo, refresh, run), **settings)


def saved_tuning(P: Plan, **settings: Any) -> list[Row]:
    """Return the committed rows that weights and rates are chosen from; [] unless all are there."""
    return P.chosen_from(protocol.saved, **settings)


def levels(
    targets: Sequence[int],
    profile: str | Profile = "tiny",
    split: str = "",
    data: str | Benchmark = "",
) -> list[Row]:
    """Metrics of the start and of the retain-only reference of each seed of the models."""
    how = Setup.of(profile, split, trials.benchmark(profile, split, data)).convention
    found = ((t, zip(MODELS, trials.levels(profile, split, data, t), strict=True)) for t in targets)
    return [
        {
            "model": model,
            "target_seed": t,
            "data": which(data).label if isinstance(data, str) else data.name,
            "convention": how,
            **{k: v for k, v in metrics.items() if k != "report"},
        }
        for t, pair in found
        for model, metrics in pair
    ]


def _run(parts: dict[str, list[Trial]]) -> dict[str, list[Row]]:
    """The rows of each part, all run in one pool; progress goes to stderr, which a built notebook
    leaves out.
    """
    say = functools.partial(print, file=sys.stderr, flush=True)
    rows = iter(run_all([t for trials in parts.values() for t in trials], say=say))
    return {name: [next(rows) for _ in trials] for name, trials in parts.items()}
