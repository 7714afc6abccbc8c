"""Designs of a learning-rate rule: AutoLR, and what was tried beside it, each as few lines.

They are compared on held-out problems by `ngdiff.timing.rates`.
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
    Design("AutoLR", "the default", AutoLR, STARTS),
    Design("ThreePoint", "GeN's bare formula", ThreePoint, STARTS),
    Design("slack 0", "η* alone, with search, reach and cut", partial(AutoLR, slack=0.0)),
    Design("slack 0.0003", "a third of the slack", partial(AutoLR, slack=3e-4)),
    Design("slack 0.003", "three times the slack", partial(AutoLR, slack=3e-3)),
    Design("first", "e as a share of R at the first probe", _First),
    Design("slack 0.002", "twice the slack", partial(AutoLR, slack=2e-3)),
    Design("slack 0.0015", "1.5 times the slack", partial(AutoLR, slack=1.5e-3)),
    Design("level slack", "e = R/100 at every step", _Level),
    Design("root", "e = R/100, and its root where R falls", _Root),
    Design("above", "e = R/100 above the minimum along the line", _Above),
    Design("own rows", "probes look at the step's own rows", partial(AutoLR, fresh=0)),
    Design("fresh 1", "a third of the rows", partial(AutoLR, fresh=1)),
    Design("every 8", "at least a probe in 8 updates", partial(AutoLR, every=8)),
    Design("held", "a probe in ten updates, no cut", _Held),
)
