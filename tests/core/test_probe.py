"""What a probe knows of the step's own forward: the exact slope, the rows at 0, the precision."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from ngdiff.core.autolr import AutoLR
from ngdiff.core.directions import NGDiff
from ngdiff.core.step import UnlearningStep
from ngdiff.core.stepsize import State, StepSize
from tests.helpers.twin import Net

H = 1e-5
seen: list = []


@dataclass(frozen=True)
class Look(StepSize):
    """A rule that keeps the line, and the slope that differences along it show."""

    def init(self):
        return State(eta=0.05)

    def probes(self, state):
        return True

    def step(self, state, line, info=None):
        plus, minus = math.fsum(line(H)), math.fsum(line(-H))
        seen.append((line, (plus - minus) / (2 * H), math.fsum(line(0.0))))
        return replace(state, step=state.step + 1, outcome="looked")


@pytest.fixture(autouse=True)
def _forget_what_was_seen():
    seen.clear()


def look(model, R, F, module=True):
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(params, lr=0.05)
    step = UnlearningStep(model if module else params, optimizer, NGDiff(), Look())
    step(R, F)
    return seen[-1], step


class Normed(nn.Module):
    """Batch statistics in training, running ones in a probe."""

    def __init__(self):
        super().__init__()
        self.one, self.norm, self.two = nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Linear(6, 3)
        self.double()

    def R(self):
        x = torch.linspace(-1, 2, 80, dtype=torch.float64).reshape(16, 5).sin()
        return self.two(self.norm(self.one(x)).tanh()).square().mean()

    def F(self):
        return -self.R() + self.one.weight.sum()


class Fresh(nn.Module):
    """An adapter whose last factor is 0: dropout moves its gradient, not its loss."""

    def __init__(self):
        super().__init__()
        self.A, self.B = nn.Linear(5, 4, bias=False), nn.Linear(4, 3, bias=False)
        self.drop = nn.Dropout(0.5)
        nn.init.zeros_(self.B.weight)
        self.double()

    def R(self):
        x = torch.linspace(-1, 2, 80, dtype=torch.float64).reshape(16, 5).sin()
        return (self.B(self.A(self.drop(x))) - 1).square().mean()

    def F(self):
        return -self.R() + self.B.weight.sum()


MAKES = pytest.mark.parametrize(
    "make", [lambda: Net(dropout=0.3), Normed, Fresh], ids=["dropout", "batch norm", "adapter"]
)


@MAKES
def test_point_1_in_training_mode_the_rows_at_zero_are_looked_up_in_eval_mode(make):
    """Of a module in eval mode they are the step's own, and cost no forward."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = make()
        (line, slope, at_zero), _ = look(net, net.R, net.F)
        assert line.at_zero is None and math.isfinite(slope) and net.training
        seen.clear()
        net = make().eval()
        (line, _, at_zero), _ = look(net, net.R, net.F)
        assert math.fsum(line.at_zero) == at_zero


@MAKES
def test_point_1_the_line_in_training_mode_is_one_function_at_every_radius(make):
    """Its slope by differences is that of the eval-mode loss along the update."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = make()
        params = [p for p in net.parameters() if p.requires_grad]
        before = [p.detach().clone() for p in params]
        (_, slope, _), _ = look(net, net.R, net.F)
        moved = [(p.detach() - q) / 0.05 for p, q in zip(params, before)]
        net.eval()
        with torch.no_grad():
            for p, q in zip(params, before):
                p.copy_(q)
        g = torch.autograd.grad(net.R(), params, allow_unused=True)
        exact = sum((x * u).sum().item() for x, u in zip(g, moved) if x is not None)
    assert slope == pytest.approx(exact, rel=1e-5, abs=1e-9)


def test_point_1_a_list_of_parameters_with_dropout_is_looked_at_under_the_step_s_own_masks():
    """The modes are the caller's then. All looks draw what the step drew, so they see one function:
    its rows at 0 are the step's, and the caller's random numbers go on."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Net(dropout=0.3)
        (line, slope, at_zero), _ = look(net, net.R, net.F, module=False)
        went_on = torch.rand(3)
    assert math.fsum(line.at_zero) == at_zero and math.isfinite(slope)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        other = Net(dropout=0.3)
        UnlearningStep(other.trained(), torch.optim.SGD(other.trained(), lr=0.05), NGDiff())(
            other.R, other.F
        )
        assert torch.equal(went_on, torch.rand(3))


# ---------------------------------------------------------------------------------------- precision
def wrapped(net):
    """`accelerate` wraps a model's forward so."""
    net.forward = torch.autocast("cpu", dtype=torch.bfloat16)(net.forward)
    return net


class Autocast(nn.Module):
    """Two layers whose losses are those of a plain loop, under autocast or not."""

    def __init__(self, how):
        super().__init__()
        torch.manual_seed(0)
        self.how = how
        self.one, self.two = nn.Linear(16, 32), nn.Linear(32, 4)
        make = torch.Generator().manual_seed(1)
        self.x = torch.randn(2, 64, 16, generator=make)
        self.y = torch.randint(4, (2, 64), generator=make)
        if how == "wrapped":
            wrapped(self)

    def forward(self, x):
        return self.two(self.one(x).tanh())

    def loss(self, which):
        inside = torch.autocast("cpu", torch.bfloat16) if self.how == "inside" else nullcontext()
        with inside:
            logits = self(self.x[which]).float()
        return nn.functional.cross_entropy(logits, self.y[which], reduction="none") / 64

    def R(self):
        return self.loss(0)

    def F(self):
        return self.loss(1)


def run(how, dtype=None, module=True, steps=8):
    net = Autocast(how)
    rule = AutoLR(lr=1e-4, every=2, fresh=0)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    model = net if module else list(net.parameters())
    step = UnlearningStep(model, optimizer, NGDiff(), rule, dtype=dtype)
    if how == "outside":
        with torch.autocast("cpu", torch.bfloat16):
            return [step(net.R, net.F) for _ in range(steps)]
    return [step(net.R, net.F) for _ in range(steps)]


@pytest.mark.parametrize("module", [True, False], ids=["module", "list"])
@pytest.mark.parametrize("how", ["inside", "wrapped", "outside"])
def test_point_4_autocast_is_noticed_without_a_word(how, module):
    """The run is that of one that is told, bit for bit; its first rate is near float32's.

    Autocast around the loop keeps casts of the weights: they must not outlive an update.
    """
    told, alone = run(how, torch.bfloat16, module), run(how, None, module)
    assert repr(told) == repr(alone)
    exact = run("not", None, module)
    inside = [info.retain for info in run("inside", None, module)]
    assert [info.retain for info in alone] == pytest.approx(inside, rel=0.02)
    assert 0.5 <= alone[0].eta / exact[0].eta <= 2
    assert repr(exact) == repr(run("not", torch.float32, module))


def test_point_4_autocast_that_begins_later_is_noticed_at_the_next_probe():
    net = Autocast("not")
    step = UnlearningStep(net, torch.optim.SGD(net.parameters(), lr=0.1), NGDiff(), Look())
    step(net.R, net.F)
    net.how = "inside"
    step(net.R, net.F)
    assert [line.dtype for line, *_ in seen] == [torch.float32, torch.bfloat16]
