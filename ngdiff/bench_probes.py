"""AutoLR in bfloat16 against float32: the same weights, the same rows, one probe in each precision.

Along a float32 run whose every step probes, the bfloat16 twin starts each step from the same weights (exact in its master)
and probes the same rows. Its η* is compared with that of float32 twice: at the radius the bfloat16 probe chose, which
is what rounding does, and at the radius float32 chose for itself, which adds what a wider look does on a loss that is no
parabola. Where bfloat16 shows nothing (radius 1e-5) a fit that only looked at the scatter over rows is made beside it, to see
what the rule would take for a bend there if it looked so close.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from ngdiff.autolr import AutoLR, Fit, fit
from ngdiff.cache import probe_writable
from ngdiff.stepsize import Line, State

Row = dict[str, Any]
DROWNED = 1e-5  # a radius at which bfloat16 shows nothing but rounding


@dataclass(frozen=True)
class _At:
    """AutoLR, and the parabola at one more radius, put into `seen`."""

    rule: AutoLR
    radius: float
    seen: list[Fit]

    def init(self) -> State:
        return self.rule.init()

    def probes(self, state: State) -> bool:
        return True

    def step(self, state: State, line: Line | None) -> State:
        assert line is not None
        self.seen.append(fit(line, line(0.0), self.radius, z=self.rule.z))
        return self.rule.step(state, line)


def compare(problem: Any, probes: int, start: float = 1e-3) -> list[Row]:
    """One row a probe: η* of both precisions, their ratios, radii and outcomes. `problem`: an unbound LMProblem."""
    from ngdiff.engine import Engine

    rule, device = AutoLR(lr=start, every=1), "auto" if torch.cuda.is_available() else None
    state, rows = rule.init(), []
    model = problem.target
    for t in range(probes):
        seen: list[Fit] = []
        coarse = _probe(problem, model, Engine(device, "bfloat16"), _At(rule, DROWNED, seen), state, t)[0]
        fine, model = _probe(problem, model, Engine(device), _At(rule, coarse.radius, seen), state, t)
        rows.append(
            {"probe": t, "eta_before": state.eta, "float32": fine.proposed, "bfloat16": coarse.proposed,
             "float32_there": seen[1].eta, "ratio": coarse.proposed / fine.proposed,
             "ratio_there": coarse.proposed / seen[1].eta, "drowned": seen[0].outcome,
             "radius_float32": fine.radius, "radius_bfloat16": coarse.radius, "outcome_float32": fine.outcome,
             "outcome_bfloat16": coarse.outcome, "rate_float32": fine.eta, "rate_bfloat16": coarse.eta}
        )  # fmt: skip
        state = fine
    return rows


def _probe(problem: Any, model: Any, engine: Any, rule: Any, state: State, t: int) -> tuple[State, Any]:
    """(the rule's state, the model) after step t from `model`."""
    from ngdiff.data.problem import LMProblem
    from ngdiff.methods import NGDiff
    from ngdiff.step import UnlearningStep

    mine = LMProblem(problem.bench, model, batch_size=problem.batch_size, micro=problem.micro, engine=engine).bind(
        NGDiff, 0
    )
    step = UnlearningStep(mine.module, mine.optimizer(), NGDiff.direction, rule, **mine.options)
    step.state = replace(state)
    step(*mine.batch(t), mine.probe(t, AutoLR().fresh))
    return step.state, mine.model


def table(probes: int = 20, json: Path | None = None) -> list[Row]:
    """`ngdiff bench probes`: compare on the tiny benchmark's target, print, and save the rows where `json` says."""
    if json is not None and Path(json).suffix != ".jsonl":
        raise ValueError(f"rows are saved as .jsonl, not {str(json)!r}")
    if json is not None:
        probe_writable(Path(json).parent)
    from ngdiff import models
    from ngdiff.data import authors
    from ngdiff.profiles import profile
    from ngdiff.results import stamp, write_rows

    P = profile("tiny")
    bench = authors(P)
    began = time.perf_counter()
    rows = compare(bench.problem(models.target(bench, P), batch_size=P.batch_size), probes)
    mark = stamp({"probes": probes}, 0, time.perf_counter() - began)
    for row in rows:
        print(f"{row['probe']:3} η* float32 {row['float32']:.2e}, bfloat16 {row['bfloat16']:.2e} at radius "
              f"{row['radius_bfloat16']:.1e}: ratio {row['ratio_there']:.3f} there, {row['ratio']:.3f} to float32's own; "
              f"{row['outcome_float32']}, {row['outcome_bfloat16']}")  # fmt: skip
        row["stamp"] = mark
    print(summary(rows))
    if json is not None:
        write_rows(Path(json), rows)
    return rows


def summary(rows: list[Row]) -> str:
    """How many probes are within a quarter, at the same radius and at float32's own, and the medians."""
    there, own = ([abs(row[key] - 1) for row in rows] for key in ("ratio_there", "ratio"))
    near = [sum(off <= 0.25 for off in offs) for offs in (there, own)]
    accepted = sum(row["drowned"] == "ok" for row in rows)
    return (
        f"within 25 %: {near[0]} of {len(rows)} at the same radius (median off {statistics.median(there):.1%}, most "
        f"{max(there):.1%}), {near[1]} at float32's own radius (median {statistics.median(own):.1%}); at radius {DROWNED:g}, "
        f"where it does not look, the scatter alone would have accepted {accepted}"
    )
