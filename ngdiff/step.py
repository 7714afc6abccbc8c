"""One unlearning step.

The step writes two gradients and combines them, at the cost of the two backward passes it cannot do without:

    phase R   backward of the retain loss, then the gradients are stashed by swapping pointers, not copied
    phase F   backward of the forget objective writes fresh gradients: nothing is accumulated onto the stash
    gram      ‖g_R‖², ⟨g_R, g_F⟩, ‖g_F‖² on the device
    read      losses and Gramian travel to the host once; (a, b) = direction.weights(gram, losses) of eight numbers is
              worked out there, and bad numbers are named before any weight changes
    d         a·g_R − b·g_F in place, given to the user's torch optimizer
    probe     (when the step-size rule asks) R along the optimizer's actual update; its state advances once

Nothing here knows what a language model is. The object that passes the theorem tests on quadratics is the object that
unlearns the model.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ngdiff import vector
from ngdiff.directions import Direction
from ngdiff.info import ForgetLevel, Info, RetainBound, Stop, outcome
from ngdiff.probe import UpdateLine, evaluating
from ngdiff.stepsize import State, StepSize

__all__ = ["ForgetLevel", "Info", "Loss", "Phase", "RetainBound", "Stop", "UnlearningStep"]

Loss = Callable[[], Tensor]  # a scalar, or a 1-D tensor of addends (rows) whose sum is the loss; repeatable
Phase = Loss | Sequence[Loss]  # microbatches: their losses carry their token weights and add up
NONLINEAR = (torch.optim.Adafactor, torch.optim.LBFGS)
# A loss may carry `.ce` (cross-entropy of its last forward, for stops and logs) and `.floor` (the gradient norm that is
# rounding noise for it: KL(start‖θ) has an exactly zero gradient at the start, which float32 renders as noise).


class UnlearningStep:
    """The step for any torch model and any torch optimizer.

    model: an `nn.Module`, or a list of parameters. optimizer: None is the bare step θ ← θ − η·d, η from the `stepsize`.
    direction: a rule of `ngdiff.directions`. stepsize: a rule of `ngdiff.stepsize`; None leaves the optimizer's own
    rates alone. η is the rate of the first parameter group that has one; the others keep their ratio to it.
    reduce: sums a tensor over processes that hold shards. stop: rules that may end the run before an update.
    measure: also log ⟨g_R, Δθ⟩ and ⟨g_F, Δθ⟩ of the step really taken (two more copies of the parameters).

    A probe looks along u, the optimizer's update per unit rate: exact where the update is linear in the rate (SGD with
    momentum, the Adam kinds, RMSprop, Adagrad, Lion); Adafactor and LBFGS are refused. It runs a module in eval mode;
    with a list of parameters the modes are the caller's. Only parameters that require gradients now are moved.

    Errors: weights that are not finite although losses and gradients are (LossNorm at a zero loss) raise
    FloatingPointError before anything changes. A non-finite loss or gradient is the outcome `nonfinite`.
    """

    def __init__(
        self,
        model: nn.Module | Iterable[Tensor],
        optimizer: torch.optim.Optimizer | None,
        direction: Direction,
        stepsize: StepSize | None = None,
        *,
        reduce: vector.Reduce | None = None,
        stop: Sequence[Stop] = (),
        measure: bool = False,
    ) -> None:
        self.module = model if isinstance(model, nn.Module) else None
        self.optimizer, self.params = _checked(model, optimizer, stepsize)
        self.direction, self.stepsize = direction, stepsize
        self.reduce, self.stop, self.measure = reduce, tuple(stop), measure
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        first = next((rate for rate in rates if rate), None)
        self.ratios = [rate / first if first else 1.0 for rate in rates]
        self.state = stepsize.init() if stepsize else State()
        self.count = 0
        self.held = list(dict.fromkeys(p for group in self.optimizer.param_groups for p in group["params"]))

    def __call__(self, retain_loss: Phase, forget_loss: Phase, probe_loss: Phase | None = None) -> Info:
        """One update. `probe_loss`: the retain phase the step-size rule looks at. By default that is the step's own, on
        which the step is greedy; AutoLR is better given these rows and about three times as many others."""
        retain, forget = _phases(retain_loss), _phases(forget_loss)
        if len(self.params) != sum(p.requires_grad for p in self.held):
            raise ValueError("parameters were frozen or unfrozen since this step was made: make a new UnlearningStep")
        own, probe = probe_loss is None, retain if probe_loss is None else _phases(probe_loss)
        R, g_R, rows = self._gradient(retain)  # R: (loss, cross-entropy); the stash g_R is a swap of pointers
        F, g_F, _ = self._gradient(forget)
        gram = vector.gramian(g_R, g_F, self.reduce)
        info = self._decide(torch.stack([R, F]), gram, [_floor(retain), _floor(forget)])
        self.count += 1
        if not info.updated:
            return info
        due = self.stepsize is not None and self.stepsize.probes(self.state)
        kept_F = [None if g is None else g.clone() for g in g_F] if self.measure else None
        for p, g in zip(self.params, vector.combine_(g_R, g_F, info.a, info.b), strict=True):
            p.grad = g
        spent = not (self.measure or (due and own))  # nobody asks for ⟨g_R, ·⟩ again: its memory is free
        theta_0 = vector.copy(self.params, g_R if spent else None) if due or self.measure else []
        if spent:
            g_R = []
        if due:
            self._probe(theta_0, probe, g_R, rows if own else None)
        else:
            self._advance()
        self._clear()
        return self._report(info, theta_0, g_R, kept_F)

    def _gradient(self, phase: Sequence[Loss]) -> tuple[Tensor, list[Tensor | None], list[Tensor]]:
        """(loss, cross-entropy) of the whole phase, shape (2,); its gradient, accumulated over microbatches; its rows."""
        self._clear()
        seen, rows = [], []
        for loss in phase:
            addends = loss().reshape(-1)
            value = addends.sum()
            value.backward()
            ce = getattr(loss, "ce", None)
            rows.append(addends.detach())
            seen.append(torch.stack([value.detach(), value.detach() if ce is None else ce.to(value)]))
        total = torch.stack(seen).to(vector.wide(seen[0].device)).sum(0)
        grads = [p.grad for p in self.params]
        self._clear()
        if any(g is not None and g.layout != torch.strided for g in grads):
            raise TypeError("a gradient is sparse: build its layer with dense ones (nn.Embedding(..., sparse=False))")
        return total if self.reduce is None else self.reduce(total), grads, rows

    def _decide(self, losses: Tensor, gram: Tensor, floor: list[float]) -> Info:
        """The step's one read, then the weights; everything that could go wrong is named here."""
        read = torch.cat([losses.to(gram).flatten(), gram.flatten()]).cpu().double()
        losses, gram = read[:4].reshape(2, 2), read[4:].reshape(2, 2)
        alive = (gram.diagonal().sqrt() > torch.tensor(floor)).to(gram)  # a zero gradient gets coefficient 0
        gram = gram * alive * alive[:, None]
        a, b = (self.direction.weights(gram, losses[:, 0]) * alive).tolist()
        (R, ce_R), (F, ce_F) = losses.tolist()
        (RR, RF), (_, FF) = gram.tolist()
        finite = all(map(math.isfinite, (R, F, RR, RF, FF)))
        norm_R, norm_F = math.sqrt(RR), math.sqrt(FF)
        info = Info(
            step=self.count, outcome=outcome(finite, RR, RF, FF, a, b, _tolerance(self.params)), retain=R, forget=F,
            retain_ce=ce_R, forget_ce=ce_F, norm_R=norm_R, norm_F=norm_F,
            cosine=RF / norm_R / norm_F if norm_R and norm_F else 0.0, a=a, b=b,
        )  # fmt: skip
        if info.outcome == "no_weights":
            raise FloatingPointError(f"{self.direction} has no finite weights at R = {R}, F = {F}, ‖g_R‖ = {norm_R}, "
                                     f"‖g_F‖ = {norm_F}; LossNorm divides by the losses and refuses a zero one")  # fmt: skip
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

    def _probe(
        self, theta_0: list[Tensor], phase: Sequence[Loss], g_R: vector.Vector, rows: list[Tensor] | None
    ) -> None:
        """The update with a look along it. The optimizer steps once, at a rate s ≥ 1 (a smaller one would lose small updates
        in the rounding of θ): u = (θ_s − θ₀)/s is the update per unit rate, and θ ← θ₀ + η·u.

        rows: the step's own addends, where the probed rows are its own; g_R gives their exact slope."""
        assert self.stepsize is not None
        u, eta, s = None, 0.0, max(1.0, self.state.eta)
        try:
            self._set_rate(s)
            self.optimizer.step()
            u = vector.difference(self.params, theta_0, [p.grad for p in self.params])  # d is spent
            if s != 1.0:
                torch._foreach_mul_(u, 1.0 / s)
            line = UpdateLine(self.params, theta_0, u, phase, self.reduce)
            if rows is not None:
                line.slope = vector.dot(g_R, u, self.reduce).item()
                if self.module is None or not any(m.training for m in self.module.modules()):
                    line.at_zero = line.read(rows)  # known already: the phase ran as a probe would
            with evaluating(self.module):
                self.state = self.stepsize.step(self.state, line)
            eta = self.state.eta
        finally:  # an interrupted probe leaves the weights as they were
            vector.assign_(self.params, theta_0, u, eta)
            self._set_rate(self.state.eta)

    def _clear(self) -> None:
        for p in self.held:  # those that are frozen too: the optimizer would move them by an old gradient
            p.grad = None

    def _set_rate(self, eta: float) -> None:
        for group, ratio in zip(self.optimizer.param_groups, self.ratios, strict=True):
            group["lr"] = eta * ratio

    def _report(self, info: Info, theta_0: list[Tensor], g_R: vector.Vector, g_F: vector.Vector | None) -> Info:
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        seen: dict[str, Any] = {"eta": next((rate for rate in rates if rate), 0.0)}
        if self.stepsize is not None:
            s = self.state
            seen |= {"eta": s.eta, "stepsize": s.outcome, "forwards": s.forwards}
            if s.outcome != "held":
                seen |= {"slope": s.slope, "curvature": s.curvature, "proposed": s.proposed}
        if g_F is not None:
            taken = vector.difference(self.params, theta_0)
            dR, dF = (vector.dot(g, taken, self.reduce).item() for g in (g_R, g_F))
            seen |= {"dR": dR, "dF": dF}
        return dataclasses.replace(info, **seen)

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's, the rule's and the counter's state; the weights are the model's own."""
        state = dataclasses.asdict(self.state)
        return {"optimizer": self.optimizer.state_dict(), "stepsize": state, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(state["optimizer"])
        self.state, self.count = State(**state["stepsize"]), state["count"]


def _checked(
    model: nn.Module | Iterable[Tensor], optimizer: torch.optim.Optimizer | None, stepsize: StepSize | None
) -> tuple[torch.optim.Optimizer, list[Tensor]]:
    """The optimizer and the parameters it moves, tied ones once. Errors: ValueError where the two do not fit."""
    if getattr(model, "gradient_as_bucket_view", False):
        raise ValueError("the stash would alias the buckets: wrap the model with gradient_as_bucket_view=False")
    every = model.parameters() if isinstance(model, nn.Module) else model
    given = list(dict.fromkeys(p for p in every if p.requires_grad))
    if not given:
        raise ValueError("nothing to unlearn: no parameter of the model requires a gradient")
    if optimizer is None:
        if stepsize is None:
            raise ValueError("without an optimizer a step-size rule must set the rate: pass stepsize=")
        optimizer = torch.optim.SGD(given, lr=1.0)
    if stepsize is not None and stepsize.probes(stepsize.init()) and isinstance(optimizer, NONLINEAR):
        raise ValueError(f"{type(optimizer).__name__}'s step is not linear in its rate, which {stepsize} relies on: use SGD "
                         "or an Adam kind, or a rate known in advance (Constant)")  # fmt: skip
    held = dict.fromkeys(p for group in optimizer.param_groups for p in group["params"] if p.requires_grad)
    if missing := len(set(given) - set(held)):
        raise ValueError(f"the optimizer does not hold {missing} of the model's trainable parameters")
    return optimizer, list(held)


def _phases(phase: Phase) -> list[Loss]:
    found = [phase] if callable(phase) else list(phase)
    if not found:
        raise ValueError("a phase needs at least one loss callable: the forget or the retain batch is empty")
    return found


def _floor(phase: Sequence[Loss]) -> float:
    """The gradient norm that is rounding noise for these losses (they may say so: `loss.floor`)."""
    return max(float(getattr(loss, "floor", 0.0)) for loss in phase)


def _tolerance(params: Sequence[Tensor]) -> float:
    """Rounding of ‖d‖²: that of the sums, which are float32 at least, or that of d itself, squared."""
    eps = vector.precision(params)
    return max(16 * min(eps, torch.finfo(torch.float32).eps), eps**2)
