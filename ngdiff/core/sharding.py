"""Tensors that are cut into shards over processes: DTensors, as FSDP2 makes them.

The rest of the core calls these functions on every tensor: a plain one is a shard that is all here.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def sharded(x: Tensor) -> bool:
    """Return whether x is a DTensor, of which this process holds a part."""
    return hasattr(x, "device_mesh")


def local(x: Tensor) -> Tensor:
    """Return what this process holds of x, in x's own memory. Call it without gradients."""
    return x.to_local() if hasattr(x, "to_local") else x


def gathered(x: Any) -> Tensor:
    """The whole of x; all processes that hold its shards must call."""
    return x.full_tensor() if sharded(x) else x


def like(x: Tensor, p: Any) -> Tensor:
    """A whole tensor as p is: on its device, and cut into the shards that p's processes hold."""
    if not sharded(p):
        return x
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(x.to(p.device), p.device_mesh, p.placements)


def state_like(state: dict[str, Any], optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """A state dict of the optimizer whose whole tensors are cut as their parameters are."""
    params = [p for group in optimizer.param_groups for p in group["params"]]
    if not any(map(sharded, params)):
        return state

    def cut(value: Any, p: Tensor) -> Any:
        whole = isinstance(value, Tensor) and value.shape == p.shape and not sharded(value)
        return like(value, p) if whole else value

    rows = state["state"].items()  # numbered in the order of the parameters
    cut_rows = {i: {key: cut(x, params[i]) for key, x in row.items()} for i, row in rows}
    return {**state, "state": cut_rows}


def groups(*tensors: Any) -> list[Any]:
    """Process groups over which the numbers of the first sharded tensor are spread; [] for none."""
    for x in tensors:
        if x is not None and sharded(x):
            cut = [dim for dim, placed in enumerate(x.placements) if placed.is_shard()]
            return [x.device_mesh.get_group(dim) for dim in cut]
    return []


def add_up_(x: Tensor, over: Iterable[Any]) -> Tensor:
    """Σ of x over the processes of these groups, in place."""
    for group in over:
        torch.distributed.all_reduce(x, group=group)
    return x


def shards_of(module: nn.Module | None) -> list[Any]:
    """FSDP2's modules inside `module`.

    They keep what a forward without gradients has gathered. So after θ has moved, call `reshard()`
    on them. Otherwise the next such forward would see the old θ.
    """
    return [] if module is None else [m for m in module.modules() if hasattr(m, "reshard")]


def refuse(params: Iterable[Tensor]) -> None:
    """Raise ValueError where parameters are sharded, and a probe has no module of theirs."""
    if any(map(sharded, params)):
        why = "a probe must notify FSDP2's modules that θ has changed"
        raise ValueError(f"{why}: pass the model, not a list of its parameters")
