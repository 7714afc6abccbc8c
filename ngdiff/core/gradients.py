"""The two gradients of a step, and the ways to hold them: how much memory, for how much time.

    swap        phase R, its gradients stashed by swapping pointers; phase F writes fresh ones; d = a·g_R − b·g_F in place.
                Two backwards. Peak over GradDiff with two backwards: max(0, G − A_F), G bytes of gradients, A_F of the
                forget batch's activations; G where either phase has several microbatches.
    recompute   g_F is never held beside g_R: it is measured first, then a second backward adds −b·g_F onto a·g_R.
                GradDiff's own peak, three backwards. Of one forget microbatch the graph is kept for the second backward
                (a third more time); of several, or of a compiled model, phase F runs before phase R and again after it
                (half as much more), and rules that need the angle of the gradients are refused. g_R is gone when a
                probe would ask for it.

Both give the same d up to rounding. Loss callables that draw random numbers (dropout) draw the same ones again; what else a
forward changes (running means) it changes once more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ngdiff.core import rng, vector
from ngdiff.core.processes import Processes

Loss = Callable[[], Tensor]  # a scalar, or a 1-D tensor of addends (rows) whose sum is the loss; repeatable
# A loss may carry `.ce` (cross-entropy of its last forward, for stops and logs) and `.floor` (the gradient norm that is
# rounding noise for it: KL(start‖θ) has an exactly zero gradient at the start, which float32 renders as noise).


class Swap:
    """One step's gradients. `measure`, then `write`; `g_R` and `g_F` are its own until then, `rows` those of R.

    once: a graph can be walked backward once only. A compiled one is: it writes over what it has saved.
    """

    def __init__(
        self, params: Sequence[Tensor], clear: Callable[[], None], processes: Processes, once: bool = False
    ) -> None:
        self.params, self.clear, self.processes, self.once = params, clear, processes, once
        self.g_R: vector.Vector = []
        self.g_F: vector.Vector = []
        self.rows: list[Tensor] = []
        self.early = False  # the Gramian lacks ⟨g_R, g_F⟩ until d is written

    def measure(self, retain: Sequence[Loss], forget: Sequence[Loss]) -> tuple[Tensor, Tensor]:
        """losses (2, 2): (loss, cross-entropy) of R and of F, over all processes; Gramian (2, 2)."""
        R, self.g_R, self.rows = self._gradient(retain)  # the stash is a swap of pointers
        F, self.g_F, _ = self._gradient(forget)
        return self.processes.sum(torch.stack([R, F])), vector.gramian(self.g_R, self.g_F)

    def write(self, a: float, b: float) -> Tensor | None:
        """p.grad = a·g_R − b·g_F, where g_F lay. Returns the Gramian if its ⟨g_R, g_F⟩ has become known only now."""
        d, self.g_F = vector.combine_(self.g_R, self.g_F, a, b), []
        for p, g in zip(self.params, d, strict=True):
            p.grad = g
        return None

    def _gradient(self, phase: Sequence[Loss]) -> tuple[Tensor, list[Tensor | None], list[Tensor]]:
        """(loss, cross-entropy) of the whole phase here, (2,); its gradient, accumulated over microbatches; its rows."""
        self.clear()
        seen, rows = zip(*(self._backward(loss) for loss in phase), strict=True)
        grads = [p.grad for p in self.params]
        self.clear()
        _dense(grads)
        return torch.stack(seen).sum(0), grads, list(rows)

    def _backward(self, loss: Loss, scale: float = 1.0) -> tuple[Tensor, Tensor]:
        """Adds scale times the loss's gradient to `.grad`; ((loss, cross-entropy), rows)."""
        addends = loss().reshape(-1)
        value = addends.sum()
        factor = scale * self.processes.size  # a wrapper that averages over processes gives the sum
        value.backward(None if factor == 1.0 else torch.full_like(value, factor))
        return self._seen(loss, value), addends.detach()

    @staticmethod
    def _seen(loss: Loss, value: Tensor) -> Tensor:
        """(loss, cross-entropy), (2,)."""
        value, ce = value.detach().to(vector.wide(value.device)), getattr(loss, "ce", None)
        return torch.stack([value, value if ce is None else ce.to(value)])


class Recompute(Swap):
    def measure(self, retain: Sequence[Loss], forget: Sequence[Loss]) -> tuple[Tensor, Tensor]:
        self.forget = forget
        self.value: Tensor | None = None  # of the forget loss whose graph is kept
        wrapped = self.processes.size > 1 or any(vector.sharded(p) for p in self.params)  # these run once a forward
        if len(forget) == 1 and not wrapped and not self.once:
            R, self.g_R, self.rows = self._gradient(retain)
            F, self.gram = self._streamed(forget[0])
        else:
            self.random = rng.state()
            F, self.g_F, _ = self._gradient(forget)
            FF, self.g_F = vector.dot(self.g_F, self.g_F), []
            R, self.g_R, self.rows = self._gradient(retain)
            self.early, unknown = True, torch.full_like(FF, math.nan)  # until d is written: ‖d‖² tells it
            self.gram = torch.stack([vector.dot(self.g_R, self.g_R), unknown, unknown, FF]).reshape(2, 2)
        return self.processes.sum(torch.stack([R, F])), self.gram

    def write(self, a: float, b: float) -> Tensor | None:
        stash, self.g_R = self.g_R, []
        self.clear()
        for p, g in zip(self.params, stash, strict=True):
            p.grad = g  # of weight 0 too, as zeros: the optimizer decays what has a gradient
        scaled = [vector.local(g) for g in stash if g is not None]
        with torch.no_grad():
            if scaled:
                torch._foreach_mul_(scaled, a)
        del stash, scaled
        if self.value is not None:
            value, self.value = self.value, None  # the graph is freed with it
            value.backward(torch.full_like(value, -b))
            return None
        with rng.again(self.random):
            for loss in self.forget:
                self._backward(loss, -b)
        d = [p.grad for p in self.params]  # ‖d‖² = a²‖g_R‖² − 2ab⟨g_R, g_F⟩ + b²‖g_F‖²
        RR, FF, dd = self.gram[0, 0], self.gram[1, 1], vector.dot(d, d)
        untold = torch.where((RR > 0) & (FF > 0), math.nan, 0.0)  # d holds one of them only
        RF = (a * a * RR + b * b * FF - dd) / (2 * a * b) if a and b else untold
        return torch.stack([RR, RF, RF, FF]).reshape(2, 2)

    def _streamed(self, loss: Loss) -> tuple[Tensor, Tensor]:
        """F and the Gramian, by a backward whose gradients are measured against the stash and dropped one by one."""
        stash = dict(zip(self.params, self.g_R, strict=True))
        parts = {p: vector.products(g, None) for p, g in stash.items()}

        def measured(p: Tensor) -> None:
            _dense([p.grad])
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
        RR, RF, FF = vector.total(list(parts.values()), self.params, self.params)
        return self._seen(loss, self.value), torch.stack([RR, RF, RF, FF]).reshape(2, 2)


def _dense(grads: vector.Vector) -> None:
    if any(g is not None and g.layout != torch.strided for g in grads):
        raise TypeError("a gradient is sparse: build its layer with dense ones (nn.Embedding(..., sparse=False))")


MODES = {"swap": Swap, "recompute": Recompute}
