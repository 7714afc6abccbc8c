"""Designs of a learning-rate rule: AutoLR, and what was tried beside it, each as few lines.

They are compared on test problems by `ngdiff.timing.rates`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

from ngdiff.core.autolr import AutoLR, ThreePoint
from ngdiff.core.info import Info
from ngdiff.core.parabola import Fit
from ngdiff.core.stepsize import Line, State, StepSize

STARTS = (1e-6, 10**-4.5, 1e-3, 10**-1.5, 1.0)  # six decades
ENDS = (STARTS[0], STARTS[-1])


@dataclass(frozen=True)
class _Level(AutoLR):
    """The same rise at every step, instead of one that grows with t."""

    slack: float = 0.01

    def rise(self, t: int, size: float) -> float:
        return self.slack * size


@dataclass(frozen=True)
class _First(AutoLR):
    """The rise is a share of R at the first probe, or of R now where that is less."""

    def kept(self, before: float, now: float) -> float:
        return before if math.isfinite(before) else now


@dataclass(frozen=True)
class _Root(_Level):
    """The positive root of sη + ½cη² = e where R falls at first, too: almost twice η*."""

    def rate(self, at: Fit, rise: float) -> float:
        s, c = at.slope, at.curvature
        ahead = at.outcome == "ok"
        return (-s + math.sqrt(s * s + 2 * c * rise)) / c if ahead else at.rate(rise)


@dataclass(frozen=True)
class _Above(_Level):
    """η* + √(2e/c): the rise counts from the minimum along the line, not from R."""

    def rate(self, at: Fit, rise: float) -> float:
        ahead = at.outcome == "ok"
        return at.eta + math.sqrt(2 * rise / at.curvature) if ahead else at.rate(rise)


@dataclass(frozen=True)
class _Jump(AutoLR):
    """The rate that a probe wants, in place of the mean with the rate of before."""

    def moved(self, old: float, new: float) -> float:
        return new


@dataclass(frozen=True)
class _Early(AutoLR):
    """The next update probes after every rate out of reach."""

    def wait(self, gap: int, outcome: str) -> int:
        return 0 if outcome == "clipped_up" else super().wait(gap, outcome)


@dataclass(frozen=True)
class _Late(AutoLR):
    """A rate above the reach leaves the gap as it is."""

    def wait(self, gap: int, outcome: str) -> int:
        return gap if outcome == "clipped_up" else super().wait(gap, outcome)


@dataclass(frozen=True)
class _Held(AutoLR):
    """A probe every ten updates whatever it sees, and no watch over R in between."""

    def step(self, state: State, line: Line | None, info: Info | None = None) -> State:
        if not self.probes(state):
            return replace(state, step=state.step + 1, outcome="held")
        return replace(super().step(state, line, info), due=state.step + 10)


@dataclass(frozen=True)
class Design:
    """A rule by its name, made from a starting rate; `why` says what it changes."""

    name: str
    why: str
    make: Callable[[float], StepSize]
    starts: tuple[float, ...] = ENDS


DESIGNS = (
    Design("AutoLR", "nothing: the default", AutoLR, STARTS),
    Design("ThreePoint", "GeN's bare formula instead", ThreePoint, STARTS),
    Design("slack 0", "R may not rise: η* alone", partial(AutoLR, slack=0.0)),
    Design("first", "e is a share of R at the first probe, not of the least R", _First),
    Design("slack 0.002", "twice the slack", partial(AutoLR, slack=2e-3)),
    Design("level slack", "e = R/100 at every update: it does not grow with t", _Level),
    Design("root", "e = R/100, and also where R falls: the η with sη + ½cη² = e", _Root),
    Design("above", "e = R/100, counted from the minimum along the line", _Above),
    Design("own rows", "probes use the update's own rows", partial(AutoLR, fresh=0)),
    Design("fresh 1", "probes use a third of the rows", partial(AutoLR, fresh=1)),
    Design("jump", "no mean: the rate becomes the wanted one", _Jump),
    Design("early", "the next update probes after each step of √10", _Early),
    Design("late", "a step of √10 leaves the gap between probes as it is", _Late),
    Design("held", "a probe every ten updates, no cut", _Held),
)
