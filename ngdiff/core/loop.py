"""The loop: one problem, one method, one step-size rule, a history of what every step saw."""

from __future__ import annotations

import dataclasses
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from ngdiff.core import checkpoint as ckpt
from ngdiff.core.directions import Direction
from ngdiff.core.info import Info, SetLevel, Stop
from ngdiff.core.losses import Phase
from ngdiff.core.step import UnlearningStep
from ngdiff.core.stepsize import StepSize

Make = Callable[[Any], torch.optim.Optimizer]  # from parameters, or groups of them


class Problem(Protocol):
    """What the loop unlearns: parameters, and repeatable loss callables for every step.

    bind(method, seed): a copy ready to be unlearned, whose losses are the method's objectives.
    batch(step): the (retain, forget) phases.
    probe(step, fresh): the retain phase on `fresh` times as many rows as the step has, none of them
    its own, or None to probe the step's own.
    optimizer(make): an optimizer over `parameters`, made from parameter groups by `make`; the
    problem's usual one without it.
    options: keyword arguments for `UnlearningStep`, such as where its steps run (`ngdiff.engine`).
    """

    model: Any
    module: nn.Module | None  # what a probe puts in eval mode, if there is one
    parameters: Sequence[Tensor]
    options: Mapping[str, Any]

    def bind(self, method: Any, seed: int) -> Problem: ...
    def batch(self, step: int) -> tuple[Phase, Phase]: ...
    def probe(self, step: int, fresh: int) -> Phase | None: ...
    def optimizer(self, make: Make | None = None) -> torch.optim.Optimizer: ...


@dataclass
class Run:
    """A finished run: the unlearned `model`, an `Info` a step, why it `stopped`, its seconds."""

    model: Any
    history: list[Info] = field(default_factory=list)
    stopped: str = "steps"
    seconds: float = 0.0

    def __repr__(self) -> str:
        try:
            name = self.model.name
        except AttributeError:  # parameters alone
            name = type(self.model).__name__
        steps = f"{len(self.history)} steps, stopped: {self.stopped}, {self.seconds:.1f} s"
        return f"<Run of {name}: {steps}>"

    def rows(self) -> list[dict[str, Any]]:
        """The history as plain rows."""
        return [dataclasses.asdict(info) for info in self.history]


def unlearn(
    problem: Problem,
    method: Any,
    stepsize: StepSize | None = None,
    steps: int = 100,
    seed: int = 0,
    *,
    stop: Stop | SetLevel | Sequence[Stop | SetLevel] = (),
    optimizer: Make | None = None,
    measure: bool = False,
    checkpoint: Path | str | None = None,
    save_every: int = 50,
    progress: Callable[[Info], None] | None = None,
    watch: Any = None,
) -> Run:
    """Unlearn a copy of the problem, `run.model`, for at most `steps` updates.

    method: a direction rule, or a recipe of `ngdiff.methods`. seed: the order of the data. The run
    ends at `steps`, at a stop rule, or at a step without update (see `Info.outcome`).
    checkpoint: where weights, optimizer, rule and history are saved every `save_every` steps. A run
    found there goes on bit for bit; that of another run, or of another start model, is refused.
    watch: a `ngdiff.engine.watch.Watch`.
    """
    if steps < 0 or save_every < 1:
        raise ValueError(f"unlearn needs steps ≥ 0, save_every ≥ 1, got {steps} and {save_every}")
    began, mine = time.perf_counter(), problem.bind(method, seed)
    opt = mine.optimizer(optimizer) if optimizer else mine.optimizer()
    rules = tuple(stop) if isinstance(stop, Sequence) else (stop,)
    direction = method if isinstance(method, Direction) else method.direction
    bound = tuple(rule.bind(mine) if hasattr(rule, "bind") else rule for rule in rules)
    options = {"stop": bound, "measure": measure, **mine.options}
    step = UnlearningStep(mine.module or mine.parameters, opt, direction, stepsize, **options)
    disk = _Disk(checkpoint, save_every, step, problem, method, stepsize, seed, rules, opt)
    run = Run(mine.model, disk.load(steps))
    _go_on(run, mine, step, steps, disk, progress, watch)
    run.seconds = time.perf_counter() - began
    return run


def _go_on(
    run: Run,
    mine: Problem,
    step: UnlearningStep,
    steps: int,
    disk: _Disk,
    progress: Callable[[Info], None] | None,
    watch: Any,
) -> None:
    """Add steps to the run until its history has `steps` of them, or one makes no update."""
    rule = step.stepsize
    fresh = rule.fresh if rule is not None else 0
    if watch:
        probes = rule is not None and rule.probes(rule.init())
        watch.begin(mine, step.optimizer, fresh if probes else None)
    while len(run.history) < steps:
        t = len(run.history)
        due = rule is not None and fresh and rule.probes(step.state)
        phases = (*mine.batch(t), mine.probe(t, fresh) if due else None)
        info = watch.step(partial(step, *phases)) if watch else step(*phases)
        run.history.append(info)
        if progress:
            progress(info)
        if not info.updated:
            run.stopped = info.outcome
            break
        disk.save(run)
    if watch:
        watch.end()


class _Disk:
    """The checkpoint of a run, written every `every` steps; without a path nothing is kept.

    depends: what makes this run another one than those saved by other calls.
    """

    def __init__(
        self, path: Path | str | None, every: int, step: UnlearningStep, *depends: Any
    ) -> None:
        self.path, self.every, self.step = path, every, step
        if path is not None:
            self.name = _name(*depends, f"start {ckpt.start(step)}")

    def load(self, steps: int) -> list[Info]:
        """Put the run back where it stopped and return its history, [] without one.

        Errors: ValueError where the run is past `steps`.
        """
        if self.path is None:
            return []
        history = [Info(**row) for row in ckpt.load(self.path, self.name, self.step)]
        if len(history) > steps:
            past = f"{len(history)} steps into the run already, past {steps}"
            raise ValueError(f"checkpoint {self.path} is {past}")
        return history

    def save(self, run: Run) -> None:
        """Write the run where it is due."""
        if self.path is not None and len(run.history) % self.every == 0:
            ckpt.save(self.path, self.name, self.step, run.rows())


def _name(*parts: Any) -> str:
    """Return what a run depends on, in words that are the same in every process and on every
    device.
    """
    elsewhere = r" at 0x[0-9a-f]+|\n    (fused|foreach|capturable|differentiable): \w+"
    return re.sub(elsewhere, "", repr(parts))
