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
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ngdiff.core import processes as procs
from ngdiff.core import vector
from ngdiff.core.directions import Direction
from ngdiff.core.gradients import MODES, Loss, Swap
from ngdiff.core.info import ForgetLevel, Info, RetainBound, Stop, outcome
from ngdiff.core.point import Point
from ngdiff.core.probe import UpdateLine, evaluating
from ngdiff.core.processes import Processes
from ngdiff.core.stepsize import State, StepSize

__all__ = ["ForgetLevel", "Info", "Loss", "Phase", "RetainBound", "Stop", "UnlearningStep"]

Phase = Loss | Sequence[Loss]  # microbatches: their losses carry their token weights and add up
NONLINEAR = (torch.optim.Adafactor, torch.optim.LBFGS)


class UnlearningStep:
    """The step for any torch model and any torch optimizer.

    model: an `nn.Module`, or a list of parameters. optimizer: None is the bare step θ ← θ − η·d, η from the `stepsize`.
    direction: a rule of `ngdiff.core.directions`. stepsize: a rule of `ngdiff.core.stepsize`; None leaves the optimizer's own
    rates alone. η is the rate of the first parameter group that has one; the others keep their ratio to it.
    memory: how the two gradients are held, "swap" or "recompute" (`ngdiff.core.gradients`). stop: rules that may end the run
    before an update. measure: also log ⟨g_R, Δθ⟩ and ⟨g_F, Δθ⟩ of the step really taken (two more copies of the
    parameters). dtype: what the forward rounds the weights to, if that is coarser than they are (FSDP2's mixed precision).

    Over several processes (`processes`: by default all of them where the model is a DDP or its parameters are sharded by
    FSDP2) a loss is the sum of what the callables return in each, and every process must call with as many microbatches.

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
        memory: str = "swap",
        stop: Sequence[Stop] = (),
        measure: bool = False,
        processes: Processes | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.module = model if isinstance(model, nn.Module) else None
        self.optimizer, self.params = _checked(model, optimizer, stepsize)
        self.processes = processes or procs.of(self.module, self.params)
        self.direction, self.stepsize = direction, stepsize
        self.memory, self.stop, self.measure, self.dtype = _mode(memory, measure, stepsize), tuple(stop), measure, dtype
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        first = next((rate for rate in rates if rate), None)
        self.ratios = [rate / first if first else 1.0 for rate in rates]
        self.state = stepsize.init() if stepsize else State()
        self.count = 0
        self.tolerance = _tolerance(self.params)
        modules = [] if self.module is None else self.module.modules()
        self.compiled = any(getattr(m, "_compiled_call_impl", None) or hasattr(m, "_orig_mod") for m in modules)
        self.held = list(dict.fromkeys(p for group in self.optimizer.param_groups for p in group["params"]))

    def __call__(self, retain_loss: Phase, forget_loss: Phase, probe_loss: Phase | None = None) -> Info:
        """One update. `probe_loss`: the retain phase the step-size rule looks at. By default that is the step's own, on
        which the step is greedy; AutoLR is better given these rows and about three times as many others."""
        retain, forget = _phases(retain_loss), _phases(forget_loss)
        if [id(p) for p in self.params] != [id(p) for p in self.held if p.requires_grad]:
            raise ValueError("parameters were frozen or unfrozen since this step was made: make a new UnlearningStep")
        own, probe = probe_loss is None, retain if probe_loss is None else _phases(probe_loss)
        grads = self.memory(self.params, self._clear, self.processes, once=self.compiled)
        losses, gram = grads.measure(retain, forget)
        floor = [_floor(retain), _floor(forget)]
        info = self._decide(losses, gram, floor, early=grads.early)
        kept_F = [None if g is None else g.clone() for g in grads.g_F] if self.measure else None
        if info.updated and (late := grads.write(info.a, info.b)) is not None:
            info = self._decide(losses, late, floor)
        self.count += 1
        if not info.updated:
            self._clear()
            return info
        due = self.stepsize is not None and self.stepsize.probes(self.state)
        spent = not (self.measure or (due and own))  # nobody asks for ⟨g_R, ·⟩ again: its memory is free
        point = None  # made where it is asked for: it looks through all modules
        if due or self.measure:
            point = getattr(self.optimizer, "point", Point)(self.params, self.optimizer, self.module)
            point.save((grads.g_R or None) if spent else None, self.measure)
        rows, g_R = grads.rows, [] if spent else grads.g_R
        del grads
        if due and point:
            self._probe(point, probe, g_R, rows if own else None)
        else:
            self._advance()
        self._clear()
        return self._report(info, point, g_R, kept_F)

    def _decide(self, losses: Tensor, gram: Tensor, floor: list[float], early: bool = False) -> Info:
        """The step's one read, then the weights; everything that could go wrong is named here. early: the angle is not known
        yet (recompute), and a second look will follow."""
        read = torch.cat([losses.to(gram).flatten(), gram.flatten()]).cpu().double()
        losses, gram = read[:4].reshape(2, 2), read[4:].reshape(2, 2)
        alive = ~(gram.diagonal().sqrt() <= torch.tensor(floor))  # a zero gradient gets coefficient 0
        gram = torch.where(alive & alive[:, None], gram, 0.0)
        a, b = (self.direction.weights(gram, losses[:, 0]) * alive).tolist()
        (R, ce_R), (F, ce_F) = losses.tolist()
        (RR, RF), (_, FF) = gram.tolist()
        finite = all(map(math.isfinite, (R, F, RR, FF))) and not math.isinf(RF)  # NaN: not known (recompute)
        norm_R, norm_F = math.sqrt(RR), math.sqrt(FF)
        info = Info(
            step=self.count, outcome=outcome(finite, RR, RF, FF, a, b, self.tolerance), retain=R, forget=F,
            retain_ce=ce_R, forget_ce=ce_F, norm_R=norm_R, norm_F=norm_F,
            cosine=RF / norm_R / norm_F if norm_R and norm_F else 0.0, a=a, b=b,
        )  # fmt: skip
        if info.outcome == "no_weights":
            late = "the rule needs their angle, which memory='recompute' knows too late: use 'swap'"
            why = (
                late
                if math.isnan(RF) and math.isnan(a + b)
                else "LossNorm divides by the losses and refuses a zero one"
            )
            raise FloatingPointError(f"{self.direction} has no finite weights at R = {R}, F = {F}, ‖g_R‖ = {norm_R}, "
                                     f"‖g_F‖ = {norm_F}; {why}")  # fmt: skip
        for rule in self.stop if info.updated and not early else ():
            if reason := rule(info):
                return dataclasses.replace(info, outcome=reason)
        return info

    def _advance(self) -> None:
        """The ordinary update at the rule's rate."""
        if self.stepsize is not None:
            self.state = self.stepsize.step(self.state, None)
            self._set_rate(self.state.eta)
        self.optimizer.step()

    def _probe(self, point: Point, phase: Sequence[Loss], g_R: vector.Vector, rows: list[Tensor] | None) -> None:
        """The update with a look along it. The optimizer steps once, at a rate s ≥ 1 (a smaller one would lose small updates
        in the rounding of θ): u = (θ_s − θ₀)/s is the update per unit rate, and θ ← θ₀ + η·u.

        rows: the step's own addends, where the probed rows are its own; g_R gives their exact slope."""
        assert self.stepsize is not None
        eta, s = 0.0, max(1.0, self.state.eta)
        try:
            self._set_rate(s)
            point.advance(s)
            line = UpdateLine(point, phase, self.processes, self.dtype)
            if rows is not None:
                line.slope = vector.dot(g_R, point.u).item() if g_R else None
                if self.module is None or not any(m.training for m in self.module.modules()):
                    line.at_zero = line.read(rows)  # known already: the phase ran as a probe would
            with evaluating(self.module):
                self.state = self.stepsize.step(self.state, line)
            eta = self.state.eta
        finally:  # an interrupted probe leaves the weights as they were
            point.settle(eta)
            self._set_rate(self.state.eta)

    def _clear(self) -> None:
        for p in self.held:  # those that are frozen too: the optimizer would move them by an old gradient
            p.grad = None

    def _set_rate(self, eta: float) -> None:
        for group, ratio in zip(self.optimizer.param_groups, self.ratios, strict=True):
            group["lr"] = eta * ratio

    def _report(self, info: Info, point: Point | None, g_R: vector.Vector, g_F: vector.Vector | None) -> Info:
        rates = [float(group["lr"]) for group in self.optimizer.param_groups]
        seen: dict[str, Any] = {"eta": next((rate for rate in rates if rate), 0.0)}
        if self.stepsize is not None:
            s = self.state
            seen |= {"eta": s.eta, "stepsize": s.outcome, "forwards": s.forwards}
            if s.outcome != "held":
                seen |= {"slope": s.slope, "curvature": s.curvature, "proposed": s.proposed}
        if g_F is not None and point:
            taken = point.moved()
            dR, dF = (vector.dot(g, taken).item() for g in (g_R, g_F))
            seen |= {"dR": dR, "dF": dF}
        return dataclasses.replace(info, **seen)

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's, the rule's and the counter's state; the weights are the model's own."""
        state = dataclasses.asdict(self.state)
        return {"optimizer": self.optimizer.state_dict(), "stepsize": state, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.optimizer.load_state_dict(self._cut(state["optimizer"]))
        self.state, self.count = State(**state["stepsize"]), state["count"]

    def _cut(self, state: dict[str, Any]) -> dict[str, Any]:
        """The optimizer's state with whole tensors cut as their sharded parameters are."""
        held = [p for group in self.optimizer.param_groups for p in group["params"]]
        if not any(vector.sharded(p) for p in held):
            return state

        def fit(value: Any, p: Tensor) -> Any:
            same = isinstance(value, Tensor) and value.shape == p.shape and not vector.sharded(value)
            return vector.like(value, p) if same else value

        rows = {i: {key: fit(x, held[i]) for key, x in row.items()} for i, row in state["state"].items()}
        return {**state, "state": rows}


def _checked(
    model: nn.Module | Iterable[Tensor], optimizer: torch.optim.Optimizer | None, stepsize: StepSize | None
) -> tuple[torch.optim.Optimizer, list[Tensor]]:
    """The optimizer and the parameters it moves, tied ones once. Errors: ValueError where the two do not fit."""
    if getattr(optimizer, "scaler", None) is not None:
        raise ValueError(
            "a loss scaler (float16) skips steps and scales gradients unseen: use bfloat16, which needs none"
        )
    if type(optimizer).__name__ == "AcceleratedOptimizer":
        optimizer = optimizer.optimizer  # type: ignore[union-attr]
    every = model.parameters() if isinstance(model, nn.Module) else model
    given = list(dict.fromkeys(p for p in every if p.requires_grad))
    if not given:
        raise ValueError("nothing to unlearn: no parameter of the model requires a gradient")
    if optimizer is None:
        if stepsize is None:
            raise ValueError("without an optimizer a step-size rule must set the rate: pass stepsize=")
        optimizer = torch.optim.SGD(given, lr=1.0)
    probes = stepsize is not None and stepsize.probes(stepsize.init())
    if probes and not isinstance(model, nn.Module) and any(vector.sharded(p) for p in given):
        raise ValueError(
            "a probe must tell FSDP2's modules that θ has moved: pass the model, not a list of its parameters"
        )
    kind = type(getattr(optimizer, "inner", optimizer))  # what a Master steps, or the optimizer itself
    if probes and issubclass(kind, NONLINEAR):
        raise ValueError(f"{kind.__name__}'s step is not linear in its rate, which {stepsize} relies on: use SGD "
                         "or an Adam kind, or a rate known in advance (Constant)")  # fmt: skip
    held = dict.fromkeys(p for group in optimizer.param_groups for p in group["params"] if p.requires_grad)
    if missing := len(set(given) - set(held)):
        raise ValueError(f"the optimizer does not hold {missing} of the model's trainable parameters")
    return optimizer, list(held)


def _mode(memory: str, measure: bool, stepsize: StepSize | None) -> type[Swap]:
    """The class of that name. Errors: ValueError for an unknown one, or where it cannot give what is asked."""
    if memory not in MODES:
        raise ValueError(f"unknown memory mode {memory!r}; choose one of: {', '.join(MODES)}")
    if memory != "swap" and (measure or getattr(stepsize, "forwards", 2) == 1):
        raise ValueError(
            f"memory={memory!r} does not keep g_R, which measure=True and one-forward probes need: use 'swap'"
        )
    return MODES[memory]


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
