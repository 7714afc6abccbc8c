"""Exact float32 weights behind a bfloat16 model, in the bytes of float32 weights.

bfloat16 keeps 8 bits of a weight. At usual rates 95 % of the weights do not move at all when an
update is added to them. Here θ is split into the bfloat16 weight and the 16 low bits of the
float32. So the model computes in bfloat16, and no update is lost. A weight takes 2 + 2 bytes.
Adding the 16-bit integer to the weight's bits gives the float32 back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from ngdiff.core import sharding, vector
from ngdiff.core.point import Point, Wrapping
from ngdiff.engine.halves import join, joined, put, split, way

BUCKET = 2**26  # weights that are float32 at the same time
ON_CPU = 2**22  # the same on a CPU, whose caches are small


class _SplitPoint(Point):
    """θ₀ is the saved bfloat16 weights and the master's low bits.

    These stay θ₀'s until `settle`.
    """

    optimizer: Master

    def advance(self, s: float) -> None:
        u = self.optimizer.update(s)
        self.u = [u[p] if p in u else torch.zeros_like(p, dtype=torch.float32) for p in self.params]

    @torch.no_grad()
    def look(self, eta: float) -> None:
        for p, theta in self._at(eta):
            p.copy_(split(theta)[0] if p in self.optimizer.low else theta)

    @torch.no_grad()
    def settle(self, eta: float) -> None:
        for p, theta in self._at(eta):
            if p in self.optimizer.low:
                put(p, self.optimizer.low[p], theta)
            else:
                p.copy_(theta)

    def save(self, spent: vector.Vector | None, measure: bool = False) -> None:
        super().save(spent)
        # a step changes the low bits
        self.before = [theta.clone() for theta in self._exact(_whole)] if measure else []

    def moved(self) -> list[Tensor]:
        return [
            (join(p, self.optimizer.low[p]) if p in self.optimizer.low else p) - before
            for p, before in zip(self.params, self.before, strict=True)
        ]

    def _exact(self, pick: Callable[[Tensor], Tensor]) -> Iterator[Tensor]:
        low = self.optimizer.low
        pairs = zip(self.params, self.theta_0, strict=True)
        return (join(pick(h), pick(low[p])) if p in low else pick(h) for p, h in pairs)

    def _at(self, eta: float) -> Iterator[tuple[Tensor, Tensor]]:
        u = self.u if self.u and eta != 0.0 else [None] * len(self.params)
        for p, theta, along in zip(self.params, self._exact(_whole), u, strict=True):
            yield p, theta if along is None else theta.add(along, alpha=eta)


class Master(Wrapping):
    """Any torch optimizer on the exact weights of a bfloat16 model.

    Its state must be per parameter, as that of all of torch's is.

        optimizer = Master(model.parameters(), lambda groups: torch.optim.AdamW(groups, lr=1e-5,
        fused=True))

    params: parameters or groups of them; make: builds the optimizer from the same groups. Its state
    is float32. The weights are put together a few at a time (BUCKET), so no second copy of the
    model is ever in memory. Parameters that are not bfloat16 are left as they are. Adding weights
    later is refused.
    """

    point = _SplitPoint

    def __init__(
        self, params: Iterable[Any], make: Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
    ) -> None:
        given = list(params)
        groups = (
            [dict(g) for g in given]
            if given and isinstance(given[0], dict)
            else [{"params": given}]
        )
        for group in groups:
            group["params"] = list(group["params"])
        held = list(dict.fromkeys(p for group in groups for p in group["params"]))
        if any(map(sharding.sharded, held)):
            raise ValueError(
                "sharded weights are float32 already: FSDP2's mixed precision casts them (Engine "
                "does this)"
            )
        self.shadow: dict[Tensor, Tensor] = {
            p: nn.Parameter(_hollow(p)) if p.dtype == torch.bfloat16 else p for p in held
        }
        self.low = {
            p: torch.zeros_like(p, dtype=torch.int16) for p in held if p.dtype == torch.bfloat16
        }
        self.inner = make([{**g, "params": [self.shadow[p] for p in g["params"]]} for g in groups])
        mine = zip(groups, self.inner.param_groups, strict=True)
        super().__init__(
            [{**whole, "params": g["params"]} for g, whole in mine], dict(self.inner.defaults)
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if hasattr(self, "param_groups") and len(self.param_groups) == len(self.inner.param_groups):
            raise ValueError("a Master knows its weights from the start: make a new one")
        super().add_param_group(param_group)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        for p, theta in self._steps():
            (vector.fused(put, p.device) or put)(p.detach(), self.low[p], theta.detach())

    @torch.no_grad()
    def update(self, s: float) -> dict[Tensor, Tensor]:
        """The step at rate s as u = (θ_s − θ₀)/s in float32.

        The weights stay, the gradients are used up.
        """
        own = {p: p.clone() for p in self.shadow if p not in self.low}
        u = {}
        for p, theta in self._steps():
            u[p] = way(theta.clone() if p.device.type == "cpu" else theta, p, self.low[p], s)
            p.grad = None
        for p, before in own.items():
            u[p] = (p - before).div_(s)
            p.copy_(before)
        return u

    def _steps(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Steps the optimizer bucket by bucket, giving (parameter, its new float32 value)."""
        self._tell()
        # float32 themselves: stepped last, together
        own = {p: p.grad for p in self.shadow if p not in self.low}
        for p in own:
            p.grad = None
        moving = [p for p in self.low if p.grad is not None]
        room = _Room(moving)
        for bucket in _buckets(moving):
            try:
                room.empty()
                for p in bucket:
                    self.shadow[p].data, self.shadow[p].grad = self._float(p, room)
                self.inner.step()
                for p in bucket:
                    theta, self.shadow[p].grad = self.shadow[p].data, None
                    self.shadow[p].data = _hollow(p)
                    yield p, theta
            finally:  # an interrupted bucket must not be stepped along with the next one
                for p in bucket:
                    self.shadow[p].grad, self.shadow[p].data = None, _hollow(p)
        for p, gradient in own.items():
            p.grad = gradient
        if any(gradient is not None for gradient in own.values()):
            self.inner.step()

    def _float(self, p: Tensor, room: _Room) -> tuple[Tensor, Tensor]:
        """Return θ and its gradient in float32."""
        assert p.grad is not None
        if p.device.type != "cpu":
            return (vector.fused(join, p.device) or join)(p.detach(), self.low[p]), p.grad.float()
        theta, gradient = room.take(p), room.take(p)
        return joined(p.detach(), self.low[p], theta), gradient.copy_(p.grad)

    @property
    def bucket(self) -> int:
        """Return the bytes of the weights and gradients that are float32 at the same time."""
        sizes = [sum(p.numel() for p in bucket) for bucket in _buckets(list(self.low))]
        return 8 * max(sizes, default=0)

    def _tell(self) -> None:
        """The inner optimizer what the groups say now."""
        for group, inner in zip(self.param_groups, self.inner.param_groups, strict=True):
            inner.update({key: value for key, value in group.items() if key != "params"})

    def exact(self) -> list[Tensor]:
        """θ in float32, parameter by parameter (all of it: 4 bytes a weight)."""
        return [join(p, self.low[p]) if p in self.low else p.detach().clone() for p in self.shadow]

    def state_dict(self) -> dict[str, Any]:
        self._tell()
        return {"inner": self.inner.state_dict(), "low": list(self.low.values())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        lows = state_dict["low"]
        if [low.shape for low in lows] != [p.shape for p in self.low]:
            raise ValueError("the saved state is that of other weights")
        self.inner.load_state_dict(state_dict["inner"])
        for (_, mine), low in zip(self.low.items(), lows, strict=True):
            mine.copy_(low)
        for group, inner in zip(self.param_groups, self.inner.param_groups, strict=True):
            group.update({key: value for key, value in inner.items() if key != "params"})


def _whole(x: Tensor) -> Tensor:
    return x


def _hollow(p: Tensor) -> Tensor:
    """float32 in the shape of p, in the memory of one number.

    It is what an optimizer needs to make its state.
    """
    return torch.zeros((), dtype=torch.float32, device=p.device).expand(p.shape)


class _Room:
    """Memory on a CPU for one bucket's weights and gradients, used again by the next.

    New memory costs a CPU more than the arithmetic that is done in it.
    """

    def __init__(self, params: list[Tensor]) -> None:
        params = [p for p in params if p.device.type == "cpu"]
        sizes = (2 * sum(p.numel() for p in bucket) for bucket in _buckets(params))
        self.memory, self.used = torch.empty(max(sizes, default=0)), 0

    def empty(self) -> None:
        self.used = 0

    def take(self, p: Tensor) -> Tensor:
        """Return unset float32 memory in the shape of p."""
        first, self.used = self.used, self.used + p.numel()
        return self.memory[first : self.used].view(p.shape)


def _buckets(params: list[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    size = 0
    for p in params:
        limit = min(BUCKET, ON_CPU) if p.device.type == "cpu" else BUCKET
        if bucket and size + p.numel() > limit:
            yield bucket
            bucket, size = [], 0
        bucket.append(p)
        size += p.numel()
    if bucket:
        yield bucket
