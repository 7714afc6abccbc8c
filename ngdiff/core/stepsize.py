"""Step-size rules: what one is, and those known in advance (Constant, warm-up schedules). AutoLR: `ngdiff.core.autolr`.

A rule is a frozen dataclass; what changes from step to step is an explicit `State`. `init()` makes the first state and
`step(state, line)` the next one, whose `eta` is used for the update. `line` is the retain loss seen along the update
that the optimizer is about to take, η ↦ R(θ + η·u): a rule may look along it (`probes(state)` says whether it will), so
every rule can be tried on a parabola with no model in sight.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

EPS = 2.0**-23  # relative rounding of float32: sums of losses are never coarser


class Line(Protocol):
    """The retain loss along the update u per unit rate: `line(η)` = R(θ + η·u), split into the rows of the batch.

    Rows are addends: the loss is their sum. `slope` is ⟨g_R, u⟩ where the probed rows are the rows of g_R (known
    exactly from the gradients), else None. `eps` is the relative rounding error of a row's loss. A line may have `blur(η)`,
    the part of η·u that rounding of the weights makes up.
    """

    slope: float | None
    eps: float

    def __call__(self, eta: float) -> Sequence[float]: ...


@dataclass(frozen=True)
class State:
    """What a rule remembers. `eta`: the rate of the coming update. `outcome`: the name of what happened last."""

    step: int = 0
    eta: float = 0.0
    outcome: str = "init"
    slope: float = math.nan  # of R along the update, per unit rate, at the last probe
    curvature: float = math.nan
    proposed: float = math.nan  # the parabola's own η*, before any clip
    radius: float = math.nan  # at which the last probe looked
    found: float = 0.0  # the rate that the start search found
    forwards: int = 0  # forward passes spent on probing so far


class StepSize(Protocol):
    def init(self) -> State: ...
    def probes(self, state: State) -> bool: ...
    def step(self, state: State, line: Line | None) -> State: ...


@dataclass(frozen=True)
class _Schedule:
    """A rate known in advance: `rate(t)` for the update t = 0, 1, …"""

    lr: float = 1e-3

    def __post_init__(self) -> None:
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"a learning rate must be positive and finite, got lr={self.lr}")

    def rate(self, t: int) -> float:
        return self.lr

    def init(self) -> State:
        return State(eta=self.rate(0))

    def probes(self, state: State) -> bool:
        return False

    def step(self, state: State, line: Line | None = None) -> State:
        return replace(state, step=state.step + 1, eta=self.rate(state.step), outcome="held")


@dataclass(frozen=True)
class Constant(_Schedule):
    """η_t = lr."""


@dataclass(frozen=True)
class WarmupLinear(_Schedule):
    """η rises linearly over `warmup` updates to lr, then falls linearly to 0 at `total`."""

    warmup: int = 10
    total: int = 100

    def rate(self, t: int) -> float:
        if t < self.warmup:
            return self.lr * (t + 1) / self.warmup
        return self.lr * max(self.total - t, 0) / max(self.total - self.warmup, 1)


@dataclass(frozen=True)
class WarmupCosine(_Schedule):
    """η rises linearly over `warmup` updates to lr, then falls along half a cosine to 0 at `total`."""

    warmup: int = 10
    total: int = 100

    def rate(self, t: int) -> float:
        if t < self.warmup:
            return self.lr * (t + 1) / self.warmup
        done = min((t - self.warmup) / max(self.total - self.warmup, 1), 1.0)
        return self.lr * 0.5 * (1.0 + math.cos(math.pi * done))
