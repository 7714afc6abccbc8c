"""A parabola through values of a loss along the update, and the noise it must stand clear of.

Its minimiser is the best rate on the local parabola: η* = −slope/curvature = ⟨g_R, d⟩/(d'H_R d) for
the update −d. The idea is GeN's (Bu & Xu, "Automatic gradient descent with generalized Newton's
method", ICLR 2025, arXiv 2407.02772). Nothing here decides on a rate: `ngdiff.core.autolr` does.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ngdiff.core.stepsize import EPS, Line

ROWS = 8  # from which on their scatter measures the noise of a coarse forward


def parabola(L_minus: float, L_0: float, L_plus: float, h: float) -> tuple[float, float]:
    """Slope and curvature at 0 of the parabola through (−h, L_minus), (0, L_0), (h, L_plus)."""
    return (L_plus - L_minus) / (2 * h), (L_plus - 2 * L_0 + L_minus) / h / h


@dataclass(frozen=True)
class Fit:
    """A parabola along the update, judged.

    radius: the h of its probes. outcome: whether the fit counts:

    `ok`         its minimiser `eta` counts
    `uphill`     the update raises R at once
    `concave`    there is no minimum
    `noise`      the curvature does not stand clear of rounding and of the scatter between rows
    `skewed`     the central slope of two forwards on the step's own rows is off the exact one by
                 more than half of it, so no parabola fits at this radius
    `nonfinite`  slope or curvature is not a finite number
    """

    slope: float
    curvature: float
    outcome: str
    radius: float = math.nan

    @property
    def eta(self) -> float:
        """The minimiser −slope/curvature; NaN where the curvature is 0."""
        return -self.slope / self.curvature if self.curvature else math.nan


@dataclass(frozen=True)
class _Differences:
    """Slope and curvature from probes, and how far each could come from noise alone.

    bend: curvature·h²; bend_noise: what a straight line could show of it.
    slope_noise: what a level line could show of 2|h|·slope.
    """

    slope: float
    curvature: float
    bend: float
    bend_noise: float
    slope_noise: float


def fit(line: Line, L_0: Sequence[float], h: float, forwards: int = 2, z: float = 0.0) -> Fit:
    """Fit a parabola along `line` from probes at ±h, or at +h alone with the exact slope.

    L_0: the rows of the loss at 0. forwards: 2, or 1 for +h alone.

    The curvature is accepted when the second difference Σᵢ(Lᵢ(h) − 2Lᵢ(0) + Lᵢ(−h)) exceeds the
    noise. Noise is what rounding could make of a straight line and, with two forwards, `z` standard
    errors of the scatter over rows. (With one forward the scatter would hold the rows' slopes.)
    Where the forward is coarser than float32 and there are `ROWS` rows, rounding is not bounded but
    measured: it is in the scatter.

    Errors: ValueError for one forward along a line without a `slope`.
    """
    seen = _from_one_side(line, L_0, h) if forwards == 1 else _from_both_sides(line, L_0, h, z)
    return Fit(seen.slope, seen.curvature, _outcome(seen, line.slope, h), h)


def _outcome(seen: _Differences, exact: float | None, h: float) -> str:
    """The name of the fit, see `Fit`. exact: the slope known from gradients, if any."""
    if not (math.isfinite(seen.slope) and math.isfinite(seen.curvature)):
        return "nonfinite"
    if abs(seen.bend) <= seen.bend_noise:
        return "uphill" if 2 * abs(h) * seen.slope > seen.slope_noise else "noise"
    if seen.slope >= 0:
        return "uphill"
    if seen.curvature <= 0:
        return "concave"
    return "skewed" if exact is not None and abs(seen.slope - exact) > 0.5 * abs(exact) else "ok"


def _from_one_side(line: Line, L_0: Sequence[float], h: float) -> _Differences:
    """The exact slope, and the second difference 2(L(h) − L(0) − h·slope)."""
    if line.slope is None:
        own = "probe the step's own rows (fresh=0)"
        raise ValueError(f"a one-forward probe needs the exact slope: {own}")
    L_plus = line(h)
    bend = exact_sum(2 * x for x in _minus(L_plus, L_0)) - 2 * h * line.slope
    rounding = line.eps * (2 * (_size(L_plus) + _size(L_0)))
    return _Differences(line.slope, bend / h / h, bend, rounding, rounding)


def _from_both_sides(line: Line, L_0: Sequence[float], h: float, z: float) -> _Differences:
    """Central differences, and `z` standard errors of each over the rows."""
    L_plus, L_minus = line(h), line(-h)
    second = [p + m - 2 * o for p, m, o in zip(L_plus, L_minus, L_0, strict=True)]
    slope, curvature = parabola(exact_sum(L_minus), exact_sum(L_0), exact_sum(L_plus), h)
    # a coarse forward errs row by row, unlike its bound
    measured = line.eps > EPS and len(second) >= ROWS
    eps, z = (EPS, student(z, len(second))) if measured else (line.eps, z)
    rounding = eps * (_size(L_plus) + 2 * _size(L_0) + _size(L_minus))
    bend_noise = max(rounding, z * scatter(second))
    slope_noise = max(rounding, z * scatter(_minus(L_plus, L_minus)) if measured else 0.0)
    return _Differences(slope, curvature, exact_sum(second), bend_noise, slope_noise)


def student(z: float, n: int) -> float:
    """z standard errors, widened for n rows by two terms of Student's t expansion in 1/(n − 1)."""
    m = n - 1
    return z + (z**3 + z) / (4 * m) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * m * m)


def scatter(rows: Sequence[float]) -> float:
    """Standard error of Σ rows, rows taken as a sample; 0 for fewer than two."""
    n = len(rows)
    if n < 2:
        return 0.0
    mean = exact_sum(rows) / n
    return math.sqrt(n * exact_sum((x - mean) ** 2 for x in rows) / (n - 1))


def exact_sum(rows: Iterable[float]) -> float:
    """Σ rows, exactly rounded; NaN where that is no finite number."""
    try:
        return math.fsum(rows)
    except (ValueError, OverflowError):  # ∞ − ∞, or a sum beyond the largest float
        return math.nan


def _size(rows: Sequence[float]) -> float:
    """Σ|rows|, which rounding errors are relative to."""
    return exact_sum(abs(x) for x in rows)


def _minus(u: Sequence[float], v: Sequence[float]) -> list[float]:
    return [x - y for x, y in zip(u, v, strict=True)]
