"""A float32 weight as a bfloat16 and its 16 low bits, and back.

On a CPU the passes over a large tensor go piece by piece, in memory that is there: a new temporary
of that size costs more than the arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

CACHED = 2**20  # numbers that stay in a CPU's cache between two passes


def split(theta: Tensor) -> tuple[Tensor, Tensor]:
    """float32 → (nearest bfloat16, 16 low bits as int16), half away from zero.

    `join` is its exact inverse.
    """
    bits = theta.view(torch.int32)
    high = (bits + 0x8000) >> 16
    return high.to(torch.int16).view(torch.bfloat16), (bits - (high << 16)).to(torch.int16)


def join(high: Tensor, low: Tensor) -> Tensor:
    """(bfloat16, int16) → the float32 that `split` took apart."""
    return ((high.view(torch.int16).to(torch.int32) << 16) + low.to(torch.int32)).view(
        torch.float32
    )


def put(high: Tensor, low: Tensor, theta: Tensor) -> None:
    """θ into its two halves. On a CPU θ is used up: its memory is spared a copy."""
    if theta.device.type != "cpu":
        for half, value in zip((high, low), split(theta), strict=True):
            half.copy_(value)
        return
    for h, l, part in _pieces(high.view(torch.int16), low, theta.view(torch.int32)):
        l.copy_(part)
        h.copy_(part.add_(0x8000).bitwise_right_shift_(16))


def joined(high: Tensor, low: Tensor, out: Tensor) -> Tensor:
    """`join` into memory that is there."""
    for h, l, part in _pieces(high.view(torch.int16), low, out.view(torch.int32)):
        part.copy_(h).bitwise_left_shift_(16).add_(l)
    return out


def _pieces(*tensors: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Give tensors of one shape in pieces that fit into a CPU's cache; strided ones are one."""
    if not all(x.is_contiguous() for x in tensors):
        yield tensors
        return
    flat = [x.view(-1) for x in tensors]
    for first in range(0, flat[0].numel(), CACHED):
        yield tuple(x[first : first + CACHED] for x in flat)


def way(theta: Tensor, high: Tensor, low: Tensor, s: float) -> Tensor:
    """(θ − θ₀)/s in the memory of θ, where θ₀ is in two halves."""
    if theta.device.type != "cpu":
        return theta.sub_(join(high, low)).div_(s)
    for t, h, l in _pieces(theta, high, low):
        t.sub_(join(h, l)).div_(s)
    return theta
