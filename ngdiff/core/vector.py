"""A list of tensors treated as one vector.

The trainable parameters θ, and every gradient, are lists of tensors in the same order. `None` stands for a tensor
of zeros: a parameter that one of the two losses does not touch has no gradient there, and none is made up for it.
Nothing here copies to the host, so a training step that uses these functions is never blocked by them.

Where parameters are sharded over processes (DTensors, as FSDP2 makes them) every function works on the local shards,
and dot products are those of the whole vectors: the sums of the shards are added over the processes that hold them.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

Vector = Sequence[Tensor | None]
PIECE = 2**16  # numbers multiplied out in one sum on a CPU
PACK = 2**23  # numbers multiplied out together
SMALL = 2**20  # numbers below which a tensor does not get a kernel of its own


def dot(u: Vector, v: Vector) -> Tensor:
    """⟨u, v⟩ as a scalar tensor, `None` counting as zero.

    Each pair of tensors is multiplied out in its own precision (bfloat16 and float16 in float32), a large one in pieces,
    and the sums are added in float64, so that many small tensors do not lose what one big tensor holds. In float32 a
    norm below about 1e-19 underflows to 0 and one above 1e19 overflows: the square is what is stored.
    """
    return total([[_dot(x, y)] for x, y in zip(u, v, strict=True)], u, v)[0]


def gramian(u: Vector, v: Vector) -> Tensor:
    """The Gramian [[⟨u,u⟩, ⟨u,v⟩], [⟨u,v⟩, ⟨v,v⟩]] of two vectors, shape (2, 2).

    Over processes three numbers travel, whatever the model. On an accelerator small tensors are multiplied out together: an
    adapter has hundreds, each shorter than the launch of a kernel.
    """
    pairs: list[tuple[Tensor | None, Tensor | None]] = []
    packs: dict[tuple[Any, ...], list[tuple[Tensor, Tensor]]] = {}
    for x, y in zip(u, v, strict=True):
        if x is not None and y is not None and small(x):
            key = (x.device, x.dtype, y.dtype, *_spread(x, y))
            pack = packs.setdefault(key, [])
            pack.append((x, y))
            if sum(t.numel() for t, _ in pack) > PACK:  # never a second copy of all gradients
                packs[(*key, len(packs))] = packs.pop(key)
        else:
            pairs.append((x, y))
    parts = [products(x, y) for x, y in pairs]
    for pack in packs.values():
        xs, ys = (torch.cat([local(t.detach()).reshape(-1) for t in side]) for side in zip(*pack, strict=True))
        parts.append(products(xs, ys))
        pairs.append(pack[0])  # its sharding is theirs
    like = list(zip(*pairs, strict=True)) or [(), ()]
    RR, RF, FF = total(parts, *like)
    return torch.stack([RR, RF, RF, FF]).reshape(2, 2)


def products(x: Tensor | None, y: Tensor | None) -> list[Tensor | None]:
    """⟨x,x⟩, ⟨x,y⟩, ⟨y,y⟩; pair by pair, so that the second and third product find both in the cache."""
    if x is not None and y is not None and (kernel := fused(_three, x.device)):
        return list(kernel(local(x.detach()).reshape(-1), local(y.detach()).reshape(-1)))
    return [_dot(x, x), _dot(x, y), _dot(y, y)]


def combine_(u: Vector, v: Vector, a: float, b: float) -> list[Tensor | None]:
    """a·u − b·v, written over v; u is left as it is. A new tensor is made only where v has none."""
    with torch.no_grad():
        both = [(local(x), local(y)) for x, y in zip(u, v, strict=True) if x is not None and y is not None]
        only_v = [local(y) for x, y in zip(u, v, strict=True) if x is None and y is not None]
        if both and (kernel := fused(_axpby_, both[0][0].device)):
            weights = {  # no host wait
                device: [torch.full((), w, dtype=torch.float64, device=device) for w in (a, b)]
                for device in {x.device for x, _ in both}
            }
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
        return [y if y is not None else x * a if x is not None else None for x, y in zip(u, v, strict=True)]


def copy(u: Sequence[Tensor], into: Vector | None = None) -> list[Tensor]:
    """u, bit for bit, in new memory; or in that of `into`, tensors no longer needed, wherever one of them fits."""
    with torch.no_grad():
        spent = [None] * len(u) if into is None else [None if y is None else local(y) for y in into]
        u = [local(x) for x in u]
        out = [
            y if y is not None and y.dtype == x.dtype else torch.empty_like(x) for x, y in zip(u, spent, strict=True)
        ]
        torch._foreach_copy_(out, u)
    return out


def difference(u: Sequence[Tensor], v: Sequence[Tensor], into: Vector | None = None) -> list[Tensor]:
    """u − v; `into` as in `copy`."""
    out = copy(u, into)
    with torch.no_grad():
        torch._foreach_sub_(out, [local(y) for y in v])
    return out


def assign_(theta: Sequence[Tensor], theta_0: Sequence[Tensor], u: Sequence[Tensor] | None = None, s: float = 0.0):
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
    """Where the sums are added: the device of the first tensor."""
    return next((x.device for u in vectors for x in u if x is not None), None)


def precision(u: Sequence[Tensor]) -> float:
    """Relative rounding error of the least precise tensor."""
    return max(torch.finfo(x.dtype).eps for x in u)


def small(x: Tensor) -> bool:
    """True where an accelerator would spend longer on launching a kernel than on x."""
    return x.device.type != "cpu" and x.numel() <= SMALL


def local(x: Tensor) -> Tensor:
    """What this process holds of x, in x's own memory: all of it, unless x is sharded. Call without gradients."""
    return x.to_local() if hasattr(x, "to_local") else x


def sharded(x: Tensor) -> bool:
    """True for a DTensor: this process holds a part of it."""
    return hasattr(x, "device_mesh")


def gathered(x: Any) -> Tensor:
    """The whole of x; all processes that hold its shards must call."""
    return x.full_tensor() if sharded(x) else x


def like(x: Tensor, p: Any) -> Tensor:
    """A whole tensor as p is: on its device, and cut into the shards that p's processes hold."""
    if not sharded(p):
        return x
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(x.to(p.device), p.device_mesh, p.placements)


def _spread(*tensors: Any) -> list[Any]:
    """The process groups over which the numbers of the first sharded tensor are spread; none for a plain tensor."""
    for x in tensors:
        if x is not None and sharded(x):
            return [x.device_mesh.get_group(dim) for dim, placed in enumerate(x.placements) if placed.is_shard()]
    return []


def _dot(x: Tensor | None, y: Tensor | None) -> Tensor | None:
    if x is None or y is None:
        return None
    x, y = local(x.detach()), local(y.detach())
    if x.dtype in (torch.float16, torch.bfloat16):
        x, y = x.float(), y.float()
    x, y = x.reshape(-1), y.reshape(-1)
    if x.device.type != "cpu" or len(x) <= PIECE:
        return torch.dot(x, y)
    # on a CPU one long float32 dot of 10⁷ numbers is off by 10⁻³, enough to hide ρ < 1
    pieces = torch.stack([torch.dot(a, b) for a, b in zip(x.split(PIECE), y.split(PIECE), strict=True)])
    return pieces.to(wide(x.device)).sum()


def _three(x: Tensor, y: Tensor) -> Tensor:
    x, y = (t.to(torch.promote_types(t.dtype, torch.float32)) for t in (x, y))
    return torch.stack([(x * x).sum(), (x * y).sum(), (y * y).sum()])


def _axpby_(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> None:
    """y ← a·x − b·y, rounded once."""
    wider = torch.promote_types(x.dtype, torch.float32)
    y.copy_(a.to(wider) * x.to(wider) - b.to(wider) * y.to(wider))


@functools.cache
def fused(function: Callable[..., Any], device: torch.device) -> Callable[..., Any] | None:
    """`function` as one kernel that reads its tensors once; None on a CPU, or where there is no Triton or C compiler."""
    if device.type != "cuda":
        return None
    from torch.utils._triton import has_triton

    compiler = any(
        map(shutil.which, filter(None, (os.environ.get("CC"), "cc", "gcc", "clang")))
    )  # Triton's launcher is C
    return torch.compile(function, dynamic=True) if has_triton() and compiler else None


def total(parts: Sequence[Sequence[Tensor | None]], u: Vector, v: Vector) -> Tensor:
    """Σ over pairs of tensors (uᵢ, vᵢ) of the numbers in `parts[i]`, (numbers,), float64; over processes too for shards."""
    device = home(u, v)
    apart: dict[tuple[Any, ...], list[Sequence[Tensor | None]]] = {(): []}
    for pair, x, y in zip(parts, u, v, strict=True):
        apart.setdefault(tuple(_spread(x, y)), []).append(pair)
    sums = []
    for groups, pairs in apart.items():  # in the order of the tensors, hence the same in every process
        if pairs:
            sums.append(torch.stack([_sum(column, device) for column in zip(*pairs, strict=True)]))
            for group in groups:
                torch.distributed.all_reduce(sums[-1], group=group)
    if not sums:
        return torch.zeros(3, dtype=wide(device), device=device)
    return torch.stack(sums).sum(0) if len(sums) > 1 else sums[0]


def _sum(parts: Iterable[Tensor | None], device: torch.device | None) -> Tensor:
    found = [part.to(device) for part in parts if part is not None]
    zero = torch.zeros((), dtype=wide(device), device=device)
    return torch.stack(found).to(zero).sum() if found else zero
