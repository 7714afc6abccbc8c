"""Step-size rules: what one is, and those known in advance. AutoLR is in `ngdiff.core.autolr`.

A rule is a frozen dataclass; what changes from step to step is an explicit `State`. `init()` makes
the first state and `step(state, line)` the next one, whose `eta` is used for the update. `line` is
the retain loss along the update that the optimizer is about to take. So every rule can be tried on
a parabola without a model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ngdiff.core.info import Info

EPS = 2.0**-23  # relative rounding of float32: sums of losses are never coarser


class Line:
    """The rows of the retain loss along the update u per unit rate: `line(η)` = R(θ + η·u).

    Rows are addends: the loss is their sum. A line of your own subclasses this.

    eps: the relative rounding error of a row's loss.
    at_zero: the rows at η = 0, where they are known without a forward.
    """

    eps: float = EPS
    at_zero: Sequence[float] | None = None

    def blur(self, eta: float) -> float:
        """The part of η·u that rounding of the weights makes up; 0 for exact weights."""
        return 0.0

    def __call__(self, eta: float) -> Sequence[float]:
        raise NotImplementedError


@dataclass(frozen=True)
class State:
    """What a rule remembers: `eta`, the rate of the coming update, and what happened last."""

    step: int = 0
    eta: float = 0.0
    outcome: str = "init"
    slope: float = math.nan  # of R along the update, per unit rate, at the last probe
    curvature: float = math.nan
    proposed: float = math.nan  # the parabola's own η*, before any clip
    radius: float = math.nan  # at which the last probe looked
    found: float = 0.0  # the first rate that was within reach of its probe
    due: int = 0  # the step of the next probe
    gap: int = 0  # steps between the last probe and the next
    chosen: float = 0.0  # the rate that the last probe chose; a cut leaves it as it is
    R: float = math.inf  # the retain loss that the steps since the last probe are held against
    size: float = math.inf  # what a rise of it is a share of
    forwards: int = 0  # forward passes spent on probing so far


class StepSize:
    """A rule that sets the rate of every update. A rule of your own subclasses this.

    fresh: rows that a probe looks at, in multiples of the step's own, none of which the step has
    seen; 0: the step's own rows.
    """

    fresh: int = 0

    def init(self) -> State:
        """The state before the first update."""
        raise NotImplementedError

    def probes(self, state: State) -> bool:
        """Return whether the coming `step` looks along the line."""
        return False

    def step(self, state: State, line: Line | None, info: Info | None = None) -> State:
        """The next state, with the rate of the coming update.

        line: None where no probe is due. info: what the step has seen so far, its losses above all;
        None where a rule is tried on a line alone.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class _Schedule(StepSize):
    """A rate known in advance: `rate(t)` for the update t = 0, 1, …

    Errors: ValueError for a rate that is not positive and finite.
    """

    lr: float = 1e-3

    def __post_init__(self) -> None:
        if not (self.lr > 0 and math.isfinite(self.lr)):
            raise ValueError(f"a learning rate must be positive and finite, got lr={self.lr}")

    def rate(self, t: int) -> float:
        """η_t."""
        return self.lr

    def init(self) -> State:
        return State(eta=self.rate(0))

    def step(self, state: State, line: Line | None = None, info: Info | None = None) -> State:
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
    """η rises linearly over `warmup` updates to lr, then falls by half a cosine to 0 at `total`."""

    warmup: int = 10
    total: int = 100

    def rate(self, t: int) -> float:
        if t < self.warmup:
            return self.lr * (t + 1) / self.warmup
        done = min((t - self.warmup) / max(self.total - self.warmup, 1), 1.0)
        return self.lr * 0.5 * (1.0 + math.cos(math.pi * done))
