"""One drawing of each figure, from rows made by hand."""

from __future__ import annotations

import itertools
import math

import torch

from ngdiff.core import directions
from ngdiff.core.stepsize import Constant
from ngdiff.figures import comparison, landscapes, one_step, runs
from ngdiff.figures import suites as pictures
from ngdiff.figures.style import Drawn
from ngdiff.methods.recipes import METHODS
from ngdiff.study import tables
from ngdiff.theory import geometry, theorems
from ngdiff.theory.quadratics import Pair, pair, walk


def vec(*x: float) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float64)


def described(P: Pair) -> dict:
    lists = {key: getattr(P, key).tolist() for key in ("A", "B", "r", "f", "start")}
    return {
        "name": P.family,
        "title": f"{P.family} F",
        "family": P.family,
        **lists,
        "front": P.pareto_front(20).tolist(),
    }


def gradient_space() -> Drawn:
    rows = []
    for angle, kappa in ((60, 1.0), (60, 2.5), (25, 1.5), (120, 1.0)):
        t = math.radians(angle)
        g_R, g_F = vec(1, 0), kappa * vec(math.cos(t), math.sin(t))
        rules = {"NGDiff": geometry.combined(directions.NGDiff(), g_R, g_F).tolist()}
        rows.append(
            {
                "g_R": g_R.tolist(),
                "g_F": g_F.tolist(),
                "c": [0.1, 0.5, 0.9],
                "rules": rules,
                "note": "any c",
            }
        )
    return one_step.gradient_space(rows)


def interval() -> Drawn:
    x = [0.0, 0.5, 0.9]
    row = {
        "x": x,
        "low": [0.0, 1 / 3, 0.47],
        "high": [1.0, 2 / 3, 0.53],
        "own": [0.5] * 3,
        "x_name": "ρ",
        "title": "closing",
    }
    return one_step.interval([row, {**row, "own": [0.5, 0.7, 0.88]}])


def slopes() -> Drawn:
    row = {"c": [0.0, 1.0], "dR": [0.5, -1.0], "dF": [1.0, -0.5], "low": 1 / 3, "high": 2 / 3}
    return one_step.slopes([{**row, "kappa": kappa} for kappa in (1 / 3, 1.0, 3.0)])


def trajectories() -> Drawn:
    pairs = [pair(100, 5, 2.0, 2, "concave", seed=1), pair(100, 5, 1.0, 2, "convex", seed=5)]
    rows = []
    for P, rule in itertools.product(pairs, (directions.NGDiff(), directions.GradDiff(0.5))):
        for name, stepsize in (("η = 0.1", Constant(0.1)), ("AutoLR", theorems.SAFE)):
            path, history = walk(P, rule, stepsize, 12)
            row = {"pair": P.family, "stepsize": name, "method": repr(rule), "path": path.tolist()}
            rows.append({**row, "outcome": history[-1].outcome})
    return landscapes.trajectories(rows, [described(P) for P in pairs])


def invariance() -> Drawn:
    P, rows = pair(100, 5, 1.0, 2, "convex", seed=1), []
    for rule, by_R in itertools.product(
        (directions.NGDiff(), directions.GradDiff(0.5)), (1.0, 100.0)
    ):
        path, _ = walk(P.scaled(by_R, 1.0), rule, theorems.EXACT, 5)
        scales = {"stepsize": "η*", "by_R": by_R, "by_F": 1.0}
        rows.append({"method": repr(rule), **scales, "path": path.tolist()})
    return landscapes.invariance(rows, described(P))


def window() -> Drawn:
    eta = [-0.2, 0.0, 0.25, 0.5, 0.7]
    R = [(e - 0.25) ** 2 for e in eta]
    row = {
        "eta": eta,
        "R": R,
        "probe": [[-0.2, R[0]], [0.0, R[1]], [0.25, R[2]]],
        "best": 0.25,
        "retain_window": 0.5,
    }
    concave = {
        **row,
        "family": "concave",
        "F": [e - 3 * e * e for e in eta],
        "forget_window": 1 / 3,
    }
    return one_step.window(
        [concave, {**row, "family": "convex", "F": [e + e * e for e in eta], "forget_window": None}]
    )


def losses() -> Drawn:
    steps = [0, 10, 20]
    ends = {"NGDiff": 1.0, "GradAscent": 1.1, "GradDiff(0.5)": 1.05, "MGDA": 3.0}
    rows = [
        {"method": m, "step": steps, "retain": [0.5, 0.7, e], "forget": [0.1, 1.0, 2 * e]}
        for m, e in ends.items()
    ]
    return landscapes.losses(rows, scale="log")


def along() -> Drawn:
    eta = [0.1 * k - 0.2 for k in range(10)]
    row = {"eta": eta, "R": [(e - 0.25) ** 2 for e in eta], "best": 0.25}
    return one_step.along([row | {"R_start": 0.0625, "R_best": 0.0, "made": "A parabola"}])


ONE_STEP = (gradient_space, interval, slopes, window, along)
LANDSCAPES = (trajectories, invariance, losses)


def history(rate: float, n: int = 30) -> list[dict]:
    """A run whose forget loss grows at `rate`, with a probe of some outcome every ten steps."""
    outcomes = itertools.cycle(("accepted", "cut", "clipped_up"))
    return [
        {
            "step": t,
            "forget_ce": 0.05 * math.exp(rate * t),
            "retain_ce": 0.05 + 0.01 * rate * t,
            "eta": 1e-4 * (1 + t // 10),
            "stepsize": next(outcomes) if t % 10 == 0 else "held",
        }
        for t in range(n)
    ]


EVERYONE = [name for name, m in METHODS.items() if "composed" not in m.tags]


STAMP = {"config": {"profile": "tiny", "data": ""}, "seed": None, "device": "a CPU"}
RUN = {"data": "authors", "seed": 0, "target_seed": 0, "stopped": "forget_level", "stamp": STAMP}


def compared(*stepsizes: str) -> list[dict]:
    return [
        RUN
        | {
            "method": m,
            "stepsize": rule,
            "lr": 1e-4,
            "seed": s,
            "score": 0.9 - 0.03 * k + 0.01 * s,
            "forget_Q_A_ROUGE": 0.25 + 0.02 * k + 0.01 * s,
            "model_utility": 0.8 - 0.02 * k + 0.01 * s,
        }
        for k, m in enumerate(EVERYONE)
        for rule in stepsizes
        for s in range(3)
    ]


def run_trajectories() -> Drawn:
    histories = {"ngdiff": history(0.1), "gradascent": history(0.14), "graddiff-0.5": history(0.13)}
    rows = [RUN | {"name": name, "method": name} for name in histories]
    return runs.trajectories(histories, 2.0, rows)


def plane() -> Drawn:
    levels = [
        {"model": m, "data": "authors", "stamp": STAMP, "forget_Q_A_ROUGE": x, "model_utility": y}
        for m, x, y in (("start", 1, 0.78), ("retain-only", 0.37, 0.79))
    ]
    return comparison.plane(compared("constant", "autolr"), levels)


def autolr() -> Drawn:
    names = ("safe", "own rows", "no search", "bare")
    rows = [RUN | {"name": name} for name in names]
    return runs.autolr({name: history(0.1) for name in names}, rows)


def quality() -> Drawn:
    grid = [
        {**row, "lr": lr}
        for row in compared("constant")
        if row["seed"] == 0
        for lr in (1e-4, 3e-4, 1e-3)
    ]
    auto = [RUN | {"lr": lr, "score": 0.95} for lr in (1e-5, 1e-3, 1e-2)]
    return comparison.quality(grid, auto, "score")


def differences() -> Drawn:
    rows = [
        {
            "name": f"against {m}",
            "mean": 0.01 * k,
            "low": 0.01 * k - 0.01,
            "high": 0.01 * k + 0.01,
            "n": 15,
            "kind": "95 %",
            "stamp": STAMP,
        }
        for k, m in enumerate(METHODS)
    ]
    reached = {"simnpo": 0, "npo": 14}
    for r in rows:
        n = reached.get(r["name"].removeprefix("against "), 15)
        r |= {"both_n": n, **{f"both_{k}": r[k] if n else None for k in ("mean", "low", "high")}}
    return comparison.differences([*rows, {"name": "ascent keeps"}])


def rates() -> Drawn:
    grid = [
        {**row, "lr": lr, "stopped": "steps" if lr < 3e-4 else "forget_level"}
        for row in compared("constant")
        if row["seed"] == 0
        for lr in (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
    ]
    return comparison.rates(grid)


def requests() -> Drawn:
    rows = [
        RUN
        | {
            "data": "news",
            "folds": kind,
            "k": k,
            "verbmem_f": 1 - k / 5,
            "knowmem_f": 1 - k / 8,
            "knowmem_r": 0.97 - k / 50,
        }
        for kind in ("sust", "scal")
        for k in range(1, 5)
    ]
    start = {"model": "start", "data": "news", "stamp": STAMP}
    start |= {"verbmem_f": 1.0, "knowmem_f": 0.99, "knowmem_r": 0.98}
    return pictures.requests(rows, start)


def membership() -> Drawn:
    methods = ("gradascent", "graddiff-0.5", "kl", "npo", "ngdiff")
    rows = [
        RUN
        | {
            "method": m,
            "data": "dossiers",
            "mia_auc": 0.1 + 0.2 * k,
            "task_aggregate": 0.2 * k,
            "stopped": ("steps", "forget_level")[k % 2],
        }
        for k, m in enumerate(methods)
    ]
    levels = [
        {"model": m, "data": "dossiers", "stamp": STAMP, "mia_auc": x, "task_aggregate": y}
        for m, x, y in (("start", 1, 0), ("retain-only", 0.5, 0.94))
    ]
    published = [r for r in tables.published("semeval") if r["model"] == "olmo-7b"]
    return pictures.membership(rows, levels, published)


SUITES = (requests, membership)
RUNS = (run_trajectories, autolr)
COMPARISON = (plane, quality, differences, rates)
DRAW = (*ONE_STEP, *LANDSCAPES, *RUNS, *COMPARISON, *SUITES)
