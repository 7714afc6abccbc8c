"""The bare rule, and where AutoLR departs from it: each line of docs/learning_rate.md by hand."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from ngdiff.core.autolr import GROWTH, AutoLR, ThreePoint
from ngdiff.core.search import LEAST, LOOKS, MOST, REACH
from ngdiff.core.stepsize import State
from tests.helpers.lines import EPS_32, Curve, float32, info, valley

PAGE = Path(__file__).parents[2] / "docs" / "learning_rate.md"
LATER = State(eta=0.1, found=0.1)  # a probe after AutoLR's search
NAMES = ("bare", "paper")


# ------------------------------------------------------------------------------------ the bare rule
@pytest.mark.parametrize("name", NAMES)
def test_the_bare_rule_is_the_three_point_rule(name):
    make = getattr(AutoLR, name)
    assert make() == ThreePoint() == ThreePoint(lr=1e-3, every=10)
    assert make(0.5, 3) == make(every=3, lr=0.5) == ThreePoint(lr=0.5, every=3)
    assert type(make()) is ThreePoint
    assert getattr(AutoLR(lr=7.0), name)() == ThreePoint()  # an AutoLR's own fields have no say
    with pytest.raises(ValueError, match="every=0"):
        make(every=0)


@pytest.mark.parametrize("name", NAMES)
def test_the_bare_rule_takes_the_minimiser_of_the_parabola(name):
    """By hand: slope (1 − 4)/(2·½) = −3, curvature (1 − 4 + 4)/½² = 4, so η = 3/4."""
    rule = getattr(AutoLR, name)(0.5)
    state = rule.step(rule.init(), Curve({0.0: 2.0, 0.5: 1.0, -0.5: 4.0}.__getitem__))
    assert (state.slope, state.curvature, state.eta) == (-3.0, 4.0, 0.75)


@pytest.mark.parametrize("name", NAMES)
def test_its_docstring_says_where_it_comes_from(name):
    said = " ".join((inspect.getdoc(getattr(AutoLR, name)) or "").split())
    source = ("our reading", "third-party re-implementation", "Algorithm 1", "2407.02772")
    for part in (*source, "every 10 updates", "listing was not available to us"):
        assert part in said, part
    assert ("promises nothing" in said) == (name == "paper")


def test_the_class_and_the_page_say_that_the_rule_is_ours():
    for text in (inspect.getdoc(AutoLR) or "", PAGE.read_text("utf-8")):
        said = " ".join(text.split())
        assert re.search("[Oo]ur rule, after GeN.*; the paper's listing was not seen", said)


# ------------------------------------------------------------------------------------- departures
DEPARTURES: dict[str, Callable[[], None]] = {}


def departure(check):
    DEPARTURES[check.__name__.replace("_", " ")] = check
    return check


def both(f, state=None, told=None, lr=0.1, **kw):
    """The states of both rules after a probe of the line f, and the lines they looked along."""
    lines = Curve(f, **kw), Curve(f, **kw)
    rules = AutoLR.bare(lr), AutoLR(lr)
    return *(r.step(state or r.init(), c, told) for r, c in zip(rules, lines)), *lines


@departure
def first_rate():
    """Where a quartic is no parabola at the first radius, only the search comes near its minimum.

    f' = −1 + 0.6x + 0.4x³ is 0 at x = h/best = 1.
    """
    best = 1e-4
    rule = AutoLR(1.0, slack=0.0)
    line = Curve(lambda h: 1 - h / best + 0.3 * (h / best) ** 2 + 0.1 * (h / best) ** 4)
    found = rule.step(rule.init(), line)
    bare = AutoLR.bare(1.0).step(AutoLR.bare(1.0).init(), line)
    assert bare.eta < best / 1000 and best / REACH < found.eta < best * REACH
    assert found.forwards <= 1 + 2 * LOOKS


@departure
def rows_of_a_probe():
    assert AutoLR.bare().fresh == 0 < AutoLR().fresh


@departure
def rise_of_R():
    """At a minimum of R = 1 with curvature 1 a rise of e = slack gives √(2e)."""
    bare, ours, *_ = both(valley(0.0))
    assert bare.eta == pytest.approx(0.0, abs=1e-12)
    assert ours.eta == pytest.approx(math.sqrt(2 * AutoLR().slack), rel=1e-6)


@departure
def growth_of_the_rise():
    """A search at update 3 may cost four times as much as at update 0."""
    bare, ours, *_ = both(valley(0.0), State(step=3, eta=0.1))
    assert ours.eta == pytest.approx(math.sqrt(2 * 4 * AutoLR().slack), rel=1e-6)
    early, late = (AutoLR().rise(t, 1.0) for t in (0, 99))
    assert late == pytest.approx(100 * early) and bare.outcome == "held"


@departure
def size_of_R():
    """A KL of 0 beside a cross-entropy of 1."""
    bare, ours, *_ = both(valley(0.0, R_0=0.0), told=info(0.0, ce=1.0))
    assert bare.eta == 0.0 and ours.eta == pytest.approx(math.sqrt(2 * AutoLR().slack), rel=1e-6)


@departure
def mean():
    bare, ours, *_ = both(valley(0.2), LATER)
    assert bare.eta == pytest.approx(0.2, rel=1e-6)
    assert ours.eta == pytest.approx(math.sqrt(0.1 * 0.2), rel=1e-6)


@departure
def gap():
    dues = []
    for rule in (AutoLR.bare(0.1), AutoLR(0.1, slack=0.0)):
        state, due = rule.init(), []
        for t in range(200):
            due += [t] if rule.probes(state) else []
            state = rule.step(state, Curve(valley(0.1)) if rule.probes(state) else None)
        dues.append([b - a for a, b in zip(due, due[1:])])
    assert set(dues[0]) == {10} and dues[1] == [1, 2, 4, 8, 16, 32, 64, 64]
    assert AutoLR().every == 64


@departure
def reach():
    bare, ours, *_ = both(valley(1e6), LATER)
    assert bare.eta == pytest.approx(1e6, rel=1e-3)
    assert (ours.eta, ours.outcome) == (pytest.approx(0.1 * REACH), "clipped_up")
    *_, bare_line, our_line = both(valley(1e-4, 100.0), LATER)
    assert bare_line.radii == [0.1] and len(our_line.radii) > 1  # a new search


@departure
def bounds():
    bare, ours, *_ = both(valley(30.0), State(eta=9.9, found=0.1))
    assert bare.eta == pytest.approx(30.0, rel=1e-3)
    assert ours.outcome == "bounded" and 9.9 < ours.eta <= GROWTH * 0.1
    with pytest.raises(ValueError, match="lr"):
        AutoLR(2 * MOST)
    assert AutoLR.bare(2 * MOST).lr == 2 * MOST and AutoLR.bare(LEAST / 2).lr == LEAST / 2


@departure
def watch():
    """R was 1 at the last probe and is 4: growth 4, so the rate is divided by 1 + √4."""
    state = State(step=1, eta=0.3, R=1.0, size=1.0, due=5)
    bare, ours = (rule.step(state, None, info(4.0)) for rule in (AutoLR.bare(), AutoLR()))
    assert (bare.outcome, bare.eta) == ("held", 0.3)
    assert (ours.outcome, ours.eta) == ("cut", pytest.approx(0.1))


@departure
def sign():
    for f in (valley(-3.0), lambda h: 1 - h - h * h):  # uphill, concave
        bare, ours, *_ = both(f, LATER)
        assert bare.eta < 0 < ours.eta


@departure
def noise():
    """A straight line in float32: its one bend is 2⁻²⁴, the rounding of 1 − 5e-8."""
    bare, ours, _, line = both(lambda h: float32(1 - 1e-6 * h), lr=0.05, eps=EPS_32)
    assert bare.curvature == pytest.approx(-(2.0**-24) / 0.05**2) and bare.eta < 0
    assert (ours.outcome, ours.eta) == ("flat", 0.05) and max(line.radii) > 1


@departure
def coarse_weights():
    _, _, *lines = both(valley(0.1), shown=1.0)
    assert lines[0].radii == [0.1] and min(lines[1].radii) >= 1.0


@departure
def no_finite_value():
    bare, ours, *_ = both(lambda h: math.inf if h else 1.0, LATER)
    assert (bare.eta, ours.eta) == (0.1, pytest.approx(0.1 / 100))


@pytest.mark.parametrize("name", DEPARTURES)
def test_autolr_departs_from_the_bare_rule(name):
    DEPARTURES[name]()


def listed():
    """The lines of the page's table: the name of a departure, and the rest."""
    section = PAGE.read_text("utf-8").split("## What differs from the bare rule?")[1]
    table = re.findall(r"^\| ([^|]+) \|(.+)\|$", section.split("\n## ")[0], flags=re.MULTILINE)
    return dict(table[2:])


def test_the_page_lists_each_departure_once():
    assert list(listed()) == list(DEPARTURES)


def test_numbers_of_the_list_are_those_of_the_code():
    lines = listed()
    assert f"every {AutoLR.bare().every} updates" in lines["gap"]
    assert f"up to {LOOKS} radii" in lines["first rate"]
    assert f"√{REACH**2:.0f} of the radius" in lines["reach"]
    for number in (f"{GROWTH:g} times", f"{LEAST:g} to {MOST:g}"):
        assert number in lines["bounds"]


def test_slack_0_on_a_parabola_within_reach_is_the_bare_rule():
    """So nothing else is added where none of the departures plays a part: at the first probe."""
    for best in (0.04, 0.1, 0.3):
        ours = replace(AutoLR(0.1), slack=0.0)
        rates = [r.step(r.init(), Curve(valley(best))).eta for r in (AutoLR.bare(0.1), ours)]
        assert rates[0] == rates[1] == pytest.approx(best)
