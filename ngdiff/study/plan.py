"""The comparison on equal terms: its protocol as code, frozen before the first comparison
(data/results/LOG.md).

Every method makes matched runs (see `trials`). A method's constant rate is chosen from RATES on the
tuning seed, which is never reported. It is the rate with the highest score among the runs that
reached the level. Then the method runs on the reported seeds, at its tuned constant rate and with
AutoLR. AutoLR is tuned on no run. (Its design was chosen with some runs on this benchmark in sight:
the log.) `ngdiff.study.claims` says what the rows mean.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ngdiff.data.benchmark import Benchmark
from ngdiff.methods.definition import Method
from ngdiff.methods.lookup import method
from ngdiff.methods.recipes import family, tagged
from ngdiff.profiles import Profile
from ngdiff.store.rows import stamp, write_rows
from ngdiff.study import protocol, trials
from ngdiff.study.claims import OURS, claims
from ngdiff.study.intervals import Row
from ngdiff.study.setup import Setup
from ngdiff.study.trial import Trial
from ngdiff.study.trials import run_all

RATES = (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
STARTS = (1e-5, 1e-4, 1e-3, 1e-2)  # AutoLR's starting rates: three decades
TUNING_SEED = 100
MODELS = ("start", "retain-only")
BASELINES = tagged("baseline")
PUBLISHED = tagged("published")  # of the tables, beside BASELINES
MUSE = tagged("muse")  # published beside its target
ORGANISERS = tagged("semeval")  # SemEval-2025 Task 4's
COMPOSED = tagged("composed")
Methods = Iterable[str | Method]


def tuning(methods: Methods, rates: Sequence[float] = RATES, **settings: Any) -> list[Trial]:
    """One matched trial a method and rate, on the tuning seed."""
    return [Trial(m, "constant", lr, TUNING_SEED, **settings) for m in methods for lr in rates]


def tuned(rows: Iterable[Row], only_reached: bool = True) -> dict[str, tuple[str, float]]:
    """method → its best candidate and rate: those of the run with the highest score.

    A method whose retain weight is tuned has a candidate for each weight (`recipes.candidates`). On
    a tie the smaller rate is taken, and then the smaller weight. Only runs that reached the
    hold-out level count; where none did, all count. A run that stops short forgot less than the
    others, so it does not compare. only_reached=False counts all runs.
    """
    best: dict[str, tuple[tuple[bool, float], tuple[str, float]]] = {}
    for row in sorted(rows, key=lambda r: (r["lr"], r["method"])):
        rank = (only_reached and row["stopped"] == "forget_level", row["score"])
        if (name := family(row["method"])) not in best or rank > best[name][0]:
            best[name] = rank, (row["method"], row["lr"])
    return {name: found for name, (_, found) in best.items()}


@dataclass(frozen=True)
class Plan:
    """What a comparison runs. `seeds`: the reported ones. `autolr`: the methods that also run with
    AutoLR; `starts_from`: AutoLR's starting rates; `targets`: seeds of the models; `fixed_seeds`:
    those of the second table (none named: the first reported one); `walked`: its methods (None:
    all). `unmatched`: report also a rate that scored higher on the tuning seed than the tuned one,
    but did not reach the level. `mmlu`: measure MMLU of reported runs too. `ours`: the method whose
    runs with AutoLR the others are compared with. `rules`: which of the two tables are made.
    Methods are those of `Trial`.
    Errors: ValueError where the tuning seed is to be reported, and for two methods of one name."""

    name: str
    methods: tuple[str | Method, ...]
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    autolr: tuple[str | Method, ...] = (OURS,)
    starts_from: tuple[float, ...] = STARTS
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
        return {method(m).key: m for m in (*self.methods, *self.autolr, self.ours)}

    def tuning(self, **settings: Any) -> list[Trial]:
        """Return the runs that the rates are chosen from: one matched trial a method and rate, on
        the tuning seed.
        """
        return tuning(self.methods, self.rates, **settings)

    def reported(self, rates: dict[str, float], rule: str, **settings: Any) -> list[Trial]:
        """Each method at its tuned constant rate, and the methods of `autolr` from AutoLR's default
        start.

        A fixed budget, the second table, runs on one model and `fixed_seeds`, with AutoLR for ours
        only. Pure ascent runs at every rate, since its tuned one may be too slow to change
        anything.
        """
        settings |= {"mmlu": self.mmlu}
        targets, seeds = (
            ((0,), self.fixed_seeds or self.seeds[:1])
            if rule == "fixed"
            else (self.targets, self.seeds)
        )
        auto, constant = self.autolr, list(rates.items())
        if rule == "fixed":
            auto = (self.ours,)
            constant = [(m, lr) for m, lr in constant if self.walked is None or m in self.walked]
            if (tuned_rate := rates.get("gradascent")) is not None:
                constant += [("gradascent", lr) for lr in self.rates if lr != tuned_rate]
        runs = [(self.by_key.get(m, m), "constant", lr) for m, lr in constant]
        runs += [(m, "autolr", 1e-3) for m in auto]
        pairs = [(t, s) for t in targets for s in seeds]
        return [Trial(*run, s, t, rule, **settings) for run in runs for t, s in pairs]

    def short(self, rows: Iterable[Row], **settings: Any) -> list[Trial]:
        """A method's best rate of all, where that is not its tuned one: `rows` are the tuning
        ones.
        """
        rows = list(rows)
        rates = tuned(rows)
        best = [(m, lr) for m, lr in tuned(rows, only_reached=False).items() if lr != rates[m]]
        settings |= {"mmlu": self.mmlu}
        return [
            Trial(self.by_key[m], "constant", lr, s, t, **settings)
            for m, lr in best
            for t in self.targets
            for s in self.seeds
        ]

    @property
    def runs(self) -> int:
        """Return how many runs it takes, those of `short` left out."""
        rates = dict.fromkeys((method(m).key for m in self.methods), self.rates[0])
        reported = sum(len(self.reported(rates, rule)) for rule in self.rules)
        return len(self.tuning()) + len(self.starts()) + reported

    def starts(self, **settings: Any) -> list[Trial]:
        """Return our method + AutoLR from each starting rate."""
        pairs = [(t, s) for t in self.targets for s in self.seeds]
        return [
            Trial(self.ours, "autolr", lr, s, t, **settings)
            for lr in self.starts_from
            for t, s in pairs
        ]


def plan(name: str, seeds: tuple[int, ...], rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3)) -> Plan:
    """smoke: does it run at all; live: fits a notebook; real: a look at real rows; grid: the
    committed one, five targets; tofu, muse, semeval: every method of that benchmark's table, one
    model and one seed, tuned over `rates`."""
    everyone, one = (*BASELINES, OURS), seeds[:1]
    plans = {
        "smoke": Plan(
            "smoke", ("gradascent", "graddiff-0.9", OURS), (1e-3,), one, starts_from=(1e-3,)
        ),
        "tofu": Plan(
            "tofu", (*everyone, *PUBLISHED), rates, one, starts_from=(), walked=(), unmatched=True
        ),
        "muse": Plan(
            "muse", (*MUSE, OURS), rates, seeds, starts_from=(), walked=(), unmatched=True
        ),
        "semeval": Plan(
            "semeval", (*ORGANISERS, OURS), rates, seeds, starts_from=(), walked=(), unmatched=True
        ),
        "live": Plan(
            "live",
            everyone,
            rates,
            seeds,
            starts_from=(1e-5, 1e-3, 1e-2),
            walked=("gradascent", "graddiff-0.5", "graddiff-0.9", "npo", OURS),
        ),
        "real": Plan(
            "real", ("graddiff-0.5", "graddiff-0.9", OURS), (1e-3,), one, starts_from=(1e-4, 1e-2)
        ),
        "grid": Plan(
            "grid",
            (*everyone, *COMPOSED),
            RATES,
            seeds,
            (*everyone, *COMPOSED),
            targets=(0, 1, 2, 3, 4),
            fixed_seeds=seeds,
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
    chosen = protocol.tuning_rows(
        P.tuning(**settings), refresh, lambda todo: _run({"tuning": todo})["tuning"]
    )
    rates = tuned(chosen)
    reported: dict[str, list[Trial]] = {"starts": P.starts(**settings)}
    reported |= {rule: P.reported(rates, rule, **settings) for rule in P.rules}
    if P.unmatched:
        reported["unmatched"] = P.short(chosen, **settings)
    done = _run(reported)
    ours = method(P.ours).key
    found = claims(done["matched"], chosen, done["starts"], done.get("fixed", ()), ours=ours)
    known = levels(P.targets, **settings)
    made = stamp({**settings, "plan": repr(P)}, None, time.perf_counter() - began)
    small = {"claims": found, "levels": known}
    small = {name: [row | {"stamp": made} for row in rows] for name, rows in small.items()}
    if folder is not None:
        for name, rows in done.items():
            write_rows(folder / f"{prefix}{name}.parquet", rows)
        for name, rows in small.items():
            write_rows(folder / f"{prefix}{name}.jsonl", rows)
    return done | {"tuning": chosen, **small}


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
