"""The search of a probe: the radius at which a parabola of the retain loss is believed.

A parabola through R at −h, 0 and h says little about R far from h. So a probe changes h until the
rate that the parabola asks for is within a factor `REACH` of h. `ngdiff.core.autolr` says what rate
that is, and what it does with the result.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ngdiff.core.parabola import Fit, fit
from ngdiff.core.stepsize import Line

REACH = 10**0.5  # how far beyond its radius, or within it, a parabola is believed
LOOKS = 10  # radii that a probe tries at most
BLUR = 0.5  # the part of the way to a probe that rounding of the weights may be
LEAST, MOST = 1e-12, 1e6  # of rates and radii
Wants = Callable[[Fit], float]  # the rate that a fit wants


@dataclass(frozen=True)
class Looked:
    """The last fit of a probe that showed something, its rate and what became of it."""

    fit: Fit
    eta: float
    outcome: str


def look(line: Line, L_0: Sequence[float], eta: float, wants: Wants, searching: bool) -> Looked:
    """Fit at radii from `eta` on, until the rate that a fit wants is within reach of that fit.

    Bounds that the radius has been found to be above or below are kept. Once a rate has been found
    (not `searching`), a rate further up is not looked for: the next probe comes at once.
    """
    h, above, below, seen = shown(line, eta), 0.0, math.inf, None
    moves = []  # radii at which R moves by more than rounding
    for _ in range(LOOKS):
        at = fit(line, L_0, h)
        rate = wants(at)
        if at.outcome not in ("noise", "nonfinite"):
            seen = at
            moves.append(h)
            if h / REACH <= rate <= h * REACH:
                return Looked(at, bounded(rate), "accepted")
            if rate > h and not searching and below == math.inf:
                return Looked(at, bounded(eta * REACH), "clipped_up")
        up = at.outcome == "noise" or rate > h
        above, below = (h, below) if up else (above, h)
        nxt = h * 10 if at.outcome == "noise" else min(max(rate, h / 100), h * 100)
        if at.outcome == "nonfinite" or not above < nxt < below:
            between = math.sqrt(above * below) if above and below < math.inf else h / 100
            nxt = h * 10 if up and below == math.inf else between
        nxt = shown(line, bounded(nxt))
        if nxt == h or nxt >= below:  # at a bound, or weights can show no smaller radius
            if seen is at and h / 100 <= rate < h:
                return Looked(at, bounded(rate), "accepted")
            break
        h = nxt
    if seen is not None:  # the least step that does anything
        least = bounded(min(moves))
        return Looked(seen, least, "clipped_up" if wants(seen) > least else "clipped_down")
    if above < eta:  # R is not finite at the rate itself
        return Looked(at, bounded(eta / 100), "nonfinite")
    return Looked(at, eta, "flat")


def shown(line: Line, h: float) -> float:
    """The radius h, or the least larger one (to √2) at which rounding of the way is ≤ BLUR."""
    while line.blur(h) > BLUR and h < MOST:
        h = bounded(h * 2**0.5)
    return h


def bounded(eta: float) -> float:
    """The rate or radius within [LEAST, MOST]."""
    return min(max(eta, LEAST), MOST)


class Counted(Line):
    """A line that counts the forward passes it costs; a loss at 0 that is known costs none."""

    def __init__(self, line: Line) -> None:
        self.line, self.forwards = line, 0
        self.eps, self.at_zero = line.eps, line.at_zero

    def __call__(self, eta: float) -> Sequence[float]:
        if eta == 0.0 and self.at_zero is not None:
            return self.at_zero
        self.forwards += 1
        return self.line(eta)

    def blur(self, eta: float) -> float:
        return self.line.blur(eta)
