"""Where a run went in gradient space: Eq. 7 by its definition, shares and quantiles by hand."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngdiff.study import geometry
from ngdiff.study.geometry import SHARES, WEIGHTS, inside, summary

ANGLES = (0, 1, 25, 60, 89, 90, 91, 120, 180)  # degrees between the two gradients
NORMS = (1e-6, 0.3, 1.0, 40.0, 1e6)


def step(kappa=1.0, rho=0.0, retain=1.0, forget=1.0, **more):
    """A row of a run's history."""
    norms = {"norm_R": 2.0, "norm_F": 2.0 * kappa, "cosine": rho}
    return norms | {"retain": retain, "forget": forget} | more


# -------------------------------------------------------------------------------------------- Eq. 7
@pytest.mark.parametrize("angle", ANGLES)
def test_inside_is_eq_7_of_explicit_vectors(angle):
    """d = ratio·g_R − g_F in the plane; cases on the boundary itself are left to rounding."""
    seen = set()
    for norm_R, norm_F, power in itertools.product(NORMS, NORMS, np.linspace(-7, 7, 43)):
        kappa, turn = norm_F / norm_R, math.radians(angle)
        ratio = kappa * 10**power  # around κ, where the interval lies
        g_R = np.array([norm_R, 0.0])
        g_F = norm_F * np.array([math.cos(turn), math.sin(turn)])
        d = ratio * g_R - g_F
        scale = np.linalg.norm(ratio * g_R) + norm_F
        on_R, on_F = d @ g_R / (scale * norm_R), d @ g_F / (scale * norm_F)
        if min(abs(on_R), abs(on_F)) > 1e-9:
            found = inside(ratio, kappa, math.cos(turn))
            assert found == (on_R >= 0 >= on_F), (norm_R, norm_F, ratio)
            seen.add(found)
    assert seen == ({True} if angle >= 90 else {False} if angle == 0 else {True, False})


@given(st.floats(1e-9, 1e9), st.floats(-1, 1))
def test_ngdiffs_own_ratio_is_always_inside(kappa, rho):
    assert inside(kappa, kappa, rho)


def test_rounding_above_one_is_one():
    assert inside(2.0, 2.0, 1.0 + 1e-15) and not inside(2.1, 2.0, 1.0 + 1e-15)


# ------------------------------------------------------------------------------------------ summary
def test_shares_are_counted_by_hand():
    """κ = 4, ρ = ½: [2, 8] is inside. c/(1 − c) is 1/9, 1, 7/3, 9, 32.3 and 99; F/R is 3 or 9."""
    found = summary([step(4, 0.5, 1.0, 3.0), step(4, 0.5, 1.0, 9.0), step(4, -0.1), step(4, 0.5)])
    assert [found[f"inside_{c:g}"] for c in WEIGHTS] == [0.25, 0.25, 1.0, 0.25, 0.25, 0.25]
    assert found["inside_lossnorm"] == 0.5  # the first step, and the one without conflict
    assert (found["steps"], found["skipped"]) == (4, 0)


def test_quantiles_lie_between_the_order_statistics():
    """Of κ = 1, 2, 4, 8, 16 the 10 % quantile is 1.4, the median 4, the 90 % quantile 12.8."""
    found = summary([step(k, 0.01 * k) for k in (16, 1, 4, 8, 2)])
    assert [found[f"kappa_{q}"] for q in (10, 50, 90)] == pytest.approx([1.4, 4.0, 12.8])
    assert [found[f"rho_{q}"] for q in (10, 50, 90)] == pytest.approx([0.014, 0.04, 0.128])


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.sampled_from((0, *SHARES, 1)))
def test_quantiles_agree_with_numpy(values, q):
    assert geometry._quantile(values, q) == pytest.approx(np.quantile(values, q), abs=1e-6)


@pytest.mark.parametrize("key", ["retain", "forget", "norm_R", "norm_F", "cosine"])
@pytest.mark.parametrize("lost", [math.nan, math.inf, None])
def test_a_step_that_is_not_finite_is_left_out_and_counted(key, lost):
    whole = summary([step(4, 0.5)])
    assert summary([step(4, 0.5), step(9, 0.9, **{key: lost})]) == whole | {"skipped": 1}


@pytest.mark.parametrize("key", ["norm_R", "norm_F"])
def test_a_zero_gradient_is_left_out_and_counted(key):
    assert summary([step(4, 0.5), step(**{key: 0.0})]) == summary([step(4, 0.5)]) | {"skipped": 1}
    assert summary([step(**{key: 0.0})] * 2) == {"steps": 0, "skipped": 2}
    assert summary([]) == {"steps": 0, "skipped": 0}


def test_lossnorm_without_a_retain_loss_is_inside_only_without_conflict():
    found = summary([step(4, 0.5, retain=0.0), step(4, -0.5, retain=0.0)])
    assert found["inside_lossnorm"] == 0.5
