"""The processes that share every batch: each sees some of its rows, and a loss is their sum."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch import distributed as dist

from ngdiff.core import sharding


class Processes:
    """One process alone, or all of `torch.distributed`'s where `together`.

    FSDP2 and DDP average gradients over the processes, while a loss here is their sum. So each
    backward is given `size` as the gradient of its loss. `rank` of `size`: which part of the rows
    is this process's.
    """

    def __init__(self, together: bool = False) -> None:
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if together else (0, 1)

    def sum(self, x: Tensor) -> Tensor:
        """Σ over the processes."""
        if self.size > 1:
            dist.all_reduce(x)
        return x

    def wait(self) -> None:
        """Wait until every process has come here."""
        if self.size > 1:
            dist.barrier()

    def gather(self, rows: Tensor) -> Tensor:
        """The rows (n,) of every process, one after the other; n may differ."""
        if self.size == 1:
            return rows
        home = rows.device
        if dist.get_backend() == "nccl":  # it speaks of its own device only
            rows = rows.cuda()
        lengths = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(rows)], device=rows.device))
        longest = max(int(n) for n in lengths)
        parts = [rows.new_zeros(longest) for _ in range(self.size)]
        dist.all_gather(parts, nn.functional.pad(rows, (0, longest - len(rows))))
        return torch.cat([part[: int(n)] for part, n in zip(parts, lengths, strict=True)]).to(home)


def of(model: nn.Module | None, params: list[Tensor]) -> Processes:
    """All processes where the model is replicated (DDP) or sharded (FSDP2), else this one alone.

    Errors: ValueError for wrappers whose gradients are not the model's own.
    """
    kinds = {cls.__name__ for cls in type(model).__mro__} if model is not None else set()
    if "DeepSpeedEngine" in kinds:
        raise ValueError(
            "DeepSpeed owns the gradients, and NGDiff must combine them: launch with FSDP2 instead "
            "(accelerate launch --use_fsdp --fsdp_version 2), or without DeepSpeed"
        )
    if "FullyShardedDataParallel" in kinds:
        instead = "shard with FSDP2 instead (torch.distributed.fsdp.fully_shard)"
        raise ValueError(f"FSDP1 flattens parameters: {instead}")
    if getattr(model, "gradient_as_bucket_view", False):
        instead = "wrap the model with gradient_as_bucket_view=False"
        raise ValueError(f"the stash would alias the buckets: {instead}")
    return Processes("DistributedDataParallel" in kinds or any(map(sharding.sharded, params)))


def whole_state(model: nn.Module) -> dict[str, Tensor] | None:
    """The state dict of a model on the host, shards put together; an adapter's part only, if any.

    Every process that holds shards must call, and all but the first get None. One process alone
    gets its own state.
    """
    state = model.state_dict()
    if hasattr(model, "peft_config"):
        adapter = {name for name, p in model.named_parameters() if p.requires_grad}
        state = {name: x for name, x in state.items() if name in adapter}
    first = not dist.is_initialized() or dist.get_rank() == 0
    if any(map(sharding.sharded, model.parameters())):
        for name in list(state):  # one by one: never two whole models in memory
            whole = sharding.gathered(state.pop(name))
            if first:
                state[name] = whole.cpu()
    return state if first else None
