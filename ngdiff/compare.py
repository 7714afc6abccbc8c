"""The comparison on equal terms: its protocol as code, frozen before the first comparison (data/results/LOG.md).

Every method makes matched runs (see `trials`). A method's constant rate is chosen from RATES on the tuning seed, which
is never reported, by the score itself; then tuned Constant and untuned AutoLR run on the reported seeds. Differences
are paired by (target seed, seed), with bootstrap intervals; a verdict also asks that every target seed agree, since the
pairs of one target share their models.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ngdiff.trials import Row, Trial

RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
STARTS = (1e-5, 1e-4, 1e-3, 1e-2)  # AutoLR's starting rates: three decades
TUNING_SEED = 100
BASELINES = ("gradascent", "graddiff-0.1", "graddiff-0.5", "graddiff-0.9", "kl", "lossnorm", "npo", "simnpo")
MIXTURES = tuple(name for name in BASELINES if name.startswith("graddiff-"))
COMPOSED = ("ngdiff-npo", "ngdiff-kl", "graddiff-0.9-npo")
OURS = "ngdiff"


def tuning(methods: Iterable[str], rates: Sequence[float] = RATES, **settings: Any) -> list[Trial]:
    """One matched trial a method and rate, on the tuning seed."""
    return [Trial(m, "constant", lr, TUNING_SEED, **settings) for m in methods for lr in rates]


def tuned(rows: Iterable[Row]) -> dict[str, float]:
    """method → the rate with the highest score; the smaller rate on a tie."""
    best: dict[str, Row] = {}
    for row in sorted(rows, key=lambda r: r["lr"]):
        if row["method"] not in best or row["score"] > best[row["method"]]["score"]:
            best[row["method"]] = row
    return {method: row["lr"] for method, row in best.items()}


@dataclass(frozen=True)
class Plan:
    """What a comparison runs. `seeds`: the reported ones. `autolr`: the methods that also run with AutoLR; `starts_from`:
    AutoLR's starting rates, tried on the tuning seed (beside the grid of constant rates) and on the reported seeds;
    `targets`: seeds of the models. Errors: ValueError where the tuning seed is to be reported."""

    name: str
    methods: tuple[str, ...]
    rates: tuple[float, ...]
    seeds: tuple[int, ...]
    autolr: tuple[str, ...] = (OURS,)
    starts_from: tuple[float, ...] = STARTS
    targets: tuple[int, ...] = (0,)
    fixed_seeds: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        if TUNING_SEED in self.seeds:
            raise ValueError(f"seed {TUNING_SEED} chooses the rates and is never reported: leave it out of seeds")

    def reported(self, rates: dict[str, float], rule: str, **settings: Any) -> list[Trial]:
        """Each method at its tuned constant rate, and the methods of `autolr` from AutoLR's default start.

        A fixed budget, the second table, runs on one model and `fixed_seeds`.
        """
        targets, seeds = ((0,), self.fixed_seeds) if rule == "fixed" else (self.targets, self.seeds)
        pairs = [(t, s) for t in targets for s in seeds]
        tuned_runs = [Trial(m, "constant", lr, s, t, rule, **settings) for m, lr in rates.items() for t, s in pairs]
        return tuned_runs + [Trial(m, "autolr", 1e-3, s, t, rule, **settings) for m in self.autolr for t, s in pairs]

    def starts(self, **settings: Any) -> list[Trial]:
        """NGDiff + AutoLR from each starting rate."""
        pairs = [(t, s) for t in self.targets for s in (TUNING_SEED, *self.seeds)]
        return [Trial(OURS, "autolr", lr, s, t, **settings) for lr in self.starts_from for t, s in pairs]


def plan(name: str, seeds: tuple[int, ...]) -> Plan:
    """smoke: does it run at all; live: fits a notebook; real: a look at real rows; grid: the committed one, three targets."""
    everyone = (*BASELINES, OURS)
    plans = {
        "smoke": Plan("smoke", ("gradascent", "graddiff-0.9", OURS), (1e-3,), seeds[:1], starts_from=(1e-3,)),
        "live": Plan("live", everyone, (3e-4, 1e-3, 3e-3), seeds, starts_from=(1e-5, 1e-3, 1e-2)),
        "real": Plan("real", ("graddiff-0.5", "graddiff-0.9", OURS), (1e-3,), seeds[:1], starts_from=(1e-4, 1e-2)),
        "grid": Plan(
            "grid", (*everyone, *COMPOSED), RATES, seeds, (*everyone, *COMPOSED),
            targets=(0, 1, 2), fixed_seeds=seeds,
        ),
    }  # fmt: skip
    if name not in plans:
        raise ValueError(f"unknown plan {name!r}; choose one of: {', '.join(plans)}")
    return plans[name]


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


def claims(rows: Sequence[Row], grid: Sequence[Row], starts: Sequence[Row], value: str = "score") -> list[Row]:
    """The claims table as rows: name, what is measured, value, interval, n, verdict.

    rows: reported matched trials; grid: the tuning trials; starts: NGDiff + AutoLR from each of STARTS.
    """
    auto = select(rows, method=OURS, stepsize="autolr")
    table: list[Row] = []

    def add(name: str, what: str, found: Interval, verdict: str) -> None:
        table.append({"name": name, "what": what, **vars(found), "verdict": verdict})

    for baseline in BASELINES:
        if gaps := paired(auto, select(rows, method=baseline, stepsize="constant"), value):
            word = {"above": "NGDiff + AutoLR better", "below": "baseline better"}.get(verdict(gaps), "undecided")
            what = f"{value}: NGDiff + AutoLR untuned − {baseline} tuned on the grid"
            add(f"against {baseline}", what, interval([gap for of_target in gaps.values() for gap in of_target]), word)
    if ascent := select(rows, method="gradascent", stepsize="constant"):
        left = interval([r["kept"] for r in ascent])
        add("ascent keeps", "share of the start's utility that tuned GradAscent keeps", left, "")
    if len(mixed := [r for r in rows if r["method"] in MIXTURES and r["stepsize"] == "constant"]) > 1:
        what = f"{value}: best − worst over c in (0.1, 0.5, 0.9), each at its own tuned rate"
        add("swing of graddiff with c", what, interval(_spreads(mixed, value)), "")
    for method in dict.fromkeys(r["method"] for r in grid):
        reach = [r[value] for r in select(grid, method=method)]
        spread = Interval(max(reach) - min(reach), None, None, len(reach))
        add(f"swing of {method}", f"{value} over the grid of constant rates: best − worst", spread, "")
    swings = _spreads([r for r in starts if r["seed"] != TUNING_SEED], value)
    if swings:
        add("AutoLR over three decades", f"{value} over starting rates 1e-5 … 1e-2: best − worst", interval(swings), "")
    return table


def _spreads(rows: Sequence[Row], value: str) -> list[float]:
    """Best − worst of the rows of each (target seed, seed)."""
    groups: dict[tuple, list[float]] = {}
    for row in rows:
        groups.setdefault((row["target_seed"], row["seed"]), []).append(row[value])
    return [max(v) - min(v) for v in groups.values() if len(v) > 1]


def table(rows: Sequence[Row], values: Sequence[str], name: Callable[[Row], Any]) -> list[Row]:
    """Means with intervals by group: `name(row)` groups the rows in their order."""
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        groups.setdefault(name(row), []).append(row)
    found: list[Row] = []
    for key, members in groups.items():
        made: Row = {"group": key, "n": len(members)}
        for value in values:
            held = interval([m[value] for m in members])
            made |= {value: held.mean, f"{value}_low": held.low, f"{value}_high": held.high}
        found.append(made)
    return found


def summary(files: dict[str, list[Row] | None]) -> list[Row]:
    """The numbers a new run is compared with: {name, value, tolerance}. Tolerances are wide where machines may differ:
    losses and utilities of a run move with the last bits of a matrix product."""
    found: list[Row] = []

    def add(source: str, name: str, value: float | None, tolerance: float) -> None:
        if value is not None:
            found.append({"name": name, "value": value, "tolerance": tolerance, "source": source})

    for row in files.get(source := "start.jsonl") or []:
        for metric, tolerance in (("model_utility", 0.05), ("forget_Q_A_ROUGE", 0.08), ("mia_loss", 0.08)):
            add(source, f"{row['model']}: {metric}", row[metric], tolerance)
    for source in ("matched.parquet", "starts.parquet"):
        for row in table(files.get(source) or [], ("score",), lambda r: f"{r['method']}, {r['stepsize']}"):
            add(source, f"{source.split('.')[0]}: {row['group']}: score", row["score"], 0.1)
    for row in files.get(source := "learning_rate.jsonl") or []:
        add(source, f"learning rate: {row['stepsize']} from {row['lr']:g}: score", row["score"], 0.15)
    return found
