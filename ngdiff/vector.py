"""A list of tensors treated as one vector.

The trainable parameters θ, and every gradient, are lists of tensors in the same order. `None` stands for a tensor
of zeros: a parameter that one of the two losses does not touch has no gradient there, and none is made up for it.
Nothing here copies to the host, so a training step that uses these functions is never blocked by them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

Vector = Sequence[Tensor | None]
Reduce = Callable[[Tensor], Tensor]  # sums a tensor over the processes that share θ
PIECE = 2**16  # numbers multiplied out in one sum on a CPU


def dot(u: Vector, v: Vector, reduce: Reduce | None = None) -> Tensor:
    """⟨u, v⟩ as a scalar tensor, `None` counting as zero; `reduce` as in `gramian`.

    Each pair of tensors is multiplied out in its own precision (bfloat16 and float16 in float32), a large one in pieces,
    and the sums are added in float64, so that many small tensors do not lose what one big tensor holds. In float32 a
    norm below about 1e-19 underflows to 0 and one above 1e19 overflows: the square is what is stored.
    """
    total = _total([_dot(x, y) for x, y in zip(u, v, strict=True)], home(u, v))
    return total if reduce is None else reduce(total)


def gramian(u: Vector, v: Vector, reduce: Reduce | None = None) -> Tensor:
    """The Gramian [[⟨u,u⟩, ⟨u,v⟩], [⟨u,v⟩, ⟨v,v⟩]] of two vectors, shape (2, 2).

    `reduce` sums over processes when each holds a shard of the vectors: three numbers travel, whatever the model.
    """
    parts = [(_dot(x, x), _dot(x, y), _dot(y, y)) for x, y in zip(u, v, strict=True)]  # pair by pair: both in cache
    sums = torch.stack([_total(part, home(u, v)) for part in zip(*parts, strict=True)])  # (3,)
    if reduce is not None:
        sums = reduce(sums)
    return sums[[0, 1, 1, 2]].reshape(2, 2)


def combine_(u: Vector, v: Vector, a: float, b: float) -> list[Tensor | None]:
    """a·u − b·v, written over v; u is left as it is. A new tensor is made only where v has none."""
    both = [(x, y) for x, y in zip(u, v, strict=True) if x is not None and y is not None]
    only_v = [y for x, y in zip(u, v, strict=True) if x is None and y is not None]
    with torch.no_grad():
        if both:
            xs, ys = [list(side) for side in zip(*both, strict=True)]
            torch._foreach_mul_(ys, -b)
            torch._foreach_add_(ys, xs, alpha=a)
        if only_v:
            torch._foreach_mul_(only_v, -b)
        return [y if y is not None else x * a if x is not None else None for x, y in zip(u, v, strict=True)]


def copy(u: Sequence[Tensor], into: Vector | None = None) -> list[Tensor]:
    """u, bit for bit, in new memory; or in that of `into`, tensors no longer needed, wherever one of them fits."""
    spent = [None] * len(u) if into is None else into
    out = [y if y is not None and y.dtype == x.dtype else torch.empty_like(x) for x, y in zip(u, spent, strict=True)]
    with torch.no_grad():
        torch._foreach_copy_(out, list(u))
    return out


def difference(u: Sequence[Tensor], v: Sequence[Tensor], into: Vector | None = None) -> list[Tensor]:
    """u − v; `into` as in `copy`."""
    out = copy(u, into)
    torch._foreach_sub_(out, list(v))
    return out


def assign_(theta: Sequence[Tensor], theta_0: Sequence[Tensor], u: Sequence[Tensor] | None = None, s: float = 0.0):
    """θ ← θ₀ + s·u; with s = 0 the copy is bit for bit, whatever u holds."""
    with torch.no_grad():
        torch._foreach_copy_(list(theta), list(theta_0))
        if u is not None and s != 0.0:
            torch._foreach_add_(list(theta), list(u), alpha=s)


def wide(device: torch.device | None) -> torch.dtype:
    """float64, except on the one backend that has none."""
    return torch.float32 if device is not None and device.type == "mps" else torch.float64


def home(*vectors: Vector) -> torch.device | None:
    """Where the sums are added: the device of the first tensor."""
    return next((x.device for u in vectors for x in u if x is not None), None)


def precision(u: Sequence[Tensor]) -> float:
    """Relative rounding error of the least precise tensor."""
    return max(torch.finfo(x.dtype).eps for x in u)


def _dot(x: Tensor | None, y: Tensor | None) -> Tensor | None:
    if x is None or y is None:
        return None
    if x.dtype in (torch.float16, torch.bfloat16):
        x, y = x.float(), y.float()
    x, y = x.reshape(-1), y.reshape(-1)
    if x.device.type != "cpu" or len(x) <= PIECE:
        return torch.dot(x, y)
    # on a CPU one long float32 dot of 10⁷ numbers is off by 10⁻³, enough to hide ρ < 1
    pieces = torch.stack([torch.dot(a, b) for a, b in zip(x.split(PIECE), y.split(PIECE), strict=True)])
    return pieces.to(wide(x.device)).sum()


def _total(parts: Iterable[Tensor | None], device: torch.device | None) -> Tensor:
    found = [part.to(device) for part in parts if part is not None]
    zero = torch.zeros((), dtype=wide(device), device=device)
    return torch.stack(found).to(zero).sum() if found else zero
