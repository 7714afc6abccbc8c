"""Analytic lines: a loss along an update with no model in sight."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ngdiff.core.info import Info
from ngdiff.core.stepsize import Line

EPS_32 = 2.0**-23


@dataclass
class Curve(Line):
    """A line of one row (or of the rows it gives) that keeps where it was looked at.

    shown: the least radius at which rounding of the weights is half of the way.
    """

    f: Callable[[float], float | list[float]]
    eps: float = 2.0**-52
    shown: float = 0.0
    looks: list[float] = field(default_factory=list)

    def __call__(self, eta):
        self.looks.append(eta)
        value = self.f(eta)
        return value if isinstance(value, list) else [value]

    def blur(self, eta):
        return 0.5 * self.shown / abs(eta)

    @property
    def radii(self):
        """Those looked at, in turn."""
        return [h for h in self.looks if h > 0]


def float32(x):
    return struct.unpack("f", struct.pack("f", x))[0]


def valley(best, curvature=1.0, R_0=1.0):
    """The parabola of height R_0 at 0 with its minimum at `best`."""
    return lambda h: R_0 + curvature * (0.5 * h * h - best * h)


def info(R, ce=None):
    """What a rule is told of a step whose retain loss is R."""
    nan = math.nan
    made = Info(0, "ok", R, nan, R if ce is None else ce, nan, 1.0, 1.0, 0.0, 1.0, 1.0)
    return replace(made, forget=0.0, forget_ce=0.0)
