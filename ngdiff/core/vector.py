"""A list of tensors treated as one vector.

The trainable parameters θ, and every gradient, are lists of tensors in the same order. `None`
stands for a tensor of zeros. A parameter that a loss does not touch has no gradient of it, and no
zeros are made for it. Nothing here copies to the host, so a training step that uses these functions
is never blocked by them.

Where tensors are sharded over processes (`ngdiff.core.sharding`) every function works on the local
shards. Dot products are those of the whole vectors: the sums of the shards are added over the
processes that hold them.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from ngdiff.core import sharding
from ngdiff.core.sharding import local

Vector = Sequence[Tensor | None]
PIECE = 2**16  # numbers multiplied out in one sum on a CPU
PACK = 2**23  # numbers multiplied out together
SMALL = 2**20  # numbers below which a tensor does not get a kernel of its own


def dot(u: Vector, v: Vector) -> Tensor:
    """⟨u, v⟩ as a scalar tensor, `None` counting as zero.

    Each pair of tensors is multiplied out in its own precision (bfloat16 and float16 in float32), a
    large one in pieces. The sums are added in float64, so that many small tensors do not lose what
    one big tensor holds. In float32 a norm below about 1e-19 underflows to 0 and one above 1e19
    overflows: the square is what is stored.
    """
    return total([[_dot(x, y)] for x, y in zip(u, v, strict=True)], u, v)[0]


def gramian(u: Vector, v: Vector) -> Tensor:
    """The Gramian [[⟨u,u⟩, ⟨u,v⟩], [⟨u,v⟩, ⟨v,v⟩]] of two vectors, shape (2, 2).

    Over processes three numbers travel, whatever the model. On an accelerator small tensors are
    multiplied out together: an adapter has hundreds, each shorter than the launch of a kernel.
    """
    pairs: list[tuple[Tensor | None, Tensor | None]] = []
    packs: dict[tuple[Any, ...], list[tuple[Tensor, Tensor]]] = {}
    for x, y in zip(u, v, strict=True):
        if x is not None and y is not None and small(x):
            key = (x.device, x.dtype, y.dtype, *sharding.groups(x, y))
            pack = packs.setdefault(key, [])
            pack.append((x, y))
            if sum(t.numel() for t, _ in pack) > PACK:  # never a second copy of all gradients
                packs[(*key, len(packs))] = packs.pop(key)
        else:
            pairs.append((x, y))
    parts = [products(x, y) for x, y in pairs]
    for pack in packs.values():
        xs, ys = (torch.cat([_flat(t) for t in side]) for side in zip(*pack, strict=True))
        parts.append(products(xs, ys))
        pairs.append(pack[0])  # its sharding is theirs
    like = list(zip(*pairs, strict=True)) or [(), ()]
    RR, RF, FF = total(parts, *like)
    return torch.stack([RR, RF, RF, FF]).reshape(2, 2)


def products(x: Tensor | None, y: Tensor | None) -> list[Tensor | None]:
    """⟨x,x⟩, ⟨x,y⟩, ⟨y,y⟩; the second and third product find x and y in the cache."""
    if x is not None and y is not None and (kernel := fused(_three, x.device)):
        return list(kernel(_flat(x), _flat(y)))
    return [_dot(x, x), _dot(x, y), _dot(y, y)]


def total(parts: Sequence[Sequence[Tensor | None]], u: Vector, v: Vector) -> Tensor:
    """Σ over pairs of tensors (uᵢ, vᵢ) of the numbers in `parts[i]`, (numbers,), float64.

    Numbers of sharded pairs are also added over the processes that hold the shards.
    """
    device = home(u, v)
    apart: dict[tuple[Any, ...], list[Sequence[Tensor | None]]] = {(): []}
    for pair, x, y in zip(parts, u, v, strict=True):
        apart.setdefault(tuple(sharding.groups(x, y)), []).append(pair)
    sums = []
    for groups, pairs in apart.items():  # in the order of the tensors, the same in every process
        if pairs:
            here = torch.stack([_sum(column, device) for column in zip(*pairs, strict=True)])
            sums.append(sharding.add_up_(here, groups))
    if not sums:
        return torch.zeros(3, dtype=wide(device), device=device)
    return torch.stack(sums).sum(0) if len(sums) > 1 else sums[0]


def combine_(u: Vector, v: Vector, a: float, b: float) -> list[Tensor | None]:
    """a·u − b·v, written over v; u is left as it is. A new tensor is made only where v has none."""
    pairs = list(zip(u, v, strict=True))
    with torch.no_grad():
        both = [(local(x), local(y)) for x, y in pairs if x is not None and y is not None]
        only_v = [local(y) for x, y in pairs if x is None and y is not None]
        if both and (kernel := fused(_axpby_, both[0][0].device)):
            devices = {x.device for x, _ in both}
            weights = {device: _scalars(device, a, b) for device in devices}
            for x, y in both:
                if not small(x):
                    kernel(x, y, *weights[x.device])
            both = [(x, y) for x, y in both if small(x)]
        if both:
            xs, ys = [list(side) for side in zip(*both, strict=True)]
            torch._foreach_mul_(ys, -b)
            torch._foreach_add_(ys, xs, alpha=a)
        if only_v:
            torch._foreach_mul_(only_v, -b)
        return [y if y is not None else x * a if x is not None else None for x, y in pairs]


def copy(u: Sequence[Tensor], into: Vector | None = None) -> list[Tensor]:
    """u, bit for bit, in new memory, or in that of `into`, whose tensors are no longer needed."""
    with torch.no_grad():
        u = [local(x) for x in u]
        spent = [None] * len(u) if into is None else [None if y is None else local(y) for y in into]
        out = [
            y if y is not None and y.dtype == x.dtype else torch.empty_like(x)
            for x, y in zip(u, spent, strict=True)
        ]
        torch._foreach_copy_(out, u)
    return out


def difference(
    u: Sequence[Tensor], v: Sequence[Tensor], into: Vector | None = None
) -> list[Tensor]:
    """u − v; `into` as in `copy`."""
    out = copy(u, into)
    with torch.no_grad():
        torch._foreach_sub_(out, [local(y) for y in v])
    return out


def assign_(
    theta: Sequence[Tensor],
    theta_0: Sequence[Tensor],
    u: Sequence[Tensor] | None = None,
    s: float = 0.0,
) -> None:
    """θ ← θ₀ + s·u; with s = 0 the copy is bit for bit, whatever u holds."""
    with torch.no_grad():
        mine = [local(x) for x in theta]
        torch._foreach_copy_(mine, list(theta_0))
        if u is not None and s != 0.0:
            torch._foreach_add_(mine, list(u), alpha=s)


def wide(device: torch.device | None) -> torch.dtype:
    """float64, except on the one backend that has none."""
    return torch.float32 if device is not None and device.type == "mps" else torch.float64


def home(*vectors: Vector) -> torch.device | None:
    """The device of the first tensor, where sums are added; None without any tensor."""
    return next((x.device for u in vectors for x in u if x is not None), None)


def precision(u: Sequence[Tensor]) -> float:
    """Relative rounding error of the least precise tensor."""
    return max(torch.finfo(x.dtype).eps for x in u)


def square_precision(u: Sequence[Tensor]) -> float:
    """Relative rounding error of ‖d‖², d a combination of gradients of u."""
    eps = precision(u)  # of d itself, which is squared; sums are float32 at least
    return max(16 * min(eps, torch.finfo(torch.float32).eps), eps**2)


def small(x: Tensor) -> bool:
    """Return whether an accelerator would spend longer on launching a kernel than on x."""
    return x.device.type != "cpu" and x.numel() <= SMALL


@functools.cache
def fused(function: Callable[..., Any], device: torch.device) -> Callable[..., Any] | None:
    """`function` as one kernel that reads its tensors once, where there is a GPU and a compiler."""
    if device.type != "cuda":
        return None
    from torch.utils._triton import has_triton

    names = filter(None, (os.environ.get("CC"), "cc", "gcc", "clang"))
    compiler = any(map(shutil.which, names))  # Triton's launcher is C
    return torch.compile(function, dynamic=True) if has_triton() and compiler else None


def _three(x: Tensor, y: Tensor) -> Tensor:
    x, y = (t.to(torch.promote_types(t.dtype, torch.float32)) for t in (x, y))
    return torch.stack([(x * x).sum(), (x * y).sum(), (y * y).sum()])


def _axpby_(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> None:
    """y ← a·x − b·y, rounded once."""
    wider = torch.promote_types(x.dtype, torch.float32)
    y.copy_(a.to(wider) * x.to(wider) - b.to(wider) * y.to(wider))


def _scalars(device: torch.device, *values: float) -> list[Tensor]:
    """Numbers on the device, put there without a wait of the host."""
    return [torch.full((), value, dtype=torch.float64, device=device) for value in values]


def _flat(x: Tensor) -> Tensor:
    """The numbers of x that are here, (n,)."""
    return local(x.detach()).reshape(-1)


def _dot(x: Tensor | None, y: Tensor | None) -> Tensor | None:
    if x is None or y is None:
        return None
    x, y = _flat(x), _flat(y)
    if x.dtype in (torch.float16, torch.bfloat16):
        x, y = x.float(), y.float()
    if x.device.type != "cpu" or len(x) <= PIECE:
        return torch.dot(x, y)
    # on a CPU one long float32 dot of 10⁷ numbers is off by 10⁻³, enough to hide ρ < 1
    pieces = [torch.dot(a, b) for a, b in zip(x.split(PIECE), y.split(PIECE), strict=True)]
    return torch.stack(pieces).to(wide(x.device)).sum()


def _sum(parts: Iterable[Tensor | None], device: torch.device | None) -> Tensor:
    found = [part.to(device) for part in parts if part is not None]
    zero = torch.zeros((), dtype=wide(device), device=device)
    return torch.stack(found).to(zero).sum() if found else zero
