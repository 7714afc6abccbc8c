"""A parabola through values of a loss along the update, and the noise it must stand clear of.

R(θ + ηu) ≈ R + slope·η + ½·curvature·η². Two things are read off it. One is the minimiser η* =
−slope/curvature, which is ⟨g_R, d⟩/(d'H_R d) for the update −d. The other is the rate at which R
has risen by a given amount. The idea is GeN's: Bu & Xu, "Automatic gradient descent with
generalized Newton's method", ICLR 2025, arXiv 2407.02772. Which of them is used, and when,
`ngdiff.core.autolr` decides.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from ngdiff.core.stepsize import EPS, Line

ROWS = 8  # from which on their scatter measures the noise of a coarse forward
Z = 3.0  # standard errors that a bend must stand clear of that scatter
# A cross-entropy is the difference of two numbers larger than itself: near 0 its rounding error is
# up to 2.7 times the bound relative to its own size (measured at R = 0.01).
CANCELLED = 4.0


def parabola(L_minus: float, L_0: float, L_plus: float, h: float) -> tuple[float, float]:
    """Slope and curvature at 0 of the parabola through (−h, L_minus), (0, L_0), (h, L_plus)."""
    return (L_plus - L_minus) / (2 * h), (L_plus - 2 * L_0 + L_minus) / h / h


@dataclass(frozen=True)
class Fit:
    """A parabola along the update, judged.

    radius: the h of its probes. outcome: what it shows:

    `ok`         a fall, then a minimum `eta`
    `uphill`     a rise from the start
    `concave`    a fall without a minimum
    `noise`      no bend that stands clear of rounding, and no rise
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

    def rate(self, rise: float) -> float:
        """The largest of the minimiser and of the rate that costs at most `rise`.

        Where the loss falls at first, a cost is measured from a level line, √(2·rise/curvature), so
        that the rate never passes a minimiser that is further away. Where the loss rises at once
        it is the positive root of slope·η + ½·curvature·η² = rise. ∞ where the loss only falls;
        NaN where the fit shows nothing.
        """
        s, c = self.slope, self.curvature
        if self.outcome in ("noise", "nonfinite"):
            return math.nan
        if self.outcome == "concave":
            return math.inf
        if s < 0:
            return max(-s / c, math.sqrt(2 * rise / c))
        root = math.sqrt(max(s * s + 2 * c * rise, 0.0))
        return 2 * rise / (s + root) if s + root > 0 else 0.0


def fit(line: Line, L_0: Sequence[float], h: float, z: float = Z) -> Fit:
    """Fit a parabola along `line` from probes at ±h; L_0: the rows of the loss at 0.

    The curvature counts when the second difference Σᵢ(Lᵢ(h) − 2Lᵢ(0) + Lᵢ(−h)) exceeds the noise:
    what rounding could make of a straight line. Where the forward is coarser than float32 and there
    are `ROWS` rows, rounding is not bounded but measured: it is `z` standard errors of the scatter
    over rows. A rise without a bend is `uphill`, with curvature 0.
    """
    L_plus, L_minus = line(h), line(-h)
    second = [p + m - 2 * o for p, m, o in zip(L_plus, L_minus, L_0, strict=True)]
    slope, curvature = parabola(exact_sum(L_minus), exact_sum(L_0), exact_sum(L_plus), h)
    if not (math.isfinite(slope) and math.isfinite(curvature)):
        return Fit(slope, curvature, "nonfinite", h)
    sizes = _size(L_plus) + 2 * _size(L_0) + _size(L_minus)
    bend_noise = slope_noise = CANCELLED * line.eps * sizes
    if line.eps > EPS and len(second) >= ROWS:  # a coarse forward errs row by row
        bound, z = CANCELLED * EPS * sizes, student(z, len(second))
        bend_noise = max(bound, z * scatter(second))
        slope_noise = max(bound, z * scatter(_minus(L_plus, L_minus)))
    if abs(exact_sum(second)) <= bend_noise:
        if 2 * abs(h) * slope > slope_noise:
            return Fit(slope, 0.0, "uphill", h)
        return Fit(slope, curvature, "noise", h)
    if curvature < 0 and slope <= 0:
        return Fit(slope, curvature, "concave", h)
    return Fit(slope, curvature, "uphill" if slope >= 0 else "ok", h)


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
