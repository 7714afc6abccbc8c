"""One unlearning step.

The step writes two gradients and combines them, at the cost of two backward passes:

    phase R   backward of the retain loss; its gradients are stashed by a swap of pointers
    phase F   backward of the forget objective writes fresh gradients, not onto the stash
    gram      ‖g_R‖², ⟨g_R, g_F⟩, ‖g_F‖² on the device
    read      losses and Gramian travel to the host once, eight numbers; (a, b) =
              direction.weights(gram, losses), and bad numbers are named before any weight changes
    d         a·g_R − b·g_F in place, given to the user's torch optimizer
    probe     (when the step-size rule is due) R along the optimizer's actual update

Nothing here knows what a language model is. The object that passes the theorem tests on quadratics
is the object that unlearns the model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ngdiff.core import gradients, precision, sharding, vector
from ngdiff.core import processes as procs
from ngdiff.core.advice import Advice
from ngdiff.core.directions import Direction
from ngdiff.core.gradients import Swap
from ngdiff.core.info import Info, Stop, no_weights, seen
from ngdiff.core.losses import Loss, Phase, losses_of, noise_floor
from ngdiff.core.optimizers import Rates, accepted, parameters
from ngdiff.core.point import Point, Wrapping, point_of
from ngdiff.core.probe import UpdateLine, evaluating
from ngdiff.core.processes import Processes
from ngdiff.core.stepsize import State, StepSize


class UnlearningStep:
    """The step for any torch model and any torch optimizer.

    model: an `nn.Module`, or a list of parameters. Only those that require gradients now are moved.
    optimizer: None is the bare step θ ← θ − η·d, η from the `stepsize`.
    direction: a rule of `ngdiff.core.directions`.
    stepsize: a rule of `ngdiff.core.stepsize`; None leaves the optimizer's own rates alone. η is
    the rate of the first parameter group that has one; the others keep their ratio to it.
    memory: how the two gradients are held, "swap" or "recompute" (`ngdiff.core.gradients`).
    stop: rules that may end the run before an update.
    measure: also log ⟨g_R, Δθ⟩ and ⟨g_F, Δθ⟩ of the actual step (two more copies of θ).
    processes: those that share every batch. By default these are all processes where the model is a
    DDP, or its parameters are sharded by FSDP2. A loss is then the mean of what the callables
    return in each; `Processes(mean=False)` makes it the sum. Every process must call with as many
    microbatches. Where several processes run and nothing says whether they share, it is an error.
    dtype: what the forward rounds the weights to, if that is coarser than they are (FSDP2's mixed
    precision). Autocast is noticed without it.

    A probe looks along u, the optimizer's update per unit rate. An optimizer for which u depends on
    the rate is refused (`ngdiff.core.rehearsal`). A module is probed in eval mode. With a list of
    parameters the modes are the caller's, and a probe draws the step's own random numbers.

    Retain losses are descended, forget losses are **ascended**. Weights must be float32 or finer,
    or bfloat16 in a `Master`: bfloat16 without one is warned of, float16 is refused.

    Errors: weights that are not finite although losses and gradients are (LossNorm at a zero loss)
    raise FloatingPointError before anything changes. A non-finite loss or gradient is the outcome
    `nonfinite`.
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
        self.optimizer, self.params = accepted(model, optimizer, stepsize)
        self.processes = processes or procs.of(self.module, self.params)
        self.direction, self.stepsize = direction, stepsize
        self.memory, self.once = (gradients.mode(memory, measure), gradients.once(self.module))
        self.stop, self.measure, self.dtype = tuple(stop), measure, dtype
        self.rates, self.advice = Rates(self.optimizer), Advice()
        self.tolerance = vector.square_precision(self.params)
        self.state, self.count, self.fresh = stepsize.init() if stepsize else State(), 0, True
        precision.check(self.params, exact=isinstance(self.optimizer, Wrapping))

    def __call__(
        self, retain_loss: Phase, forget_loss: Phase, probe_loss: Phase | None = None
    ) -> Info:
        """Make one update and return what it saw.

        retain_loss: is descended. forget_loss: is **ascended**. Give it the cross-entropy of the
        forget rows, or minus the loss that NPO, SimNPO or DPO minimise.
        probe_loss: the retain phase that the step-size rule looks at. By default these are the
        step's own rows, where its rates are too large. Give AutoLR about three times as many rows
        (`fresh`), none of which the step has seen.
        """
        retain, forget = losses_of(retain_loss), losses_of(forget_loss)
        probe = retain if probe_loss is None else losses_of(probe_loss)
        if [id(p) for p in self.params] != [id(p) for p in self._held() if p.requires_grad]:
            changed = "parameters were added, frozen or unfrozen since this step was made"
            raise ValueError(f"{changed}: make a new UnlearningStep")
        try:
            info = self._step(retain, forget, probe, own=probe_loss is None)
        finally:  # of an interrupted step too
            self._clear()
        self.advice.see(info)
        return info

    def _step(self, retain: list[Loss], forget: list[Loss], probe: list[Loss], own: bool) -> Info:
        """Make one update. own: the probe looks at the step's own retain rows."""
        due = self.stepsize is not None and self.stepsize.probes(self.state)
        look, self.fresh = due or self.fresh, False
        grads = self.memory(self.params, self._clear, self.processes, self.once, look)
        losses, gram = grads.measure(retain, forget)
        floors = torch.tensor([noise_floor(retain), noise_floor(forget)])
        info = self._decide(losses, gram, floors, early=grads.early)
        if self.measure:
            grads.keep_F()
        if info.updated and (late := grads.write(info.a, info.b)) is not None:
            used, info = (info.a, info.b), self._decide(losses, late, floors)
            if info.updated and (info.a, info.b) != used:
                raise gradients.too_late(self.direction)
        self.count += 1
        return self._update(info, grads, probe, own) if info.updated else info

    def _decide(self, losses: Tensor, gram: Tensor, floors: Tensor, early: bool = False) -> Info:
        """Read the device once and weigh the gradients; what could go wrong is named here.

        losses, gram: (2, 2) each. floors: (2,), norms of g_R and g_F that are rounding noise.
        early: the angle is not known yet (recompute), and a second look will follow.
        """
        spread = self.processes.spread(gram)
        read = torch.cat([losses.to(gram).flatten(), gram.flatten(), spread]).cpu().double()
        losses, gram = read[:4].reshape(2, 2), read[4:8].reshape(2, 2)
        procs.apart(read[8:].tolist())
        alive = ~(gram.diagonal().sqrt() <= floors)  # a zero gradient gets coefficient 0
        gram = torch.where(alive & alive[:, None], gram, 0.0)
        if early and gradients.needs_angle(self.direction, gram, losses[:, 0]):
            raise gradients.too_late(self.direction)
        weights = self.direction.weights(gram, losses[:, 0]) * alive
        info = seen(self.count, losses, gram, weights, self.tolerance)
        if info.outcome == "no_weights":
            raise FloatingPointError(no_weights(self.direction, info))
        for rule in self.stop if info.updated and not early else ():
            if reason := rule(info):
                return dataclasses.replace(info, outcome=reason)
        return info

    def _update(self, info: Info, grads: Swap, phase: list[Loss], own: bool) -> Info:
        """Move the weights along the d that `grads` has written, with a probe where one is due.

        phase: what a probe looks at; own: these are the step's own retain rows.
        """
        due = self.stepsize is not None and self.stepsize.probes(self.state)
        point = None  # made where it is needed: it looks through all modules
        if due or self.measure:
            point = point_of(self.params, self.optimizer, self.module)
            point.save(None if self.measure else grads.g_R or None, self.measure)
        g_R, grads.g_R = grads.g_R if self.measure else [], []
        if due and point:
            self._probe(point, phase, grads, own, info)
        else:
            if self.stepsize is not None:
                self.state = self.stepsize.step(self.state, None, info)
                self.rates.set(self.state.eta)
            self.optimizer.step()
        torch.clear_autocast_cache()  # autocast around the whole loop would go on with old weights
        self._clear()
        return self._report(info, point, g_R, grads.kept_F)

    def _probe(self, point: Point, phase: list[Loss], grads: Swap, own: bool, info: Info) -> None:
        """Update with a look along the way.

        The optimizer steps once, at a rate s ≥ 1. (A smaller one would lose small updates in the
        rounding of θ.) Then u = (θ_s − θ₀)/s is the update per unit rate, and θ ← θ₀ + η·u. own:
        the probed rows are the step's, whose losses at 0 may be known already.
        """
        assert self.stepsize is not None
        line = UpdateLine(point, phase, self.processes, self.dtype or grads.dtype)
        still = self.module is None or not any(m.training for m in self.module.modules())
        if own and still:  # phase R ran as a probe does: what it drew and saw is the line's
            line.random, line.at_zero = grads.random, line.read(grads.rows)
        eta, s = 0.0, max(1.0, self.state.eta)
        try:
            self.rates.set(s)
            point.advance(s)
            with evaluating(self.module):
                self.state = self.stepsize.step(self.state, line, info)
            eta = self.state.eta
        finally:  # an interrupted probe leaves the weights as they were
            point.settle(eta)
            self.rates.set(self.state.eta)

    def _clear(self) -> None:
        """Drop all gradients."""
        for p in self._held():  # frozen ones too: the optimizer would move them by an old gradient
            p.grad = None

    def _held(self) -> list[Tensor]:
        """All parameters that the optimizer has now."""
        return parameters(self.optimizer)

    def _report(
        self, info: Info, point: Point | None, g_R: vector.Vector, g_F: vector.Vector | None
    ) -> Info:
        """`info` with the rate and the rule's state, and the movement where it is measured."""
        more: dict[str, Any] = {"eta": self.rates.first}
        if self.stepsize is not None:
            s = self.state
            more |= {"eta": s.eta, "stepsize": s.outcome, "forwards": s.forwards}
            if s.outcome not in ("held", "cut"):  # this step has probed
                more |= {"slope": s.slope, "curvature": s.curvature, "proposed": s.proposed}
        if g_F is not None and point:
            taken = point.moved()
            more |= {name: vector.dot(g, taken).item() for name, g in (("dR", g_R), ("dF", g_F))}
        return dataclasses.replace(info, **more)

    def state_dict(self) -> dict[str, Any]:
        """The optimizer's, the rule's and the counter's state; the weights are the model's own."""
        state = dataclasses.asdict(self.state)
        return {"optimizer": self.optimizer.state_dict(), "stepsize": state, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave, whole tensors cut as their sharded parameters are."""
        self.optimizer.load_state_dict(sharding.state_like(state["optimizer"], self.optimizer))
        self.state, self.count = State(**state["stepsize"]), state["count"]
