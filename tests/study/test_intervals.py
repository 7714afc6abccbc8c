"""Intervals over units: populations where there are several, else seeds of the models."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from ngdiff.study.claims import LEVEL
from ngdiff.study.intervals import Interval, grouped, holm, interval, paired, select

SEEDS = (0, 1, 2)


def row(method="ngdiff", seed=0, target_seed=0, score=0.5, **more):
    fields = {"method": method, "seed": seed, "target_seed": target_seed, "score": score}
    return fields | more


def test_select_is_by_value():
    rows = [row(seed=0), row(seed=1), row("npo", seed=1)]
    assert select(rows, method="ngdiff", seed=1) == rows[1:2] and select(rows, unheard_of=1) == []
    assert select(rows) == rows


# -------------------------------------------------------------------------------------------- units
def test_the_unit_is_the_population_where_there_are_several():
    rows = [
        row(data=data, target_seed=t, seed=s, score=k + 0.1 * t + 0.01 * s)
        for k, data in enumerate(("news", "news-1"))
        for t in (0, 1)
        for s in (0, 1)
    ]
    found = grouped(rows, "score")
    assert found.keys() == {"news", "news-1"} and [len(v) for v in found.values()] == [4, 4]
    assert found["news-1"] == pytest.approx([1.0, 1.01, 1.1, 1.11])
    assert interval(found).n == 8


@pytest.mark.parametrize("data", [{}, {"data": "tofu rows"}])
def test_the_unit_is_the_seed_of_the_models_where_there_is_one_population(data):
    rows = [row(target_seed=t, seed=s, score=t, **data) for t in SEEDS for s in (0, 1)]
    assert grouped(rows, "score") == {t: [t, t] for t in SEEDS}


def test_differences_are_paired_by_population_model_and_order():
    places = list(itertools.product(("a", "b"), (0, 1), SEEDS))

    def runs(method, more, order):
        score = {(data, t, s): 100 * (data == "b") + 10 * t + s + more for data, t, s in order}
        return [row(method, s, t, score[data, t, s], data=data) for data, t, s in order]

    ours, theirs = runs("ngdiff", 0.5, places), runs("npo", 0.0, places[::-1])
    assert paired(ours, theirs, "score") == {"a": [0.5] * 6, "b": [0.5] * 6}
    # unpaired on either side: left out
    lone = row("npo", data="c", seed=9)
    assert paired(ours, [*theirs[1:], lone], "score") == {"a": [0.5] * 6, "b": [0.5] * 5}
    assert paired(ours, [lone], "score") == {}


# ---------------------------------------------------------------------------------------- intervals
def test_an_interval_over_units_is_students_t_of_their_means():
    """Means 1, 2, 6 of three units: mean 3, s = √7, t₀.₉₇₅ with two degrees of freedom = 4.302653
    (any table).
    """
    found = interval({0: [0.5, 1.5], 1: [2.0], 2: [5.0, 6.0, 7.0]})
    half = 4.302653 * math.sqrt(7) / math.sqrt(3)
    assert (found.mean, found.low, found.high) == pytest.approx((3.0, 3 - half, 3 + half), rel=1e-6)
    assert (found.n, found.kind) == (6, "95 %")


values = st.lists(st.floats(-1, 1), min_size=1, max_size=3)


@given(st.lists(values, min_size=3, max_size=6))
def test_p_is_that_of_the_t_test_of_the_units_means(units):
    means = [sum(v) / len(v) for v in units]
    if np.std(means) < 1e-6:  # scipy warns of lost precision
        return
    found, wanted = interval(dict(enumerate(units))), stats.ttest_1samp(means, 0)
    assert found.p == pytest.approx(wanted.pvalue, rel=1e-6, abs=1e-12)
    low, high = wanted.confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((low, high), rel=1e-6, abs=1e-9)
    if abs(found.p - LEVEL) > 1e-6:
        assert (found.p < LEVEL) == (found.sign != "undecided")


@pytest.mark.parametrize("by_unit", [{0: [0.1, 0.7, 0.4]}, {0: [0.1, 0.7], 1: [0.4]}])
def test_with_fewer_than_three_units_there_is_a_range_and_no_test(by_unit):
    assert interval(by_unit) == Interval(pytest.approx(0.4), 0.1, 0.7, 3, "range", None)


@pytest.mark.parametrize("values", [[0.3], [0.3, -0.1]])
def test_fewer_than_three_values_have_no_interval(values):
    found = interval({0: values})
    assert found == Interval(pytest.approx(sum(values) / len(values)), None, None, len(values), "")
    assert found.sign == "undecided"


def test_identical_values_are_a_point():
    same = interval({t: [0.25] * 3 for t in range(3)})
    assert (same.mean, same.low, same.high, same.sign) == (0.25, 0.25, 0.25, "above")
    none = interval({t: [0.0] * 3 for t in range(3)})
    assert (same.p, none.p, none.sign) == (0.0, 1.0, "undecided")


@pytest.mark.parametrize("empty", [{}, {0: []}])
def test_no_values_are_an_error(empty):
    with pytest.raises(ValueError, match="no values to average"):
        interval(empty)


@pytest.mark.parametrize(
    ("low", "high", "sign"),
    [(0.1, 0.2, "above"), (-0.2, -0.1, "below"), (-0.1, 0.1, "undecided"), (0.0, 0.1, "undecided")],
)
def test_the_sign_of_an_interval(low, high, sign):
    assert Interval(0.0, low, high, 3).sign == sign


# --------------------------------------------------------------------------------------------- Holm
def test_holm_by_hand():
    """Sorted .01, .013, .03, .2 times 4, 3, 2, 1 is .04, .039, .06, .2; then none may fall."""
    found = holm({"b": 0.2, "a": 0.013, "d": 0.01, "c": 0.03})
    assert found == pytest.approx({"d": 0.04, "a": 0.04, "c": 0.06, "b": 0.2})
    assert holm({}) == {} and holm({"a": 0.3}) == {"a": 0.3}


def test_holm_leaves_one_at_one():
    assert holm({"a": 1.0, "b": 1.0, "c": 1.0}) == {"a": 1.0, "b": 1.0, "c": 1.0}
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}


@given(st.lists(st.floats(0, 1), max_size=8), st.randoms())
def test_holm_keeps_the_order_never_helps_and_does_not_see_the_names(p, random):
    named = {str(k): value for k, value in enumerate(p)}
    found = holm(named)
    assert all(named[name] <= found[name] <= min(1.0, len(p) * named[name]) for name in named)
    in_order = [found[name] for name in sorted(named, key=named.__getitem__)]
    assert in_order == sorted(in_order)
    shuffled = list(named.items())
    random.shuffle(shuffled)
    assert holm(dict(shuffled)) == found
