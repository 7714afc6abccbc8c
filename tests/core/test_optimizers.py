"""The user's optimizer as a step uses it: its rates, and the parameters it holds."""

from __future__ import annotations

import pytest
import torch

from ngdiff.core.directions import NGDiff
from ngdiff.core.optimizers import Rates
from ngdiff.core.step import UnlearningStep
from ngdiff.core.stepsize import Constant
from tests.helpers.twin import Net


def two_groups(net, *rates):
    first, *rest = net.trained()
    groups = [{"params": [first], "lr": rates[0]}, {"params": rest, "lr": rates[1]}]
    return torch.optim.SGD(groups, lr=1.0)


@pytest.mark.parametrize("step", [0, 3])
def test_point_10_groups_keep_their_ratio_under_a_warm_up_from_zero(step):
    """At its step 0 a warm-up has set every rate to 0 before the step is made."""
    optimizer = two_groups(Net(), 1e-3, 1e-2)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: t / 10)
    for _ in range(step):
        optimizer.step()
        schedule.step()
    rates = Rates(optimizer)
    rates.set(0.5)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.5, 5.0])


def test_point_10_one_group_that_is_still_at_zero_keeps_its_ratio_too():
    optimizer = two_groups(Net(), 1e-3, 1e-2)
    torch.optim.lr_scheduler.LambdaLR(optimizer, [lambda t: 1.0, lambda t: t / 10])
    rates = Rates(optimizer)
    rates.set(0.5)
    assert [g["lr"] for g in optimizer.param_groups] == pytest.approx([0.5, 5.0])


def test_a_group_that_was_given_no_rate_stays_without():
    optimizer = two_groups(Net(), 0.0, 1e-2)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 1.0)
    rates = Rates(optimizer)
    rates.set(0.5)
    assert [g["lr"] for g in optimizer.param_groups] == [0.0, 0.5]


@pytest.mark.parametrize("stepsize", [None, Constant(0.1)], ids=["none", "constant"])
def test_point_10_parameters_that_are_added_later_are_noticed(stepsize):
    net, more = Net(), torch.zeros(3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD(net.trained(), lr=0.1)
    step = UnlearningStep(net, optimizer, NGDiff(), stepsize)
    assert step(net.R, net.F).outcome == "ok"
    optimizer.add_param_group({"params": [more]})
    before = [p.detach().clone() for p in net.parameters()]
    with pytest.raises(ValueError, match="parameters were added.*make a new UnlearningStep"):
        step(lambda: net.R() + more.sum(), net.F)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before))
    assert more.grad is None and not more.any()
