"""The quadratics against autograd and against brute force, and the named outcomes they can reach
exactly.
"""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ngdiff.core.autolr import AutoLR
from ngdiff.core.directions import GradDiff, NGDiff
from ngdiff.core.loop import unlearn
from ngdiff.core.stepsize import Constant
from ngdiff.theory import quadratics
from ngdiff.theory.quadratics import Pair, pair, walk

FAMILIES = pytest.mark.parametrize("family", ["concave", "convex"])
ANGLES, CONDITIONS, RATIOS = (
    st.floats(1, 179),
    st.floats(1, 1e3),
    st.floats(-3, 3).map(lambda x: 10**x),
)
DIMS, SEEDS = st.integers(2, 12), st.integers(0, 10**6)


@FAMILIES
@given(ANGLES, CONDITIONS, RATIOS, DIMS, SEEDS)
def test_a_pair_starts_with_the_geometry_asked_for(
    family, angle, condition, ratio, dim, seed
) -> None:
    P = pair(angle, condition, ratio, dim, family, seed)
    g_R, g_F = P.grad_R(P.start), P.grad_F(P.start)
    assert g_R.norm().item() == pytest.approx(1.0, rel=1e-10)
    assert (g_F.norm() / g_R.norm()).item() == pytest.approx(ratio, rel=1e-10)
    cosine = (g_R @ g_F / g_R.norm() / g_F.norm()).item()
    assert cosine == pytest.approx(math.cos(math.radians(angle)), abs=1e-10)
    for H in (P.A, P.B):
        values = torch.linalg.eigvalsh(H)
        assert (values.max() / values.min()).item() == pytest.approx(condition, rel=1e-6)
        assert values.min().item() == pytest.approx(1.0, rel=1e-6)


@FAMILIES
def test_gradients_and_gramian_are_autograds(family) -> None:
    P = pair(50, 20, 3, 5, family, seed=4)
    theta = torch.randn(
        5, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    ).requires_grad_()
    g_R, g_F = (torch.autograd.grad(f(theta), theta)[0] for f in (P.R, P.F))
    assert torch.allclose(g_R, P.grad_R(theta)) and torch.allclose(g_F, P.grad_F(theta))
    wanted = torch.tensor([[g_R @ g_R, g_R @ g_F], [g_F @ g_R, g_F @ g_F]])
    assert torch.allclose(P.gram(theta).detach(), wanted.double(), rtol=1e-6)
    many = torch.stack([theta.detach(), P.start])
    assert P.R(many).shape == (2,) and P.R(many)[0] == P.R(theta.detach())


@given(ANGLES, CONDITIONS, DIMS, SEEDS, st.floats(0.02, 0.98))
@settings(max_examples=25)
def test_minimisers_are_stationary_points_and_concave_fronts_are_undominated(
    angle, condition, dim, seed, c
) -> None:
    P = pair(angle, condition, 1.0, dim, "concave", seed)
    theta = P.minimiser(c)
    gradient = c * P.grad_R(theta) - (1 - c) * P.grad_F(theta)
    assert gradient.norm() <= 1e-9 * (P.grad_R(theta).norm() + P.grad_F(theta).norm() + 1e-9)
    assert not P.dominated(theta)
    away = theta + 0.1 * torch.nn.functional.normalize(P.grad_R(P.start), dim=0)
    assert P.stationarity(away) > 1e-6


def test_dominated_finds_points_off_the_front() -> None:
    P = pair(70, 5, 1.0, 2, "concave", seed=1)
    front = P.pareto_front(21)
    assert torch.allclose(front[0], P.f) and torch.allclose(front[-1], P.r)
    assert not any(P.dominated(theta) for theta in front)
    assert P.dominated(P.start) and P.dominated(2 * P.f - P.r) and P.dominated(P.r + 0.1)
    with pytest.raises(ValueError, match="concave"):
        pair(70, family="convex").dominated(P.start)


def test_convex_scalarizations_have_a_minimum_only_where_retain_dominates() -> None:
    P = pair(70, 4, 1.0, 3, "convex", seed=1)  # eigenvalues of A and B lie in [1, 4]
    with pytest.raises(ValueError, match="unbounded below"):
        P.minimiser(0.5)
    theta = P.minimiser(0.9)  # .9·A ≻ .1·B
    assert (0.9 * P.grad_R(theta) - 0.1 * P.grad_F(theta)).norm() < 1e-12
    assert 0 < len(P.pareto_front(101)) < 101


@FAMILIES
def test_windows_are_where_one_step_stops_helping(family) -> None:
    P = pair(60, 8, 2.0, 4, family, seed=2)
    a, b = NGDiff().weights(P.gram(P.start), torch.ones(2)).tolist()
    d = a * P.grad_R(P.start) - b * P.grad_F(P.start)
    R_end = P.retain_window(P.start, d)
    assert P.R(P.start - R_end * d).item() == pytest.approx(P.R(P.start).item(), rel=1e-12)
    assert R_end == 2 * P.best_rate(P.start, d)
    F_end = P.forget_window(P.start, d)
    assert (
        F_end == math.inf
        if family == "convex"
        else P.F(P.start - F_end * d).item() == pytest.approx(P.F(P.start).item(), rel=1e-12)
    )


# ----------------------------------------------------------------------------------------- the loop
@FAMILIES
@pytest.mark.parametrize("rule", [Constant(0.05), AutoLR(every=3)], ids=["constant", "autolr"])
def test_walk_is_unlearn_with_the_path_kept(family, rule) -> None:
    P = pair(40, 10, 2.0, 3, family, seed=3)
    path, history = walk(P, NGDiff(), rule, 15)
    run = unlearn(P, NGDiff(), rule, steps=15)
    assert torch.equal(path[-1], run.model.detach()) and len(path) == 1 + sum(
        i.updated for i in history
    )
    assert [i.retain for i in history] == [i.retain for i in run.history]
    assert torch.equal(P.start, torch.zeros(3).double()), "the problem itself is left as it was"
    seen = torch.tensor([i.retain for i in history], dtype=torch.float64)
    assert torch.allclose(P.R(path[: len(history)]), seen, rtol=1e-12)


def at(P: Pair, start) -> Pair:
    return Pair(P.A, P.B, P.r, P.f, start, P.family)


@FAMILIES
def test_a_zero_gradient_gets_weight_zero_and_a_name(family) -> None:
    P = pair(60, 5, 1.0, 2, family, seed=0)
    _, (first, *_) = walk(at(P, P.r), NGDiff(), Constant(0.1), 1)
    assert (
        (first.outcome, first.a, first.norm_R) == ("zero_retain", 0.0, 0.0)
        and first.b > 0
        and first.updated
    )
    path, (first, *_) = walk(at(P, P.f), NGDiff(), Constant(0.1), 1)
    assert (first.outcome, first.b, first.norm_F) == ("zero_forget", 0.0, 0.0) and first.a > 0
    assert (path[1] - path[0]).norm().item() == pytest.approx(0.1)  # the other unit gradient, alone


@FAMILIES
def test_both_gradients_zero_ends_the_run(family) -> None:
    P = pair(60, 5, 1.0, 2, family, seed=0)
    both = Pair(P.A, P.B, P.r, P.r, P.r, family)
    path, (first, *rest) = walk(both, NGDiff(), Constant(0.1), 5)
    assert first.outcome == "zero_both" and not first.updated and not rest and len(path) == 1


@pytest.mark.parametrize("ratio", [1e-3, 1.0, 1e3])
def test_parallel_gradients_are_aligned_at_once_whatever_their_lengths(ratio) -> None:
    P = pair(0, 5, ratio, 3, "concave", seed=5)
    path, history = walk(P, NGDiff(), Constant(0.1), 5)
    assert [i.outcome for i in history] == ["aligned"] and len(path) == 1
    static = walk(P, GradDiff(ratio / (1 + ratio)), Constant(0.1), 5)[1]
    assert static[0].outcome == "aligned", "c·g_R = (1−c)·g_F: the static sum cancels here too"


def test_scaled_changes_units_and_nothing_else() -> None:
    P = pair(60, 5, 1.0, 2, "convex", seed=0)
    P.R_0, P.F_0 = 1.5, -2.0
    Q = P.scaled(100.0, 0.5)
    theta = torch.tensor([0.3, -0.7]).double()
    assert Q.R(theta).item() == pytest.approx(100 * P.R(theta).item())
    assert Q.F(theta).item() == pytest.approx(0.5 * P.F(theta).item())
    with pytest.raises(ValueError, match="positive"):
        P.scaled(-1.0, 1.0)


@pytest.mark.parametrize(
    "wrong", [{"angle": 181}, {"condition": 0.5}, {"ratio": 0}, {"dim": 1}, {"norm": -1}]
)
def test_pair_names_what_it_needs(wrong) -> None:
    with pytest.raises(ValueError, match="pair needs"):
        pair(**wrong)
    with pytest.raises(ValueError, match="unknown family"):
        quadratics.pair(family="flat")
