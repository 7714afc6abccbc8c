"""Made-up rows of the long comparison, small enough to work everything out by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ngdiff.study import evidence
from ngdiff.study.claims import OURS
from ngdiff.study.verdicts import PARTS, Evidence

Row = dict[str, Any]
AUTO, TUNED = (OURS, "autolr"), (OURS, "constant")
POPULATIONS = tuple(f"authors-{k}" for k in range(2, 7))
CANDIDATES = {name: f"{name}-0.9" for name in ("kl", "npo", "simnpo", "rmu", "wga")}
JITTER = (0.004, -0.004, 0.002, -0.002, 0.0)  # of a unit, so that tests have a spread
STAMP = {"config": {"profile": "tiny"}, "seed": 0, "device": "a CPU"}


def run(method: str = OURS, stepsize: str = "constant", score: float = 0.5, **more: Any) -> Row:
    """A run that reached the level and kept the utility."""
    place = {"data": POPULATIONS[0], "target_seed": 0, "seed": 0, "lr": 1e-3, "optimizer": "adamw"}
    end = {"stopped": "forget_level", "kept": 1.0, "loss_retain": 0.5, "loss_forget": 4.0}
    cost = {"updates": 40, "forwards": 0, "seconds": 2.0, "mia_loss": 0.7, "stamp": STAMP}
    return {"method": method, "stepsize": stepsize, "score": score} | place | end | cost | more


def compare(scores: Mapping[tuple[str, str], float], real: bool = False, **more: Any) -> list[Row]:
    """Runs of one data set: a score a way, moved from unit to unit by JITTER for AutoLR alone.

    real: one population with three models, else five populations; two orders each.
    """
    units = [("real", t) for t in range(3)] if real else [(data, 0) for data in POPULATIONS]
    return [
        run(*way, score + JITTER[k] * (way == AUTO), data=data, target_seed=t, seed=seed, **more)
        for way, score in scores.items()
        for k, (data, t) in enumerate(units)
        for seed in (0, 1)
    ]


def everyone(ours: float = 0.8, tuned: float = 0.82, **scores: float) -> dict:
    """A score a method of the comparison: .5 unless named; "graddiff_9" is GradDiff(0.9)."""
    named = {key.replace("graddiff_", "graddiff-0."): value for key, value in scores.items()}
    others = [m for m in evidence.compared() if m != OURS]
    ways = {(CANDIDATES.get(m, m), "constant"): named.get(m, 0.5) for m in others}
    return ways | {TUNED: tuned, AUTO: ours, (OURS, "three-point"): 0.3}


def tuning(*methods: str, rates: tuple[float, ...] = (1e-4, 1e-3, 1e-2)) -> list[Row]:
    return [run(m, lr=lr, seed=100, seconds=3.0) for m in methods for lr in rates]


def levels(populations: tuple[str, ...] = POPULATIONS, level: float = 3.6) -> list[Row]:
    start = {"model": "start", "loss_holdout": level, "loss_retain": 0.1, "stamp": STAMP}
    reference = start | {"model": "retain-only", "loss_holdout": 99.0, "loss_retain": 99.0}
    places = [{"data": data, "target_seed": 0} for data in populations]
    return [row | place for place in places for row in (start, reference)]


def adapt(scores: Mapping[str, float], lrs: tuple[float, ...] = (2e-5, 2e-2)) -> list[Row]:
    """Runs of E3: a score a rule, moved from unit to unit for AutoLR alone."""
    return [
        run(OURS, rule, score + JITTER[k] * (rule == "autolr"), data=data, lr=lr)
        for rule, score in scores.items()
        for lr in lrs
        for k, data in enumerate(POPULATIONS)
    ]


def bands(working: Mapping[tuple[str, str], range], units: int = 2) -> list[Row]:
    """Runs of E4: (method, optimizer) → the places of its working rates."""
    return [
        run(method, lr=lr, data=data, optimizer=optimizer, kept=1.0 if k in works else 0.2)
        for (method, optimizer), works in working.items()
        for k, lr in enumerate(evidence.BANDS[optimizer])
        for data in POPULATIONS[:units]
    ]


def geometry(kappa: float = 10.0, rho: float = 0.2, fixed: float = 0.4) -> list[Row]:
    """Summaries of the runs of a data set."""
    names = ("inside_0.5", "inside_0.9", "inside_0.99", "inside_lossnorm")
    spread = {"10": 0.5, "50": 1.0, "90": 2.0}
    found = {f"kappa_{q}": kappa * x for q, x in spread.items()}
    found |= {f"rho_{q}": rho * x for q, x in spread.items()} | dict.fromkeys(names, fixed)
    lost = {**dict.fromkeys(found), "steps": 0, "skipped": 3}
    return [run(*AUTO) | found | {"steps": 40, "skipped": 0}, run(*AUTO) | lost]


def made(**parts: Mapping[str, list[Row]]) -> Evidence:
    """Evidence of some parts; the others were not run."""
    return Evidence({part: parts.get(part, {}) for part in PARTS})


def whole() -> Evidence:
    """Evidence of every part and data set."""
    sets = {rows.name: len(rows.populations) == 1 for rows in evidence.sets("tofu", "lume")}
    scores = everyone(graddiff_9=0.9, lossnorm=0.8)
    rules = dict(zip(evidence.RULES, (0.9, 0.7, 0.8, 0.1, 0.2), strict=True))
    works = {(m, o): range(2, 5) for m in evidence.BANDED for o in evidence.BANDS}
    ended = {"model_utility": 0.4, "loss_forget": 9.0, "updates": 200}
    fixed = [run(m, **ended) for m in evidence.FIXED]
    return made(
        compare={name: compare(scores, real) for name, real in sets.items()},
        tuning={name: tuning(*(m for m, rule in scores if rule == "constant")) for name in sets},
        levels={name: levels() for name in sets},
        geometry={name: geometry(3.0 * (k + 1)) for k, name in enumerate(sets)},
        adapt={name: adapt(rules) for name in ("authors", "tofu")},
        bands={"authors": bands(works)},
        fixed={name: [*fixed, run(*AUTO, **ended)] for name in ("authors", "tofu")},
    )
