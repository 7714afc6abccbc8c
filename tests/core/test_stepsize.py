"""Schedules by hand, and what every step-size rule refuses."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, fields

import pytest

from ngdiff.core.autolr import AutoLR, ThreePoint
from ngdiff.core.stepsize import Constant, WarmupCosine, WarmupLinear


# ---------------------------------------------------------------------------------------- schedules
@pytest.mark.parametrize(
    ("rule", "rates"),
    [
        (Constant(0.3), [0.3] * 6),
        (WarmupLinear(1.0, warmup=2, total=6), [0.5, 1.0, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]),
        (
            WarmupCosine(1.0, warmup=2, total=6),
            [0.5, 1.0, 1.0, 0.8535533905932737, 0.5, 0.14644660940672627, 0.0, 0.0],
        ),
        (WarmupLinear(2.0, warmup=0, total=4), [2.0, 1.5, 1.0, 0.5, 0.0]),
        (WarmupCosine(2.0, warmup=0, total=2), [2.0, 1.0, 0.0]),
        (WarmupLinear(1.0, warmup=3, total=3), [1 / 3, 2 / 3, 1.0, 0.0]),
    ],
    ids=repr,
)
def test_schedules_by_hand(rule, rates):
    state, used = rule.init(), []
    assert state.eta == pytest.approx(rates[0])
    for _ in rates:
        assert not rule.probes(state)
        state = rule.step(state, None)
        used.append(state.eta)
        assert state.outcome == "held" and state.forwards == 0
    assert used == pytest.approx(rates, abs=1e-15)
    assert state.step == len(rates)


# -------------------------------------------------------------------------------- values and errors
@pytest.mark.parametrize("rule", [Constant, WarmupLinear, WarmupCosine, AutoLR, ThreePoint])
@pytest.mark.parametrize("lr", [0.0, -1.0, math.nan, math.inf])
def test_a_rate_must_be_positive_and_finite(rule, lr):
    with pytest.raises(ValueError, match="lr"):
        rule(lr=lr)


@pytest.mark.parametrize(
    "wrong",
    [
        {"every": 0},
        {"fresh": -1},
        {"slack": -0.1},
        {"slack": 1.1},
        {"slack": math.nan},
        {"lr": 1e-13},
        {"lr": 1e7},
    ],
    ids=repr,
)
def test_invalid_arguments_are_refused(wrong):
    with pytest.raises(ValueError, match=f"AutoLR needs .*{next(iter(wrong))}"):
        AutoLR(**wrong)


def test_the_bare_formula_needs_a_period():
    with pytest.raises(ValueError, match="every ≥ 1, got .*every=0"):
        ThreePoint(every=0)


@pytest.mark.parametrize("edge", [{"slack": 0.0}, {"slack": 1.0}, {"fresh": 0}, {"every": 1}])
def test_arguments_at_the_edge_are_taken(edge):
    assert AutoLR(**edge) != AutoLR()


def test_rules_are_values():
    assert AutoLR(lr=0.1) == AutoLR(lr=0.1) and hash(Constant(0.1)) == hash(Constant(0.1))
    for rule in (AutoLR(), ThreePoint()):
        assert eval(repr(rule)) == rule
    assert ThreePoint(1e-3) != AutoLR(1e-3)
    assert [f.name for f in fields(AutoLR)] == ["lr", "slack", "every", "fresh"]
    with pytest.raises(FrozenInstanceError):
        AutoLR().lr = 1.0
