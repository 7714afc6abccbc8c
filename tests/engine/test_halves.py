"""A float32 weight in two halves, put and joined in memory that is there."""

from __future__ import annotations

import pytest
import torch

from ngdiff.engine import halves
from ngdiff.engine.halves import join, joined, put, split, way

CUTS = [1, 7, 64, 2**20]  # numbers of a piece


@pytest.fixture(params=CUTS)
def cached(request, monkeypatch):
    monkeypatch.setattr(halves, "CACHED", request.param)


def weights(*shape: int) -> torch.Tensor:
    """Any bit patterns: infinities, NaNs and denormal numbers among them."""
    make = torch.Generator().manual_seed(0)
    bits = torch.randint(-(2**31), 2**31, shape, generator=make).to(torch.int32)
    bits.view(-1)[:4] = torch.tensor([0x7F800000, 0x7FC00001, -1, 0x00008000], dtype=torch.int64)
    return bits.view(torch.float32)


def bits(x: torch.Tensor) -> torch.Tensor:
    return x.contiguous().view(torch.int16)


@pytest.mark.parametrize("shape", [(130,), (5, 26), (0,), (3, 2, 9)])
def test_put_and_joined_are_split_and_join_in_place(cached, shape):
    theta = weights(*shape) if 0 not in shape else torch.empty(shape)
    high, low = split(theta)
    into = torch.empty_like(high), torch.empty_like(low)
    put(*into, theta.clone())
    assert torch.equal(bits(into[0]), bits(high)) and torch.equal(into[1], low)
    out = joined(high, low, torch.empty(shape))
    assert torch.equal(bits(out), bits(theta)) and torch.equal(bits(join(high, low)), bits(theta))


def test_strided_weights_are_put_where_they_lie(cached):
    theta = weights(6, 10)
    high, low = (half.t().contiguous().t() for half in split(theta))  # columns first
    assert not high.is_contiguous()
    into = torch.empty_like(high), torch.empty_like(low)
    put(*into, theta.clone())
    assert torch.equal(bits(into[0]), bits(high)) and torch.equal(into[1], low)
    assert torch.equal(bits(joined(high, low, torch.empty(6, 10))), bits(theta))


def test_the_way_is_the_difference_over_the_rate(cached):
    make = torch.Generator().manual_seed(1)
    before, after = torch.randn(50, generator=make), torch.randn(50, generator=make)
    expected = (after - before).div(0.25)
    assert torch.equal(way(after.clone(), *split(before), 0.25), expected)
