"""What one step saw, its named outcome, and the rules that may end a run before an update."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Info:
    """What one step saw, as numbers. Losses are those before the update.

    retain/forget: R and F; retain_ce/forget_ce: the cross-entropy of the same batch where the objective reports it
    (else R and F); norm_R, norm_F, cosine (ρ), a, b: the direction; eta, stepsize: the rate and the rule's outcome; forwards:
    forward passes spent on probing so far.
    outcome: `ok`; `zero_retain`, `zero_forget` (a gradient that is zero or rounding noise got coefficient 0);
    no update was made for `zero_both`, `aligned` (d is nothing but rounding: Pareto-stationary), `nonfinite`, or the
    name of a stop rule. dR, dF: ⟨g_R, Δθ⟩ and ⟨g_F, Δθ⟩ of the actual step, when measured.
    """

    step: int
    outcome: str
    retain: float
    forget: float
    retain_ce: float
    forget_ce: float
    norm_R: float
    norm_F: float
    cosine: float
    a: float
    b: float
    eta: float = math.nan
    stepsize: str = ""
    slope: float = math.nan
    curvature: float = math.nan
    proposed: float = math.nan
    forwards: int = 0
    dR: float = math.nan
    dF: float = math.nan

    @property
    def updated(self) -> bool:
        return self.outcome in ("ok", "zero_retain", "zero_forget")


def outcome(finite: bool, RR: float, RF: float, FF: float, a: float, b: float, tolerance: float) -> str:
    """The name of a step with Gramian [[RR, RF], [RF, FF]] and weights (a, b); see `Info`.

    finite: losses and Gramian are. tolerance: relative rounding error of ‖d‖². `no_weights`: the direction rule has no
    finite weights although everything it was given is finite.
    """
    if not finite:
        return "nonfinite"
    if not (math.isfinite(a) and math.isfinite(b)):
        return "no_weights"
    if RR == FF == 0.0:
        return "zero_both"
    parts = a * a * RR + b * b * FF  # ‖d‖² if the two were orthogonal
    if parts - 2 * a * b * RF <= tolerance * parts:
        return "aligned"
    return "zero_retain" if RR == 0.0 else "zero_forget" if FF == 0.0 else "ok"


Stop = Callable[[Info], str | None]


@dataclass(frozen=True)
class ForgetLevel:
    """Stop before the update once the batch's forget cross-entropy reaches `level` (the hold-out loss, say)."""

    level: float

    def __call__(self, info: Info) -> str | None:
        return "forget_level" if info.forget_ce >= self.level else None


@dataclass(frozen=True)
class RetainBound:
    """Stop before the update once the batch's retain cross-entropy exceeds `bound`."""

    bound: float

    def __call__(self, info: Info) -> str | None:
        return "retain_bound" if info.retain_ce > self.bound else None
