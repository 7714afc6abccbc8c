"""AutoLR in bfloat16 against float32: the same weights, the same rows, one probe in each precision.

NGDiff runs in float32 under AdamW, with AutoLR's defaults. At every step that probes, a bfloat16
twin takes the same step, from the same weights (exact in its master) and moments, on the same rows.
Its η* is compared with that of float32 twice. At the radius that the bfloat16 probe chose, the
difference is due to rounding (of the gradients, too). At the radius that float32 chose for itself,
it is also due to a wider look at a loss that is no parabola. Where bfloat16 shows nothing (radius
1e-5) a fit that only looked at the scatter over rows is made beside it, to see what the rule would
take for a bend there if it looked so close.
"""

from __future__ import annotations

import copy
import itertools
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ngdiff.core.autolr import AutoLR
from ngdiff.core.info import Info
from ngdiff.core.parabola import Fit, fit
from ngdiff.core.point import inner
from ngdiff.core.step import UnlearningStep
from ngdiff.core.stepsize import Line, State, StepSize
from ngdiff.engine.engine import Engine
from ngdiff.methods.problem import LMProblem
from ngdiff.methods.recipes import ngdiff
from ngdiff.store.rows import probe_rows, stamp, write_rows
from ngdiff.store.table import Column, Table

Row = dict[str, Any]
COUNT = ("accepted", "clipped_up", "clipped_down", "bounded")  # outcomes of a fit that counts
NOTHING = ("noise", "nonfinite")  # a fit that the rule refuses
DROWNED = 1e-5  # a radius at which bfloat16 shows nothing but rounding


@dataclass(frozen=True)
class _At(StepSize):
    """AutoLR, and the parabola at one more radius, put into `seen`."""

    rule: AutoLR
    radius: float
    seen: list[Fit]

    def init(self) -> State:
        return self.rule.init()

    def probes(self, state: State) -> bool:
        return True

    def step(self, state: State, line: Line | None, info: Info | None = None) -> State:
        assert line is not None
        self.seen.append(fit(line, line(0.0), self.radius))
        return self.rule.step(state, line, info)


class _Twin:
    """A run of NGDiff in some precision, from given weights and moments."""

    def __init__(self, problem: Any, model: Any, engine: Engine, moments: Any, seed: int) -> None:
        self.mine = LMProblem(
            problem.bench, model, batch_size=problem.batch_size, engine=engine
        ).bind(ngdiff, seed)
        self.optimizer = self.mine.optimizer()
        if moments is not None:
            inner(self.optimizer).load_state_dict(copy.deepcopy(moments))

    def step(self, rule: Any, state: State, t: int) -> State:
        """The rule's state after step t."""
        step = UnlearningStep(
            self.mine.module, self.optimizer, ngdiff.direction, rule, **self.mine.options
        )
        step.state = state
        step(
            *self.mine.batch(t), self.mine.probe(t, AutoLR().fresh) if rule.probes(state) else None
        )
        return step.state


def compare(problem: LMProblem, probes: int, start: float = 1e-3, each: int = 5) -> list[Row]:
    """Return a row a probe: η* of both precisions, their ratios, radii and outcomes.

    problem: not bound to a method. each: probes of one run; the next has another order of rows.
    """
    rule, device, rows = AutoLR(lr=start), "auto" if torch.cuda.is_available() else None, []
    for seed in range(-(-probes // each)):
        state, fine = rule.init(), _Twin(problem, problem.target, Engine(device), None, seed)
        ahead = min(each, probes - seed * each)
        for t in itertools.count():
            if not ahead:
                break
            if not rule.probes(state):
                state = fine.step(rule, state, t)
                continue
            ahead -= 1
            seen: list[Fit] = []
            twin = _Twin(
                problem,
                fine.mine.model,
                Engine(device, "bfloat16"),
                fine.optimizer.state_dict() if t else None,
                seed,
            )
            low = twin.step(_At(rule, DROWNED, seen), state, t)
            high = fine.step(_At(rule, low.radius, seen), state, t)
            where = {"seed": seed, "step": t, "eta_before": state.eta}
            rows.append(where | _pair(low, high, *seen))
            state = high
    return rows


def _pair(low: State, high: State, drowned: Fit, there: Fit) -> Row:
    """Return what a probe of bfloat16 and one of float32 saw of one line.

    drowned: bfloat16's fit at DROWNED; there: float32's at the radius of bfloat16.
    """
    return {
        "float32": high.proposed,
        "bfloat16": low.proposed,
        "float32_there": there.eta,
        "ratio": low.proposed / high.proposed,
        "ratio_there": low.proposed / there.eta,
        "drowned": drowned.outcome,
        "there": there.outcome,
        "radius_float32": high.radius,
        "radius_bfloat16": low.radius,
        "outcome_float32": high.outcome,
        "outcome_bfloat16": low.outcome,
        "rate_float32": high.eta,
        "rate_bfloat16": low.eta,
    }


COLUMNS = (
    Column("seed"),
    Column("step", align="right"),
    Column("float32", "η* float32", ".2e", "right"),
    Column("bfloat16", "η* bfloat16", ".2e", "right"),
    Column("radius_bfloat16", "at radius", ".1e", "right"),
    Column("ratio_there", "ratio there", ".3f", "right"),
    Column("ratio", "to float32's own", ".3f", "right"),
    Column("outcome_float32", "float32"),
    Column("outcome_bfloat16", "bfloat16"),
)


def table(probes: int = 20, json: Path | None = None) -> list[Row]:
    """Run `ngdiff bench probes`: compare on the tiny benchmark's target, print and return the rows.

    json: where they are saved (.jsonl), None: nowhere.
    """
    probe_rows(json)
    from ngdiff.data import authors
    from ngdiff.lm import pair as models
    from ngdiff.profiles import profile

    P = profile("tiny")
    bench = authors(P)
    began = time.perf_counter()
    rows = compare(LMProblem(bench, models.target(bench, P), batch_size=P.batch_size), probes)
    mark = stamp({"probes": probes}, 0, time.perf_counter() - began)
    print(Table(COLUMNS, rows).text())
    print(summary(rows))
    rows = [row | {"stamp": mark} for row in rows]
    if json is not None:
        write_rows(Path(json), rows)
    return rows


def summary(rows: list[Row]) -> str:
    """Return what the probes say in a sentence, of the fits that count in bfloat16.

    It tells how many are within a quarter of float32's η*, at the same radius and at float32's own.
    Then it tells how many float32 would have refused, and how often both agree.
    """
    counted = [row for row in rows if row["outcome_bfloat16"] in COUNT]
    there, own = ([abs(row[key] - 1) for row in counted] for key in ("ratio_there", "ratio"))
    near = [sum(off <= 0.25 for off in offs) for offs in (there, own)]
    wrong = sum(row["there"] in NOTHING for row in counted)
    alike = sum(
        (row["outcome_float32"] in COUNT) == (row["outcome_bfloat16"] in COUNT) for row in rows
    )
    drowned = sum(row["drowned"] not in NOTHING for row in rows)
    off = (
        f" (off by {statistics.median(there):.1%} in the median, {max(there):.1%} at most)"
        if there
        else ""
    )
    return (
        f"{len(counted)} of {len(rows)} fits count in bfloat16; "
        f"η* is within 25 % of float32's in {near[0]} at the same radius{off} "
        f"and in {near[1]} at float32's own; {wrong} of them float32 would refuse there; "
        f"both accept or both refuse in {alike} of {len(rows)}; "
        f"at radius {DROWNED:g}, where it does not look, the scatter alone would have "
        f"accepted {drowned}"
    )
