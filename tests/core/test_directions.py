"""Rules × input families: what each direction rule claims, at every scale and in every relation of
the two gradients.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ngdiff.core import vector
from ngdiff.core.directions import MGDA, GradAscent, GradDiff, LossNorm, NGDiff, PCGrad, Sum

RULES = (
    GradAscent(),
    GradDiff(0.1),
    GradDiff(0.5),
    GradDiff(0.9),
    Sum(),
    LossNorm(),
    NGDiff(),
    PCGrad(),
    MGDA(),
)
SAFE = (NGDiff(), PCGrad(), MGDA())  # Eq. 7 for any pair of gradients
LOSSES = (0.7, 2.5)
# relation -> cosine of the two gradients; conflict is ρ > 0
RELATIONS = {
    "aligned": 1.0,
    "conflicting": 0.8,
    "mild": 0.1,
    "orthogonal": 0.0,
    "helping": -0.6,
    "opposite": -1.0,
}
SCALES = {
    torch.float64: (1e-30, 1e-15, 1e-3, 1.0, 1e3, 1e15),
    torch.float32: (1e-15, 1e-3, 1.0, 1e3, 1e15),
}
EACH = pytest.mark.parametrize("rule", RULES, ids=repr)
EACH_SAFE = pytest.mark.parametrize("rule", SAFE, ids=repr)
EACH_RELATION = pytest.mark.parametrize("rho", RELATIONS.values(), ids=RELATIONS)
EACH_DTYPE = pytest.mark.parametrize("dtype", SCALES, ids=str)


def gradients(
    rho: float, dim: int = 6, dtype=torch.float64, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Two unit vectors with that cosine, (dim,) each; ±1 exactly (a rank-deficient pair)."""
    make = torch.Generator().manual_seed(seed)
    basis, _ = torch.linalg.qr(torch.randn(dim, 2, generator=make, dtype=torch.float64))
    u, v = basis[:, 0], rho * basis[:, 0] + math.sqrt(max(1 - rho**2, 0.0)) * basis[:, 1]
    return u.to(dtype), v.to(dtype)


def split(g: Tensor) -> list[Tensor]:
    """As the parameters of a model would hold it: several tensors."""
    return [g[:1].reshape(1, 1), g[1:]]


def weights(rule, g_R: Tensor, g_F: Tensor, losses=LOSSES) -> list[float]:
    gram = vector.gramian(split(g_R), split(g_F))
    return rule.weights(gram, gram.new_tensor(losses)).tolist()


def parts(rule, g_R: Tensor, g_F: Tensor) -> tuple[Tensor, Tensor]:
    """(a·g_R, b·g_F) in float64, where no scale of float32 can overflow."""
    a, b = weights(rule, g_R, g_F)
    return a * g_R.double(), b * g_F.double()


# -------------------------------------------------------------------------------------------- shape
@EACH
@EACH_DTYPE
@EACH_RELATION
def test_weights_are_two_finite_numbers_not_below_zero_at_every_scale(rule, dtype, rho) -> None:
    g_R, g_F = gradients(rho, dtype=dtype)
    for s in SCALES[dtype]:
        for t in SCALES[dtype]:
            a, b = weights(rule, s * g_R, t * g_F)
            assert math.isfinite(a) and math.isfinite(b) and a >= 0 and b >= 0, (s, t, a, b)


@EACH
def test_weights_stay_on_the_device_with_the_dtype_of_the_gramian(rule) -> None:
    for dtype in (torch.float32, torch.float64):
        gram = torch.tensor([[4.0, 1.0], [1.0, 9.0]], dtype=dtype)
        found = rule.weights(gram, torch.tensor(LOSSES, dtype=torch.float64))
        assert found.shape == (2,) and found.dtype == dtype


@EACH
def test_repr_is_the_configuration(rule) -> None:
    assert eval(repr(rule)) == rule and hash(rule) == hash(eval(repr(rule)))
    with pytest.raises(AttributeError):
        rule.c = 0.3  # frozen


# ------------------------------------------------------------------------------------------- golden
# g_R = (3, 4), g_F = (5, 0): ‖g_R‖ = ‖g_F‖ = 5, ⟨g_R, g_F⟩ = 15, ρ = 3/5; losses R = 2, F = 8
GOLDEN = [
    (GradAscent(), (0.0, 1.0)),
    (GradDiff(0.9), (0.9, 0.1)),
    (Sum(forget=0.125), (1.0, 0.125)),
    (LossNorm(), (1 / 2, 1 / 8)),
    (NGDiff(), (1 / 5, 1 / 5)),
    (PCGrad(), (1 + 15 / 25, 1 + 15 / 25)),
    (MGDA(), (1 / 2, 1 / 2)),
]


@pytest.mark.parametrize(("rule", "wanted"), GOLDEN, ids=[repr(rule) for rule, _ in GOLDEN])
def test_golden_values_equal_norms(rule, wanted) -> None:
    g_R, g_F = torch.tensor([3.0, 4.0]).double(), torch.tensor([5.0, 0.0]).double()
    assert weights(rule, g_R, g_F, (2.0, 8.0)) == pytest.approx(wanted, rel=1e-15)


def test_golden_values_unequal_norms() -> None:
    g_R, g_F = torch.tensor([1.0, 0.0]).double(), torch.tensor([2.0, 2.0]).double()
    # ‖g_R‖² = 1, ⟨g_R, g_F⟩ = 2, ‖g_F‖² = 8: PCGrad a = 1 + 2/1, b = 1 + 2/8; MGDA a = (8+2)/13, b
    # = (1+2)/13
    assert weights(NGDiff(), g_R, g_F) == pytest.approx([1.0, 8**-0.5], rel=1e-15)
    assert weights(PCGrad(), g_R, g_F) == pytest.approx([3.0, 1.25], rel=1e-15)
    assert weights(MGDA(), g_R, g_F) == pytest.approx([10 / 13, 3 / 13], rel=1e-15)
    # helping gradients: PCGrad projects nothing; MGDA's segment is shortest at its end g_R
    assert weights(PCGrad(), g_R, -g_F) == [1.0, 1.0]
    assert weights(MGDA(), g_R, -g_F) == [1.0, 0.0]


# -------------------------------------------------------------------------------------------- Eq. 7
@EACH_SAFE
@EACH_DTYPE
@EACH_RELATION
def test_eq7_holds_for_any_gradients_at_every_scale(rule, dtype, rho) -> None:
    g_R, g_F = gradients(rho, dtype=dtype)
    eps = torch.finfo(dtype).eps
    for s in SCALES[dtype]:
        for t in SCALES[dtype]:
            p, q = parts(rule, s * g_R, t * g_F)
            # rounding of the weights and of the difference
            slack = 16 * eps * (p.norm() + q.norm())
            u, v = g_R.double(), g_F.double()
            assert (p - q) @ u >= -slack and (p - q) @ v <= slack, (s, t)


def test_mgda_keeps_a_small_weight_that_one_minus_the_other_would_lose() -> None:
    g_R, g_F = gradients(0.8)
    a, b = weights(MGDA(), 1e-30 * g_R, g_F)
    c, d = weights(MGDA(), g_R, 1e-30 * g_F)
    assert a == pytest.approx(d, rel=1e-12) and b == pytest.approx(c, rel=1e-12)
    assert 0 < d < 1e-29 or 0 < b < 1e-29


@pytest.mark.parametrize(
    ("rule", "g_R", "g_F", "losses"),
    [
        (GradDiff(0.5), (1.0, 0.0), (3.0, 3.0), (1.0, 1.0)),  # R rises: ⟨d, g_R⟩ = ½(1 − 3)
        (GradDiff(0.9), (3.0, 3.0), (1.0, 0.0), (1.0, 1.0)),  # F falls: ⟨d, g_F⟩ = .9·3 − .1
        (LossNorm(), (1.0, 0.0), (3.0, 3.0), (1.0, 1.0)),
        # a well-fitted R: its weight grows, F falls
        (LossNorm(), (1.0, 0.0), (1.0, 1.0), (1.0, 5.0)),
        (GradAscent(), (1.0, 0.0), (1.0, 1.0), (1.0, 1.0)),
    ],
    ids=str,
)
def test_eq7_fails_for_rules_that_do_not_look(rule, g_R, g_F, losses) -> None:
    g_R, g_F = torch.tensor(g_R).double(), torch.tensor(g_F).double()
    a, b = weights(rule, g_R, g_F, losses)
    d = a * g_R - b * g_F
    assert d @ g_R < -1e-3 or d @ g_F > 1e-3


# -------------------------------------------------------------------------------------- invariances
@EACH_DTYPE
@EACH_RELATION
def test_ngdiff_is_invariant_to_the_scale_of_either_gradient(dtype, rho) -> None:
    g_R, g_F = gradients(rho, dtype=dtype)
    p_0, q_0 = parts(NGDiff(), g_R, g_F)
    for s in SCALES[dtype]:
        for t in SCALES[dtype]:
            p, q = parts(NGDiff(), s * g_R, t * g_F)
            assert (p - p_0).norm() <= 8 * torch.finfo(dtype).eps and (
                q - q_0
            ).norm() <= 8 * torch.finfo(dtype).eps


@pytest.mark.parametrize("rule", (PCGrad(), MGDA()), ids=repr)
@EACH_DTYPE
@EACH_RELATION
def test_pcgrad_and_mgda_are_invariant_to_a_common_scale(rule, dtype, rho) -> None:
    if isinstance(rule, MGDA) and rho == -1.0:
        pytest.skip("g_R = −g_F: every point of the segment is the same, and any weights will do")
    g_R, g_F = gradients(rho, dtype=dtype)
    wanted = weights(rule, g_R, 2 * g_F)
    for s in SCALES[dtype]:
        assert weights(rule, s * g_R, 2 * s * g_F) == pytest.approx(
            wanted, rel=1e-4 if s < 1e-3 else 1e-5, abs=1e-5
        )


def test_pcgrad_and_mgda_follow_the_larger_gradient_where_ngdiff_does_not() -> None:
    g_R, g_F = gradients(0.8)
    for rule in (PCGrad(), MGDA()):
        assert abs(cosine(rule, g_R, g_F) - cosine(rule, g_R, 100 * g_F)) > 0.1
    assert cosine(NGDiff(), g_R, g_F) == pytest.approx(cosine(NGDiff(), g_R, 100 * g_F), abs=1e-12)


def cosine(rule, g_R: Tensor, g_F: Tensor) -> float:
    p, q = parts(rule, g_R, g_F)
    return ((p - q) @ g_R / (p - q).norm() / g_R.norm()).item()


@EACH_SAFE
@settings(max_examples=40)
@given(rho=st.floats(-1, 1), scale=st.floats(-6, 6), seed=st.integers(0, 1000))
def test_the_two_tasks_are_treated_alike(rule, rho, scale, seed) -> None:
    g_R, g_F = gradients(rho, seed=seed)
    a, b = weights(rule, g_R, 10**scale * g_F)
    c, d = weights(rule, 10**scale * g_F, g_R)  # (R, −F) → (F, −R) turns d into −d
    assert (a, b) == pytest.approx((d, c), rel=1e-9, abs=1e-300)


# ------------------------------------------------------------------------------------- zero, errors
def test_a_zero_gradient_has_no_direction() -> None:
    g, zero = torch.tensor([3.0, 4.0]).double(), torch.zeros(2).double()
    assert weights(NGDiff(), g, zero) == [0.2, 0.0] and weights(NGDiff(), zero, g) == [0.0, 0.2]
    assert weights(PCGrad(), g, zero) == [1.0, 1.0] and weights(NGDiff(), zero, zero) == [0.0, 0.0]
    assert weights(MGDA(), zero, g) == [1.0, 0.0] and weights(MGDA(), zero, zero) == [0.5, 0.5]


def test_a_zero_loss_has_no_weight_in_lossnorm() -> None:
    g_R, g_F = gradients(0.5)
    assert weights(LossNorm(), g_R, g_F, (0.0, 1.0))[0] == math.inf  # the step refuses it


@pytest.mark.parametrize("c", [-0.1, 1.1, math.nan])
def test_graddiff_needs_a_share(c) -> None:
    with pytest.raises(ValueError, match="0 ≤ c ≤ 1"):
        GradDiff(c)
