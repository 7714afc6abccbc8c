"""One unlearning step.

The step writes two gradients and combines them, at the cost of the two backward passes it cannot do without:

    phase R   backward of the retain loss, then the gradients are stashed by swapping pointers, not copied
    phase F   backward of the forget objective writes fresh gradients: nothing is accumulated onto the stash
    gram      ‖g_R‖², ⟨g_R, g_F⟩, ‖g_F‖² on the device; (a, b) = direction.weights(gram, losses)
    read      losses, Gramian and weights travel to the host once: bad numbers are named before any weight changes
    d         a·g_R − b·g_F in place, given to the user's torch optimizer
    probe     (when the step-size rule asks) R along the optimizer's actual update; its state advances once

Nothing here knows what a language model is. The object that passes the theorem tests on quadratics is the object that
unlearns the model.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Union

import torch
from torch import Tensor, nn

from ngdiff import vector
from ngdiff.directions import Direction
from ngdiff.stepsize import State, StepSize

Loss = Callable[[], Tensor]  # a scalar, or a 1-D tensor of addends (rows) whose sum is the loss; repeatable
Phase = Union[Loss, Sequence[Loss]]  # microbatches: their losses carry their token weights and add up
# A loss may carry `.ce` (cross-entropy of its last forward, for stops and logs) and `.floor` (the gradient norm that is
# rounding noise for it: KL(start‖θ) has an exactly zero gradient at the start, which float32 renders as noise).


@dataclass(frozen=True)
class Info:
    """What one step saw, as numbers. Losses are those before the update.

    retain/forget: R and F; retain_ce/forget_ce: the cross-entropy of the same batch where the objective reports it
    (else R and F); norm_R, norm_F, cosine (ρ), a, b: the direction; eta, stepsize: the rate and the rule's outcome.
    outcome: `ok`; `zero_retain`, `zero_forget` (a gradient that is zero or rounding noise got coefficient 0);
    no update was made for `zero_both`, `aligned` (d cancels to rounding: Pareto-stationary), `nonfinite`, or the name
    of a stop rule. dR, dF: ⟨g_R, Δθ⟩ and ⟨g_F, Δθ⟩ of the actual step, when measured.
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
    dR: float = math.nan
    dF: float = math.nan

    @property
    def updated(self) -> bool:
        return self.outcome in ("ok", "zero_retain", "zero_forget")


Stop = Callable[[Info], Union[str, None]]


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


class UnlearningStep:
    """The step for any torch model and any torch optimizer.

    model: an `nn.Module`, or a list of parameters. direction: a rule of `ngdiff.directions`. stepsize: a rule of
    `ngdiff.stepsize`; None leaves the optimizer's own rates alone; parameter groups keep the ratios of their rates.
    reduce: sums a tensor over processes that hold shards. stop: rules that may end the run before an update.
    measure: also log ⟨g_R, Δθ⟩ and ⟨g_F, Δθ⟩ of the step really taken (two more copies of the parameters).

    Errors: weights that are not finite although losses and gradients are (LossNorm at a zero loss) raise
    FloatingPointError before anything changes. A non-finite loss or gradient is the outcome `nonfinite`.
    """

    def __init__(
        self,
        model: nn.Module | Iterable[Tensor],
        optimizer: torch.optim.Optimizer,
        direction: Direction,
        stepsize: StepSize | None = None,
        *,
        reduce: vector.Reduce | None = None,
        stop: Sequence[Stop] = (),
        measure: bool = False,
    ) -> None:
        self.module = model if isinstance(model, nn.Module) else None
        self.optimizer, self.direction, self.stepsize = optimizer, direction, stepsize
        self.reduce, self.stop, self.measure = reduce, tuple(stop), measure
        self.params = [p for group in optimizer.param_groups for p in group["params"] if p.requires_grad]
        given = list(model.parameters() if isinstance(model, nn.Module) else model)
        if missing := {id(p) for p in given if p.requires_grad} - {id(p) for p in self.params}:
            raise ValueError(f"the optimizer does not hold {len(missing)} of the model's trainable parameters")
        self.ratios = [g["lr"] / (optimizer.defaults.get("lr") or 1.0) for g in optimizer.param_groups]
        self.state = stepsize.init() if stepsize else State()
        self.count = 0

    def __call__(self, retain_loss: Phase, forget_loss: Phase, probe_loss: Phase | None = None) -> Info:
        """One update. `probe_loss`: the retain phase the step-size rule looks at (default: the step's own)."""
        retain, forget = _phases(retain_loss), _phases(forget_loss)
        R, g_R = self._gradient(retain)  # R: (loss, cross-entropy); the stash g_R is a swap of pointers, no copy
        F, g_F = self._gradient(forget)
        gram = vector.gramian(g_R, g_F, self.reduce)
        floor = gram.new_tensor([_floor(retain), _floor(forget)])
        info = self._decide(torch.stack([R, F]).to(gram), gram, floor)
        self.count += 1
        if not info.updated:
            return info
        kept_F = [None if g is None else g.clone() for g in g_F] if self.measure else None
        for p, g in zip(self.params, vector.combine_(g_R, g_F, info.a, info.b), strict=True):
            p.grad = g
        probing = self.stepsize is not None and self.stepsize.probes(self.state)
        theta_0 = vector.copy(self.params) if probing or self.measure else []
        if probing:
            self._probe(theta_0, g_R if probe_loss is None else None, _phases(probe_loss or retain_loss))
        else:
            self._advance()
        self.optimizer.zero_grad(set_to_none=True)
        return self._report(info, theta_0, g_R, kept_F)

    def _gradient(self, phase: Sequence[Loss]) -> tuple[Tensor, list[Tensor | None]]:
        """(loss, cross-entropy) of the whole phase, shape (2,), and its gradient, accumulated over microbatches."""
        self.optimizer.zero_grad(set_to_none=True)
        seen = []
        for loss in phase:
            value = loss().sum()
            value.backward()
            ce = getattr(loss, "ce", None)
            seen.append(torch.stack([value.detach(), value.detach() if ce is None else ce.to(value)]))
        total = torch.stack(seen).to(vector.wide(seen[0].device)).sum(0)
        grads = [p.grad for p in self.params]
        self.optimizer.zero_grad(set_to_none=True)
        return total if self.reduce is None else self.reduce(total), grads

    def _decide(self, losses: Tensor, gram: Tensor, floor: Tensor) -> Info:
        """Weights on the device, then the step's one read; everything that could go wrong is named here."""
        alive = (gram.diagonal().sqrt() > floor).to(gram)  # a zero gradient gets coefficient 0
        gram = gram * alive * alive[:, None]
        weights = self.direction.weights(gram, losses[:, 0]) * alive
        read = torch.cat([losses.flatten(), gram.flatten()[[0, 1, 3]], weights]).tolist()
        R, ce_R, F, ce_F, RR, RF, FF, a, b = read
        info = Info(
            step=self.count, outcome=_outcome(read, _tolerance(self.params)), retain=R, forget=F,
            retain_ce=ce_R, forget_ce=ce_F, norm_R=math.sqrt(RR), norm_F=math.sqrt(FF),
            cosine=RF / math.sqrt(RR) / math.sqrt(FF) if RR > 0 and FF > 0 else 0.0, a=a, b=b,
        )  # fmt: skip
        if info.outcome == "no_weights":
            raise FloatingPointError(f"{self.direction} has no finite weights at R = {R}, F = {F}, ‖g_R‖ = {info.norm_R}, "
                                     f"‖g_F‖ = {info.norm_F}; LossNorm divides by the losses and refuses a zero one")  # fmt: skip
        for rule in self.stop if info.updated else ():
            if reason := rule(info):
                return dataclasses.replace(info, outcome=reason)
        return info

    def _advance(self) -> None:
        """The ordinary update at the rule's rate."""
        if self.stepsize is not None:
            self.state = self.stepsize.step(self.state, None)
            self._set_rate(self.state.eta)
        self.optimizer.step()

    def _probe(self, theta_0: list[Tensor], g_R: vector.Vector | None, phase: Sequence[Loss]) -> None:
        """The update with a look along it. The optimizer steps once, at rate 1: u = θ₁ − θ₀ is the update per unit rate
        (exact for any optimizer whose step is linear in its rate: SGD, momentum, AdamW, Lion), θ ← θ₀ + η·u."""
        assert self.stepsize is not None
        self._set_rate(1.0)
        self.optimizer.step()
        u = vector.difference(self.params, theta_0)
        line = _Line(self, theta_0, u, phase, g_R)
        eta = 0.0
        try:
            with _evaluating(self.module):
                self.state = self.stepsize.step(self.state, line)
            eta = self.state.eta
        finally:  # an interrupted probe leaves the weights as they were
            vector.assign_(self.params, theta_0, u, eta)
            self._set_rate(self.state.eta)

    def _set_rate(self, eta: float) -> None:
        for group, ratio in zip(self.optimizer.param_groups, self.ratios, strict=True):
            group["lr"] = eta * ratio

    def _report(self, info: Info, theta_0: list[Tensor], g_R: vector.Vector, g_F: vector.Vector | None) -> Info:
        seen: dict[str, Any] = {"eta": self.optimizer.param_groups[0]["lr"] / (self.ratios[0] or 1.0)}
        if self.stepsize is not None:
            s = self.state
            seen |= {"stepsize": s.outcome}
            if s.outcome != "held":
                seen |= {"slope": s.slope, "curvature": s.curvature, "proposed": s.proposed}
        if g_F is not None:
            taken = vector.difference(self.params, theta_0)
            dR, dF = torch.stack([vector.dot(g_R, taken), vector.dot(g_F, taken)]).tolist()
            seen |= {"dR": dR, "dF": dF}
        return dataclasses.replace(info, **seen)

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's, the rule's and the counter's state; the weights are the model's own."""
        state = dataclasses.asdict(self.state)
        return {"optimizer": self.optimizer.state_dict(), "stepsize": state, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.state, self.count = State(**state["stepsize"]), state["count"]


class _Line:
    """The retain loss along the update (see `stepsize.Line`)."""

    def __init__(self, step: UnlearningStep, theta_0: list, u: list, phase: Sequence[Loss], g_R: vector.Vector | None):
        self.step, self.theta_0, self.u, self.phase = step, theta_0, u, phase
        self.slope = None if g_R is None else float(vector.dot(g_R, u))
        self.eps = torch.finfo(step.params[0].dtype).eps

    @torch.no_grad()
    def __call__(self, eta: float) -> list[float]:
        vector.assign_(self.step.params, self.theta_0, self.u, eta)
        rows = torch.cat([loss().double().reshape(-1) for loss in self.phase])  # (rows,)
        return (rows if self.step.reduce is None else self.step.reduce(rows.sum().reshape(1))).tolist()


def _phases(phase: Phase) -> list[Loss]:
    found = [phase] if callable(phase) else list(phase)
    if not found:
        raise ValueError("a phase needs at least one loss callable: the forget or the retain batch is empty")
    return found


def _floor(phase: Sequence[Loss]) -> float:
    """The gradient norm that is rounding noise for these losses (they may say so: `loss.floor`)."""
    return max(float(getattr(loss, "floor", 0.0)) for loss in phase)


def _tolerance(params: Sequence[Tensor]) -> float:
    return 16 * torch.finfo(params[0].dtype).eps


def _outcome(read: list[float], tolerance: float) -> str:
    R, _, F, _, RR, RF, FF, a, b = read
    if not all(math.isfinite(x) for x in (R, F, RR, RF, FF)):
        return "nonfinite"
    if not (math.isfinite(a) and math.isfinite(b)):
        return "no_weights"
    zero_R, zero_F = RR == 0.0, FF == 0.0
    if zero_R or zero_F:
        return "zero_both" if zero_R and zero_F else "zero_retain" if zero_R else "zero_forget"
    parts = a * a * RR + b * b * FF
    return "aligned" if parts - 2 * a * b * RF <= tolerance * parts else "ok"


@contextmanager
def _evaluating(module: nn.Module | None):
    """Every submodule in eval mode, then each back in its own."""
    modes = {} if module is None else {m: m.training for m in module.modules()}
    for m in modes:
        m.training = False
    try:
        yield
    finally:
        for m, mode in modes.items():
            m.training = mode
