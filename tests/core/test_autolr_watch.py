"""AutoLR between its probes, on analytic lines: gaps, the cut, and the bare formula's period."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ngdiff.core.autolr import AutoLR, ThreePoint
from ngdiff.core.search import LEAST
from ngdiff.core.stepsize import State
from tests.helpers.lines import Curve, info, valley

PLAIN = AutoLR(lr=0.1, slack=0.0, fresh=0)


def probed(rule, f, state=None, told=None, **kw):
    return rule.step(state or rule.init(), Curve(f, **kw), told)


# ----------------------------------------------------------------------------------------- the gaps
def test_probes_are_one_two_four_updates_apart_while_they_agree():
    rule, state, looked = AutoLR(lr=0.1, slack=0.0, every=8, fresh=0), State(eta=0.1), []
    line = Curve(valley(0.1))
    for t in range(40):
        if rule.probes(state):
            looked.append(t)
        state = rule.step(state, line if rule.probes(state) else None, info(1.0))
        assert state.outcome == ("accepted" if looked[-1] == t else "held")
    assert looked == [0, 1, 3, 7, 15, 23, 31, 39]
    with pytest.raises(ValueError, match="no line"):
        rule.step(rule.init(), None)


def test_the_gap_is_one_where_there_is_no_rate_and_half_after_a_step_up():
    state = State(step=15, eta=0.1, found=0.1, due=15, gap=8)
    for f in (lambda h: 1 + h, lambda h: 1.0, lambda h: math.nan):
        after = probed(AutoLR(lr=0.1, slack=0.0, fresh=0), f, state)
        assert (after.due, after.gap) == (16, 0)
    up = probed(PLAIN, valley(10.0), state)
    assert (up.outcome, up.due, up.gap) == ("clipped_up", 19, 4)
    assert probed(PLAIN, valley(10.0), replace(state, gap=0)).due == 16
    assert probed(PLAIN, valley(0.1), state).due == 31
    assert probed(PLAIN, valley(0.1), replace(state, gap=64)).due == 79  # `every` = 64


# ------------------------------------------------------------------------------------------ the cut
def held(R, size=1.0, told=1.0, eta=0.1, ce=None):
    """A step between probes that sees R; the last probe saw `told`, `size` is |R|'s."""
    state = State(step=5, eta=eta, due=9, gap=8, R=told, size=size, found=0.1)
    return PLAIN.step(state, None, info(R, ce))


@given(st.floats(2.5, 1e3), st.floats(-6, 3), st.floats(-6, 6))
def test_one_steep_direction_is_cut_to_its_own_rate(x, eta, R):
    """R = ½λθ² grows by (ηλ − 1)² in a step: the cut is to 1/λ exactly."""
    eta, R = 10**eta, 10**R
    curvature = x / eta  # ηλ = x
    after = held((x - 1) ** 2 * R, size=R, told=R, eta=eta)
    assert after.outcome == "cut" and after.eta == pytest.approx(1 / curvature, rel=1e-9)
    assert after.due == after.step and PLAIN.probes(after)  # the next update probes
    assert (x - 1) ** 2 * R == after.R


@given(st.floats(0.0, 1.9999999), st.floats(-6, 6))
def test_a_loss_that_fluctuates_below_twice_is_not_cut(times, R):
    after = held(times * 10**R, size=10**R, told=10**R)
    assert (after.outcome, after.eta, after.due) == ("held", 0.1, 9)


def test_a_cut_is_against_what_the_last_probe_and_its_step_saw():
    """Fresh rows with R = 1, the step's own with R = 3: no cut up to 2·3."""
    state = probed(AutoLR(lr=0.1, slack=0.0, fresh=3), valley(0.1), told=info(3.0))
    state = replace(state, due=99)
    assert (state.R, state.size) == (3.0, 1.0)
    assert PLAIN.step(state, None, info(5.99)).outcome == "held"
    assert PLAIN.step(state, None, info(6.01)).outcome == "cut"
    lower = probed(AutoLR(lr=0.1, slack=0.0, fresh=3), valley(0.1), told=info(0.2))
    assert lower.R == 1.0


def test_nothing_is_cut_on_falls_numbers_that_are_none_or_without_a_probe():
    for R in (-5.0, 0.0, math.nan):
        assert held(R).outcome == "held"
    assert held(math.inf).eta == LEAST
    assert PLAIN.step(State(step=5, eta=0.1, due=9), None, info(1e9)).outcome == "held"
    assert PLAIN.step(State(step=5, eta=0.1, due=9, R=1.0), None).outcome == "held"  # not told


def test_a_cut_is_of_one_update_and_the_next_probe_judges_the_rate_of_before():
    """A rise of a few hard rows leaves the rate; one of the loss itself lowers it."""
    state = State(step=5, eta=0.1, chosen=0.1, due=9, gap=8, R=1.0, size=1.0, found=0.1)
    cut = PLAIN.step(state, None, info(10.0))
    assert cut.eta < 0.03 and (cut.due, cut.gap) == (6, 4)
    alarm, true = probed(PLAIN, valley(0.1), cut), probed(PLAIN, valley(1e-3), cut)
    assert (alarm.eta, alarm.outcome) == (pytest.approx(0.1), "accepted")
    assert (true.eta, true.outcome) == (pytest.approx(1e-3), "accepted")
    assert alarm.due == 6 + 8 and alarm.chosen == alarm.eta


@given(st.floats(-0.33, 0.33))
def test_rates_that_scatter_are_averaged_in_logarithms(k):
    """A wanted rate that jumps between 10ᵏ and 10⁻ᵏ moves the rate by 10^(k/3) in the end."""
    rule = AutoLR(lr=0.1, slack=0.0, every=1, fresh=0)
    state, moves = State(eta=0.1, found=0.1), []
    for t in range(24):
        state = probed(rule, valley(0.1 * 10 ** (k if t % 2 else -k)), state)
        assert state.outcome == "accepted"
        moves.append(math.log10(state.eta / 0.1))
    assert max(map(abs, moves)) <= abs(k) / 2 + 1e-9
    assert moves[-2:] == pytest.approx([-k / 3, k / 3], abs=1e-6)


def test_a_second_rise_is_held_against_the_first():
    first = held(10.0)
    second = PLAIN.step(replace(first, due=9), None, info(10.5))
    assert (first.outcome, second.outcome) == ("cut", "held")


def test_a_loss_that_was_zero_has_no_scale_and_the_rate_is_halved():
    after = held(1e-6, size=0.0, told=0.0)
    assert (after.outcome, after.eta, after.due) == ("cut", 0.05, after.step)


# -------------------------------------------------------------------------------- the bare formula
def test_the_bare_formula_by_hand():
    rule = ThreePoint(lr=0.5)
    state = probed(rule, {0.0: 2.0, 0.5: 1.0, -0.5: 4.0}.__getitem__)
    # slope (1 − 4)/(2·½) = −3; curvature (1 − 2·2 + 4)/½² = 4; η* = 3/4
    assert (state.slope, state.curvature, state.eta, state.outcome) == (-3.0, 4.0, 0.75, "accepted")
    assert rule.every == 10 and rule.fresh == 0 and state.forwards == 3


@pytest.mark.parametrize(
    ("f", "eta"),
    [
        (valley(-3.0), -3.0),  # uphill: a negative rate
        (lambda h: 1 - h - h * h, -0.5),  # concave: the maximum
        (valley(1e6), 1e6),  # no clip, no bound
        (valley(0.0), 0.0),
    ],
)
def test_the_bare_formula_checks_nothing(f, eta):
    state = probed(ThreePoint(lr=0.5), f)
    assert state.eta == pytest.approx(eta, rel=1e-6, abs=1e-9) and state.outcome == "accepted"
    again = ThreePoint(lr=0.5).step(replace(state, step=10), Curve(valley(0.25)))
    # and it goes on from any of them, even from 0
    assert again.eta == pytest.approx(0.25, rel=1e-3)


@pytest.mark.parametrize("f", [lambda h: 1.0, lambda h: math.nan, lambda h: math.inf if h else 1.0])
def test_the_bare_formula_keeps_its_rate_where_it_has_no_value(f):
    state = probed(ThreePoint(lr=0.5), f)
    assert (state.eta, state.outcome) == (0.5, "nonfinite")


def test_the_bare_formula_probes_every_so_often_and_holds_in_between():
    rule, state, due = ThreePoint(lr=0.1, every=3), State(eta=0.1), []
    for t in range(7):
        due.append(rule.probes(state))
        state = rule.step(state, Curve(valley(1.0)) if due[-1] else None, info(1e9 * (t > 0)))
        assert (state.outcome == "held") == (not due[-1])
    assert due == [True, False, False] * 2 + [True]
    with pytest.raises(ValueError, match="no line"):
        rule.step(rule.init(), None)
