"""The step-size rules that only the comparison runs, on parabolas and on quadratics."""

from __future__ import annotations

import itertools
import math

import pytest

import ngdiff as ng
from ngdiff.core.autolr import AutoLR, ThreePoint
from ngdiff.core.directions import GradDiff, NGDiff
from ngdiff.core.stepsize import Line
from ngdiff.study.rules import BoundedThreePoint, SearchOnce
from ngdiff.study.trial import rule_of


class Parabola(Line):
    """R(η) = R + slope·η + ½·curvature·η², in two rows, with a count of the looks."""

    eps = 2.0**-52

    def __init__(self, slope, curvature, R=1.0):
        self.slope, self.curvature, self.R, self.looks = slope, curvature, R, 0

    def __call__(self, eta):
        self.looks += 1
        value = self.R + self.slope * eta + 0.5 * self.curvature * eta * eta
        return [0.25 * value, 0.75 * value]


FLAT = Parabola(0.0, 0.0)
BOWLS = [(-1.0, 100.0), (-1e-3, 1.0), (-3.0, 5e4), (0.0, 7.0)]


def walk(rule, lines):
    """The states after each step along these lines."""
    states = [rule.init()]
    for line in lines:
        states.append(rule.step(states[-1], line if rule.probes(states[-1]) else None))
    return states[1:]


# ----------------------------------------------------------------------------------- a search, once
@pytest.mark.parametrize("factor", [1.0, 0.5, 0.1])
@pytest.mark.parametrize(("slope", "curvature"), BOWLS)
@pytest.mark.parametrize("lr", [2e-5, 2e-3, 2.0])
def test_the_first_rate_is_autolrs_times_the_factor(lr, slope, curvature, factor):
    (wanted,) = walk(AutoLR(lr), [Parabola(slope, curvature)])
    found = walk(SearchOnce(lr, factor=factor), [Parabola(slope, curvature)] * 100)
    assert wanted.outcome == found[0].outcome == "accepted"
    assert {state.eta for state in found} == {factor * wanted.eta}
    assert wanted.eta == pytest.approx(max(-slope / curvature, math.sqrt(2e-3 / curvature)))


def test_after_the_search_nothing_is_looked_at():
    line, other = Parabola(-1.0, 100.0), Parabola(1e3, -1.0)
    states = walk(SearchOnce(2e-5, factor=0.5), [line, *[other] * 200])
    assert other.looks == 0 < line.looks == states[0].forwards
    assert {state.outcome for state in states[1:]} == {"held"}
    assert {(s.eta, s.forwards) for s in states[1:]} == {(states[0].eta, states[0].forwards)}
    assert [state.step for state in states] == list(range(1, 202))


def test_a_search_without_a_result_goes_on():
    """Where R does not move nothing is found; the factor counts once, where something is."""
    bowl = Parabola(-1.0, 100.0)
    first, second, third, last = walk(SearchOnce(1e-3, factor=0.5), [FLAT, FLAT, bowl, bowl])
    assert (first.outcome, first.eta, second.eta) == ("flat", 1e-3, 1e-3)
    assert (third.outcome, third.eta) == ("accepted", pytest.approx(0.5 / 100))
    assert (last.outcome, last.eta) == ("held", third.eta)


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_a_run_with_one_search_has_one_rate(factor):
    pair = ng.quadratics.pair(angle=100, condition=10, dim=5)
    run = ng.unlearn(pair, NGDiff(), SearchOnce(2e-4, factor=factor), steps=30)
    whole = ng.unlearn(pair, NGDiff(), AutoLR(2e-4), steps=1)
    assert {info.eta for info in run.history if info.updated} == {factor * whole.history[0].eta}
    assert {info.forwards for info in run.history if info.updated} == {whole.history[0].forwards}


# ----------------------------------------------------------------------------- the formula, bounded
@pytest.mark.parametrize("lr", [1e-4, 1.0])
@pytest.mark.parametrize("times", [0.11, 0.5, 1.0, 3.0, 9.9])
def test_within_its_bounds_it_is_the_formula(lr, times):
    lines = Parabola(-1.0, 1 / (times * lr))  # η* = times·lr
    bare, bounded = (walk(rule(lr), [lines] * 12) for rule in (ThreePoint, BoundedThreePoint))
    assert bare == bounded and bare[0].eta == pytest.approx(times * lr)


@pytest.mark.parametrize(("times", "moved"), [(1e4, 10.0), (11, 10.0), (0.09, 0.1), (1e-5, 0.1)])
def test_a_rate_moves_by_ten_times_at_most(times, moved):
    (state,) = walk(BoundedThreePoint(1e-3), [Parabola(-1.0, 1e3 / times)])
    assert state.eta == pytest.approx(moved * 1e-3)
    assert state.proposed == pytest.approx(times * 1e-3), "what the formula says is kept"
    assert state.outcome == "accepted"


@pytest.mark.parametrize(
    ("slope", "curvature"), [(1.0, 100.0), (-1.0, -100.0), (-1.0, 0.0), (0.0, 0.0), (0.0, 5.0)]
)
def test_without_a_positive_finite_rate_the_old_one_stays(slope, curvature):
    (state,) = walk(BoundedThreePoint(1e-3), [Parabola(slope, curvature)])
    assert (state.eta, state.outcome) == (1e-3, "nonfinite")
    (nan,) = walk(BoundedThreePoint(1e-3), [Parabola(math.nan, 1.0)])
    assert (nan.eta, nan.outcome) == (1e-3, "nonfinite")


def test_no_sequence_of_lines_makes_it_negative_or_fast():
    """All orders of five lines, a probe at each: each moves the rate to within [1/10, 10]."""
    lines = [Parabola(s, c) for s, c in ((1, 100), (-1, 1e-9), (-1, 1e9), (-1, -5), (-1, 50))]
    bare = []
    for order in itertools.permutations(lines):
        rates = [0.01, *(state.eta for state in walk(BoundedThreePoint(0.01, every=1), order))]
        for old, new in itertools.pairwise(rates):
            assert 0 < old / 10 * (1 - 1e-12) <= new <= old * 10 * (1 + 1e-12)
        bare += [state.eta for state in walk(ThreePoint(0.01, every=1), order)]
    assert min(bare) < 0, "the bare formula does go below zero"


@pytest.mark.parametrize("direction", [NGDiff(), GradDiff(0.1)], ids=repr)
@pytest.mark.parametrize("lr", [1e-6, 1e-2, 1e3])
def test_a_run_keeps_within_its_bounds(lr, direction):
    pair = ng.quadratics.pair(angle=60, condition=10, dim=5)
    run = ng.unlearn(pair, direction, BoundedThreePoint(lr, every=2), steps=20)
    rates = [lr, *(info.eta for info in run.history if info.updated)]
    assert len(rates) > 2 and all(math.isfinite(rate) and rate > 0 for rate in rates)
    for old, new in itertools.pairwise(rates):
        assert old / 10 * (1 - 1e-12) <= new <= old * 10 * (1 + 1e-12)
    held = [info.stepsize for info in run.history[1::2] if info.updated]
    assert set(held) <= {"held"}


def test_their_names_give_them():
    assert rule_of("once", 2e-3, 9) == SearchOnce(2e-3)
    assert rule_of("once-half", 2e-3, 9) == SearchOnce(2e-3, factor=0.5)
    assert rule_of("three-point-bounded", 2e-3, 9) == BoundedThreePoint(2e-3)
    assert rule_of("three-point-bounded most=3 every=5", 1.0, 9) == BoundedThreePoint(1.0, 5, 3)
