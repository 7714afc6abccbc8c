"""Weights and forwards that are coarser than float32: refused, warned of, or noticed."""

from __future__ import annotations

import warnings

import pytest
import torch

from ngdiff.core import precision
from ngdiff.core.directions import NGDiff
from ngdiff.core.step import UnlearningStep
from ngdiff.core.stepsize import Constant
from ngdiff.engine.master import Master
from tests.helpers.twin import Net


def sgd(net):
    return torch.optim.SGD(net.trained(), lr=0.1)


def test_point_5_bfloat16_weights_that_nobody_keeps_exactly_are_warned_of():
    net = Net(torch.bfloat16)
    with pytest.warns(UserWarning, match=r"keeps 8 bits.*ng\.Master") as found:
        UnlearningStep(net, sgd(net), NGDiff())
    assert found[0].filename == __file__  # the line that made the step


def test_point_5_exact_weights_are_not_warned_of():
    net, exact = Net(torch.bfloat16), Net(torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        UnlearningStep(net, Master(net.trained(), torch.optim.AdamW), NGDiff())
        UnlearningStep(exact, sgd(exact), NGDiff())


def test_point_5_float16_weights_are_refused_with_what_to_use():
    net = Net(torch.float16)
    with pytest.raises(ValueError, match=r"9 trained tensors are float16.*bfloat16"):
        UnlearningStep(net, sgd(net), NGDiff())


def test_point_5_a_forward_in_float16_is_refused_before_anything_changes():
    net = Net(torch.float32)
    before = [p.detach().clone() for p in net.parameters()]

    def R():
        with torch.autocast("cpu", torch.float16):
            return net.R().float()

    step = UnlearningStep(net, sgd(net), NGDiff(), Constant(0.1))
    with pytest.raises(ValueError, match="the forward computes in float16"):
        step(R, net.F)
    assert all(torch.equal(p, q) and p.grad is None for p, q in zip(net.parameters(), before))


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(torch.float64, None), (torch.float32, None), (torch.bfloat16, torch.bfloat16)],
)
def test_the_graph_shows_the_coarsest_precision(dtype, expected):
    x = torch.ones(3, dtype=torch.float64, requires_grad=True)
    y = torch.ones(3, requires_grad=True)
    loss = (x.to(dtype).float() + y).sum()
    assert precision.of_graph(loss) == expected
    assert precision.of_graph(torch.zeros(())) is None  # a loss without a graph
