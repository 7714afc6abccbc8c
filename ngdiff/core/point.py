"""θ, and the line through it along the optimizer's next update: θ₀ + η·u.

A probe must look along the *actual* update, so the optimizer takes its step once, at a rate s; u = (θ_s − θ₀)/s is the
update per unit rate (exact where the update is linear in the rate), and θ is then put wherever the rule wants to look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ngdiff.core import vector

SAMPLE = 2**14  # numbers of a tensor that `blur` looks at


class Point:
    """Parameters that hold θ themselves. `ngdiff.engine.master.Master` has the one for parameters that hold it rounded."""

    def __init__(self, params: Sequence[Tensor], optimizer: torch.optim.Optimizer, module: nn.Module | None) -> None:
        self.params, self.optimizer = params, optimizer
        self.shards: list[Any] = [m for m in module.modules() if hasattr(m, "reshard")] if module is not None else []
        self.theta_0: list[Tensor] = []
        self.u: list[Tensor] = []
        self.sample: list[Tensor] = []

    def save(self, spent: vector.Vector | None, measure: bool = False) -> None:
        """Remember θ₀, in the memory of `spent` where it fits; `measure`: `moved` will be asked."""
        self.theta_0 = vector.copy(self.params, spent)

    def advance(self, s: float) -> None:
        """The optimizer's step at rate s, whose rates are set already, as the line θ₀ + η·u; θ is left anywhere on it."""
        self.optimizer.step()
        self.u = vector.difference(self.params, self.theta_0, [p.grad for p in self.params])  # d is spent
        if s != 1.0:
            torch._foreach_mul_(self.u, 1.0 / s)

    def look(self, eta: float) -> None:
        """θ ← θ₀ + η·u, to see the loss there; θ₀ stays known."""
        vector.assign_(self.params, self.theta_0, self.u or None, eta)
        self._reshard()

    def settle(self, eta: float) -> None:
        """θ ← θ₀ + η·u for good; η = 0, or a line that was never drawn, restores θ₀ bit for bit."""
        self.look(eta)

    def moved(self) -> list[Tensor]:
        """θ − θ₀."""
        return vector.difference(self.params, self.theta_0)

    def blur(self, eta: float, dtype: torch.dtype) -> float:
        """‖δ‖/(η‖u‖), δ = round(θ₀ + η·u) − round(θ₀) − η·u: what rounding to `dtype` makes of the way to η, in parts of it.

        From about SAMPLE numbers of each tensor, evenly spaced: it is asked several times a probe.
        """
        if not self.sample:
            home = self.params[0].device  # of a model that is spread over several, too
            self.sample = [torch.cat([x.to(home) for x in part]) for part in (self._exact(_some), map(_some, self.u))]
        theta, way = self.sample[0], eta * self.sample[1]
        off = (theta + way).to(dtype).to(theta) - theta.to(dtype).to(theta) - way
        some = [next((p for p in self.params if vector.sharded(p)), self.params[0])]  # whose processes add up
        short, whole = vector.total([[vector.dot([off], [off]), vector.dot([way], [way])]], some, some).tolist()
        return (short / whole) ** 0.5 if whole > 0 else 0.0

    def _exact(self, pick: Callable[[Tensor], Tensor]) -> Iterable[Tensor]:
        """What `pick` takes of θ₀, tensor by tensor, as exactly as it is known."""
        return map(pick, self.theta_0)

    def _reshard(self) -> None:
        for m in self.shards:  # FSDP2 keeps what a forward without gradients gathered: the next would see the old θ
            m.reshard()


def _some(x: Tensor) -> Tensor:
    """About SAMPLE numbers of x, evenly spaced; all of a smaller one."""
    return x.reshape(-1)[:: max(1, x.numel() // SAMPLE)]
