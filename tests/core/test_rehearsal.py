"""The rehearsal of an optimizer: what is linear in its rate passes, what is not is refused by name.

Small stand-ins have the arithmetic of Prodigy, Schedule-Free SGD and Lookahead.
"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from ngdiff.core import rehearsal
from ngdiff.core.autolr import AutoLR
from ngdiff.core.directions import NGDiff
from ngdiff.core.step import UnlearningStep
from ngdiff.core.stepsize import Constant
from ngdiff.engine.master import Master
from tests.helpers.twin import OPTIMIZERS, Net


class Prodigy(torch.optim.Optimizer):
    """The rate is multiplied by an estimate d of the distance, which grows along the way."""

    def __init__(self, params, lr=1.0, d_0=1e-2):
        super().__init__(params, {"lr": lr})
        self.d, self.d_0, self.top, self.bottom, self.start = d_0, d_0, 0.0, 0.0, {}

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                start = self.start.setdefault(p, p.detach().clone())
                self.top += self.d * group["lr"] * float((p.grad * (start - p)).sum())
                self.bottom += self.d * group["lr"] * float(p.grad.abs().sum())
                self.d = max(self.d, self.top / self.bottom)
                p.add_(p.grad, alpha=-self.d * group["lr"])


class ScheduleFreeSGD(torch.optim.Optimizer):
    """θ lies between z, which SGD moves, and the mean of all z."""

    def __init__(self, params, lr=0.1, beta=0.9):
        super().__init__(params, {"lr": lr, "beta": beta})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                s = self.state[p]
                z = s.setdefault("z", p.detach().clone())
                s["k"] = s.get("k", 0) + 1
                p.lerp_(z, 1 / s["k"])
                p.add_(p.grad, alpha=group["lr"] * (group["beta"] * (1 - 1 / s["k"]) - 1))
                z.add_(p.grad, alpha=-group["lr"])


class Lookahead:
    """Every k-th step goes halfway back to where the weights were k steps ago. No torch class."""

    def __init__(self, optimizer, k=5):
        self.optimizer, self.k, self.t = optimizer, k, 0
        self.param_groups, self.defaults = optimizer.param_groups, optimizer.defaults
        self.slow = [p.detach().clone() for g in self.param_groups for p in g["params"]]

    @torch.no_grad()
    def step(self):
        self.optimizer.step()
        self.t += 1
        if self.t % self.k == 0:
            fast = [p for g in self.param_groups for p in g["params"]]
            for p, slow in zip(fast, self.slow):
                slow.lerp_(p, 0.5)
                p.copy_(slow)


class Noisy(torch.optim.SGD):
    """Langevin noise, drawn from the global random numbers; linear in the rate as it stands."""

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                p.add_(p.grad + torch.randn_like(p), alpha=-group["lr"])


NONLINEAR = {
    "ASGD": torch.optim.ASGD,
    "Rprop": torch.optim.Rprop,
    "Adafactor": torch.optim.Adafactor,
    "LBFGS": torch.optim.LBFGS,
    "Prodigy": Prodigy,
    "ScheduleFreeSGD": ScheduleFreeSGD,
    "Lookahead": lambda params: Lookahead(torch.optim.SGD(params, lr=0.1)),
}
LINEAR = {
    **OPTIMIZERS,
    "nesterov": lambda params: torch.optim.SGD(params, lr=0.1, momentum=0.9, nesterov=True),
    "decay": lambda params: torch.optim.SGD(params, lr=0.1, weight_decay=0.1),
    "fused": lambda params: torch.optim.AdamW(params, fused=True),
    "noisy": lambda params: Noisy(params, lr=0.1),
    **{
        name: getattr(torch.optim, name)
        for name in ("NAdam", "RAdam", "RMSprop", "Adagrad", "Adadelta", "Adamax")
    },
}


@pytest.mark.parametrize("name", NONLINEAR)
def test_point_6_an_optimizer_whose_step_is_not_linear_in_the_rate_is_refused(name):
    net = Net()
    with pytest.raises(ValueError, match=f"^{name}.*use SGD or an Adam kind"):
        UnlearningStep(net, NONLINEAR[name](net.trained()), NGDiff(), AutoLR())
    if name != "LBFGS":  # with a known rate no line is needed
        UnlearningStep(net, NONLINEAR[name](net.trained()), NGDiff(), Constant(0.1))


@pytest.mark.parametrize("name", LINEAR)
def test_a_linear_optimizer_passes_and_is_left_as_it_was(name):
    net = Net()
    optimizer = LINEAR[name](net.trained())
    (net.R() - net.F()).backward()
    optimizer.step()  # so that it has a state
    before = [p.detach().clone() for p in net.parameters()]
    state, random = repr(optimizer.state_dict()), torch.get_rng_state()
    rehearsal._known.clear()
    assert rehearsal.fault(optimizer) == ""
    assert repr(optimizer.state_dict()) == state
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))


def test_a_scheduler_and_hooks_do_not_step_the_optimizer_itself():
    net, called = Net(), []
    optimizer = torch.optim.SGD(net.trained(), lr=0.1)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda t: 0.5)  # gives it a step of its own
    optimizer.register_step_pre_hook(lambda *_: called.append(1))
    before = [p.detach().clone() for p in net.parameters()]
    rehearsal._known.clear()
    assert rehearsal.fault(optimizer) == "" and not called
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), before, strict=True))


def test_a_master_is_judged_by_the_optimizer_inside():
    net = Net(torch.bfloat16)
    UnlearningStep(net, Master(net.trained(), torch.optim.AdamW), NGDiff(), AutoLR())
    with pytest.raises(ValueError, match="^ASGD"):
        UnlearningStep(net, Master(net.trained(), torch.optim.ASGD), NGDiff(), AutoLR())


def test_an_optimizer_that_cannot_be_copied_is_named():
    class Held(torch.optim.SGD):
        def __deepcopy__(self, memo):
            raise TypeError("never")

    net = Net()
    optimizer = torch.optim.SGD(net.trained(), lr=0.1)
    optimizer.lock = (i for i in range(3))  # a generator has no copy
    optimizer.__class__ = type("Mine", (torch.optim.SGD,), {})
    with pytest.warns(UserWarning, match="whether Mine's step is linear"):
        UnlearningStep(net, optimizer, NGDiff(), AutoLR())


def test_a_copy_is_small_and_keeps_every_group_s_options():
    layer = nn.Linear(50, 40)
    groups = [{"params": [layer.weight], "lr": 0.1}, {"params": [layer.bias], "momentum": 0.5}]
    copied = rehearsal.small(torch.optim.SGD(groups, lr=0.2))
    sizes = [[p.numel() for p in group["params"]] for group in copied.param_groups]
    assert sizes == [[8], [8]]
    assert [(g["lr"], g["momentum"]) for g in copied.param_groups] == [(0.1, 0), (0.2, 0.5)]
