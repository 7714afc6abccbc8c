"""The closed forms 1 to 6, by number, each a property over random families.

Directions and single steps.

The statements are functions of `ngdiff.theory.theorems`, which the notebooks call too; beside each
stand what must fail where the statement does not reach, and checks of it that share no code with
it.
"""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ngdiff.core.directions import MGDA, GradDiff, LossNorm, NGDiff, PCGrad
from ngdiff.core.parabola import parabola
from ngdiff.theory import geometry, oracles, theorems
from ngdiff.theory.quadratics import pair
from tests.helpers.families import FAMILIES, SEEDS, gradients, pairs, somewhere, vec


# ----------------------------------------------------------------------------------------- 1: Eq. 7
@given(gradients())
def test_1_products_and_length(g) -> None:
    theorems.products(*g)


def test_1_is_not_true_of_other_weights(monkeypatch) -> None:
    g_R, g_F = vec(1.0, 0.0), vec(3.0, 3.0)
    monkeypatch.setattr(theorems, "NGDiff", lambda: GradDiff(0.5))
    with pytest.raises(AssertionError, match="Eq"):
        theorems.products(g_R, g_F)


# -------------------------------------------------------------------------------------- 2: static c
@given(gradients(), st.floats(0, 1))
def test_2_static_interval(g, c) -> None:
    theorems.static_interval(*g, c)


@given(gradients(conflict=True), st.floats(1e-6, 1.0), st.sampled_from(["low", "high"]))
def test_2_the_ends_are_sharp(g, step, end) -> None:
    low, high = theorems.interval(*g)
    for ratio, inside in ((low * (1 + step), end == "low"), (high / (1 + step), end == "high")):
        if inside and low <= ratio <= high:
            assert geometry.eq7(geometry.combined(GradDiff(ratio / (1 + ratio)), *g), *g, 1e-12)
    outside = low / (1 + step) if end == "low" else high * (1 + step)
    a, b = outside / (1 + outside), 1 / (1 + outside)  # c and 1 − c, neither by cancellation
    assert not geometry.eq7(a * g[0] - b * g[1], *g)


@given(st.floats(1e-3, 1e3), st.integers(1, 12))
def test_2_the_interval_closes_on_ngdiff(kappa, digits) -> None:
    rho = 1 - 10.0**-digits
    g_R, g_F = vec(1.0, 0.0), kappa * vec(rho, math.sqrt(1 - rho**2))
    low, high = theorems.interval(g_R, g_F)
    assert low < kappa < high and high / low == pytest.approx(rho**-2, rel=1e-9)
    a, b = NGDiff().weights(geometry.gram(g_R, g_F), torch.ones(2)).tolist()
    assert low < a / b < high
    # 1 % past the end, wherever the end is
    drifted = GradDiff((kappa * 1.01 / rho) / (1 + kappa * 1.01 / rho))
    assert not geometry.eq7(geometry.combined(drifted, g_R, g_F), g_R, g_F)


# ---------------------------------------------------------------------------- 3: the same direction
@given(gradients(scale=2.0))
@settings(max_examples=40)
def test_3_ngdiff_is_imtl_g_config_and_mgda_on_unit_gradients(g) -> None:
    assume(abs(geometry.angle_ratio(*g)[0]) < 1 - 1e-9)
    theorems.same_as_multitask(*g)


@given(gradients(scale=2.0), SEEDS)
def test_3_no_direction_has_a_larger_smaller_cosine(g, seed) -> None:
    g_R, g_F = g
    assume(geometry.angle_ratio(*g)[0] < 1 - 1e-6)

    def worse(d: Tensor) -> float:
        d = d / d.norm()
        return min((d @ g_R / g_R.norm()).item(), (-(d @ g_F) / g_F.norm()).item())

    mine = worse(geometry.combined(NGDiff(), *g))
    make = torch.Generator().manual_seed(seed)
    for size in (1.0, 1e-2, 1e-4):
        d = geometry.combined(NGDiff(), *g)
        other = d / d.norm() + size * torch.randn(len(d), generator=make, dtype=torch.float64)
        assert worse(other) <= mine + 1e-12
    for rule in (PCGrad(), MGDA(), GradDiff(0.3)):
        assert worse(geometry.combined(rule, *g)) <= mine + 1e-9


def test_3_oracles_reproduce_hand_computed_directions() -> None:
    G = oracles.tasks(vec(2.0, 0.0), vec(0.0, -1.0))  # tasks (2, 0) and (0, 1)
    assert torch.allclose(oracles.imtl_g(G), vec(2 / 3, 2 / 3))
    assert torch.allclose(oracles.config(G), vec(1.5, 1.5))
    assert torch.allclose(oracles.pcgrad(G), vec(2.0, 1.0))
    assert torch.allclose(oracles.shortest(G), vec(0.4, 0.8), atol=1e-6)


# ------------------------------------------------------------------------------- 4: PCGrad and MGDA
@given(gradients(scale=2.0))
@settings(max_examples=40)
def test_4_pcgrad_and_mgda_closed_forms(g) -> None:
    theorems.projections(*g)


@given(gradients(scale=2.0, conflict=True), st.floats(-3, 3))
def test_4_lossnorm_meets_eq7_only_inside_the_interval(g, log_ratio) -> None:
    low, high = theorems.interval(*g)
    ratio = 10**log_ratio  # LossNorm's a/b = F/R
    assume(min(abs(ratio / low - 1), abs(ratio / high - 1)) > 1e-6)
    d = geometry.combined(LossNorm(), *g, losses=(1.0, ratio))
    assert geometry.eq7(d, *g) == (low < ratio < high)


# -------------------------------------------------------------------------------------- 5: one step
@FAMILIES
@given(st.data())
@settings(max_examples=40)
def test_5_one_step_and_its_windows(family, data) -> None:
    P = data.draw(pairs(family))
    theta = somewhere(P)
    for rule in (NGDiff(), PCGrad(), MGDA(), GradDiff(0.5)):
        d = geometry.combined(rule, P.grad_R(theta), P.grad_F(theta))
        theorems.one_step(P, theta, d, 10 ** data.draw(st.floats(-3, 2)))


@given(st.data(), st.floats(-3, 6))
@settings(max_examples=40)
def test_5_on_a_convex_forget_loss_every_ngdiff_step_forgets(data, log_eta) -> None:
    P = data.draw(pairs("convex"))
    theta = somewhere(P)
    d = geometry.combined(NGDiff(), P.grad_R(theta), P.grad_F(theta))
    assume(d.norm() > 1e-6)
    assert P.F(theta - 10**log_eta * d) > P.F(theta)


def test_5_and_on_a_concave_one_not_every_step() -> None:
    P = pair(60, 5, 1.0, 2, "concave", seed=0)
    d = geometry.combined(NGDiff(), P.grad_R(P.start), P.grad_F(P.start))
    assert P.F(P.start - 2 * P.forget_window(P.start, d) * d) < P.F(P.start)


def softmax_losses(seed: int):
    """Cross-entropies of a three-class linear classifier on two small batches.

    Smooth, convex, not quadratic.
    """
    make = torch.Generator().manual_seed(seed)
    x, y = torch.randn(6, 4, generator=make, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])

    def loss(rows: slice):
        return lambda w: torch.nn.functional.cross_entropy(x[rows] @ w.reshape(4, 3), y[rows])

    return (
        loss(slice(0, 3)),
        loss(slice(3, 6)),
        torch.randn(12, generator=make, dtype=torch.float64),
    )


@pytest.mark.parametrize("seed", range(4))
def test_5_expansion_beyond_quadratics_has_a_remainder_of_third_order(seed) -> None:
    R, F, w = softmax_losses(seed)
    w.requires_grad_()
    g_R, g_F = (torch.autograd.grad(loss(w), w, create_graph=True)[0] for loss in (R, F))
    d = geometry.combined(NGDiff(), g_R, g_F).detach()
    for loss, g in ((R, g_R), (F, g_F)):
        bend = torch.autograd.grad(g @ d, w)[0] @ d  # d'Hd
        rest = [
            abs((loss(w - e * d) - loss(w) + e * g @ d - 0.5 * e**2 * bend).item())
            for e in (0.04, 0.02, 0.01)
        ]
        assert rest[0] > 0 and all(
            6 < big / small < 10 for big, small in itertools.pairwise(rest)
        ), rest


# ---------------------------------------------------------------------------------------- 6: AutoLR
@FAMILIES
@given(st.data(), st.floats(-2, 4))
@settings(max_examples=40)
def test_6_one_probe_is_exact_and_not_below_the_bound(family, data, log_radius) -> None:
    P = data.draw(pairs(family))
    theta = somewhere(P)
    d = geometry.combined(NGDiff(), P.grad_R(theta), P.grad_F(theta))
    assume(d.norm() > 1e-3)
    theorems.exact_rate(P, theta, d, 10**log_radius)


@given(*[st.integers(-(10**6), 10**6)] * 3, st.fractions().filter(bool))
def test_6_without_rounding_any_radius_is_exact(L_0, slope, bend, h) -> None:
    assert theorems.parabola_is_exact(L_0, slope, bend, h)
    cubic = [x + h**3 * sign for x, sign in ((L_0 - slope * h, -1), (L_0, 0), (L_0 + slope * h, 1))]
    assert parabola(*cubic, h) == (slope + h**2, 0), (
        "a cubic term biases the slope by h², which is why radii matter"
    )
    assert isinstance(parabola(*cubic, h)[0], Fraction)


def test_6_the_bound_is_reached_when_the_direction_bends_most() -> None:
    P = pair(60, 1.0, 1.0, 3, "concave", seed=0)  # A = I: every direction bends alike
    d = geometry.combined(NGDiff(), P.grad_R(P.start), P.grad_F(P.start))
    assert P.best_rate(P.start, d) == pytest.approx(P.grad_R(P.start).norm().item() / 2)
