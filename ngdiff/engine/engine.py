"""Where a run computes: device, precision, processes, memory.

What it computes is the same everywhere.

An `Engine` prepares a model. It gives the optimizer and the options of `UnlearningStep` that go
with it. The same code runs under plain `python` and under `accelerate launch`, whose processes,
backend and device it takes.

    precision  float32, or bfloat16: the forward rounds weights to bfloat16, while float32 weights
               are what is updated. On one device the two share 4 bytes (`ngdiff.engine.master`);
               FSDP2's mixed precision does the same on several.
    sharding   over several processes: "shard" cuts weights, gradients and optimizer state with
               FSDP2 (`fully_shard`); "replicate" keeps a copy each (DDP). Either way the run is
               that of one process up to rounding.
    memory     swap | recompute (`ngdiff.core.gradients`); checkpointing: block by block,
               activations are computed twice.

References: Rajbhandari et al. 2020, arXiv 1910.02054 (sharded optimizers); Chen et al. 2016, arXiv
1604.06174 (checkpoints).
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ngdiff.core.gradients import MODES
from ngdiff.core.processes import Processes
from ngdiff.engine.device import device_named
from ngdiff.engine.halves import split
from ngdiff.engine.linear import for_inputs, quick
from ngdiff.engine.master import Master

Make = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]  # from parameter groups
PRECISIONS = ("float32", "bfloat16")
SHARDINGS = ("shard", "replicate")


@dataclass(frozen=True)
class Engine:
    """device: a torch name, "auto" (the accelerator if there is one), or None: where the model is.
    precision: None leaves the model's own. compile: each block by `torch.compile` (the same numbers
    up to rounding).

    Errors: ValueError for a name that is not known, for float16 (a loss scaler skips steps unseen),
    under DeepSpeed (it owns the gradients) and under FSDP1 (it flattens parameters).
    """

    device: str | None = None
    precision: str | None = None
    memory: str = "swap"
    checkpointing: bool = False
    compile: bool = False
    sharding: str = "shard"

    def __post_init__(self) -> None:
        if self.precision in ("float16", "fp16"):
            raise ValueError(
                "float16 needs its losses scaled, and a scaler skips steps unseen: use "
                "precision='bfloat16'"
            )
        for name, known in (
            ("precision", (None, *PRECISIONS)),
            ("memory", (*MODES,)),
            ("sharding", SHARDINGS),
        ):
            if getattr(self, name) not in known:
                raise ValueError(
                    f"unknown {name} {getattr(self, name)!r}; choose one of: "
                    f"{', '.join(map(str, known))}"
                )
        asked = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
        if asked in ("fp16", "fp8") or (asked == "bf16" and self.precision != "bfloat16"):
            raise ValueError(
                f"launched with --mixed_precision {asked}: precision is the engine's own, launch "
                "with --mixed_precision no and take precision='bfloat16' (--precision bfloat16)"
            )
        if _flag("ACCELERATE_USE_DEEPSPEED"):
            raise ValueError(
                "DeepSpeed owns the gradients, and NGDiff must combine them: launch with "
                "--use_fsdp --fsdp_version 2, or with --multi_gpu, instead of --use_deepspeed"
            )
        if _flag("ACCELERATE_USE_FSDP") and os.environ.get("FSDP_VERSION", "2") == "1":
            raise ValueError("FSDP1 flattens parameters: launch with --fsdp_version 2")

    @functools.cached_property
    def _state(self) -> Any:
        """accelerate's view of the launch: it joins the processes and picks this one's device."""
        from accelerate import PartialState

        return PartialState(cpu=self.device == "cpu" or not _accelerator())

    @functools.cached_property
    def processes(self) -> Processes:
        if int(os.environ.get("WORLD_SIZE") or "1") > 1:
            return Processes(self._state.num_processes > 1, mean=False)  # its losses are sums
        return Processes()

    @property
    def main(self) -> bool:
        """Return whether this is the process that prints and writes."""
        return self.processes.rank == 0

    @property
    def place(self) -> torch.device | None:
        """This process's device; None: where the model is."""
        if self.processes.size > 1 or self.device == "auto":
            return self._state.device
        return None if self.device is None else device_named(self.device)

    @property
    def changes(self) -> bool:
        """Return whether `prepare` moves, rounds or cuts weights that are frozen too."""
        return self.place is not None or self.precision is not None or self.sharded

    @property
    def sharded(self) -> bool:
        return self.processes.size > 1 and self.sharding == "shard"

    def prepare(self, model: nn.Module) -> tuple[nn.Module, dict[Tensor, Tensor]]:
        """The model, changed in place, as the module to call.

        Beside it the low bits of what became bfloat16, for `optimizer`.
        """
        # shards move block by block: the whole need not fit
        if (place := self.place) is not None and not self.sharded:
            model.to(place)
        low = self._round(model)
        layers = blocks(model)
        for layer in layers:
            if self.checkpointing:
                _checkpoint(layer, True)
            if self.compile:
                layer.compile()
        if self.processes.size == 1:
            return model, low
        if self.sharded:
            _shard(
                model,
                layers,
                torch.bfloat16 if self.precision == "bfloat16" else None,
                self._state.device.type,
            )
            return model, low
        ids = [place.index] if place is not None and place.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(model, device_ids=ids), low

    def optimizer(
        self, params: list[Tensor], low: dict[Tensor, Tensor], make: Make
    ) -> torch.optim.Optimizer:
        """The optimizer `make(groups)` on the exact weights of `params`.

        low: what `prepare` gave.
        """
        if not low:
            return make([{"params": params}])
        master = Master(params, make)
        master.low.update({p: low[p] for p in master.low if p in low})
        return master

    @property
    def options(self) -> dict[str, Any]:
        """Return the keyword arguments for `UnlearningStep`."""
        rounded = torch.bfloat16 if self.precision == "bfloat16" else None
        return {"memory": self.memory, "processes": self.processes, "dtype": rounded}

    def _round(self, model: nn.Module) -> dict[Tensor, Tensor]:
        """Weights as the precision wants them.

        Adapters stay float32: they are few, and peft computes them so.
        """
        if self.precision is None:
            return {}
        low: dict[Tensor, Tensor] = {}
        adapted = hasattr(model, "peft_config")
        exact = self.precision == "float32" or self.sharded or adapted
        for p in model.parameters():
            if not p.is_floating_point():
                continue
            if p.requires_grad and exact:
                p.data = p.data.float()
            elif p.requires_grad:
                p.data, low[p] = split(p.data.float())
            else:
                p.data = p.data.to(getattr(torch, self.precision))
        return low


def blocks(model: nn.Module) -> list[nn.Module]:
    """The transformer's blocks: the modules of its largest list."""
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList)]
    return list(max(lists, key=lambda m: sum(p.numel() for p in m.parameters()), default=[]))


def _checkpoint(layer: Any, on: bool) -> bool:
    """Whether the block computes its activations twice, and was it so before."""
    before = isinstance(layer.forward, functools.partial) and layer.forward.func is _checkpointed
    if on and not before:
        layer.forward = functools.partial(_checkpointed, layer.forward, layer)
    elif before and not on:
        layer.forward = layer.forward.args[0]
    return before


@contextlib.contextmanager
def checkpointing(model: nn.Module, on: bool) -> Iterator[None]:
    """Every block with checkpointing on or off, then each as it was."""
    before = [(layer, _checkpoint(layer, on)) for layer in blocks(model)]
    try:
        yield
    finally:
        for layer, was in before:
            _checkpoint(layer, was)


def _checkpointed(forward: Any, layer: Any, *args: Any, **kwargs: Any) -> Any:
    from torch.utils.checkpoint import checkpoint

    weights = not for_inputs(layer)

    def both(*args: Any, **kwargs: Any) -> Any:
        with quick(layer, weights):  # the second time too
            return forward(*args, **kwargs)

    return (
        checkpoint(both, *args, use_reentrant=False, **kwargs)
        if torch.is_grad_enabled()
        else forward(*args, **kwargs)
    )


def _shard(
    model: nn.Module, layers: list[nn.Module], rounded: torch.dtype | None, kind: str
) -> None:
    """Shard on the engine's kind of device, whatever else the machine has."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    policy = MixedPrecisionPolicy(
        param_dtype=rounded, reduce_dtype=torch.float32 if rounded else None
    )
    mesh = init_device_mesh(kind, (torch.distributed.get_world_size(),))
    for layer in layers:
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)


def _accelerator() -> bool:
    return not _flag("ACCELERATE_USE_CPU") and torch.accelerator.is_available()


def _flag(name: str) -> bool:
    return os.environ.get(name, "false").lower() in ("1", "true", "yes")
