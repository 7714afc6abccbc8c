"""The two gradients of a step, and the ways to hold them: how much memory, for how much time.

    swap        Phase R, its gradients stashed by swapping pointers; phase F writes fresh ones;
                d = a·g_R − b·g_F in place. Two backwards. Peak over GradDiff with two backwards:
                max(0, G − A_F), G bytes of gradients, A_F of the forget batch's activations;
                G where either phase has several microbatches.
    recompute   g_F is never held beside g_R: it is measured first, then a second backward adds
                −b·g_F onto a·g_R. GradDiff's own peak, three backwards. Of one forget microbatch
                the graph is kept for the second backward (a third more time). Of several, or of a
                compiled model, phase F runs before phase R and again after it (half as much more),
                and rules that need the angle of the gradients are refused. g_R is gone by the time
                of a probe. Of one microbatch, a reentrant checkpoint of a shared layer is refused.

Both give the same d up to rounding. Loss callables that draw random numbers (dropout) draw the same
ones again; what else a forward changes (running means) it changes once more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ngdiff.core import precision, rng, vector
from ngdiff.core.directions import Direction
from ngdiff.core.losses import Loss
from ngdiff.core.processes import Processes
from ngdiff.core.sharding import local, sharded


def once(module: nn.Module | None) -> bool:
    """Return whether a graph can be walked backward once only, as one of compiled code can."""
    modules = [] if module is None else module.modules()
    return any(m._compiled_call_impl or hasattr(m, "_orig_mod") for m in modules)


class Swap:
    """One step's gradients: `measure`, then `write`.

    `g_R` and `g_F` are its own until then; `kept_F` is a copy that stays. Of phase R, `rows` are
    the addends and `random` is the state of the random numbers before it.
    clear: drops all gradients of the model. once: a graph allows one backward only, since compiled
    code writes over what it has saved. look: find out `dtype`, the coarse precision of the forward
    (`ngdiff.core.precision`).
    """

    def __init__(
        self,
        params: Sequence[Tensor],
        clear: Callable[[], None],
        processes: Processes,
        once: bool = False,
        look: bool = False,
    ) -> None:
        self.params, self.clear, self.processes, self.once = params, clear, processes, once
        self.look = look
        self.dtype: torch.dtype | None = None
        self.g_R: vector.Vector = []
        self.g_F: vector.Vector = []
        self.kept_F: vector.Vector | None = None
        self.rows: list[Tensor] = []
        self.early = False  # the Gramian lacks ⟨g_R, g_F⟩ until d is written

    def measure(self, retain: Sequence[Loss], forget: Sequence[Loss]) -> tuple[Tensor, Tensor]:
        """(loss, cross-entropy) of R and of F over all processes, (2, 2); their Gramian, (2, 2)."""
        R = self._retain(retain)
        F, self.g_F, _ = self._gradient(forget)
        return self.processes.loss(torch.stack([R, F])), vector.gramian(self.g_R, self.g_F)

    def keep_F(self) -> None:
        """Copy g_F, which `write` overwrites."""
        self.kept_F = [None if g is None else g.clone() for g in self.g_F]

    def write(self, a: float, b: float) -> Tensor | None:
        """p.grad = a·g_R − b·g_F, where g_F lay. Returns the Gramian if it is known only now."""
        d, self.g_F = vector.combine_(self.g_R, self.g_F, a, b), []
        for p, g in zip(self.params, d, strict=True):
            p.grad = g
        return None

    def _retain(self, phase: Sequence[Loss]) -> Tensor:
        """(loss, cross-entropy) of R, (2,); its gradient is stashed by a swap of pointers."""
        self.random = rng.state()
        R, self.g_R, self.rows = self._gradient(phase)
        return R

    def _gradient(self, phase: Sequence[Loss]) -> tuple[Tensor, list[Tensor | None], list[Tensor]]:
        """(loss, cross-entropy) of all microbatches here, (2,); their gradient; their rows."""
        self.clear()
        seen, rows = zip(*(self._backward(loss) for loss in phase), strict=True)
        grads = [p.grad for p in self.params]
        self.clear()
        _dense(grads)
        return torch.stack(seen).sum(0), grads, list(rows)

    def _backward(self, loss: Loss, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        """Add scale times the loss's gradient to `.grad`; return (loss, cross-entropy) and rows."""
        addends = loss().reshape(-1)
        value = addends.sum()
        if self.look:
            self.look, self.dtype = False, precision.of_graph(value)
        factor = scale * self.processes.scale  # a wrapper averages gradients over the processes
        value.backward(None if factor == 1.0 else torch.full_like(value, factor))
        return _seen(loss, value), addends.detach()


class Recompute(Swap):
    """`measure` keeps g_R alone, and `write` walks the forget losses backward once more."""

    def measure(self, retain: Sequence[Loss], forget: Sequence[Loss]) -> tuple[Tensor, Tensor]:
        self.forget = forget
        self.value: Tensor | None = None  # of the forget loss whose graph is kept
        once = self.once or self.processes.size > 1 or any(map(sharded, self.params))
        if len(forget) == 1 and not once:
            R = self._retain(retain)
            F, self.gram = self._streamed(forget[0])
        else:
            self.forget_random = rng.state()
            F, self.g_F, _ = self._gradient(forget)
            FF, self.g_F = vector.dot(self.g_F, self.g_F), []
            R = self._retain(retain)
            self.early = True  # ⟨g_R, g_F⟩ follows from ‖d‖², once d is written
            self.gram = _gramian(vector.dot(self.g_R, self.g_R), torch.full_like(FF, math.nan), FF)
        return self.processes.loss(torch.stack([R, F])), self.gram

    def write(self, a: float, b: float) -> Tensor | None:
        self._scaled_stash(a)
        if self.value is not None:
            value, self.value = self.value, None  # the graph is freed with it
            value.backward(torch.full_like(value, -b))
            return None
        with rng.again(self.forget_random):
            for loss in self.forget:
                self._backward(loss, -b)
        d = [p.grad for p in self.params]  # ‖d‖² = a²‖g_R‖² − 2ab⟨g_R, g_F⟩ + b²‖g_F‖²
        RR, FF, dd = self.gram[0, 0], self.gram[1, 1], vector.dot(d, d)
        if a and b:
            return _gramian(RR, (a * a * RR + b * b * FF - dd) / (2 * a * b), FF)
        # d holds one gradient, which tells no angle; it is 0 where the other gradient is
        return _gramian(RR, torch.where((RR > 0) & (FF > 0), math.nan, 0.0), FF)

    def _scaled_stash(self, a: float) -> None:
        """p.grad = a·g_R, in the stash's own memory."""
        stash, self.g_R = self.g_R, []
        self.clear()
        for p, g in zip(self.params, stash, strict=True):
            p.grad = g  # of weight 0 too, as zeros: the optimizer decays what has a gradient
        with torch.no_grad():
            if scaled := [local(g) for g in stash if g is not None]:
                torch._foreach_mul_(scaled, a)

    def _streamed(self, loss: Loss) -> tuple[Tensor, Tensor]:
        """F and the Gramian, by a backward whose gradients are measured and dropped one by one."""
        stash = dict(zip(self.params, self.g_R, strict=True))
        parts = {p: vector.products(g, None) for p, g in stash.items()}
        known: set[Tensor] = set()
        twice: set[Tensor] = set()

        def measured(p: Tensor) -> None:
            _dense([p.grad])
            (twice if p in known else known).add(p)
            parts[p] = vector.products(stash[p], p.grad)
            p.grad = None

        hooks = [p.register_post_accumulate_grad_hook(measured) for p in self.params]
        try:
            self.clear()
            self.value = loss().reshape(-1).sum()
            self.value.backward(retain_graph=True)
        finally:
            for hook in hooks:
                hook.remove()
        if twice:
            why = f"{len(twice)} parameters get their gradient in parts, as a reentrant checkpoint"
            instead = "checkpoint with use_reentrant=False, or use memory='swap'"
            raise ValueError(f"{why} of a shared layer gives it: {instead}")
        RR, RF, FF = vector.total(list(parts.values()), self.params, self.params)
        return _seen(loss, self.value), _gramian(RR, RF, FF)


MODES = {"swap": Swap, "recompute": Recompute}


def mode(memory: str, measure: bool) -> type[Swap]:
    """The class of that name. Errors: ValueError for an unknown name, or where g_R must be kept."""
    if memory not in MODES:
        raise ValueError(f"unknown memory mode {memory!r}; choose one of: {', '.join(MODES)}")
    if memory != "swap" and measure:
        needs = "which measure=True needs"
        raise ValueError(f"memory={memory!r} does not keep g_R, {needs}: use 'swap'")
    return MODES[memory]


def needs_angle(direction: Direction, gram: Tensor, losses: Tensor) -> bool:
    """Return whether the rule's weights change with the angle of gradients that have these norms.

    gram: (2, 2), of which the diagonal is known. losses: (2,).
    """
    RR, FF = gram.diagonal()
    found = []
    for rho in (0.0, -0.999, -0.5, -0.1, 0.1, 0.5, 0.999):
        RF = rho * (RR * FF).sqrt()
        found.append(direction.weights(_gramian(RR, RF, FF), losses).nan_to_num())
    return any(not torch.equal(found[0], other) for other in found[1:])


def too_late(direction: Direction) -> ValueError:
    """The error for a rule that needs the angle where it is known too late."""
    when = "knows only after several microbatches, or behind a compiled or shared model"
    why = f"{direction} weighs the gradients by their angle, which memory='recompute' {when}"
    return ValueError(f"{why}: use 'swap'")


def _gramian(RR: Tensor, RF: Tensor, FF: Tensor) -> Tensor:
    """[[RR, RF], [RF, FF]], (2, 2)."""
    return torch.stack([RR, RF, RF, FF]).reshape(2, 2)


def _seen(loss: Loss, value: Tensor) -> Tensor:
    """(loss, cross-entropy), (2,)."""
    value = value.detach().to(vector.wide(value.device))
    return torch.stack([value, value if loss.ce is None else loss.ce.to(value)])


def _dense(grads: vector.Vector) -> None:
    """Raise TypeError where a gradient is sparse."""
    if any(g is not None and g.layout != torch.strided for g in grads):
        dense = "build its layer with dense ones (nn.Embedding(..., sparse=False))"
        raise TypeError(f"a gradient is sparse: {dense}")
