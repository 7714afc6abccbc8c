"""Loops as people write them: a mean loss over the rows at hand, any wrapper, any optimizer.

`stage` runs those of two processes; everything else runs anywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn import functional as fn

from ngdiff.core.autolr import AutoLR
from ngdiff.core.directions import NGDiff
from ngdiff.core.info import ForgetLevel, Info
from ngdiff.core.step import UnlearningStep
from ngdiff.core.stepsize import Constant

ROWS, STEPS = 16, 12
LEVEL = 2.5  # nats, which the forget rows reach on the way; twice the first one is above it

PROBED: dict[str, Any] = {"stepsize": AutoLR(lr=0.05, every=4), "stop": []}


def mlp(dtype: torch.dtype = torch.float32) -> nn.Module:
    """A fresh net, the same in every process."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4)).to(dtype)
    return net


def rows(t: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, y of the retain and of the forget rows of a step."""
    make = torch.Generator().manual_seed(t)
    x = torch.randn(2, ROWS, 8, generator=make, dtype=torch.float64).to(dtype)
    y = torch.randint(4, (2, ROWS), generator=make)
    return x[0], y[0], x[1], y[1]


def loop(
    model: nn.Module,
    mine: slice = slice(None),
    call: Callable[..., Tensor] | None = None,
    **options,
) -> list[Info]:
    """Everybody's loop on this process's rows, whose losses are means. call: the forward."""
    params = [p for p in model.parameters() if p.requires_grad]
    dtype, forward = params[0].dtype, call or model
    optimizer = torch.optim.SGD(params, lr=0.05, momentum=0.5)
    options = {"stepsize": Constant(0.8), "stop": [ForgetLevel(LEVEL)]} | options
    step = UnlearningStep(model, optimizer, NGDiff(), **options)
    history: list[Info] = []
    for t in range(STEPS):
        x_R, y_R, x_F, y_F = (x[mine] for x in rows(t, dtype))
        info = step(
            lambda x=x_R, y=y_R: fn.cross_entropy(forward(x), y),
            lambda x=x_F, y=y_F: fn.cross_entropy(forward(x), y),
        )
        history.append(info)
        if not info.updated:
            break
    return history


def replicated() -> nn.Module:
    return nn.parallel.DistributedDataParallel(mlp())


def sharded() -> nn.Module:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    net = mlp()
    mesh = init_device_mesh("cpu", (2,))
    for layer in (net[0], net[2], net):
        fully_shard(layer, mesh=mesh)
    return net


def message(make: Callable[[], Any]) -> str:
    """What an error says, or "" without one."""
    try:
        make()
    except (ValueError, RuntimeError) as error:
        return str(error)
    return ""


def made(model: Any, held: nn.Module, **options: Any) -> UnlearningStep:
    return UnlearningStep(model, torch.optim.SGD(held.parameters(), lr=0.1), NGDiff(), **options)


def stage() -> dict[str, Any]:
    """What two processes see: histories, sizes and error messages."""
    from ngdiff.core.processes import Processes

    mine = slice(dist.get_rank(), None, 2)
    net = replicated()
    before = [p.detach().clone() for p in net.parameters()]
    found = {
        "list": message(lambda: made(list(net.parameters()), net)),
        "inside": message(lambda: made(net.module, net)),
        "apart": message(lambda: loop(net, mine, call=net.module)),
        "compiled": made(torch.compile(net), net).processes.size,
        "within": made(nn.ModuleDict({"net": net}), net).processes.size,
        "said": made(list(net.parameters()), net, processes=Processes(True)).processes.size,
        "alone": made(net.module, net, processes=Processes()).processes.size,
        "unchanged": all(torch.equal(p, q) for p, q in zip(net.parameters(), before)),
    }
    for name, make in (("replicate", replicated), ("shard", sharded)):
        found[f"{name} probed"] = [asdict(info) for info in loop(make(), mine, **PROBED)]
        model = make()
        history = loop(model, mine)
        weights = [p.full_tensor() if name == "shard" else p for p in model.parameters()]
        found[name] = {
            "history": [asdict(info) for info in history],
            "weights": [w.detach().clone() for w in weights],
        }
    return found
