"""`unlearn`: one loop for the quadratic and the network, its ends, and what it hands to the
step.
"""

from __future__ import annotations

import math

import pytest
import torch

import ngdiff as ng
from ngdiff.core.autolr import AutoLR, ThreePoint
from ngdiff.core.directions import GradAscent, GradDiff, LossNorm, NGDiff
from ngdiff.core.info import ForgetLevel, RetainBound
from ngdiff.core.step import UnlearningStep
from ngdiff.core.stepsize import Constant, WarmupCosine
from tests.helpers.twin import Lion, NetProblem


def weights(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])


def toy(**kw):
    return ng.quadratics.pair(angle=60, condition=10, **kw)


def test_without_slack_a_run_ends_where_the_gradients_align():
    run = ng.unlearn(toy(), ng.NGDiff(), ng.AutoLR(slack=0.0), steps=200)
    first, last = run.history[0], run.history[-1]
    assert math.degrees(math.acos(first.cosine)) == pytest.approx(60)
    assert run.stopped == last.outcome == "aligned" and len(run.history) < 200
    assert last.retain < 0.2 * first.retain
    assert toy().stationarity(run.model.detach()) < 1e-5


@pytest.mark.parametrize("problem", [toy(), NetProblem()], ids=["toy", "net"])
def test_the_problem_is_left_as_it_was(problem):
    before = [p.detach().clone() for p in problem.parameters]
    run = ng.unlearn(problem, NGDiff(), Constant(0.05), steps=3)
    assert run.model is not problem.model and run.stopped == "steps" and run.seconds > 0
    for p, q, p_0 in zip(
        problem.parameters, run.model if problem.module is None else run.model.trained(), before
    ):
        assert torch.equal(p, p_0) and not torch.equal(p, q)
    again = ng.unlearn(problem, NGDiff(), Constant(0.05), steps=3)
    assert repr(again.history) == repr(run.history)


def test_the_loop_is_the_step_in_a_loop():
    run = ng.unlearn(NetProblem(), GradDiff(0.7), AutoLR(every=2), steps=5, seed=3)
    mine = NetProblem().bind(None, 3)
    step = UnlearningStep(mine.model, mine.optimizer(), GradDiff(0.7), AutoLR(every=2))
    history, due = [], []
    for t in range(5):
        due.append(t == step.state.due)
        history.append(step(*mine.batch(t), mine.probe(t, 3) if due[-1] else None))
    assert due[0] and not all(due)
    assert repr(run.history) == repr(history)
    assert torch.equal(weights(run.model), weights(mine.model))


def test_a_recipe_brings_its_direction():
    recipe = type("Recipe", (), {"direction": GradAscent(), "name": "mine"})()
    by_recipe, by_rule = (
        ng.unlearn(NetProblem(), m, Constant(0.01), steps=3) for m in (recipe, GradAscent())
    )
    assert repr(by_recipe.history) == repr(by_rule.history)


def test_without_a_rule_the_optimizer_keeps_its_rate_and_may_be_chosen():
    run = ng.unlearn(NetProblem(), NGDiff(), steps=2, optimizer=lambda theta: Lion(theta, lr=0.007))
    assert [info.eta for info in run.history] == [0.007, 0.007]
    assert ng.unlearn(toy(), NGDiff(), steps=1).history[0].eta == toy().lr


def test_the_seed_is_the_order_of_the_data():
    one, two, other = (
        ng.unlearn(NetProblem(), NGDiff(), Constant(0.01), steps=2, seed=s) for s in (1, 1, 2)
    )
    assert repr(one.history) == repr(two.history) != repr(other.history)


def test_fresh_rows_are_asked_for_when_a_probe_is_due():
    problem = NetProblem()
    run = ng.unlearn(problem, NGDiff(), AutoLR(every=3, fresh=2), steps=8)
    looked = [info.step for info in run.history if info.stepsize not in ("held", "cut")]
    assert problem.probed == [(t, 2) for t in looked] and looked[:2] == [0, 1] != looked
    assert len(looked) < 8
    problem.probed.clear()
    for rule in (None, Constant(0.1), ThreePoint(), AutoLR(fresh=0)):
        ng.unlearn(problem, NGDiff(), rule, steps=3)
    assert problem.probed == []


def test_probes_of_a_network_are_in_eval_mode():
    problem = NetProblem(dropout=0.5)
    run = ng.unlearn(problem, NGDiff(), AutoLR(every=1), steps=2)
    assert {(training, grad) for _, _, training, grad in run.model.calls} == {
        (True, True),
        (False, False),
    }
    assert run.model.training


def test_history_rows_and_progress():
    seen = []
    run = ng.unlearn(toy(), NGDiff(), Constant(0.01), steps=4, measure=True, progress=seen.append)
    assert seen == run.history and [row["step"] for row in run.rows()] == [0, 1, 2, 3]
    assert all(row["outcome"] == "ok" and row["dR"] < 0 < row["dF"] for row in run.rows())
    assert {"retain", "forget", "cosine", "eta", "stepsize", "norm_R"} <= run.rows()[0].keys()


def test_no_steps_is_the_start():
    run = ng.unlearn(toy(), NGDiff(), steps=0)
    assert run.history == [] and torch.equal(run.model, toy().start)


@pytest.mark.parametrize(
    ("stop", "name"),
    [(ForgetLevel(4.0), "forget_level"), ([RetainBound(0.5), ForgetLevel(99.0)], "retain_bound")],
    ids=str,
)
def test_a_stop_ends_the_run_before_the_update(stop, name):
    problem = toy(family="convex", ratio=2.0)  # F rises from 2, R from .05
    run = ng.unlearn(problem, GradAscent(), Constant(0.01), steps=300, stop=stop)
    last = run.history[-1]
    assert run.stopped == last.outcome == name and len(run.history) > 2
    assert all(info.updated for info in run.history[:-1]) and not last.updated
    kept = problem.F(run.model).item()  # the weights it saw are the weights kept
    assert kept == pytest.approx(last.forget, rel=1e-14)
    unstopped = ng.unlearn(problem, GradAscent(), Constant(0.01), steps=len(run.history) - 1)
    assert torch.equal(run.model, unstopped.model)


def test_a_run_that_diverges_stops_and_keeps_its_last_weights():
    problem = toy(family="convex")
    run = ng.unlearn(problem, GradAscent(), Constant(1e30), steps=100)
    assert run.stopped == "nonfinite" and run.history[-1].outcome == "nonfinite"
    assert 1 < len(run.history) < 100 and torch.isfinite(run.model).all()


def test_a_schedule_runs_its_course():
    run = ng.unlearn(toy(), NGDiff(), WarmupCosine(0.1, warmup=2, total=4), steps=5)
    assert [info.eta for info in run.history] == pytest.approx(
        [0.05, 0.1, 0.1, 0.05, 0.0], abs=1e-15
    )


def test_a_refused_direction_says_so():
    problem = toy()
    problem.F_0 = -problem.F(problem.start).item()
    with pytest.raises(FloatingPointError, match="refuses a zero one"):
        ng.unlearn(problem, LossNorm(), steps=3)
