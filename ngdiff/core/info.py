"""What one step saw, its named outcome, and the rules that may end a run before an update."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # step-size rules and the commands that name them stay light
    from torch import Tensor


@dataclass(frozen=True)
class Info:
    """What one step saw, as numbers. Losses are those before the update.

    retain, forget: R and F.
    retain_ce, forget_ce: the cross-entropy of the same batch where the objective reports it, else
    R and F.
    norm_R, norm_F, cosine (ρ), a, b: the gradients and their weights.
    eta, stepsize: the rate and the rule's outcome.
    slope, curvature, proposed: what the rule's probe found, where this step made one.
    forwards: forward passes spent on probing so far.
    dR, dF: ⟨g_R, Δθ⟩ and ⟨g_F, Δθ⟩ of the actual step, when measured.

    outcome: `ok`; `zero_retain`, `zero_forget` (a gradient that is zero or rounding noise got
    coefficient 0). No update was made for `zero_both`, `aligned` (d is nothing but rounding:
    Pareto-stationary), `nonfinite`, or the name of a stop rule.
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
        """Return whether an update was made."""
        return self.outcome in ("ok", "zero_retain", "zero_forget")


def seen(step: int, losses: Tensor, gram: Tensor, weights: Tensor, tolerance: float) -> Info:
    """The `Info` of a step before its update, from numbers on the host.

    losses: (2, 2), (loss, cross-entropy) of R and of F; gram: (2, 2), NaN off the diagonal where
    the angle is not known; weights: (2,) = (a, b); tolerance: as in `outcome`.
    """
    (R, ce_R), (F, ce_F) = losses.tolist()
    (RR, RF), (_, FF) = gram.tolist()
    a, b = weights.tolist()
    finite = all(map(math.isfinite, (R, F, RR, FF))) and not math.isinf(RF)
    norm_R, norm_F = math.sqrt(RR), math.sqrt(FF)
    return Info(
        step=step,
        outcome=outcome(finite, RR, RF, FF, a, b, tolerance),
        retain=R,
        forget=F,
        retain_ce=ce_R,
        forget_ce=ce_F,
        norm_R=norm_R,
        norm_F=norm_F,
        cosine=RF / norm_R / norm_F if norm_R and norm_F else 0.0,
        a=a,
        b=b,
    )


def outcome(
    finite: bool, RR: float, RF: float, FF: float, a: float, b: float, tolerance: float
) -> str:
    """The name of a step with Gramian [[RR, RF], [RF, FF]] and weights (a, b); see `Info`.

    finite: losses and Gramian are. tolerance: relative rounding error of ‖d‖². `no_weights`: the
    direction rule has no finite weights although everything it was given is finite.
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


def no_weights(direction: object, info: Info) -> str:
    """The error message for `no_weights`: what the rule was given, and what to use instead."""
    why = "LossNorm divides by the losses and refuses a zero one"
    losses = f"R = {info.retain}, F = {info.forget}"
    norms = f"‖g_R‖ = {info.norm_R}, ‖g_F‖ = {info.norm_F}"
    return f"{direction} has no finite weights at {losses}, {norms}; {why}"


Stop = Callable[[Info], str | None]


@dataclass(frozen=True)
class ForgetLevel:
    """Stop before the update once the batch's forget cross-entropy reaches `level`, in nats."""

    level: float

    def __call__(self, info: Info) -> str | None:
        return "forget_level" if info.forget_ce >= self.level else None


@dataclass(frozen=True)
class SetLevel:
    """Stop before the update once the cross-entropy of the whole forget set reaches `level`, nats.

    A batch is a sample: at its first passage the set may be above or below. The set is looked at,
    without a gradient, where the batch's own loss is at least `near`·level. `unlearn` binds the
    rule to its problem, which must have `forget_loss()`. Of a large set that may be a sample.
    """

    level: float
    near: float = 0.7

    def bind(self, problem: Any) -> Stop:
        """Return the rule of a run: it sees the problem's forget set."""

        def rule(info: Info) -> str | None:
            if info.forget_ce < self.near * self.level:
                return None
            return "forget_level" if problem.forget_loss() >= self.level else None  # NaN is not

        return rule


@dataclass(frozen=True)
class RetainBound:
    """Stop before the update once the batch's retain cross-entropy exceeds `bound`."""

    bound: float

    def __call__(self, info: Info) -> str | None:
        return "retain_bound" if info.retain_ce > self.bound else None
