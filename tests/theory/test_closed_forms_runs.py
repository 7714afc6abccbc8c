"""The closed forms 7 to 10, by number, each a property over random families.

Whole runs, their ends, and AdamW.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor

from ngdiff.core.directions import GradDiff, NGDiff, PCGrad
from ngdiff.core.step import UnlearningStep
from ngdiff.core.stepsize import Constant
from ngdiff.theory import geometry, theorems
from ngdiff.theory.quadratics import Pair, pair, walk
from tests.helpers.families import FAMILIES, SEEDS, gradients, pairs, vec

# ------------------------------------------------------------------------------------ 7: invariance
SCALES = st.floats(-3, 3).map(lambda x: 10**x)


@FAMILIES
@pytest.mark.parametrize("rule", [theorems.EXACT, theorems.SAFE], ids=["exact", "safe"])
@given(st.data(), SCALES, SCALES)
@settings(max_examples=6)
def test_7_ngdiff_with_autolr_is_invariant_to_rescaling_either_loss(
    family, rule, data, by_R, by_F
) -> None:
    theorems.invariance(
        data.draw(pairs(family, condition=1.5, ratio=1.0)), by_R, by_F, rule, steps=10
    )


@FAMILIES
@pytest.mark.parametrize("powers", [(10, 0), (0, -10), (-7, 9)])
def test_7_bit_for_bit_when_the_factors_are_powers_of_two(family, powers) -> None:
    P = pair(50, 20, 3.0, 3, family, seed=7)
    for rule in (theorems.EXACT, theorems.SAFE):
        assert theorems.invariance(P, 2.0 ** powers[0], 2.0 ** powers[1], rule, steps=20) == 0.0


@FAMILIES
@pytest.mark.parametrize("c", [0.1, 0.5, 0.9])
def test_7_no_static_c_is_invariant(family, c) -> None:
    P = pair(50, 5, 1.0, 3, family, seed=7)
    for by_R, by_F in ((1e3, 1.0), (1.0, 1e3), (1e-3, 1.0)):
        assert theorems.rescaled(P, GradDiff(c), theorems.EXACT, by_R, by_F, 5) > 1e-2


@FAMILIES
def test_7_ngdiff_with_a_constant_rate_is_invariant_too_but_pcgrad_is_not(family) -> None:
    P = pair(50, 5, 1.0, 3, family, seed=7)
    assert theorems.rescaled(P, NGDiff(), Constant(0.02), 1e3, 1e-3, 10) < 1e-9
    assert theorems.rescaled(P, PCGrad(), theorems.EXACT, 1.0, 1e3, 5) > 1e-2


# ---------------------------------------------------------------------------------------- 8: Pareto
@given(pairs("concave"), st.floats(0.01, 0.99), SEEDS)
@settings(max_examples=25)
def test_8_scalarization_minimisers_are_pareto_optimal_on_the_concave_family(P, c, seed) -> None:
    make = torch.Generator().manual_seed(seed)
    noise = torch.randn(400, len(P.start), generator=make, dtype=torch.float64)
    size = (P.r - P.f).norm() * 10.0 ** torch.linspace(-6, 1, 400, dtype=torch.float64)[:, None]
    theorems.scalarization(P, c, P.minimiser(c) + size * noise)


@given(pairs("convex"), st.floats(0.01, 0.99))
@settings(max_examples=25)
def test_8_on_the_convex_family_a_minimum_exists_iff_retain_dominates(P, c) -> None:
    lowest = torch.linalg.eigvalsh(c * P.A - (1 - c) * P.B).min().item()
    assume(abs(lowest) > 1e-9)
    if lowest < 0:
        with pytest.raises(ValueError, match="unbounded below"):
            P.minimiser(c)
    else:
        theta = P.minimiser(c)
        assert P.stationarity(theta) < 1e-6


@pytest.mark.parametrize("seed", range(4))
def test_8_ngdiff_ends_stationary_and_on_the_concave_family_optimal(seed) -> None:
    P = pair(60, 8, 2.0, 2, "concave", seed)
    path, history = walk(P, NGDiff(), theorems.SAFE, 300)
    assert history[-1].outcome == "aligned" and P.stationarity(path[-1]) < 1e-6
    assert P.dominated(path[0]) and not P.dominated(path[-1])


def test_8_the_end_depends_on_start_and_step_size() -> None:
    P = pair(60, 8, 1.0, 2, "concave", seed=2)
    moved = Pair(P.A, P.B, P.r, P.f, P.start + vec(0.2, -0.1), P.family)
    ends = [
        walk(Q, NGDiff(), rule, 3000)
        for Q, rule in ((P, Constant(0.01)), (P, Constant(0.1)), (moved, Constant(0.01)))
    ]
    assert {history[-1].outcome for _, history in ends} == {"aligned"}
    a, b, c = (path[-1] for path, _ in ends)
    assert all(P.stationarity(x) < 1e-6 and not P.dominated(x) for x in (a, b, c))
    assert min((a - b).norm(), (a - c).norm(), (b - c).norm()) > 1e-3 * (P.r - P.f).norm()


def test_8_stationary_is_not_optimal_on_the_convex_family() -> None:
    found = []
    for seed in range(12):
        P = pair(60, 8, 1.0, 2, "convex", seed)
        path, history = walk(P, NGDiff(), theorems.SAFE, 300)
        if history[-1].outcome == "aligned":
            end = path[-1]
            ring = theorems.same_retain(P, end)
            assert torch.allclose(P.R(ring), P.R(end), rtol=1e-9) and P.stationarity(end) < 1e-6
            found.append((P.F(ring).max() / P.F(end)).item())
    assert max(found) > 1.1, "some end is dominated: a point with the same R has a clearly larger F"
    assert min(found) < 1 + 1e-3, "and some end is optimal"


# ----------------------------------------------------------------------------------------- 9: AdamW
def adam_step(g_R: Tensor, g_F: Tensor, rule=None, **options) -> tuple[float, float]:
    """(⟨g_R, Δθ⟩, ⟨g_F, Δθ⟩) of the step that UnlearningStep really makes with AdamW on two linear
    losses.
    """
    theta = torch.zeros_like(g_R, requires_grad=True)
    optimizer = torch.optim.AdamW([theta], **{"lr": 1e-2, "weight_decay": 0.0, **options})
    info = UnlearningStep([theta], optimizer, rule or NGDiff(), measure=True)(
        lambda: g_R @ theta, lambda: g_F @ theta
    )
    return info.dR, info.dF


def test_9_eq7_breaks_under_adamw() -> None:
    g_R, g_F = vec(0.8, 0.6), vec(0.9, math.sqrt(0.19))
    assert geometry.eq7(geometry.combined(NGDiff(), g_R, g_F), g_R, g_F)
    # the first step of Adam is the sign of d = (−, +): ⟨g_R, Δθ⟩ = −η(−.8 + .6)
    dR, _ = adam_step(g_R, g_F)
    assert dR == pytest.approx(1e-2 * 0.2, rel=1e-6)
    _, dF = adam_step(g_F, g_R)  # and with the roles exchanged F falls
    assert dF < 0


@given(gradients(scale=2.0), st.integers(1, 500), st.floats(-6, 2))
@settings(max_examples=60)
def test_9_eq7_is_restored_in_adams_own_metric_without_momentum(g, t, size) -> None:
    g_R, g_F = g
    assume(geometry.angle_ratio(g_R, g_F)[0] < 1 - 1e-6)
    make = torch.Generator().manual_seed(t)
    v = (
        10**size * torch.rand(len(g_R), generator=make, dtype=torch.float64)
        if t > 1
        else torch.zeros_like(g_R)
    )
    theorems.restored(g_R, g_F, v, t)


def test_9_and_that_step_is_the_one_torch_makes() -> None:
    g_R, g_F = vec(0.8, 0.6, 0.1), vec(0.9, 0.43, -0.2)
    theta = torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.AdamW([theta], lr=1e-2, betas=(0.0, 0.999), weight_decay=0.0)
    v = torch.zeros(3, dtype=torch.float64)
    for t in range(1, 6):
        before = theta.detach().clone()
        g_R, g_F = g_R.roll(1), g_F.roll(1) + 0.01 * t
        d = geometry.own_metric(g_R, g_F, v, t)
        theta.grad = d
        optimizer.step()
        step = before - theta.detach()
        assert torch.allclose(
            step, 1e-2 * d / geometry.adam_metric(d, v, t, 0.999, 1e-8), rtol=1e-9
        )
        assert step @ g_R > 0 > step @ g_F
        v = 0.999 * v + 0.001 * d**2


def test_9_weight_decay_breaks_it_as_well() -> None:
    theta = torch.tensor([5.0, 0.0], dtype=torch.float64, requires_grad=True)
    g_R, g_F = vec(-1.0, 0.1), vec(-1.0, -0.1)
    optimizer = torch.optim.SGD([theta], lr=0.1, weight_decay=0.01)
    info = UnlearningStep([theta], optimizer, NGDiff(), measure=True)(
        lambda: g_R @ theta, lambda: g_F @ theta
    )
    assert info.dR > 0, (
        "R rises: the decay pulls θ back along −g_R by more than d, which is short near alignment"
    )


# -------------------------------------------------------------------------------- 10: where it ends
@FAMILIES
@pytest.mark.parametrize("seed", range(5))
def test_10_runs_with_autolr_end_aligned_on_well_conditioned_pairs(family, seed) -> None:
    make = torch.Generator().manual_seed(seed)
    angle, condition, ratio = torch.rand(3, generator=make).tolist()
    P = pair(5 + 170 * angle, 10**condition, 10 ** (2 * ratio - 1), 2 + seed % 3, family, seed)
    end, stationarity = theorems.where_it_ends(P, theorems.SAFE, 300)
    assert end == "aligned" and stationarity < 1e-6


@FAMILIES
@pytest.mark.parametrize(
    "rule", [theorems.SAFE, theorems.EXACT, Constant(0.1)], ids=["safe", "exact", "constant"]
)
@given(st.data())
@settings(max_examples=12)
def test_10_a_run_that_stops_by_itself_is_aligned_and_stationary(family, rule, data) -> None:
    """`where_it_ends` asserts it; the sentence "every run ends so" is false, see below."""
    P = data.draw(pairs(family, condition=1.0, ratio=1.0, dims=st.integers(2, 4)))
    end, left = theorems.where_it_ends(P, rule, 150)
    assert end in ("aligned", "retain minimum", "stationary", "moving")
    assert end == "moving" or left < 1e-6
    if end == "aligned" and family == "concave":
        assert not P.dominated(walk(P, NGDiff(), rule, 150)[0][-1]), (
            "and on the concave family optimal"
        )


def test_stationarity_does_not_depend_on_the_units_of_the_losses() -> None:
    P = pair(60, 4, 1.0, 3, "concave", seed=1)
    for by_R, by_F in ((1.0, 1.0), (1e6, 1.0), (1.0, 1e-6)):
        assert P.scaled(by_R, by_F).stationarity(P.start) == pytest.approx(
            math.sqrt((1 - math.cos(math.pi / 3)) / 2)
        )
    assert P.stationarity(P.r) == 0.0 and P.stationarity(P.minimiser(0.3)) < 1e-12


def test_10_not_every_run_does_a_constant_rate_too_large_circles_for_good() -> None:
    P = pair(60, 30, 0.2, 5, "concave", seed=0)
    assert theorems.where_it_ends(P, Constant(0.1), 400)[0] == "moving"
    assert theorems.where_it_ends(P, theorems.SAFE, 400)[0] == "aligned"


@pytest.mark.parametrize(("angle", "seed"), [(40, 2), (70, 7), (110, 3), (150, 0)])
def test_10_and_the_bare_exact_rate_may_land_on_the_retain_minimum(angle, seed) -> None:
    P = pair(angle, 30, 0.1, 2, "convex", seed)
    end, stationarity = theorems.where_it_ends(P, theorems.EXACT, 60)
    assert end == "retain minimum" and stationarity < 1e-6, (
        "g_R = 0 is Pareto-stationary too, and nothing more is forgotten"
    )
