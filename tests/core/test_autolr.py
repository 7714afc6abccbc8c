"""AutoLR on analytic lines: no torch, no model.

The search, the reach of a fit, the scale of R, and lines that show nothing.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngdiff.core.autolr import GROWTH, AutoLR, ThreePoint
from ngdiff.core.parabola import CANCELLED
from ngdiff.core.search import LEAST, LOOKS, MOST, REACH
from ngdiff.core.stepsize import State
from tests.helpers.lines import EPS_32, Curve, info, valley

PLAIN = AutoLR(lr=0.1, slack=0.0, fresh=0)
LATER = State(eta=0.1, found=0.1)  # a probe after the search


def probed(rule, f, state=None, told=None, **kw):
    return rule.step(state or rule.init(), Curve(f, **kw), told)


# -------------------------------------------------------------------------------------- the search
def softplus(x):
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


LINES = {
    "parabola": lambda best: valley(best, best**-2),
    "quartic": lambda best: lambda h: 1 - h / best + 0.3 * (h / best) ** 2 + 0.1 * (h / best) ** 4,
    "log-sum-exp": lambda best: (
        lambda h: softplus(6 * (h / best - 1)) + 2 * softplus(-2 * h / best)
    ),
}


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("best", [1e-4, 1e-2])
def test_the_search_finds_the_order_of_magnitude_from_anywhere(name, best):
    f, ends = LINES[name](best), []
    grid = [best * 10 ** (i / 50) for i in range(-100, 100)]
    exact = min(grid, key=f)
    for k in range(-6, 2):
        state = probed(replace(PLAIN, lr=10.0**k), f, eps=EPS_32)
        assert state.outcome == "accepted" and state.found
        assert 0.3 <= state.eta / exact <= 3, (k, state)
        assert f(0) - f(state.eta) > 0.5 * (f(0) - f(exact)), (k, state)
        assert state.forwards <= 1 + 2 * LOOKS
        ends.append(state.eta)
    assert max(ends) / min(ends) < 3.5  # eight decades of starting rates end alike


@given(st.floats(-6, 0), st.floats(-3, 3), st.floats(-2, 2), st.floats(0, 0.1))
def test_the_search_ends_at_the_rate_of_the_parabola_itself(start, slope, scale, slack):
    """Rising lines and falling ones, from any start: one rule, and none of it is the start's."""
    k = 10**scale
    f = lambda h: k * (1 + slope * h + 50 * h * h)  # noqa: E731
    state = probed(AutoLR(lr=10**start, slack=slack, fresh=0), f)
    if slack or slope < -1e-3:
        wanted = (
            max(-slope / 100, math.sqrt(2 * slack / 100))
            if slope < 0
            else 2 * slack / (slope + math.sqrt(slope**2 + 200 * slack))
        )
        if wanted > 1e-5:  # the bend is seen at its own radius
            assert state.eta == pytest.approx(wanted, rel=1e-3) and state.outcome == "accepted"


def test_the_search_by_hand():
    """A valley at 0.1 from 10⁻⁶: a hundredfold, a hundredfold, to the minimiser itself."""
    line = Curve(valley(0.1))
    state = AutoLR(lr=1e-6, slack=0.0, fresh=0).step(State(eta=1e-6), line)
    assert line.radii == pytest.approx([1e-6, 1e-4, 1e-2, 0.1])
    assert (state.outcome, state.forwards) == ("accepted", 9) and state.radius == line.radii[-1]
    assert state.eta == state.proposed == pytest.approx(0.1)
    assert (state.slope, state.curvature) == pytest.approx((-0.1, 1.0))


def test_what_a_step_may_cost_is_a_share_of_the_loss_that_grows_with_the_updates():
    """R = 2 + h²/2 at its minimum: √(2e/c) with e = slack·(t + 1)·2."""
    rule = AutoLR(lr=0.1, slack=0.01, fresh=0)
    f = valley(0.0, R_0=2.0)
    for t in (0, 1, 24):
        state = probed(rule, f, State(step=t, eta=0.1, due=t))
        assert state.eta == pytest.approx(math.sqrt(2 * 0.01 * (t + 1) * 2.0), rel=1e-6)
        assert state.size == 2.0
    assert probed(rule, lambda h: -f(0) + h * h / 2).size == 2.0  # of |R|


def test_a_later_probe_moves_up_by_a_bounded_factor_and_down_as_far_as_it_must():
    first = probed(AutoLR(lr=1e-6, slack=0.0, fresh=0), valley(0.1))
    assert first.eta == pytest.approx(0.1) and first.found
    after = replace(first, step=1)
    up, down = probed(PLAIN, valley(1e3), after), probed(PLAIN, valley(1e-5), after)
    assert (up.eta, up.outcome) == (pytest.approx(0.1 * REACH), "clipped_up")
    assert up.forwards - first.forwards == 3  # one look is enough upwards
    assert (down.eta, down.outcome) == (pytest.approx(1e-5), "accepted")  # and down it searches
    assert up.found == down.found == first.found


def test_a_search_that_found_nothing_is_made_again():
    """A retain loss at its minimum (KL at the start) only rises. The rate must not collapse."""
    first = probed(PLAIN, lambda h: 1 + abs(h) + h)
    assert not first.found and first.eta > 0 and first.due == 1
    again = probed(PLAIN, valley(0.02), first)
    assert again.found and again.eta == pytest.approx(0.02)


# ------------------------------------------------------------------------------- reach and clipping
@pytest.mark.parametrize(
    ("best", "eta", "outcome"),
    [
        (0.1, 0.1, "accepted"),
        (0.3, math.sqrt(0.1 * 0.3), "accepted"),  # the mean with the rate of before
        (0.033, math.sqrt(0.1 * 0.033), "accepted"),
        (0.32, 0.1 * REACH, "clipped_up"),
        (5.0, 0.1 * REACH, "clipped_up"),
        (0.031, 0.031, "accepted"),  # of the fit at its own radius, the second
        (0.005, 0.005, "accepted"),
    ],
)
def test_a_parabola_is_believed_within_reach_of_its_radius(best, eta, outcome):
    state = probed(PLAIN, valley(best), LATER)
    assert state.eta == pytest.approx(eta, rel=1e-9) and state.outcome == outcome
    assert state.proposed == pytest.approx(best, rel=1e-9)
    assert (state.slope, state.curvature) == pytest.approx((-best, 1.0), rel=1e-9)


@given(st.floats(-8, 3), st.sampled_from([valley(0.1), valley(-3.0), lambda h: 1 - h - h * h]))
def test_a_later_probe_raises_the_rate_by_a_bounded_factor(k, f):
    state = probed(PLAIN, f, replace(LATER, eta=10**k, found=10**k))
    seen = max(state.radius, 10**k)  # where R first shows something
    assert state.eta <= seen * REACH * (1 + 1e-9)


def test_no_rate_exceeds_a_hundred_times_the_first():
    """Near R = 0 every rate seems harmless, until the next update shows that it was not."""
    state = replace(LATER, eta=9.0, gap=4, step=7, due=7)
    after = probed(PLAIN, valley(25.0), state)
    assert (after.eta, after.outcome) == (pytest.approx(math.sqrt(9.0 * 0.1 * GROWTH)), "bounded")
    assert after.gap == 8 and after.found == 0.1  # it agrees, and probes as seldom as that
    assert probed(PLAIN, valley(9.5), state).outcome == "accepted"
    for _ in range(60):
        after = probed(PLAIN, valley(1e3), replace(after, step=after.due))
    assert after.eta == pytest.approx(0.1 * GROWTH) and after.eta <= 0.1 * GROWTH * (1 + 1e-12)


# ------------------------------------------------------------------------ lines that show nothing
FLAT = {"level": lambda h: 1.0, "zero": lambda h: 0.0, "straight": lambda h: 1.0 - 1e-12 * h}


@pytest.mark.parametrize("f", FLAT.values(), ids=FLAT)
@pytest.mark.parametrize("state", [State(eta=0.1), LATER], ids=["search", "later"])
def test_what_shows_nothing_grows_the_radius_and_keeps_the_rate(f, state):
    line = Curve(f, eps=EPS_32)
    after = PLAIN.step(state, line)
    reached = [min(0.1 * 10**i, MOST) for i in range(LOOKS)]
    assert line.radii == pytest.approx(list(dict.fromkeys(reached)))
    assert (after.outcome, after.eta, after.due) == ("flat", 0.1, 1)
    assert after.found == state.found


@pytest.mark.parametrize("state", [State(eta=0.1), LATER], ids=["search", "later"])
def test_a_bend_that_shows_further_out_is_believed_there(state):
    f = lambda h: 1.0 + 2e-5 * (0.5 * h * h - 0.52 * h)  # noqa: E731
    line = Curve(f, eps=EPS_32)  # shown from h = 1 on; the minimum is at 0.52
    after = PLAIN.step(state, line)
    assert line.radii == pytest.approx([0.1, 1.0]) and after.outcome == "accepted"
    assert after.eta == pytest.approx(0.52, rel=1e-6) and after.forwards == 5


@pytest.mark.parametrize(
    "f",
    [lambda h: 1 + 10 * abs(h), lambda h: 1 + 3 * h, lambda h: 1 + h + h * h],
    ids=["kink", "straight up", "uphill"],
)
@pytest.mark.parametrize("lr", [1e-6, 1e-3, 1.0])
def test_a_search_without_a_find_takes_the_least_radius_that_moves_the_loss(f, lr):
    """Whatever `lr` is: it is no fact about the loss."""
    line = Curve(f, eps=EPS_32)
    state = replace(PLAIN, lr=lr).step(State(eta=lr), line)
    assert not state.found and state.outcome in ("clipped_up", "clipped_down")
    noise = CANCELLED * EPS_32 * 4  # of the sum of four losses of 1
    moves = [h for h in line.radii if max(abs(f(h) + f(-h) - 2), f(h) - f(-h)) > noise]
    assert state.eta == pytest.approx(min(moves)) and state.eta < 1e-4


def test_a_falling_line_without_a_bend_is_followed_by_bounded_steps():
    for f in (lambda h: 2 - h - h * h, lambda h: 2 - h * h):
        after = probed(PLAIN, f, LATER)
        assert (after.outcome, after.eta) == ("clipped_up", pytest.approx(0.1 * REACH))


# ------------------------------------------------------------------------ losses that are no number
@pytest.mark.parametrize("state", [State(eta=0.1), LATER], ids=["search", "later"])
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_nowhere_finite_lowers_the_rate_by_a_hundred(state, bad):
    after = probed(PLAIN, lambda h: bad if h else 1.0, state)
    assert (after.outcome, after.eta) == ("nonfinite", pytest.approx(0.001))
    assert after.due == 1
    assert probed(PLAIN, lambda h: bad, state).outcome == "nonfinite"


def test_a_search_goes_down_to_a_finite_loss():
    for f in (lambda h: 1 + h, valley(0.01), valley(1e6)):
        walled = lambda h, f=f: math.nan if abs(h) > 0.5 else f(h)  # noqa: E731
        state = probed(replace(PLAIN, lr=10.0), walled)
        assert 0 < state.eta <= 0.5 * REACH and state.outcome != "nonfinite"


@pytest.mark.parametrize(
    "state", [State(eta=10.0), replace(LATER, eta=10.0, found=10.0)], ids=["search", "later"]
)
@pytest.mark.parametrize(
    "f",
    [lambda h: 1.0, lambda h: 1 - 1e-9 * h, lambda h: 5 - h - h * h],
    ids=["flat", "down", "bend"],
)
def test_a_rate_behind_a_wall_is_left(state, f):
    """R is finite up to 0.5 only, and shows no minimum there. The rate stood at 10."""
    after = probed(PLAIN, lambda h: math.nan if abs(h) > 0.5 else f(h), state, eps=EPS_32)
    assert after.eta <= 0.5


def test_a_wall_beyond_the_rate_is_no_reason_to_leave_it():
    """R does not move at the rate, and is not finite a hundred times further."""
    walled = lambda h: math.nan if abs(h) > 5 else 1.0  # noqa: E731
    for state in (State(eta=0.1), LATER):
        after = probed(PLAIN, walled, state)
        assert (after.outcome, after.eta) == ("flat", 0.1)


@given(
    st.sampled_from([valley(1e-9), valley(1e9), *FLAT.values(), lambda h: 1 + h]),
    st.floats(-12, 6),
    st.booleans(),
)
def test_rates_and_radii_stay_within_their_bounds(f, k, found):
    line = Curve(f)
    eta = min(max(10**k, LEAST), MOST)
    after = AutoLR(lr=eta, fresh=0).step(State(eta=eta, found=eta if found else 0.0), line)
    assert LEAST <= after.eta <= MOST and len(line.radii) <= LOOKS
    assert all(LEAST <= h <= MOST for h in line.radii)


# ---------------------------------------------------------------------------------- the scale of R
def test_a_rise_is_a_share_of_the_cross_entropy_where_the_loss_is_another():
    """KL to the start: R = 0 and only rises. A share of 0 would be no step at all."""
    rule = AutoLR(lr=1e-3, slack=0.01, fresh=0)
    f = lambda h: 50 * h * h  # noqa: E731
    with_ce = probed(rule, f, told=info(0.0, ce=2.0))
    assert with_ce.eta == pytest.approx(math.sqrt(2 * 0.01 * 2.0 / 100))
    assert (with_ce.outcome, with_ce.size) == ("accepted", 2.0)
    assert probed(rule, f, told=info(0.0)).eta < 1e-2 * with_ce.eta


@pytest.mark.parametrize("digits", [0.0, 1e-16, 1e-6, -1e-6])
def test_the_same_rows_summed_in_another_order_are_one_objective(digits):
    """A cross-entropy that differs from R by rounding must not change what R is a share of."""
    rule = AutoLR(lr=1e-3, slack=0.01, fresh=3)
    state = probed(rule, valley(0.0), told=info(3.0, ce=3.0 * (1 + digits)))
    assert state.size == 1.0 and state.eta == pytest.approx(math.sqrt(0.02))


@given(st.floats(-9, 9), st.floats(-6, 6), st.floats(-4, 4))
def test_the_whole_rule_is_free_of_the_scale_of_the_loss(k, slope, best):
    def walk(scale):
        rule, state, etas = AutoLR(lr=1e-3, fresh=0), State(eta=1e-3), []
        f = lambda h: scale * (1 + slope * h + 10 ** (2 * best) * h * h)  # noqa: E731
        for t in range(12):
            told = info(scale * (1 + (t == 5) * 30))
            state = rule.step(state, Curve(f) if rule.probes(state) else None, told)
            etas.append(state.eta)
        return etas

    assert walk(2.0 ** int(3 * k)) == pytest.approx(walk(1.0), rel=1e-9)


# ----------------------------------------------------------------------------------- forward passes
@pytest.mark.parametrize("known", [False, True])
def test_forwards_are_counted_and_a_known_loss_is_free(known):
    line = Curve(valley(0.1))
    if known:
        line.at_zero = [1.0]
    for rule in (PLAIN, ThreePoint(0.1)):
        line.looks.clear()
        state = rule.step(rule.init(), line)
        assert state.forwards == len(line.looks) == 3 - known
        assert state.eta == pytest.approx(0.1)


def test_a_rise_is_a_share_of_the_least_loss_that_a_probe_has_seen():
    """A rise that has been made does not pay for a larger one."""
    rule, state, sizes = AutoLR(lr=0.1, slack=0.01, every=1, fresh=0), State(eta=0.1), []
    for R in (2.0, 8.0, 1.0, 4.0):
        before, state = state, probed(rule, valley(0.0, R_0=R), state)
        sizes.append(state.size)
        wanted = math.sqrt(2 * 0.01 * state.step * sizes[-1])
        mean = math.sqrt(before.eta * wanted) if before.found else wanted
        assert state.eta == pytest.approx(mean, rel=1e-6)
    assert sizes == [2.0, 2.0, 1.0, 1.0] and State().size == math.inf


def test_a_loss_that_is_once_exactly_zero_does_not_end_the_slack():
    """In float32 a model that knows its rows can have R = 0 on some of them."""
    rule = AutoLR(lr=0.1, slack=0.01, fresh=0)
    once = probed(rule, valley(0.0, R_0=0.0), State(eta=0.1, found=0.1, size=2.0))
    assert once.size == 2.0
    wanted = math.sqrt(2 * 0.01 * 2 * 2.0)
    now = replace(once, eta=wanted, chosen=wanted, due=once.step)
    after = probed(rule, valley(0.0, R_0=3.0), now)
    assert after.size == 2.0 and after.eta == pytest.approx(wanted)
