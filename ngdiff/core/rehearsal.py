"""A rehearsal of an optimizer on eight numbers: whether its step is linear in its rate.

A probe lets the optimizer step once, at some rate s. It takes u = (θ_s − θ₀)/s for the update per
unit rate, and chooses the rate afterwards. So the update must be a multiple of the rate, and the
optimizer's state must not remember the rate. SGD with momentum, the Adam kinds, RMSprop, Adagrad
and Lion are so. Adafactor, Rprop, ASGD, Prodigy, Schedule-Free and Lookahead are not. Nobody can
list them all. So a small copy of the user's optimizer is stepped and watched.
"""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ngdiff.core import rng
from ngdiff.core.sharding import local
from ngdiff.core.vector import wide

STEPS = 12  # Lookahead and its kin do something else every five or ten steps
CLOSE = 1e-6  # relative; the numbers are float64
_known: dict[Any, str] = {}


def fault(optimizer: Any) -> str:
    """Return why a probe cannot rely on this optimizer, in words; "" where it can.

    The optimizer, its parameters and the random numbers are left as they are. Warns where it cannot
    be copied.
    """
    if not type(optimizer).__module__.startswith("torch.optim."):
        return _rehearsed(optimizer)  # it may hold more than its groups say
    options = [{k: v for k, v in g.items() if k not in _FREE} for g in optimizer.param_groups]
    key = repr((type(optimizer), options))
    if key not in _known:
        _known[key] = _rehearsed(optimizer)
    return _known[key]


_FREE = ("params", "lr", "initial_lr", "param_names")


def small(optimizer: Any) -> Any:
    """A copy of an optimizer that holds eight numbers of the first parameter of each group.

    Its other tensors (state, slow weights) are cut alike.
    """
    kind: Any = type(optimizer)
    other = kind.__new__(kind)
    params = [p for group in optimizer.param_groups for p in group["params"]]
    memo: dict[int, Any] = {id(p): _cut(p).requires_grad_(True) for p in params}
    memo[id(optimizer)] = other
    own = {
        k: v for k, v in vars(optimizer).items() if k != "step"
    }  # a scheduler's is not the copy's
    own |= {hooks: OrderedDict() for hooks in own if hooks.startswith("_optimizer_")}
    with _Cutting():
        vars(other).update(copy.deepcopy(own, memo))
    for group in other.param_groups:
        group["params"][:] = group["params"][:1]
    return other


def _rehearsed(optimizer: Any) -> str:
    name = type(optimizer).__name__
    try:
        mine = small(optimizer)
    except Exception as error:
        what = f"whether {name}'s step is linear in its rate, as a probe needs, is not known"
        warnings.warn(f"{what}: a copy of it cannot be made ({error})", stacklevel=5)
        return ""
    with rng.again(rng.state()):
        try:
            return _played(mine, name)
        except Exception as error:
            return f"{name} cannot be rehearsed ({type(error).__name__}: {error})"


def _played(mine: Any, name: str) -> str:
    """Step the small copy, and at every step two copies of it at the rates 1 and 2."""
    own = next((float(g["lr"]) for g in mine.param_groups if g["lr"]), 1e-3)
    for t in range(STEPS):
        one, two = small(mine), small(mine)
        if not _alike(_update(one, t, 1.0), _update(two, t, 2.0)):
            return f"{name}'s step is not linear in its rate"
        if not _alike(_update(one, t + 1, 1.0), _update(two, t + 1, 1.0)):
            return f"{name} remembers at which rate it stepped, so its step is not linear in it"
        _update(mine, t, own, stay=True)
    return ""


def _update(optimizer: Any, t: int, rate: float, stay: bool = False) -> list[Tensor]:
    """The update per unit rate of the step t, parameter by parameter. stay: keep the new weights.

    Both copies draw the same random numbers, if any.
    """
    params = [p for group in optimizer.param_groups for p in group["params"]]
    before = [p.detach().clone() for p in params]
    for group in optimizer.param_groups:
        group["lr"] = rate
    for p in params:
        ramp = torch.arange(1, p.numel() + 1, device=p.device).reshape(p.shape)
        # a lasting part, as estimates of a distance need it, and one that changes
        p.grad = (torch.cos(ramp * 2.0) + 0.3 * torch.sin(ramp * (t + 1.0))).to(p)
    with rng.again(rng.state()):
        optimizer.step()
    found = [(p.detach() - x) / rate for p, x in zip(params, before, strict=True)]
    if not stay:
        for p, x in zip(params, before, strict=True):
            p.data.copy_(x)
    return found


def _alike(us: list[Tensor], vs: list[Tensor]) -> bool:
    """Return whether two updates are the same up to rounding of weights of size 1."""
    return all(
        bool((u - v).abs().max() <= max(CLOSE, 1e4 * torch.finfo(u.dtype).eps) * u.abs().max())
        for u, v in zip(us, vs, strict=True)
    )


def _cut(x: Tensor) -> Tensor:
    """A corner of x of at most eight numbers, the same corner of all tensors of a shape."""
    x = local(x.detach())
    sizes = [*[1] * (x.ndim - 2), 2, 4] if x.ndim > 1 else [8] * x.ndim
    corner = x[tuple(slice(size) for size in sizes)].clone()
    return corner.to(wide(x.device)) if x.ndim and x.is_floating_point() else corner


class _Cutting(TorchFunctionMode):
    """Deep copies of tensors are corners of them."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is not Tensor.__deepcopy__:
            return func(*args, **(kwargs or {}))
        x, memo = args
        return memo.setdefault(id(x), _cut(x))
