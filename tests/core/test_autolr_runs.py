"""AutoLR in runs: derivation on quadratics, plain descent, memorised models, KL, checkpoints."""

from __future__ import annotations

import copy
import functools
import json
import math
from dataclasses import asdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy

import ngdiff as ng
from ngdiff.core.autolr import AutoLR, ThreePoint
from ngdiff.core.directions import GradDiff, NGDiff
from ngdiff.core.info import ForgetLevel
from ngdiff.core.parabola import Fit
from ngdiff.core.step import UnlearningStep
from ngdiff.core.stepsize import State
from ngdiff.methods.problem import LMProblem
from tests.helpers import micro
from tests.methods.test_problem import BENCH

STARTS = (1e-6, 1e-3, 1.0)


# -------------------------------------------------------------------------------------- derivation
PATHS = st.lists(
    st.tuples(st.floats(-5, 5), st.floats(0.1, 10), st.floats(0.1, 5)), min_size=2, max_size=6
)


def costs(path, etas):
    """(ΣΔR, ΣΔF) of steps on lines with slope s and curvature c of R, and slope f of F."""
    R = math.fsum(s * x + 0.5 * c * x * x for (s, c, _), x in zip(path, etas, strict=True))
    return R, math.fsum(f * x for (*_, f), x in zip(path, etas, strict=True))


@given(PATHS, st.floats(0, 5), st.lists(st.floats(-1, 1), min_size=6, max_size=6))
def test_one_price_for_all_steps_is_the_cheapest_way_to_forget(path, price, moves):
    """η = η* + λf/c with one λ: no other rates forget as much and raise R less."""
    etas = [(price * f - s) / c for s, c, f in path]
    R, F = costs(path, etas)
    slopes = [f for *_, f in path]
    off = moves[: len(path)]
    along = math.fsum(m * f for m, f in zip(off, slopes)) / math.fsum(f * f for f in slopes)
    off = [m - along * f for m, f in zip(off, slopes)]  # leaves ΣΔF as it is
    R_off, F_off = costs(path, [x + m for x, m in zip(etas, off)])
    assert F_off == pytest.approx(F, rel=1e-9, abs=1e-9)
    dearer = math.fsum(0.5 * c * m * m for (_, c, _), m in zip(path, off))
    assert R_off - R == pytest.approx(dearer, rel=1e-6, abs=1e-9) and R_off >= R - 1e-9


@given(st.floats(0.1, 10), st.floats(0.1, 5), st.floats(0.01, 5))
def test_the_rise_that_a_price_allows_from_a_level_line(c, f, price):
    """e = ½λ²f²/c: at s = 0 the rate of the price and that of the rise are one."""
    rise = 0.5 * (price * f) ** 2 / c
    assert Fit(0.0, c, "uphill").rate(rise) == pytest.approx(price * f / c, rel=1e-12)


# ----------------------------------------------------------------------------------- plain descent
DESCENTS = {
    "sgd": lambda theta: torch.optim.SGD(theta, lr=1.0),
    "momentum": lambda theta: torch.optim.SGD(theta, lr=1.0, momentum=0.9),
}


def descent(kappa, rule, make, steps=150):
    """Retain losses of walking down R = ½Σλθ² with eigenvalues 1 … 1/κ, a row an eigenvalue."""
    draw = torch.Generator().manual_seed(0)
    theta = torch.randn(100, generator=draw, dtype=torch.float64).requires_grad_()
    values = torch.logspace(0, -math.log10(kappa), 100, dtype=torch.float64)
    step = UnlearningStep([theta], make([theta]), GradDiff(1.0), rule)

    def R():
        return 0.5 * values * theta**2

    seen = [step(R, lambda: (theta**2).sum()).retain for _ in range(steps)]
    return [*seen, R().sum().item()]


@pytest.mark.parametrize("lr", STARTS)
@pytest.mark.parametrize("optimizer", DESCENTS)
@pytest.mark.parametrize("kappa", [100, 1000])
def test_plain_descent_never_diverges(kappa, optimizer, lr):
    """A rate held for many steps grows the steepest direction in each: 9.3 became 8.8e10 so.

    One step may overshoot, a hundredfold of a small R even; the cut ends that at once.
    """
    losses = descent(kappa, AutoLR(lr, fresh=0), DESCENTS[optimizer])
    assert all(map(math.isfinite, losses))
    assert max(losses) <= 20 * losses[0] and losses[-1] < 0.05 * losses[0]
    above = [x > losses[0] for x in losses]
    assert not any(map(all, zip(above, above[1:], above[2:])))  # not for three steps together


# -------------------------------------------------------------------------------- memorised models
class Memorised:
    """A classifier that knows 48 random labels by heart: 36 rows to retain, 12 to forget."""

    module: torch.nn.Module
    options: dict = {}  # noqa: RUF012

    def __init__(self, model, x, y, seed=0):
        self.model = self.module = model
        self.x, self.y, self.seed = x, y, seed
        self.parameters = list(model.parameters())

    def bind(self, method, seed):
        return Memorised(copy.deepcopy(self.model), self.x, self.y, seed)

    def rows(self, chosen):
        loss = cross_entropy(self.model(self.x[chosen]), self.y[chosen], reduction="none")
        return loss / len(chosen)

    def order(self, step):
        return torch.randperm(36, generator=torch.Generator().manual_seed(97 * self.seed + step))

    def batch(self, step):
        own = self.order(step)[:9]
        return (lambda: self.rows(own)), (lambda: self.rows(torch.arange(36, 48)))

    def probe(self, step, fresh):
        others = self.order(step)[9 : 9 + 9 * fresh]
        return lambda: self.rows(others)

    def optimizer(self, make=None):
        return torch.optim.SGD(self.parameters, lr=1.0)


@functools.cache
def memorised():
    draw = torch.Generator().manual_seed(0)
    x, y = torch.randn(48, 20, generator=draw), torch.randint(10, (48,), generator=draw)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = torch.nn.Sequential(
            torch.nn.Linear(20, 32), torch.nn.ReLU(), torch.nn.Linear(32, 10)
        )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()
        optimizer.step()
    optimizer.zero_grad()
    assert cross_entropy(model(x), y).item() < 0.02
    return Memorised(model, x, y)


def unlearned(rule):
    return ng.unlearn(memorised(), NGDiff(), rule, steps=100, stop=ForgetLevel(math.log(10)))


@pytest.mark.parametrize("lr", STARTS)
def test_a_memorised_model_forgets_from_any_starting_rate(lr):
    run = unlearned(AutoLR(lr))
    assert run.stopped == "forget_level" and run.history[-1].retain < 0.1


def test_without_slack_a_memorised_model_does_not_forget():
    """At a minimum of R its slope is noise, and η* = −s/c with it."""
    runs = [unlearned(AutoLR(lr, slack=0.0)) for lr in STARTS]
    assert "steps" in [run.stopped for run in runs]
    stalled = next(run for run in runs if run.stopped == "steps")
    assert stalled.history[-1].forget < 0.5  # ln 10 is 2.3


# ----------------------------------------------------------------------- losses that are 0 at first
@pytest.mark.parametrize("lr", STARTS)
def test_a_retain_loss_that_is_zero_at_the_start_gets_a_rate(lr):
    """KL to the start is 0 there. What a step may cost is a share of its cross-entropy."""
    problem = LMProblem(BENCH, micro.memorised(), batch_size=4)
    run = ng.unlearn(problem, ng.methods.ngdiff_kl, AutoLR(lr), steps=3)
    first = run.history[0]
    assert abs(first.retain) < 1e-6 < first.retain_ce
    assert 1e-9 < first.eta < 1 and math.isfinite(first.eta)
    assert [info.updated for info in run.history] == [True] * 3
    assert run.history[-1].retain > 0  # it has moved


# ----------------------------------------------------------------------------------------- a state
def test_a_state_is_plain_numbers_and_survives_json():
    """Among them those of the cut and of the next probe."""
    run = [State(), State(3, 0.1, "held", -1.0, 2.0, 0.5, 0.1, 0.2, 7, 4, 1.5, 1.25, 9)]
    for state in run:
        again = State(**json.loads(json.dumps(asdict(state))))
        assert repr(again) == repr(state)
    assert math.inf == run[0].R


def test_a_saved_step_knows_when_it_probes_next_and_what_a_rise_is():
    problem = memorised().bind(None, 0)
    step = UnlearningStep(problem.module, problem.optimizer(), NGDiff(), AutoLR())
    for t in range(5):
        step(*problem.batch(t), problem.probe(t, 3))
    saved = json.loads(json.dumps(step.state_dict()["stepsize"]))
    other = memorised().bind(None, 0)
    resumed = UnlearningStep(other.module, other.optimizer(), NGDiff(), AutoLR())
    resumed.load_state_dict(step.state_dict() | {"stepsize": saved})
    assert repr(resumed.state) == repr(step.state)
    assert step.state.due > 0 and step.state.size > 0 and math.isfinite(step.state.R)
    assert step.state.found and math.inf == ThreePoint().init().R
