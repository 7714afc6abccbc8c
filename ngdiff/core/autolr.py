"""AutoLR: the learning rate that sets itself, from a parabola of the retain loss along the update.

The parabola and its noise are in `ngdiff.core.parabola`; this file is the policy: when to look, how
far, and what to make of what is seen. It follows GeN (Bu & Xu, "Automatic gradient descent with
generalized Newton's method", ICLR 2025, arXiv 2407.02772).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from ngdiff.core.parabola import Fit, exact_sum, fit
from ngdiff.core.stepsize import Line, State, StepSize


@dataclass(frozen=True)
class AutoLR(StepSize):
    """Learning rate from a parabola of the retain loss along the actual update.

    η* = −R′(0)/R″(0), R(η) = R(θ + η·u), u the optimizer's own update per unit rate, every `every`
    steps. On a quadratic under SGD one probe gives the exact minimiser ⟨g_R, d⟩/(d'H_R d) from any
    radius.

    The safe default looks at the step's retain rows and `fresh` times as many new ones. Its own
    rows alone make the step greedy: under SGD it goes downhill on them by construction. The first
    probe searches the order of magnitude, and so do later ones until one is found. Afterwards a
    probe moves the rate by at most a factor `clip`. The rate stays within [min_lr, max_lr].
    `AutoLR.paper()` is the bare formula instead.

    Outcomes, logged every step: `held` (no probe due), `accepted`, `clipped_up`, `clipped_down`,
    `bounded`, and for a fit that does not count `uphill`, `skewed`, `concave`, `noise`,
    `nonfinite`. On concave and noise η grows by `clip`: the loss falls and shows no bend yet. On
    the others it shrinks by `shrink`. Uphill stops shrinking at `floor` times the rate that the
    search found: a shorter step along a rising line still rises, and a rate that decays to nothing
    only stalls the forgetting.

    lr: the starting rate; its order of magnitude does not matter when `search` is on.
    forwards: of a probe, beside R(0): 2, or 1 with the exact slope.
    search: how many radii the search tries at most; 0 for no search.
    radius: probe distance in rate units; None is the current η.
    widen: how often a radius at which the curvature is noise grows tenfold.
    z: standard errors by which the curvature must stand clear of its scatter over rows.
    blur: the part of the way to a probe that rounding of the weights may be (bfloat16). The radius
    grows until it is less, whatever η is.
    bare: the formula alone, as in `paper()`.

    Errors: ValueError for fields out of range.
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
        """The three-point formula on the step's own rows: no search, clip, bounds or checks."""
        return cls(lr=lr, every=10, forwards=2, fresh=0, search=0, bare=True)

    def __post_init__(self) -> None:
        if not (0 < self.min_lr <= self.lr <= self.max_lr < math.inf):
            got = f"{self.min_lr}, {self.lr}, {self.max_lr}"
            raise ValueError(f"AutoLR needs 0 < min_lr ≤ lr ≤ max_lr, got {got}")
        if self.every < 1 or self.forwards not in (1, 2) or self.fresh < 0 or self.clip < 1:
            raise ValueError("AutoLR needs every ≥ 1, forwards in {1, 2}, fresh ≥ 0 and clip ≥ 1")
        if not (0 < self.shrink <= 1 and 0 <= self.floor <= 1):
            raise ValueError("AutoLR needs 0 < shrink ≤ 1 and 0 ≤ floor ≤ 1")
        some_radius = self.radius is None or self.radius > 0
        if self.search < 0 or self.widen < 0 or not self.z >= 0 or not some_radius:
            needs = "search, widen and z ≥ 0 and a radius that is None or positive"
            raise ValueError(f"AutoLR needs {needs}")
        if not self.blur > 0:
            raise ValueError("AutoLR needs blur > 0: rounding is never nothing")
        if self.forwards == 1 and self.fresh:
            known = "the slope on the step's own rows only"
            raise ValueError(f"a one-forward probe knows {known}: set fresh=0")

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

    def _bare(self, line: Line, L_0: Sequence[float], h: float) -> tuple[Fit, float, str]:
        """The fit at radius h and its minimiser, whatever it is worth."""
        found = fit(line, L_0, h or self.lr, self.forwards)
        if not math.isfinite(found.eta):
            return found, h, "nonfinite"
        return found, found.eta, "accepted"

    def _look(self, line: Line, L_0: Sequence[float], h: float, last: float) -> Fit:
        """The fit at radius h, or at the least larger one that the weights can show.

        While its curvature drowns in noise the radius grows, not the rate. last: the radius of the
        last probe.
        """
        h = self._shown(line, h, last)
        for widened in range(self.widen + 1):
            found = fit(line, L_0, h * 10**widened, self.forwards, self.z)
            if found.outcome != "noise":
                break
        return found

    def _judge(self, found: Fit, eta: float, floor: float) -> tuple[float, str]:
        """The next rate and its outcome. eta: the present rate; floor: the least after `uphill`."""
        if found.outcome != "ok":
            factor = self.clip if found.outcome in ("concave", "noise") else self.shrink
            least = min(eta, floor) if found.outcome == "uphill" else 0.0
            return self._bounded(max(eta * factor, least)), found.outcome
        low, high = eta / self.clip, eta * self.clip
        clipped = min(max(found.eta, low), high)
        bounded = self._bounded(clipped)
        if bounded != clipped:
            return bounded, "bounded"
        up, down = found.eta > high, found.eta < low
        return bounded, "clipped_up" if up else "clipped_down" if down else "accepted"

    def _search(self, line: Line, L_0: Sequence[float], eta: float) -> tuple[Fit, float, str]:
        """The first fit, its rate and outcome, looked for at radii apart by factors of ten.

        A fit is found where its minimiser lies within reach of its own probes. Its rate is then
        halved while it does not lower the loss.
        """
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
            return self._nowhere(tried, first, eta)
        best = min(usable, key=lambda r: abs(math.log(tried[r].eta / r)))
        within = min(tried[best].eta, 10**0.5 * best)
        return tried[best], self._lowers(line, L_0, within), "bounded"

    def _nowhere(self, tried: dict[float, Fit], first: float, eta: float) -> tuple[Fit, float, str]:
        """The fit, rate and outcome of a search in which no radius gave a parabola that counts.

        Nothing is known of the scale then (a retain loss at its minimum only rises): η stays if R
        falls at the `first` radius, else it shrinks, and the next probe searches again.
        """
        here = tried[first]
        near = [min(r, eta) for r, f in tried.items() if f.outcome != "nonfinite" and r <= first]
        factor = 1.0 if here.outcome in ("concave", "noise") else self.shrink
        return here, self._bounded(factor * max(near, default=min(tried))), here.outcome

    def _shown(self, line: Line, h: float, last: float = math.nan) -> float:
        """The radius h, or a larger one at which rounding of the weights is at most `blur`.

        It is the least such radius, to √2. The search for it starts at `last`, the last probe's
        radius, which saves most of the climb.
        """
        if line.blur(h) <= self.blur:
            return h
        r = self._bounded(max(h, last if math.isfinite(last) else h))
        while r > h * 2**0.5 and line.blur(r / 2**0.5) <= self.blur:
            r /= 2**0.5
        while line.blur(r) > self.blur and r < self.max_lr:
            r = self._bounded(r * 2**0.5)
        return r

    def _lowers(self, line: Line, L_0: Sequence[float], eta: float) -> float:
        """η, halved until R(η) < R(0), at most eight times: a fit may overshoot."""
        eta = self._bounded(eta)
        for _ in range(8):
            if eta == self.min_lr or exact_sum(line(eta)) < exact_sum(L_0):
                break
            eta = self._bounded(eta / 2)
        return eta

    def _bounded(self, eta: float) -> float:
        return min(max(eta, self.min_lr), self.max_lr)


class _Counted(Line):
    """A line that counts the forward passes it costs; a loss at 0 that is known costs none."""

    def __init__(self, line: Line) -> None:
        self.line, self.forwards = line, 0
        self.slope, self.eps, self.at_zero = line.slope, line.eps, line.at_zero

    def __call__(self, eta: float) -> Sequence[float]:
        if eta == 0.0 and self.at_zero is not None:
            return self.at_zero
        self.forwards += 1
        return self.line(eta)

    def blur(self, eta: float) -> float:
        return self.line.blur(eta)
