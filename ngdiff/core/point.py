"""θ, and the line through it along the optimizer's next update: θ₀ + η·u.

A probe must look along the *actual* update, so the optimizer takes its step once, at a rate s. Then
u = (θ_s − θ₀)/s is the update per unit rate. This is exact where the update is linear in the rate.
After that θ is put wherever the rule wants to look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from ngdiff.core import sharding, vector

SAMPLE = 2**14  # numbers of a tensor that `blur` looks at


class Point:
    """Parameters that hold θ themselves.

    `ngdiff.engine.master` has the one for rounded parameters.
    """

    def __init__(
        self, params: Sequence[Tensor], optimizer: torch.optim.Optimizer, module: nn.Module | None
    ) -> None:
        self.params, self.optimizer, self.shards = params, optimizer, sharding.shards_of(module)
        self.theta_0: list[Tensor] = []
        self.u: list[Tensor] = []
        self.sample: list[Tensor] = []

    def save(self, spent: vector.Vector | None, measure: bool = False) -> None:
        """Remember θ₀, in the memory of `spent` where it fits. measure: keep what `moved` needs."""
        self.theta_0 = vector.copy(self.params, spent)

    def advance(self, s: float) -> None:
        """Take the optimizer's step, whose rates are set to s already, as the line θ₀ + η·u.

        θ is left anywhere on the line, and the gradients are used up.
        """
        self.optimizer.step()
        d = [p.grad for p in self.params]  # is spent
        self.u = vector.difference(self.params, self.theta_0, d)
        if s != 1.0:
            torch._foreach_mul_(self.u, 1.0 / s)

    def look(self, eta: float) -> None:
        """θ ← θ₀ + η·u, to see the loss there; θ₀ stays known."""
        vector.assign_(self.params, self.theta_0, self.u or None, eta)
        for m in self.shards:
            m.reshard()

    def settle(self, eta: float) -> None:
        """θ ← θ₀ + η·u for good; η = 0, or a line that was never drawn, restores θ₀ bit for bit."""
        self.look(eta)

    def moved(self) -> list[Tensor]:
        """θ − θ₀."""
        return vector.difference(self.params, self.theta_0)

    def blur(self, eta: float, dtype: torch.dtype) -> float:
        """‖δ‖/(η‖u‖), δ = round(θ₀ + η·u) − round(θ₀) − η·u, rounded to `dtype`.

        That is what rounding makes of the way to η, in parts of it. It is estimated from about
        SAMPLE numbers of each tensor, evenly spaced, since a probe calls it several times.
        """
        if not self.sample:
            home = self.params[0].device  # of a model that is spread over several, too
            both = (self._exact(_some), map(_some, self.u))
            self.sample = [torch.cat([x.to(home) for x in part]) for part in both]
        theta, way = self.sample[0], eta * self.sample[1]
        off = (theta + way).to(dtype).to(theta) - theta.to(dtype).to(theta) - way
        # over the processes of one that is sharded
        some = [next(filter(sharding.sharded, self.params), self.params[0])]
        squares = [vector.dot([off], [off]), vector.dot([way], [way])]
        short, whole = vector.total([squares], some, some).tolist()
        return (short / whole) ** 0.5 if whole > 0 else 0.0

    def _exact(self, pick: Callable[[Tensor], Tensor]) -> Iterable[Tensor]:
        """Return what `pick` takes of θ₀, tensor by tensor, as exactly as it is known."""
        return map(pick, self.theta_0)


class Wrapping(torch.optim.Optimizer):
    """An optimizer that steps another one, `inner`, and knows by `point` where θ is."""

    inner: torch.optim.Optimizer
    point: type[Point]


def inner(optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """The optimizer that makes the update: what a `Wrapping` steps, or the optimizer itself."""
    return optimizer.inner if isinstance(optimizer, Wrapping) else optimizer


def point_of(
    params: Sequence[Tensor], optimizer: torch.optim.Optimizer, module: nn.Module | None
) -> Point:
    """The point that the optimizer's parameters are at."""
    kind = optimizer.point if isinstance(optimizer, Wrapping) else Point
    return kind(params, optimizer, module)


def _some(x: Tensor) -> Tensor:
    """About SAMPLE numbers of x, evenly spaced; all of a smaller one."""
    return x.reshape(-1)[:: max(1, x.numel() // SAMPLE)]
