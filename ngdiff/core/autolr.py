"""AutoLR: the learning rate that sets itself, from a parabola of the retain loss along the update.

The rule is ours, after GeN (Bu & Xu, ICLR 2025, arXiv 2407.02772). The paper's listing was not
seen. `ThreePoint` is the bare rule that it departs from.

Where the rule comes from. Unlearning wants the least rise of R for a given rise of F. Let s and c
be the slope and the curvature of R along the update, and f the slope of F. Then a step of rate η
costs ΔR = sη + ½cη² and gains ΔF = fη. The cheapest path to ΣΔF = G has the same price (s + cη)/f =
λ at every step:

    η = η* + λf/c,   η* = −s/c.

λ = 0 is GeN's rule, which minimises R. It stalls where unlearning starts. A model that knows its
rows by heart is at a minimum of R. There s is sampling noise, and η* is near 0 or below. A price
λ > 0 lets a step raise R by e, which is ½λ²f²/c where s = 0. AutoLR takes a share of R for e, so
the rate does not depend on the scale of either loss:

    η = max(η*, √(2e/c)) where R falls at first,   sη + ½cη² = e where it rises.

The parabola and its noise are in `ngdiff.core.parabola`, the search for a radius is in
`ngdiff.core.search`. This file is the policy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import partial

from ngdiff.core.info import Info
from ngdiff.core.parabola import Fit, exact_sum, fit
from ngdiff.core.search import LEAST, MOST, REACH, Counted, bounded, look
from ngdiff.core.stepsize import Line, State, StepSize

GROWTH = 100.0  # of a rate over the first that was found: near R = 0 every rate seems harmless
AGREES = ("accepted", "bounded")  # outcomes of a probe that keeps its rate for longer


@dataclass(frozen=True)
class ThreePoint(StepSize):
    """The bare three-point rule: η = −slope/curvature of the parabola on the step's own rows.

    It is probed at ±η every `every` updates and used whatever it is worth: no search, no bounds, no
    checks, negative rates too. Where the formula has no finite value the rate stays (`nonfinite`).
    `AutoLR.bare` says where it comes from.

    Errors: ValueError for a rate that is not positive and finite, and for every < 1.
    """

    lr: float = 1e-3
    every: int = 10

    def __post_init__(self) -> None:
        if not (0 < self.lr < math.inf) or self.every < 1:
            got = f"lr={self.lr} and every={self.every}"
            raise ValueError(f"ThreePoint needs a positive finite lr and every ≥ 1, got {got}")

    def init(self) -> State:
        return State(eta=self.lr)

    def probes(self, state: State) -> bool:
        return state.step % self.every == 0

    def step(self, state: State, line: Line | None, info: Info | None = None) -> State:
        nxt = replace(state, step=state.step + 1, outcome="held")
        if not self.probes(state):
            return nxt
        if line is None:
            raise ValueError("ThreePoint is due to probe, but was given no line to look along")
        counted = Counted(line)
        seen = fit(counted, counted(0.0), state.eta or self.lr)
        finite = math.isfinite(seen.eta)
        return replace(
            nxt,
            eta=seen.eta if finite else state.eta,
            outcome="accepted" if finite else "nonfinite",
            slope=seen.slope,
            curvature=seen.curvature,
            proposed=seen.eta,
            radius=seen.radius,
            forwards=state.forwards + counted.forwards,
        )


@dataclass(frozen=True)
class AutoLR(StepSize):
    """Learning rate from a parabola of the retain loss along the optimizer's actual update u.

    Our rule, after GeN (arXiv 2407.02772); the paper's listing was not seen. `bare` is the rule
    that it departs from. Each departure, with its reason, is in docs/learning_rate.md.

    R(θ + ηu) ≈ R + sη + ½cη² is fitted at η = ±h, h the present rate. The next rate is the
    minimiser η* = −s/c, or the rate at which R has risen by e if that is larger; the module says
    why. On a quadratic under SGD one probe gives both exactly. The rise is e = `slack`·(t + 1)·R at
    update t, R the least retain loss that a probe has seen. So the first steps may cost least, and
    a run that takes long may cost more.

    A parabola is believed from h/√10 to √10·h. The first probe changes h until the rate is within
    that reach. A later probe moves the rate half the way in logarithms, to the geometric mean of
    the old and the new one, since other rows would give another rate. A rate further up is reached
    in steps of √10, one a probe. One further down is searched for at once. The next probe is 1, 2,
    4, … up to `every` updates away: each probe that ends within reach of its radius doubles this
    gap, a step of √10 halves it.

    Between probes the step's own R is watched. When it has risen by more than R itself since the
    last probe, the rate of this update is cut. The next update probes around the rate of before,
    and leaves the gap as it is. (One steep direction of curvature k multiplies R by g = (ηk − 1)² a
    step. The cut to η/(1 + √g) = 1/k ends that growth. A rise may also be that of a few hard rows.)

    Every step logs an outcome. Without a probe it is `held`, or `cut`. After a probe it is
    `accepted` (the rate is within reach), `clipped_up` or `clipped_down` (it is not), or `bounded`
    (it may be at most 100 times the first rate that was found). Where no radius showed anything it
    is `flat` (R does not move; the rate is that of before) or `nonfinite` (the rate falls by 100).

    lr: the rate at which the search starts. Its order of magnitude does not matter.
    slack: the share of R that the first step may cost. Update t may cost t + 1 times as much.
    every: the most updates between two probes.
    fresh: how many rows a probe looks at, as a multiple of the step's. The step has seen none of
    them. 0 takes the step's own rows, and the rates are then too large: the update was made to
    lower R there.

    Errors: ValueError for fields out of range.
    """

    lr: float = 1e-3
    slack: float = 0.001
    every: int = 64
    fresh: int = 3

    def __post_init__(self) -> None:
        if not LEAST <= self.lr <= MOST:
            raise ValueError(f"AutoLR needs {LEAST:g} ≤ lr ≤ {MOST:g}, got {self.lr}")
        if not 0 <= self.slack <= 1:
            raise ValueError(f"AutoLR needs 0 ≤ slack ≤ 1, got slack={self.slack}")
        if self.every < 1 or self.fresh < 0:
            got = f"every={self.every} and fresh={self.fresh}"
            raise ValueError(f"AutoLR needs every ≥ 1 and fresh ≥ 0, got {got}")

    @staticmethod
    def bare(lr: float = ThreePoint.lr, every: int = ThreePoint.every) -> ThreePoint:
        """Return the bare three-point rule, which is no AutoLR: `ThreePoint(lr, every)`.

        It is our reading of the rule that a third-party re-implementation attributes to the paper's
        Algorithm 1: η = −slope/curvature of a parabola through the retain loss at −η, 0 and η,
        every 10 updates, after GeN (arXiv 2407.02772). The paper's own listing was not available to
        us.
        """
        return ThreePoint(lr, every)

    @staticmethod
    def paper(lr: float = ThreePoint.lr, every: int = ThreePoint.every) -> ThreePoint:
        """Return `bare(lr, every)`. The name promises nothing: the paper's rule may be another one.

        It is our reading of the rule that a third-party re-implementation attributes to the paper's
        Algorithm 1, after GeN (arXiv 2407.02772): η = −slope/curvature of a parabola through the
        retain loss at −η, 0 and η, every 10 updates. The paper's own listing was not available to
        us.
        """
        return AutoLR.bare(lr, every)

    def init(self) -> State:
        return State(eta=self.lr)

    def probes(self, state: State) -> bool:
        return state.step >= state.due

    def rise(self, t: int, size: float) -> float:
        """Return what update t may cost: e = slack·(t + 1)·size. size: of R, see `_scale`."""
        return self.slack * (t + 1) * size

    def kept(self, before: float, now: float) -> float:
        """The size of R that a rise is a share of: the least that a probe has seen, but 0."""
        return min(before, now) if now else before

    def rate(self, at: Fit, rise: float) -> float:
        """The rate that a fit wants when a step may cost `rise`."""
        return at.rate(rise)

    def moved(self, old: float, new: float) -> float:
        """The rate between an old one and one within its reach: their geometric mean."""
        return math.sqrt(old * new)

    def wait(self, gap: int, outcome: str) -> int:
        """Updates from a probe to the next one, from the gap before it and its outcome."""
        if outcome in AGREES:
            return min(max(2 * gap, 1), self.every)
        return gap // 2 if outcome == "clipped_up" else 0

    def step(self, state: State, line: Line | None, info: Info | None = None) -> State:
        nxt = replace(state, step=state.step + 1, outcome="held")
        if not self.probes(state):
            return nxt if info is None else _watched(nxt, info.retain)
        if line is None:
            raise ValueError("AutoLR is due to probe, but was given no line to look along")
        counted = Counted(line)
        L_0 = counted(0.0)
        R = exact_sum(L_0)
        now = _scale(exact_sum(abs(x) for x in L_0), info)
        kept = self.kept(state.size, now)
        wants = partial(self.rate, rise=self.rise(state.step, min(kept, now)))
        old = state.chosen or state.eta
        looked = look(counted, L_0, old, wants, searching=not state.found)
        eta, outcome = looked.eta, looked.outcome
        if state.found and eta > GROWTH * state.found:
            eta, outcome = GROWTH * state.found, "bounded"
        if state.found and outcome in AGREES and old / REACH <= eta <= old * REACH:
            eta = self.moved(old, eta)
        gap = self.wait(state.gap, outcome)
        return replace(
            nxt,
            eta=eta,
            chosen=eta,
            outcome=outcome,
            slope=looked.fit.slope,
            curvature=looked.fit.curvature,
            proposed=looked.fit.eta,
            radius=looked.fit.radius,
            found=state.found or (eta if outcome == "accepted" else 0.0),
            due=state.step + max(gap, 1),
            gap=gap,
            R=R if info is None else max(R, info.retain),
            size=kept,
            forwards=state.forwards + counted.forwards,
        )


def _watched(state: State, R: float) -> State:
    """A held state; where R has risen by more than itself, its rate cut and a probe due next.

    `chosen` stays. So the cut is of one update, and the next probe judges it.
    """
    scale = max(abs(state.R), state.size)
    if not state.R + scale < R:
        return state
    growth = (R - state.R + scale) / scale if scale else 1.0  # 0 is no scale: the rate is halved
    eta = bounded(state.eta / (1 + math.sqrt(growth)))
    return replace(state, eta=eta, outcome="cut", due=state.step, gap=state.gap // 2, R=R)


def _scale(size: float, info: Info | None) -> float:
    """Return what a rise is a share of: Σ|R's rows|, or the cross-entropy where R is another
    objective.

    (KL to the start is 0 at the start, and a share of it would be none.) Two sums of the same rows
    differ by rounding and are one objective.
    """
    if info is None or math.isclose(info.retain_ce, info.retain, rel_tol=1e-3):
        return size
    return max(size, info.retain_ce)
