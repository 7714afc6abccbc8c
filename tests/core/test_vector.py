"""`ngdiff.core.vector`: a list of tensors is one vector, `None` is zero, and nothing is copied that
need not be.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from ngdiff.core import vector
from ngdiff.engine.master import Master

SHAPES = [(3, 4), (5,), (), (2, 3, 2)]


def make(seed, holes=(), dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    x = [torch.randn(s, generator=g, dtype=torch.float64).to(dtype) for s in SHAPES]
    return [None if i in holes else t for i, t in enumerate(x)]


def flat(u):
    return torch.cat(
        [(torch.zeros(s) if x is None else x).double().reshape(-1) for x, s in zip(u, SHAPES)]
    )


HOLES = [
    ((), ()),
    ((0,), ()),
    ((), (1, 3)),
    ((0, 1), (1, 2)),
    ((0, 1, 2, 3), ()),
    ((0, 1, 2, 3), (0, 1, 2, 3)),
]


@pytest.mark.parametrize(("holes_u", "holes_v"), HOLES)
def test_dot_and_gramian_are_those_of_the_flat_vectors(holes_u, holes_v):
    u, v = make(0, holes_u), make(1, holes_v)
    expected = torch.stack([flat(u), flat(v)]) @ torch.stack([flat(u), flat(v)]).T
    torch.testing.assert_close(vector.gramian(u, v), expected, rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(vector.dot(u, v), expected[0, 1], rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_sums_are_float64_whatever_the_tensors(dtype):
    u, v = make(0, dtype=dtype), make(1, dtype=dtype)
    gram = vector.gramian(u, v)
    assert gram.dtype == torch.float64
    exact = torch.stack([flat(u), flat(v)]) @ torch.stack([flat(u), flat(v)]).T
    # bfloat16 products would be 1e-2 away
    torch.testing.assert_close(gram, exact, rtol=1e-6, atol=1e-6)


def test_half_precision_squares_do_not_overflow():
    u = [torch.full((4,), 3e4, dtype=torch.float16)]
    assert vector.dot(u, u).item() == pytest.approx(4 * float(u[0][0]) ** 2)


def test_many_small_tensors_keep_what_one_float32_sum_would_lose():
    # 2²⁴ + 3 is no float32
    u = [torch.full((1,), 4096.0)] + [torch.full((1,), 1.0) for _ in range(3)]
    assert vector.dot(u, u).item() == 2**24 + 3


def test_non_contiguous_tensors_are_read_in_logical_order():
    x, y = torch.randn(4, 3).double().t(), torch.randn(3, 4).double()
    assert vector.dot([x], [y]).item() == pytest.approx((x * y).sum().item(), abs=1e-14)


def test_vectors_of_different_length_are_refused():
    with pytest.raises(ValueError, match="zip"):
        vector.dot(make(0), make(1)[:-1])


@pytest.mark.parametrize(("holes_u", "holes_v"), HOLES)
@pytest.mark.parametrize(("a", "b"), [(2.0, 3.0), (0.0, 1.0), (1.0, 0.0), (1e-8, 1e8)])
def test_combine_writes_over_v_and_leaves_u(holes_u, holes_v, a, b):
    u, v = make(0, holes_u), make(1, holes_v)
    before, expected = [None if x is None else x.clone() for x in u], a * flat(u) - b * flat(v)
    d = vector.combine_(u, v, a, b)
    torch.testing.assert_close(flat(d), expected, rtol=1e-14, atol=1e-14)
    for x, x_0, y, z in zip(u, before, v, d):
        assert x is None or torch.equal(x, x_0)
        assert y is None or z is y
        assert (z is None) == (x is None and y is None)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_copy_and_assign_are_bit_for_bit(dtype):
    theta = make(0, dtype=dtype)
    theta[1][:2] = torch.tensor([math.nan, -0.0], dtype=dtype)
    theta_0 = vector.copy(theta)
    assert all(x.data_ptr() != y.data_ptr() for x, y in zip(theta, theta_0))
    bits = [x.clone() for x in theta]
    junk = [torch.full_like(x, math.inf) for x in theta]
    vector.assign_(theta, theta_0, junk, 0.0)
    for x, y in zip(theta, bits):
        assert torch.equal(x.reshape(-1).view(torch.uint8), y.reshape(-1).view(torch.uint8))


def test_copy_reuses_spent_memory_only_where_it_fits():
    theta, spent = make(0), make(1, holes=(1,))
    spent[2] = spent[2].float()
    copied = vector.copy(theta, spent)
    assert [x is y for x, y in zip(copied, spent)] == [True, False, False, True]
    assert all(torch.equal(x, y) for x, y in zip(copied, theta))


def test_difference_and_assign_go_along_a_line():
    u, v = make(0), make(1)
    d = vector.difference(u, v)
    torch.testing.assert_close(flat(d), flat(u) - flat(v))
    moved = vector.copy(v)
    vector.assign_(moved, v, d, 0.25)
    torch.testing.assert_close(flat(moved), flat(v) + 0.25 * (flat(u) - flat(v)))
    assert vector.difference(u, v, spent := make(2))[0] is spent[0]


@pytest.mark.parametrize("scale", [1e-30, 1e-15, 1.0, 1e15])
def test_norms_over_all_scales(scale):
    u = [x * scale for x in make(0)]
    assert vector.dot(u, u).sqrt().item() == pytest.approx(
        scale * flat(make(0)).norm().item(), rel=1e-12
    )


def test_precision_is_that_of_the_worst_tensor():
    mixed = [torch.ones(1), torch.ones(1, dtype=torch.bfloat16), torch.ones(1, dtype=torch.float64)]
    assert vector.precision(mixed) == torch.finfo(torch.bfloat16).eps


def test_a_long_float32_tensor_is_multiplied_out_in_pieces():
    """10⁷ numbers in one float32 sum are off by 10⁻⁴ and more.

    That is enough to call 1 − ρ = 3e-5 aligned.
    """
    make = torch.Generator().manual_seed(0)
    u = torch.randn(10_000_000, generator=make)
    v = u + 8e-3 * torch.randn(10_000_000, generator=make)
    G = vector.gramian([u], [v])
    RR, RF, FF = (
        torch.dot(x, y).item()
        for x, y in itertools.combinations_with_replacement((u.double(), v.double()), 2)
    )
    assert G.flatten().tolist() == pytest.approx([RR, RF, RF, FF], rel=2e-6)
    rho, true = (
        rf / math.sqrt(rr * ff)
        for rr, rf, ff in ((G[0, 0].item(), G[0, 1].item(), G[1, 1].item()), (RR, RF, FF))
    )
    assert 1 - true == pytest.approx(3.2e-5, rel=0.01) and 1 - rho == pytest.approx(
        1 - true, rel=0.05
    )


# ------------------------------------------------------------ what an accelerator does, on the host
@pytest.fixture(params=["eager", pytest.param("compiled", marks=pytest.mark.slow)])
def kernels(request, monkeypatch):
    """One kernel for a large tensor, one pack for all small ones, as on CUDA.

    They are eager, or really compiled.
    """
    made = {}

    def fused(function, device):
        if request.param == "compiled":
            return made.setdefault(function, torch.compile(function, dynamic=True))
        return made.setdefault(function, function)

    monkeypatch.setattr(vector, "fused", fused)
    monkeypatch.setattr(vector, "small", lambda x: x.numel() <= 10)
    return made


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_kernels_and_packs_give_the_same_numbers(kernels, dtype):
    make = torch.Generator().manual_seed(0)
    shapes = [(6, 7), (5,), (), (3, 3), (40,), (2, 2)]
    u, v = (
        [torch.randn(shape, generator=make, dtype=torch.float64).to(dtype) for shape in shapes]
        for _ in range(2)
    )
    u[1], v[3] = None, None
    flat_u, flat_v = (
        torch.cat(
            [
                torch.zeros(shape).reshape(-1).double() if x is None else x.double().reshape(-1)
                for x, shape in zip(w, shapes)
            ]
        )
        for w in (u, v)
    )
    G = torch.stack([flat_u, flat_v])
    rel = {torch.float32: 1e-6, torch.float64: 1e-13, torch.bfloat16: 1e-6}[dtype]
    torch.testing.assert_close(vector.gramian(u, v), G @ G.T, rtol=rel, atol=rel)
    d = vector.combine_(u, v, 0.3, 1.7)
    found = torch.cat([x.double().reshape(-1) for x in d])
    torch.testing.assert_close(
        found,
        0.3 * flat_u - 1.7 * flat_v,
        rtol=4 * torch.finfo(dtype).eps,
        atol=1e-2 * rel + 2 * torch.finfo(dtype).eps,
    )
    assert vector._three in kernels and vector._axpby_ in kernels


def test_a_master_is_as_exact_by_kernels(kernels):
    x = torch.nn.Parameter(torch.randn(64, generator=torch.Generator().manual_seed(0)).bfloat16())
    exact = torch.nn.Parameter(x.detach().float())
    master = Master([x], lambda groups: torch.optim.AdamW(groups, lr=1e-5))
    other = torch.optim.AdamW([exact], lr=1e-5)
    for seed in range(3):
        x.grad = torch.randn(64, generator=torch.Generator().manual_seed(seed)).bfloat16()
        exact.grad = x.grad.float()
        master.step()
        other.step()
    assert torch.equal(master.exact()[0], exact.detach())


def test_an_empty_vector_has_a_gramian():
    assert vector.gramian([], []).tolist() == [[0, 0], [0, 0]] and vector.dot([], []).item() == 0.0
