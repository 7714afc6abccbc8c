"""AutoLR: the learning rate that sets itself, from a parabola of the retain loss along the update.

AutoLR follows GeN (Bu & Xu, "Automatic gradient descent with generalized Newton's method", ICLR 2025, arXiv
2407.02772): the best rate on the local parabola is η* = ⟨g_R, d⟩/(d'H_R d), and two extra forward passes give it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from ngdiff.core.stepsize import EPS, Line, State

ROWS = 8  # from which on their scatter measures the noise of a coarse forward


def parabola(L_minus: float, L_0: float, L_plus: float, h: float) -> tuple[float, float]:
    """Slope and curvature at 0 of the parabola through (−h, L_minus), (0, L_0), (h, L_plus)."""
    return (L_plus - L_minus) / (2 * h), (L_plus - 2 * L_0 + L_minus) / h / h


@dataclass(frozen=True)
class Fit:
    """A parabola along the update, judged. `eta` = −slope/curvature is its minimiser; `outcome` says if it counts:

    `ok` | `uphill` (the update raises R at once) | `concave` (no minimum) | `noise` (the curvature does not stand clear
    of rounding and of the scatter between rows) | `skewed` (two forwards on the step's own rows: their central slope
    is off the exact one by more than half of it, so no parabola fits at this radius) | `nonfinite`.
    """

    slope: float
    curvature: float
    outcome: str
    radius: float = math.nan

    @property
    def eta(self) -> float:
        return -self.slope / self.curvature if self.curvature else math.nan


def fit(line: Line, L_0: Sequence[float], h: float, forwards: int = 2, z: float = 0.0) -> Fit:
    """The parabola along `line` from probes at ±h (two forwards), or at +h with the exact slope (one).

    The curvature is accepted when the second difference Σᵢ(Lᵢ(h) − 2Lᵢ(0) + Lᵢ(−h)) exceeds what rounding could make
    of a straight line and, with two forwards, `z` standard errors of its scatter over the rows (with one the scatter would
    hold the rows' slopes). Where the forward is coarser than float32 and there are enough rows, what rounding makes of
    them is not bounded but measured: it is in the scatter. Errors: one forward needs `line.slope`.
    """
    plus = line(h)
    if forwards == 1:
        if line.slope is None:
            raise ValueError("a one-forward probe needs the exact slope: probe the step's own rows (fresh=0)")
        slope = line.slope
        second = [2 * p for p in _minus(plus, L_0)]
        total = _sum(second) - 2 * h * slope
        size = 2 * (_size(plus) + _size(L_0))
        curvature = total / h / h
    else:
        minus = line(-h)
        second = [p + m - 2 * o for p, m, o in zip(plus, minus, L_0, strict=True)]
        slope, curvature = parabola(_sum(minus), _sum(L_0), _sum(plus), h)
        total = _sum(second)
        size = _size(plus) + 2 * _size(L_0) + _size(minus)
    if not (math.isfinite(slope) and math.isfinite(curvature)):
        return Fit(slope, curvature, "nonfinite", h)
    measured = (
        forwards == 2 and line.eps > EPS and len(second) >= ROWS
    )  # a coarse forward errs by row, unlike its bound
    eps, z = (EPS, _student(z, len(second))) if measured else (line.eps, z)
    noise = max(eps * size, z * _scatter(second) if forwards == 2 else 0.0)
    if abs(total) <= noise:
        rises = 2 * abs(h) * slope > max(eps * size, z * _scatter(_minus(plus, minus)) if measured else 0.0)
        return Fit(slope, curvature, "uphill" if rises else "noise", h)
    if slope >= 0:
        return Fit(slope, curvature, "uphill", h)
    if curvature > 0 and line.slope is not None and abs(slope - line.slope) > 0.5 * abs(line.slope):
        return Fit(slope, curvature, "skewed", h)
    return Fit(slope, curvature, "ok" if curvature > 0 else "concave", h)


@dataclass(frozen=True)
class AutoLR:
    """Learning rate from a parabola of the retain loss along the actual update, every `every` steps.

    η* = −R′(0)/R″(0), R(η) = R(θ + η·u), u the optimizer's own update per unit rate. On a quadratic under SGD one
    probe gives the exact minimiser ⟨g_R, d⟩/(d'H_R d) from any radius. The safe default looks at the step's retain
    rows plus `fresh` times as many new ones (its own rows alone make the step greedy: under SGD it goes downhill on them
    by construction), searches the order of magnitude at the first probe, or until one is found, moves by at most a factor
    `clip` afterwards, and keeps within [min_lr, max_lr]. `AutoLR.paper()` is the bare formula instead.

    Outcomes, logged every step: `held` (no probe due), `accepted`, `clipped_up`, `clipped_down`, `bounded`, and for a
    fit that does not count `uphill`, `skewed`, `concave`, `noise`, `nonfinite`: η then grows by `clip` on concave and
    noise (the loss falls and shows no bend yet) and shrinks by `shrink` on the others, always within the bounds. Uphill
    stops shrinking at `floor` times the rate the search found: a shorter step along a rising line still rises, and a
    rate that decays to nothing only stalls the forgetting.

    lr: the starting rate (its order of magnitude does not matter when `search` is on); radius: probe distance in rate
    units (None: the current η); widen: how often a radius at which the curvature is noise grows tenfold; z: standard
    errors by which the curvature must stand clear of its scatter over rows; blur: the part of the way to a probe that
    rounding of the weights may be (bfloat16): the radius grows until it is less, whatever η is.
    """

    lr: float = 1e-3
    every: int = 10
    forwards: int = 2
    fresh: int = 3
    clip: float = 2.0
    shrink: float = 0.5
    floor: float = 0.5
    search: int = 8
    radius: float | None = None
    min_lr: float = 1e-8
    max_lr: float = 1e2
    widen: int = 2
    z: float = 3.0
    blur: float = 1.0
    bare: bool = False

    @classmethod
    def paper(cls, lr: float = 1e-3) -> AutoLR:
        """The three-point formula every 10 steps on the step's own rows: no search, clip, bound or sign check."""
        return cls(lr=lr, every=10, forwards=2, fresh=0, search=0, bare=True)

    def __post_init__(self) -> None:
        if not (0 < self.min_lr <= self.lr <= self.max_lr < math.inf):
            raise ValueError(f"AutoLR needs 0 < min_lr ≤ lr ≤ max_lr, got {self.min_lr}, {self.lr}, {self.max_lr}")
        if self.every < 1 or self.forwards not in (1, 2) or self.fresh < 0 or self.clip < 1:
            raise ValueError("AutoLR needs every ≥ 1, forwards in {1, 2}, fresh ≥ 0 and clip ≥ 1")
        if not (0 < self.shrink <= 1 and 0 <= self.floor <= 1):
            raise ValueError("AutoLR needs 0 < shrink ≤ 1 and 0 ≤ floor ≤ 1")
        if self.search < 0 or self.widen < 0 or not self.z >= 0 or (self.radius is not None and not self.radius > 0):
            raise ValueError("AutoLR needs search, widen and z ≥ 0 and a radius that is None or positive")
        if not self.blur > 0:
            raise ValueError("AutoLR needs blur > 0: rounding is never nothing")
        if self.forwards == 1 and self.fresh:
            raise ValueError("a one-forward probe knows the slope on the step's own rows only: set fresh=0")

    def init(self) -> State:
        return State(eta=self.lr)

    def probes(self, state: State) -> bool:
        return state.step % self.every == 0

    def step(self, state: State, line: Line | None) -> State:
        nxt = replace(state, step=state.step + 1, outcome="held")
        if not self.probes(state):
            return nxt
        if line is None:
            raise ValueError("AutoLR is due to probe, but was given no line to look along")
        counted = _Counted(line)
        L_0 = counted(0.0)
        if self.bare:
            found, eta, outcome = self._bare(counted, L_0, state.eta)
        elif self.search and not state.found:
            found, eta, outcome = self._search(counted, L_0, state.eta)
            nxt = replace(nxt, found=eta if found.outcome == "ok" else 0.0)
        else:
            found = self._look(counted, L_0, self.radius or state.eta, state.radius)
            eta, outcome = self._judge(found, state.eta, self.floor * state.found)
        return replace(
            nxt,
            eta=eta,
            outcome=outcome,
            slope=found.slope,
            curvature=found.curvature,
            proposed=found.eta,
            radius=found.radius,
            forwards=state.forwards + counted.forwards,
        )

    def _look(self, line: Line, L_0: Sequence[float], h: float, last: float = math.nan) -> Fit:
        """The fit at radius h, or from where weights can show it; while its curvature drowns in noise the radius grows, not
        the rate."""
        h = self._shown(line, h, last)
        for widened in range(self.widen + 1):
            found = fit(line, L_0, h * 10**widened, self.forwards, self.z)
            if found.outcome != "noise":
                break
        return found

    def _bare(self, line: Line, L_0: Sequence[float], h: float) -> tuple[Fit, float, str]:
        found = fit(line, L_0, h or self.lr, self.forwards)
        if not math.isfinite(found.eta):
            return found, h, "nonfinite"
        return found, found.eta, "accepted"

    def _judge(self, found: Fit, eta: float, floor: float) -> tuple[float, str]:
        if found.outcome != "ok":
            factor = self.clip if found.outcome in ("concave", "noise") else self.shrink
            least = min(eta, floor) if found.outcome == "uphill" else 0.0
            return self._bounded(max(eta * factor, least)), found.outcome
        low, high = eta / self.clip, eta * self.clip
        clipped = min(max(found.eta, low), high)
        bounded = self._bounded(clipped)
        if bounded != clipped:
            return bounded, "bounded"
        return bounded, "clipped_up" if found.eta > high else "clipped_down" if found.eta < low else "accepted"

    def _search(self, line: Line, L_0: Sequence[float], eta: float) -> tuple[Fit, float, str]:
        """Move the radius by factors of ten until the parabola's minimiser lies within reach of its own probes; a rate
        found so is looked at once more, and halved while it does not lower the loss. Where no radius gives a parabola
        (a retain loss at its minimum only rises) nothing is known of the scale: η stays if R falls there, else shrinks, and
        the next probe searches again."""
        h = first = self._shown(line, eta)
        tried: dict[float, Fit] = {}
        for _ in range(self.search):
            if tried and self._shown(line, h) != h:  # no smaller radius can be told from rounding
                break
            found = tried[h] = fit(line, L_0, h, self.forwards, self.z)
            reach = found.eta / h if found.outcome == "ok" else math.nan
            if 10**-0.5 <= reach <= 10**0.5:
                return found, self._lowers(line, L_0, found.eta), "accepted"
            up = found.outcome in ("noise", "concave") or reach > 1
            h = self._bounded(h * 10 if up else h / 10)
            if any(math.isclose(h, seen) for seen in tried):  # between two radii, or at a bound
                break
        usable = [r for r, f in tried.items() if f.outcome == "ok"]
        if not usable:
            here = tried[first]
            finite = [min(r, eta) for r, f in tried.items() if f.outcome != "nonfinite" and r <= first]
            factor = 1.0 if here.outcome in ("concave", "noise") else self.shrink
            return here, self._bounded(factor * max(finite, default=min(tried))), here.outcome
        best = min(usable, key=lambda r: abs(math.log(tried[r].eta / r)))
        return tried[best], self._lowers(line, L_0, min(tried[best].eta, 10**0.5 * best)), "bounded"

    def _shown(self, line: Line, h: float, last: float = math.nan) -> float:
        """The radius h, or a larger one at which rounding of the weights is at most `blur` of the way, the smallest to √2;
        looked for from the last probe's radius on, which saves most of the climb."""
        blur = getattr(line, "blur", _sharp)
        if blur(h) <= self.blur:
            return h
        r = self._bounded(max(h, last if math.isfinite(last) else h))
        while r > h * 2**0.5 and blur(r / 2**0.5) <= self.blur:
            r /= 2**0.5
        while blur(r) > self.blur and r < self.max_lr:
            r = self._bounded(r * 2**0.5)
        return r

    def _lowers(self, line: Line, L_0: Sequence[float], eta: float) -> float:
        """η, halved (eight times at most) until R(η) < R(0): where the loss is no parabola, the fit may overshoot."""
        eta = self._bounded(eta)
        for _ in range(8):
            if eta == self.min_lr or _sum(line(eta)) < _sum(L_0):
                break
            eta = self._bounded(eta / 2)
        return eta

    def _bounded(self, eta: float) -> float:
        return min(max(eta, self.min_lr), self.max_lr)


class _Counted:
    """A line that counts the forward passes it costs; a line that knows its loss at 0 gives it for nothing."""

    def __init__(self, line: Line) -> None:
        self.line, self.slope, self.eps, self.forwards = line, line.slope, line.eps, 0
        self.at_zero: Sequence[float] | None = getattr(line, "at_zero", None)
        self.blur: Callable[[float], float] = getattr(line, "blur", _sharp)

    def __call__(self, eta: float) -> Sequence[float]:
        if eta == 0.0 and self.at_zero is not None:
            return self.at_zero
        self.forwards += 1
        return self.line(eta)


def _sharp(eta: float) -> float:
    """A line of exact weights."""
    return 0.0


def _student(z: float, n: int) -> float:
    """z standard errors, widened as Student's t asks for n rows (first two terms of its expansion in 1/(n − 1))."""
    m = n - 1
    return z + (z**3 + z) / (4 * m) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * m * m)


def _minus(u: Sequence[float], v: Sequence[float]) -> list[float]:
    return [x - y for x, y in zip(u, v, strict=True)]


def _sum(rows: Iterable[float]) -> float:
    """Σ rows, exactly rounded; NaN where that is no finite number."""
    try:
        return math.fsum(rows)
    except (ValueError, OverflowError):  # ∞ − ∞, or a sum beyond the largest float
        return math.nan


def _size(rows: Sequence[float]) -> float:
    return _sum(abs(x) for x in rows)


def _scatter(rows: Sequence[float]) -> float:
    """Standard error of Σ rows, rows taken as a sample."""
    n = len(rows)
    if n < 2:
        return 0.0
    mean = _sum(rows) / n
    return math.sqrt(n * _sum((x - mean) ** 2 for x in rows) / (n - 1))
