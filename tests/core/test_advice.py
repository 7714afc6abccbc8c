"""Steps that go on and do not do what was meant are warned of, once."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
from torch.nn import functional as fn

from ngdiff.core.advice import FALL, SPAN, STEPS, STREAK, minimised
from ngdiff.core.directions import GradDiff, NGDiff
from ngdiff.core.losses import Loss, Reported
from ngdiff.core.step import UnlearningStep
from ngdiff.core.stepsize import Constant
from tests.helpers.twin import Net


def step_of(net, rule=None, lr=0.1):
    return UnlearningStep(net, torch.optim.SGD(net.trained(), lr=lr), rule or NGDiff())


def npo(net, beta):
    """NPO's loss as its paper minimises it, on a net of rows."""
    start = net.rows("F").detach()
    return lambda: -2 / beta * fn.logsigmoid(beta * (net.rows("F") - start)).mean()


@pytest.mark.parametrize("beta", [0.1, 0.05, 0.3])
def test_point_10_npo_s_loss_passed_as_if_it_were_minimised_is_named(beta):
    net = Net()
    step, loss = step_of(net), npo(net, beta)
    with pytest.warns(UserWarning, match=rf"β = {beta:g}.*callable is ascended") as found:
        step(net.R, loss)
    assert found[0].filename == __file__ and len(found) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        step(net.R, loss)  # once
        other = Net()
        step_of(other)(other.R, lambda: -npo(other, beta)())  # ascended, as it must be
        plain = Net()
        step_of(plain)(plain.R, plain.F)


def test_losses_that_are_no_npo_are_left_alone():
    for classes in (2, 4, 32, 256, 1024, 2**17):  # of a model that knows nothing
        assert minimised(math.log(classes)) is None
    assert not any(minimised(x) for x in (0.0, -13.8, math.nan, math.inf, 1.234, 5.0))
    assert minimised(2 / 0.1 * math.log(2)) == 0.1


def test_point_10_a_forget_cross_entropy_that_falls_is_named():
    net = Net()
    step = step_of(net, GradDiff(0.1), lr=3.0)

    class Wrong(Loss):
        """Descended, by a mistake of sign."""

        def __call__(self):
            loss = net.F()
            self.ce = loss.detach()
            return -loss

    forget = Wrong()
    with pytest.warns(UserWarning, match=r"forget cross-entropy fell.*callable is ascended"):
        for _ in range(STEPS):
            step(net.R, forget)


def test_a_forget_cross_entropy_that_rises_is_not():
    net = Net()
    step = step_of(net, GradDiff(0.5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(STEPS):
            step(net.R, Reported(lambda: 2 * net.F(), net.F().detach()))


def test_point_10_endless_nonfinite_steps_speak_with_advice():
    net = Net()
    step = step_of(net)
    with torch.no_grad():
        net.one.weight[0, 0] = math.nan
    with pytest.warns(UserWarning, match=r"3 steps in a row made no update.*nonfinite") as found:
        for _ in range(4 * STREAK):
            assert step(net.R, net.F).outcome == "nonfinite"
    assert len(found) == 1  # not at every step


def test_a_single_nonfinite_step_is_an_outcome_and_no_warning():
    net = Net()
    step = UnlearningStep(net, torch.optim.SGD(net.trained(), lr=0.1), NGDiff(), Constant(0.1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(STREAK):
            assert step(net.R, lambda: net.F() * math.nan).outcome == "nonfinite"
            assert step(net.R, net.F).outcome == "ok"
    assert 0 < FALL < 1 and 2 * SPAN <= STEPS
