"""The parabola along the update: golden values, the name of every fit, and the rate it gives."""

from __future__ import annotations

import math
import random
from collections import Counter

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

from ngdiff.core.parabola import CANCELLED, Fit, fit, parabola
from tests.helpers.lines import EPS_32, Curve, float32, valley

SLOPES, BENDS, RISES = st.floats(-1e3, 1e3), st.floats(1e-3, 1e3), st.floats(0.0, 1e3)


def test_parabola_by_hand():
    assert parabola(7.0, 3.0, 1.0, 0.5) == (-6.0, 8.0)  # 3 − 6h + 4h²
    assert parabola(1.0, 3.0, 7.0, -0.5) == (-6.0, 8.0)


@given(st.floats(1e-3, 1e3), st.floats(-3, 3), st.floats(-4, 4))
def test_exact_on_a_parabola_from_any_radius(best, curvature, radius):
    curvature, h = 10**curvature, best * 10 ** (radius / 2)
    f = valley(best, curvature, R_0=curvature * best**2)
    found = fit(Curve(f), [f(0)], h)
    assert found.outcome == "ok" and found.radius == h
    assert found.eta == pytest.approx(best, rel=1e-9)
    assert (found.slope, found.curvature) == pytest.approx((-curvature * best, curvature), rel=1e-9)


def test_rows_are_addends():
    f = valley(0.2)
    rows = Curve(lambda h: [0.1 * f(h), 0.6 * f(h), 0.3 * f(h)])
    assert fit(rows, rows(0.0), 0.1).eta == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("f", "outcome"),
    [
        (valley(0.2), "ok"),
        (valley(-0.2), "uphill"),
        (valley(0.0), "uphill"),  # at its minimum
        (lambda h: 1 - h - h * h, "concave"),
        (lambda h: 1 - h * h, "concave"),  # at its maximum
        (lambda h: 1 + h - h * h, "uphill"),
        (lambda h: 1 - h, "noise"),  # a straight line down: no bend to be seen
        (lambda h: 1 + h, "uphill"),
        (lambda h: 1.0, "noise"),
        (lambda h: 0.0, "noise"),
        (lambda h: math.nan if h else 1.0, "nonfinite"),
        (lambda h: math.inf if h else 1.0, "nonfinite"),
        (lambda h: [math.inf, -math.inf] if h else [1.0, 1.0], "nonfinite"),
        (lambda h: [1e308, 1e308] if h else [1.0, 1.0], "nonfinite"),
        (lambda h: math.nan, "nonfinite"),
    ],
)
def test_every_fit_has_its_name(f, outcome):
    line = Curve(f)
    assert fit(line, line(0.0), 0.125).outcome == outcome


def test_the_minimiser_of_a_fit():
    assert Fit(-1.0, 4.0, "ok").eta == 0.25 and math.isnan(Fit(-1.0, 0.0, "noise").eta)


def test_a_rise_without_a_bend_has_curvature_zero():
    line = Curve(lambda h: 1 + 2 * h)
    found = fit(line, line(0.0), 0.1)
    assert (found.outcome, found.curvature) == ("uphill", 0.0)
    assert found.slope == pytest.approx(2.0)


# ---------------------------------------------------------------------------------------- rounding
def rounded(seed, best=1e-2):
    """A float32 loss of a valley: the fit at `h`."""
    R_0 = random.Random(seed).uniform(0.5, 4.0)
    f = valley(best, 100.0, R_0)
    return lambda h: fit(Curve(lambda x: float32(f(x)), EPS_32), [float32(R_0)], h)


def test_rounding_noise_is_never_accepted():
    for seed in range(200):
        line = rounded(seed)
        for k in range(-9, -1):
            found = line(10**k * random.Random(seed).uniform(0.5, 2))
            if found.outcome == "ok":  # then it is right
                assert 0.4 < found.eta / 1e-2 < 2.5
            assert k > -5 or found.outcome != "ok"
            assert k < -2 or found.outcome == "ok"


def test_a_line_flat_to_rounding_is_noise_not_uphill():
    outcomes = Counter(rounded(seed)(h).outcome for seed in range(100) for h in (1e-9, 1e-8, 1e-7))
    assert outcomes["noise"] == 300  # "uphill" would shrink the rate further into the noise


@pytest.mark.parametrize("R", [0.01, 0.1, 1.0])
def test_the_bound_covers_a_cross_entropy_near_zero(R):
    """log Σ exp(z) − z_y in float32, R small: its error is that of numbers larger than itself.

    A constant added to all logits changes nothing but the rounding, so that the line is level.
    """
    draw, most = torch.Generator().manual_seed(0), 0.0
    for _ in range(100):
        z = torch.randn(128, 10, generator=draw)
        z[:, 0] = z[:, 1:].logsumexp(1) - math.log(math.expm1(R))

        def loss(h, z=z):
            shifted = z + torch.rand(128, 1, generator=draw)
            rows = cross_entropy(shifted, torch.zeros(128, dtype=torch.long), reduction="none")
            return (rows.double() / 128).tolist()

        line = Curve(loss, EPS_32)
        found = fit(line, line(0.0), 1.0)
        most = max(most, abs(found.curvature) / (4 * R * EPS_32))
        assert found.outcome == "noise"
    assert most > (1.0 if R == 0.01 else 0.0)  # one rounding of itself is no bound there
    assert most < CANCELLED


@given(st.integers(0, 10**6), st.floats(1e-7, 1e-4))
def test_a_straight_float32_line_has_no_minimum(seed, h):
    slope, R_0 = -random.Random(seed).uniform(0.1, 10), random.Random(seed + 1).uniform(0.5, 4)
    found = fit(Curve(lambda x: float32(R_0 + slope * x), EPS_32), [float32(R_0)], h)
    assert found.outcome == "noise"


@given(st.floats(0.1, 10), st.floats(0.01, 10), st.floats(1e-3, 1.0))
def test_concave_lines_are_never_accepted(slope, bend, h):
    line = Curve(lambda x: 5 - slope * x - bend * x * x)
    assert fit(line, line(0.0), h).outcome == "concave"


def test_an_exact_forward_is_not_asked_for_its_scatter():
    """Per-row losses of memorised models are heavy-tailed: a few rows hold all of the curvature.

    Three standard errors of them would never be passed; rounding is the only noise there is.
    """
    rows = Curve(lambda h: [1 - h + 8 * h * h if i < 4 else 1e-3 for i in range(64)], EPS_32)
    found = fit(rows, rows(0.0), 0.1)
    assert found.outcome == "ok" and found.eta == pytest.approx(1 / 16)
    coarse = Curve(rows.f, 2.0**-8)
    assert fit(coarse, coarse(0.0), 0.1).outcome == "noise"


# ---------------------------------------------------------------------------------------- the rate
@pytest.mark.parametrize(
    ("slope", "curvature", "outcome", "rise", "rate"),
    [
        (-6.0, 2.0, "ok", 0.0, 3.0),  # the minimiser 6/2
        (-6.0, 2.0, "ok", 4.0, 3.0),  # √(2·4/2) = 2 is nearer
        (-6.0, 2.0, "ok", 9.0, 3.0),  # both
        (-6.0, 2.0, "ok", 16.0, 4.0),  # √16: beyond the minimiser, which is nearer
        (0.0, 2.0, "uphill", 9.0, 3.0),  # η² = 9
        (1.0, 2.0, "uphill", 6.0, 2.0),  # η + η² = 6
        (1.0, 2.0, "uphill", 0.0, 0.0),
        (0.0, 2.0, "uphill", 0.0, 0.0),
        (4.0, 0.0, "uphill", 6.0, 1.5),  # 4η = 6
        (3.0, -2.0, "uphill", 2.0, 1.0),  # 3η − η² = 2, at the nearer of 1 and 2
        (2.0, -2.0, "uphill", 9.0, 9.0),  # 2η − η² never rises by 9: 2e/s
        (-1.0, -2.0, "concave", 0.0, math.inf),
        (0.0, -2.0, "concave", 1.0, math.inf),
        (-1.0, 2.0, "noise", 1.0, math.nan),
        (1.0, math.nan, "nonfinite", 1.0, math.nan),
    ],
)
def test_the_rate_by_hand(slope, curvature, outcome, rise, rate):
    found = Fit(slope, curvature, outcome).rate(rise)
    assert found == pytest.approx(rate, rel=1e-15, nan_ok=True)


def judged(slope, curvature):
    return Fit(slope, curvature, "ok" if slope < 0 else "uphill")


@given(BENDS, st.floats(1e-3, 1e3))
def test_the_rate_is_continuous_where_the_slope_changes_sign(curvature, rise):
    level = judged(0.0, curvature).rate(rise)
    assert level == pytest.approx(math.sqrt(2 * rise / curvature), rel=1e-12)
    tiny = 1e-9 * math.sqrt(2 * curvature * rise)  # of the slope at which R has risen by it
    for slope in (-tiny, tiny):
        assert judged(slope, curvature).rate(rise) == pytest.approx(level, rel=1e-8)


@given(SLOPES, BENDS, RISES)
def test_a_loss_that_falls_is_never_left_before_its_minimum_nor_passed_without_slack(s, c, e):
    assume(s < 0)
    rate, best = judged(s, c).rate(e), -s / c
    assert rate >= best and judged(s, c).rate(0.0) == best
    if e <= s * s / c / 2:  # the fall to the minimum is more than the rise: it is further away
        assert rate == pytest.approx(best, rel=1e-12)
    risen = s * rate + 0.5 * c * rate * rate
    assert risen <= e * (1 + 1e-9) + 1e-12  # what the loss gains is never more than was allowed


@given(st.floats(0.0, 1e3), BENDS, RISES)
def test_where_the_loss_rises_the_rate_is_the_root(s, c, e):
    rate = judged(s, c).rate(e)
    assert rate >= 0 and s * rate + 0.5 * c * rate * rate == pytest.approx(e, rel=1e-9, abs=1e-300)


@given(SLOPES, BENDS, RISES, RISES)
def test_a_larger_rise_never_asks_for_a_smaller_rate(s, c, e, more):
    assert judged(s, c).rate(e + more) >= judged(s, c).rate(e) * (1 - 1e-12)


@given(SLOPES, BENDS, st.floats(1e-3, 1e3), st.floats(-6, 6), st.floats(-6, 6))
def test_the_rate_is_free_of_the_scale_of_the_loss_and_follows_that_of_the_update(s, c, e, k, u):
    """R → kR scales slope, curvature and its share alike; u → u·w divides the rate by w."""
    k, w, rate = 10**k, 10**u, judged(s, c).rate(e)
    assert judged(k * s, k * c).rate(k * e) == pytest.approx(rate, rel=1e-9)
    assert judged(w * s, w * w * c).rate(e) == pytest.approx(rate / w, rel=1e-9)
