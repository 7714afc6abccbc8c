"""The loop: one problem, one method, one step-size rule, a history of what every step saw."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ngdiff.core import checkpoint as ckpt
from ngdiff.core import vector
from ngdiff.core.step import Info, Phase, Stop, UnlearningStep
from ngdiff.core.stepsize import StepSize

Make = Callable[[Any], torch.optim.Optimizer]  # from parameters, or groups of them


class Problem(Protocol):
    """What the loop unlearns: parameters, and repeatable loss callables for every step.

    `batch(step)` → (retain, forget) phases; `probe(step, fresh)` → the retain phase on the step's rows and `fresh`
    times as many new ones, or None to probe the step's own; `bind(method, seed)` → a copy ready to be unlearned, whose
    losses are the method's objectives; `optimizer(make)` → an optimizer over `parameters`, made from parameter groups by
    `make`, the problem's usual one without it. A problem may have `options`: where its steps run (`ngdiff.engine`).
    """

    model: Any
    module: nn.Module | None  # what a probe puts in eval mode, if there is one
    parameters: Sequence[Tensor]

    def bind(self, method: Any, seed: int) -> Problem: ...
    def batch(self, step: int) -> tuple[Phase, Phase]: ...
    def probe(self, step: int, fresh: int) -> Phase | None: ...
    def optimizer(self, make: Make | None = None) -> torch.optim.Optimizer: ...


@dataclass
class Run:
    """A finished run: `model` (unlearned), `history` (an `Info` a step), `stopped` (why it ended), `seconds`."""

    model: Any
    history: list[Info] = field(default_factory=list)
    stopped: str = "steps"
    seconds: float = 0.0

    def rows(self) -> list[dict[str, Any]]:
        return [dataclasses.asdict(info) for info in self.history]


def unlearn(
    problem: Problem,
    method: Any,
    stepsize: StepSize | None = None,
    steps: int = 100,
    seed: int = 0,
    *,
    stop: Stop | Sequence[Stop] = (),
    optimizer: Make | None = None,
    measure: bool = False,
    checkpoint: Path | str | None = None,
    save_every: int = 50,
    progress: Callable[[Info], None] | None = None,
    watch: Any = None,
) -> Run:
    """Unlearn for at most `steps` updates; the problem itself is left as it was, `run.model` is the result.

    method: a direction rule, or a recipe of `ngdiff.methods` (objectives and a direction). seed: the order of the data.
    The run ends at `steps`, at a stop rule, or at a step that makes no update (see `Info.outcome`). With `checkpoint`,
    weights, optimizer, rule and history are saved atomically every `save_every` steps, and a run found there goes on
    where it stopped, bit for bit; a checkpoint of another run is refused. watch: a `ngdiff.engine.footprint.Watch`.
    """
    if steps < 0 or save_every < 1:
        raise ValueError(f"unlearn needs steps ≥ 0 and save_every ≥ 1, got {steps} and {save_every}")
    began, mine = time.perf_counter(), problem.bind(method, seed)
    opt = mine.optimizer(optimizer) if optimizer else mine.optimizer()
    direction = getattr(method, "direction", method)
    rules = (stop,) if callable(stop) else tuple(stop)
    options = getattr(mine, "options", {})  # where it computes
    step = UnlearningStep(
        mine.module or mine.parameters, opt, direction, stepsize, stop=rules, measure=measure, **options
    )
    run = Run(mine.model)
    if checkpoint is not None:
        name = _name(problem, method, stepsize, seed, rules, opt, f"start {vector.dot(step.params, step.params):.4g}")
        run.history = [Info(**row) for row in ckpt.load(checkpoint, name, step)]
        if len(run.history) > steps:
            raise ValueError(f"checkpoint {checkpoint} is {len(run.history)} steps into the run already, past {steps}")
    fresh = getattr(stepsize, "fresh", 0)
    if watch:
        watch.begin(mine, opt, fresh if stepsize is not None and stepsize.probes(stepsize.init()) else None)
    while len(run.history) < steps:
        t = len(run.history)
        due = stepsize is not None and fresh and stepsize.probes(step.state)
        phases = (*mine.batch(t), mine.probe(t, fresh) if due else None)
        info = watch.step(partial(step, *phases)) if watch else step(*phases)
        run.history.append(info)
        if progress:
            progress(info)
        if not info.updated:
            run.stopped = info.outcome
            break
        if checkpoint is not None and len(run.history) % save_every == 0:
            ckpt.save(checkpoint, name, step, run.rows())
    if watch:
        watch.end()
    run.seconds = time.perf_counter() - began
    return run


def _name(*parts: Any) -> str:
    """What a run depends on, in words that are the same in every process and on every device."""
    return re.sub(r" at 0x[0-9a-f]+|\n    (fused|foreach|capturable|differentiable): \w+", "", repr(parts))
