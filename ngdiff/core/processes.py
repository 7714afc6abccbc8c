"""The processes that share every batch: each sees some of its rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch import distributed as dist

from ngdiff.core import sharding


class Processes:
    """One process alone, or all of `torch.distributed`'s where `together`.

    mean: the loss of a batch is the mean of what the processes' callables return, as is usual under
    DDP and FSDP2. Without it the loss is their sum: then each callable divides by the whole batch's
    count.

    FSDP2 and DDP average gradients over the processes. So each backward is given `scale` as the
    gradient of its loss. `rank` of `size`: which part of the rows is this process's.
    """

    def __init__(self, together: bool = False, mean: bool = True) -> None:
        self.rank, self.size = (dist.get_rank(), dist.get_world_size()) if together else (0, 1)
        self.scale = 1 if mean else self.size

    def loss(self, x: Tensor) -> Tensor:
        """Losses of the whole batch, from those of this process's callables."""
        return self.sum(x) * (self.scale / self.size)

    def rows(self, rows: Tensor) -> Tensor:
        """The addends of the whole batch's loss, from those (n,) of this process's callables."""
        return self.gather(rows) * (self.scale / self.size)

    def spread(self, gram: Tensor) -> Tensor:
        """Return how far ‖g_R‖² and ‖g_F‖² differ between several processes, relative, (2,); (0,)
        for one.

        They are gradients of the whole batch, so every process must have the same.
        """
        if self.size == 1:
            return gram.new_zeros(0)
        squares = gram.diagonal().nan_to_num()
        both = torch.stack([squares, -squares])
        dist.all_reduce(both, op=dist.ReduceOp.MAX)
        return (both[0] + both[1]) / both[0].clamp_min(torch.finfo(both.dtype).tiny)

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
        if dist.get_backend() == "nccl":  # it serves its own device only
            rows = rows.cuda()
        lengths = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(self.size)]
        dist.all_gather(lengths, torch.tensor([len(rows)], device=rows.device))
        longest = max(int(n) for n in lengths)
        parts = [rows.new_zeros(longest) for _ in range(self.size)]
        dist.all_gather(parts, nn.functional.pad(rows, (0, longest - len(rows))))
        return torch.cat([part[: int(n)] for part, n in zip(parts, lengths, strict=True)]).to(home)


def of(model: nn.Module | None, params: list[Tensor]) -> Processes:
    """All processes where the model is replicated (DDP) or sharded (FSDP2), else this one alone.

    A wrapper is seen inside `torch.compile` and inside modules too.
    Errors: ValueError for wrappers whose gradients are not the model's own, and where there are
    several processes and nothing says whether they share the model.
    """
    modules = [] if model is None else list(model.modules())
    kinds = {cls.__name__ for m in modules for cls in type(m).__mro__}
    if "DeepSpeedEngine" in kinds:
        raise ValueError(
            "DeepSpeed owns the gradients, and NGDiff must combine them: launch with FSDP2 instead "
            "(accelerate launch --use_fsdp --fsdp_version 2), or without DeepSpeed"
        )
    if "FullyShardedDataParallel" in kinds:
        instead = "shard with FSDP2 instead (torch.distributed.fsdp.fully_shard)"
        raise ValueError(f"FSDP1 flattens parameters: {instead}")
    replicas = [m for m in modules if isinstance(m, nn.parallel.DistributedDataParallel)]
    if any(m.gradient_as_bucket_view for m in replicas):
        instead = "wrap the model with gradient_as_bucket_view=False"
        raise ValueError(f"the stash would alias the buckets: {instead}")
    together = bool(replicas) or any(map(sharding.sharded, params))
    if not together and dist.is_initialized() and dist.get_world_size() > 1:
        raise ValueError(
            f"{dist.get_world_size()} processes run, and nothing says whether they share this "
            "model: pass the DistributedDataParallel or fully_shard module itself, not its "
            "parameters or .module. Or say it by processes=Processes(together=True), or "
            "processes=Processes() for a process on its own (from ngdiff.core.processes)"
        )
    return Processes(together)


def apart(spread: Sequence[float]) -> None:
    """Raise RuntimeError where the gradients of the processes differ. spread: of `Processes`."""
    if max(spread, default=0.0) > 1e-3:  # float32 sums on unlike machines differ by less
        raise RuntimeError(
            "the processes have different gradients, so their models would drift apart: the loss "
            "must call the DistributedDataParallel wrapper itself, and outside no_sync()"
        )


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
