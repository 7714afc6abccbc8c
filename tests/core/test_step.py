"""`UnlearningStep`: equal to the obvious twin, no copies, one host read, an exact probe, and every
outcome named.
"""

from __future__ import annotations

import copy
import math
import weakref
from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode

import ngdiff as ng
from ngdiff.core import vector
from ngdiff.core.autolr import AutoLR, ThreePoint
from ngdiff.core.directions import MGDA, GradAscent, GradDiff, LossNorm, NGDiff, PCGrad, Sum
from ngdiff.core.info import ForgetLevel, RetainBound
from ngdiff.core.losses import Reported
from ngdiff.core.step import UnlearningStep
from ngdiff.core.stepsize import Constant, State, StepSize
from ngdiff.engine.meters import READING
from tests.helpers.memory import peak_bytes
from tests.helpers.twin import OPTIMIZERS, Net, flat_gradient, twin_direction, twin_step

RULES = [GradAscent(), GradDiff(0.9), GradDiff(0.1), Sum(), LossNorm(), NGDiff(), PCGrad(), MGDA()]
BELOW = AutoLR(lr=0.01, every=1, fresh=0)


def weights(net):
    return torch.cat([p.detach().double().reshape(-1) for p in net.parameters()])


def bits(params):
    return [p.detach().clone().reshape(-1).view(torch.uint8) for p in params]


def same(a, b):
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def built(optimizer="sgd", rule=None, stepsize=None, net=None, **kw):
    net = net or Net()
    return net, UnlearningStep(
        net, OPTIMIZERS[optimizer](net.trained()), rule or NGDiff(), stepsize, **kw
    )


@dataclass(frozen=True)
class Look(StepSize):
    """A rule that probes at every step, looks where it is told, and returns a fixed rate."""

    eta: float = 0.05
    at: tuple[float, ...] = (0.0, 0.1)

    def init(self):
        return State(eta=self.eta)

    def probes(self, state):
        return True

    def step(self, state, line, info=None):
        seen.append([(h, math.fsum(line(h))) for h in self.at] + [line])
        return replace(state, step=state.step + 1, eta=self.eta, outcome="looked")


seen: list = []


@pytest.fixture(autouse=True)
def _forget_what_was_seen():
    seen.clear()


# ----------------------------------------------------------------------------------------- the twin
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("rule", RULES, ids=repr)
def test_step_equals_the_twin(rule, optimizer):
    net, step = built(optimizer, rule)
    slow = Net()
    theta, opt = slow.trained(), OPTIMIZERS[optimizer](slow.trained())
    for _ in range(4):
        info = step(retain_loss=net.R, forget_loss=net.F)
        d = twin_direction(theta, slow.R, slow.F, None if rule == NGDiff() else rule)
        twin_step(theta, opt, d)
        assert info.outcome == "ok"
        torch.testing.assert_close(weights(net), weights(slow), rtol=1e-12, atol=1e-13)


def test_info_is_what_the_twin_sees():
    net, step = built(measure=True)
    params = net.trained()
    g_R, g_F, before = flat_gradient(net.R, params), flat_gradient(net.F, params), weights(net)
    info = step(net.R, net.F)
    moved = torch.cat([p.detach().reshape(-1) for p in params])
    moved = moved - torch.cat([p.detach().reshape(-1) for p in Net().trained()])
    assert info.retain == info.retain_ce == pytest.approx(Net().R().item(), rel=1e-14)
    assert info.forget == pytest.approx(Net().F().item(), rel=1e-14)
    assert (info.norm_R, info.norm_F) == pytest.approx(
        (g_R.norm().item(), g_F.norm().item()), rel=1e-12
    )
    assert info.cosine == pytest.approx((g_R @ g_F / g_R.norm() / g_F.norm()).item(), rel=1e-10)
    assert (info.a, info.b) == pytest.approx(
        (1 / g_R.norm().item(), 1 / g_F.norm().item()), rel=1e-12
    )
    assert (info.dR, info.dF) == pytest.approx(
        ((g_R @ moved).item(), (g_F @ moved).item()), rel=1e-10
    )
    assert info.eta == 0.05 and info.stepsize == "" and info.step == 0 and info.updated
    assert not torch.equal(before, weights(net))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("optimizer", ["sgd", "momentum"])
def test_microbatches_are_the_batch(dtype, tolerance, optimizer):
    whole, step_1 = built(optimizer, net=Net(dtype))
    micro, step_8 = built(optimizer, net=Net(dtype))
    start = weights(whole)
    for _ in range(3):
        one = step_1(whole.R, whole.F)
        eight = step_8(micro.micro("R", 8), micro.micro("F", 8))
        assert eight.retain == pytest.approx(one.retain, rel=tolerance)
        assert eight.norm_F == pytest.approx(one.norm_F, rel=tolerance)
    update = weights(whole) - start
    assert (weights(micro) - weights(whole)).norm() <= tolerance * update.norm()


def test_the_whole_batch_is_normalised_not_each_microbatch():
    net, step = built()
    per_part = sum(flat_gradient([part], net.trained()).norm() for part in net.micro("R", 8))
    info = step(net.micro("R", 8), net.F)
    assert info.norm_R < 0.9 * per_part  # normalising parts would see norms that do not cancel


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_low_precision_follows_the_float64_twin(dtype):
    net, slow = Net(dtype), Net(dtype)
    slow.to(torch.float64)  # the rounded weights, exactly
    slow.x_R, slow.x_F, slow.n_R, slow.n_F = (
        getattr(net, k).double() for k in ("x_R", "x_F", "n_R", "n_F")
    )
    step = UnlearningStep(net, torch.optim.SGD(net.trained(), lr=1.0), NGDiff())
    d = twin_direction(slow.trained(), slow.R, slow.F)
    step(net.R, net.F)
    moved = [(p_0 - p).double().reshape(-1) for p_0, p in zip(Net(dtype).trained(), net.trained())]
    assert (torch.cat(moved) - d).norm() <= (1e-5 if dtype == torch.float32 else 0.05) * d.norm()


@settings(max_examples=25)
@given(st.floats(-8, 8), st.floats(-8, 8))
def test_ngdiff_does_not_see_the_scale_of_a_loss(r, f):
    net, step = built()
    scaled, step_s = built()
    step(net.R, net.F)
    step_s(lambda: 10**r * scaled.R(), lambda: 10**f * scaled.F())
    torch.testing.assert_close(weights(scaled), weights(net), rtol=1e-11, atol=1e-12)


# -------------------------------------------------------------------------- which parameters, rates
def test_frozen_parameters_stay_and_get_no_gradient():
    net, step = built("adamw")
    before = bits(net.frozen.parameters())
    step(net.R, net.F)
    assert same(before, bits(net.frozen.parameters()))
    assert all(p.grad is None for p in net.parameters())


def test_a_parameter_of_one_phase_only_counts_as_zero_in_the_other():
    net, step = built("sgd", GradDiff(0.25))
    g_R, g_F = (
        torch.autograd.grad(loss(), head.weight)[0]
        for loss, head in ((net.R, net.head_R), (net.F, net.head_F))
    )
    before_R, before_F = net.head_R.weight.detach().clone(), net.head_F.weight.detach().clone()
    step(net.R, net.F)
    torch.testing.assert_close(net.head_R.weight.detach(), before_R - 0.05 * 0.25 * g_R)
    torch.testing.assert_close(net.head_F.weight.detach(), before_F + 0.05 * 0.75 * g_F)


def test_a_parameter_of_neither_phase_is_left_alone():
    net = Net()
    net.unused = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    # weight decay would shrink it, were it given a zero gradient
    _, step = built("adamw", stepsize=BELOW, net=net)
    step(net.R, net.F)
    assert torch.equal(net.unused.detach(), torch.ones(3, dtype=torch.float64))


def test_parameters_unfrozen_since_are_refused_before_anything_changes():
    """Else the two phases would add up in the `.grad` of one that the step does not know.

    F would be descended.
    """
    net = Net()
    # holds the frozen ones too
    step = UnlearningStep(net, torch.optim.SGD(net.parameters(), lr=0.1), NGDiff())
    before = bits(net.parameters())
    for p in net.frozen.parameters():
        p.requires_grad_(True)
    with pytest.raises(ValueError, match="make a new UnlearningStep"):
        step(net.R, net.F)
    assert same(before, bits(net.parameters()))


def test_an_old_gradient_of_a_frozen_parameter_moves_nothing():
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    for p in net.frozen.parameters():
        p.grad = torch.ones_like(p)
    before = bits(net.frozen.parameters())
    UnlearningStep(net, optimizer, NGDiff())(net.R, net.F)
    assert same(before, bits(net.frozen.parameters()))


def test_the_rate_reported_is_that_of_the_first_group_that_has_one():
    net = Net()
    first, *rest = net.trained()
    optimizer = torch.optim.SGD([{"params": [first], "lr": 0.0}, {"params": rest, "lr": 0.25}])
    assert UnlearningStep(net, optimizer, NGDiff())(net.R, net.F).eta == 0.25


def test_a_probed_update_far_below_the_weights_is_not_lost_in_their_rounding():
    """float32, weights of 1, gradient 1e-8, η = 1e7: at rate 1 the update would vanish.

    The step is −0.1 all the same.
    """
    x = torch.ones(3, requires_grad=True)
    step = UnlearningStep(
        [x], torch.optim.SGD([x], lr=1.0), GradDiff(1.0), Look(eta=1e7, at=(0.0,))
    )
    step(lambda: 1e-8 * x.sum(), lambda: -1e-8 * x.sum())
    torch.testing.assert_close(x.detach(), torch.full((3,), 0.9))


def test_tied_parameters_count_once():
    x = torch.tensor([3.0, -1.0], dtype=torch.float64, requires_grad=True)
    step = UnlearningStep([x, x], None, NGDiff(), Constant(0.1))
    info = step(lambda: (x * torch.tensor([3.0, 4.0])).sum(), lambda: x[0] * 2)
    assert (info.norm_R, info.norm_F) == (5.0, 2.0)
    torch.testing.assert_close(
        x.detach(), torch.tensor([3.0 - 0.1 * (0.6 - 1.0), -1.0 - 0.1 * 0.8]).double()
    )
    with pytest.warns(UserWarning, match="duplicate"):
        twice = torch.optim.SGD([x, x], lr=0.1)
    assert (
        UnlearningStep([x], twice, NGDiff())(lambda: (3 * x).sum(), lambda: x[0] * 2).norm_F == 2.0
    )


@pytest.mark.parametrize("stepsize", [None, Constant(0.3), BELOW])
def test_groups_keep_the_ratios_of_their_rates(stepsize):
    net = Net()
    heads = [*net.head_R.parameters(), *net.head_F.parameters()]
    body = [p for p in net.trained() if all(p is not q for q in heads)]
    opt = torch.optim.SGD(
        [{"params": body, "lr": 0.02}, {"params": heads, "lr": 0.1}, {"params": [net.frozen.bias]}],
        lr=1,
    )
    step = UnlearningStep(net, opt, NGDiff(), stepsize)
    params, start = [*body, *heads], [p.detach().clone() for p in (*body, *heads)]
    d = torch.split(twin_direction(params, net.R, net.F), [p.numel() for p in params])
    info = step(net.R, net.F)
    for p, p_0, d_p, ratio in zip(params, start, d, [1.0] * len(body) + [5.0] * len(heads)):
        torch.testing.assert_close(
            p.detach(), p_0 - info.eta * ratio * d_p.reshape(p.shape), rtol=1e-10, atol=1e-12
        )
    assert info.eta == {None: 0.02, Constant(0.3): 0.3}.get(stepsize, info.eta)
    assert [g["lr"] for g in opt.param_groups] == pytest.approx(
        [info.eta, 5 * info.eta, 50 * info.eta]
    )


@pytest.mark.parametrize("stepsize", [Constant(0.3), BELOW])
def test_a_group_of_rate_zero_stays(stepsize):
    net = Net()
    opt = torch.optim.SGD(
        [{"params": net.one.parameters(), "lr": 0.0}, {"params": net.trained()[2:]}], lr=0.01
    )
    before = bits(net.one.parameters())
    info = UnlearningStep(net, opt, NGDiff(), stepsize)(net.R, net.F)
    assert same(before, bits(net.one.parameters()))
    assert info.eta == opt.param_groups[1]["lr"] > 0 == opt.param_groups[0]["lr"]


def test_no_step_size_rule_leaves_the_rates_to_a_scheduler():
    net, step = built()
    scheduler = torch.optim.lr_scheduler.ExponentialLR(step.optimizer, 0.5)
    etas = []
    for _ in range(3):
        etas.append(step(net.R, net.F).eta)
        scheduler.step()
    assert etas == [0.05, 0.025, 0.0125]


@pytest.mark.parametrize("lr", [0.0, 1e-6, 3.0])
def test_a_rule_sets_the_rate_whatever_the_optimizer_was_made_with(lr):
    net = Net()
    opt = torch.optim.SGD(net.trained(), lr=lr)
    opt.param_groups[0]["lr"] = lr / 7  # an optimizer that has already been used
    info = UnlearningStep(net, opt, NGDiff(), Constant(0.3))(net.R, net.F)
    assert opt.param_groups[0]["lr"] == info.eta == 0.3


def test_no_optimizer_is_the_bare_step():
    net, plain = Net(), Net()
    step = UnlearningStep(net, None, NGDiff(), Constant(0.3))
    other = UnlearningStep(plain, torch.optim.SGD(plain.trained(), lr=9.0), NGDiff(), Constant(0.3))
    step(net.R, net.F)
    other(plain.R, plain.F)
    assert torch.equal(weights(net), weights(plain))
    with pytest.raises(ValueError, match="pass stepsize="):
        UnlearningStep(net, None, NGDiff())


def test_the_example_of_the_readme():
    model, optimizer = (net := Net()), torch.optim.AdamW(net.trained(), lr=1e-3)
    loss_r, loss_f = net.R, net.F
    step = ng.UnlearningStep(model, optimizer, direction=ng.NGDiff(), stepsize=ng.AutoLR(every=10))
    info = step(retain_loss=lambda: loss_r(), forget_loss=lambda: loss_f())
    assert info.outcome == "ok" and info.eta > 0
    by_list = ng.UnlearningStep(list(model.parameters()), optimizer, direction=ng.NGDiff())
    assert by_list(retain_loss=[loss_r], forget_loss=[loss_f]).updated


# ------------------------------------------------------------------------------ no copies, one read
def spy(monkeypatch, name):
    """Records (arguments, result) of a function of `vector`."""
    calls, real = [], getattr(vector, name)

    def watched(*args):
        calls.append((args, result := real(*args)))
        return result

    monkeypatch.setattr(vector, name, watched)
    return calls


def pointers(u):
    return [None if x is None else x.data_ptr() for x in u]


def test_the_stash_is_a_swap_of_pointers(monkeypatch):
    net, step = built(rule=GradDiff())
    written = {}
    for i, p in enumerate(net.trained()):
        p.register_post_accumulate_grad_hook(
            lambda p, i=i: written.setdefault(i, []).append(p.grad.data_ptr())
        )
    combined, stepped = spy(monkeypatch, "combine_"), []
    step.optimizer.register_step_pre_hook(
        lambda opt, *_: stepped.extend(p.grad.data_ptr() for p in net.trained())
    )
    step(net.R, net.F)
    ((u, v, *_), d) = combined[0]
    for i, (x, y, z, used) in enumerate(zip(pointers(u), pointers(v), pointers(d), stepped)):
        # what backward wrote is what is combined
        assert [p for p in (x, y) if p is not None] == written[i]
        assert z == used and (y is None or z == y)  # and d lies where g_F lay


def test_the_stash_is_free_before_the_optimizer_steps(monkeypatch):
    net, step = built("adamw")
    alive, combined = [], spy(monkeypatch, "gramian")

    def look(*_):
        stash = [weakref.ref(x) for x in combined[0][0][0] if x is not None]
        combined.clear()
        alive.extend(ref() is not None for ref in stash)

    step.optimizer.register_step_pre_hook(look)
    step(net.R, net.F)
    assert alive and not any(alive)


def test_a_probe_on_fresh_rows_needs_no_memory_of_its_own(monkeypatch):
    net, step = built("adamw", stepsize=Look())
    combined, copies, differences = (
        spy(monkeypatch, name) for name in ("combine_", "copy", "difference")
    )
    step(net.R, net.F, net.R)
    ((u, *_), d) = combined[0]
    theta_0, along = copies[0][1], differences[0][1]
    for x, t, z, w in zip(pointers(u), pointers(theta_0), pointers(d), pointers(along)):
        assert x in (None, t) and z == w  # θ₀ lies where g_R lay, the update where d lay


class Host(torch.Tensor):
    """A tensor known to be on the host: reading it costs nothing."""


class Reads(TorchFunctionMode):
    """Counts device-to-host reads, as if every tensor lived on a device."""

    names = READING
    count = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name, out = getattr(func, "__name__", ""), func(*args, **(kwargs or {}))
        if name == "cpu":
            self.count, out = self.count + 1, out.as_subclass(Host)
        elif name in self.names and not isinstance(args[0], Host):
            self.count += 1
        return out


def test_reads_are_counted():
    with Reads() as reads:
        x = torch.ones(3)
        x.sum().item(), x.tolist(), bool(x[0]), float(x[0]), (x.cpu() * 2).tolist()
    assert reads.count == 5


@pytest.mark.parametrize("rule", RULES, ids=repr)
@pytest.mark.parametrize("stepsize", [None, Constant(0.1)])
def test_one_read_a_step(rule, stepsize):
    net, step = built("momentum", rule, stepsize, stop=[ForgetLevel(99.0), RetainBound(99.0)])
    with Reads() as reads:
        step(net.micro("R", 4), net.micro("F", 4))
    assert reads.count == 1


def test_two_forwards_and_two_backwards_and_nothing_else():
    net, step = built()
    step(net.R, net.F)
    assert net.calls == [("R", 16, True, True), ("F", 16, True, True)]


# -------------------------------------------------------------------------------------------- probe
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_rate_zero_restores_every_bit(optimizer, dtype):
    net, step = built(optimizer, stepsize=Look(eta=0.0, at=(0.3, -7.0, 1e3)), net=Net(dtype))
    step(net.R, net.F)
    assert same(bits(net.parameters()), bits(Net(dtype).parameters()))


class Breaks(Exception):
    pass


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), RuntimeError("CUDA out of memory"), Breaks()], ids=repr
)
@pytest.mark.parametrize("where", ["optimizer", "first look", "second look", "rule"])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_point_10_an_interrupted_probe_leaves_all_but_the_optimizer_s_state(
    error, where, optimizer
):
    net, step = built(optimizer, stepsize=AutoLR(lr=0.01, fresh=0))
    net.drop.eval()
    before, lr = bits(net.parameters()), 0.01

    def probe(calls=[0]):  # noqa: B006
        calls[0] += 1
        if calls[0] == {"first look": 1, "second look": 2}.get(where):
            raise error
        return net.R()

    def fail(*_):
        raise error

    if where == "optimizer":
        handle = step.optimizer.register_step_post_hook(fail)  # the weights stand at rate 1
    if where == "rule":
        step.stepsize = type("Fails", (AutoLR,), {"step": fail})(lr=0.01)
    with pytest.raises(type(error)):
        step(net.R, net.F, probe)
    assert same(before, bits(net.parameters()))
    assert all(p.grad is None for p in net.parameters())  # u lay there
    assert step.state == AutoLR(lr=0.01).init() and step.optimizer.param_groups[0]["lr"] == lr
    assert net.training and net.one.training and not net.drop.training
    step.stepsize = AutoLR(lr=0.01, fresh=0)
    if where == "optimizer":
        handle.remove()
    assert step(net.R, net.F).outcome == "ok"


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_probed_update_is_the_ordinary_one(optimizer, dtype):
    probed, step_p = built(optimizer, stepsize=Look(0.02, at=(0.0, 0.5, -0.5)), net=Net(dtype))
    plain, step = built(optimizer, stepsize=Constant(0.02), net=Net(dtype))
    for _ in range(3):
        step_p(probed.R, probed.F)
        step(plain.R, plain.F)
        ulp = torch.finfo(dtype).eps * torch.maximum(weights(plain).abs(), torch.tensor(0.1))
        assert ((weights(probed) - weights(plain)).abs() <= 8 * ulp).all()
        # the optimizer's state advanced once, on the same d
        for p, q in zip(probed.trained(), plain.trained()):
            for key, value in step.optimizer.state[q].items():
                torch.testing.assert_close(
                    step_p.optimizer.state[p][key], value, rtol=1e-4, atol=1e-6
                )


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_the_probe_looks_along_the_actual_update(optimizer):
    net, step = built(optimizer, stepsize=Look(0.02, at=(0.0, 0.01, 0.2, -0.1)))
    for turn in range(3):
        futures = {}
        # what an ordinary step at rate h would make of R: momentum and decay included
        for h in (0.01, 0.2):
            other, ordinary = copy.deepcopy((net, step))
            ordinary.stepsize = Constant(h)
            ordinary(other.R, other.F)
            futures[h] = other.R().item()
        now = net.R().item()
        step(net.R, net.F)
        looked = dict(seen[turn][:-1])
        assert looked[0.0] == pytest.approx(now, rel=1e-14)
        assert {h: looked[h] for h in futures} == pytest.approx(futures, rel=1e-12)


@pytest.mark.parametrize("memory", ["swap", "recompute"])
@pytest.mark.parametrize("parts", [1, 4])
def test_the_losses_of_the_steps_own_rows_are_known_before(parts, memory):
    net, step = built(stepsize=Look(), memory=memory, rule=GradDiff(0.7))
    net.eval()
    step(net.micro("R", parts), net.F)
    line = seen[0][-1]
    assert list(line.at_zero) == pytest.approx(Net().rows("R").tolist(), rel=1e-12)
    assert len(line.at_zero) == len(line(0.0)) == 16  # one number a row


def test_fresh_rows_have_no_loss_known_before():
    net, step = built(stepsize=Look())
    net.eval()
    step(net.R, net.F, [net.R, net.F])
    assert seen[0][-1].at_zero is None
    assert seen[0][0][1] == pytest.approx(Net().R().item() + Net().F().item())


@dataclass(frozen=True)
class Told(Look):
    """Keeps what `step` is told, and probes at every second step."""

    def probes(self, state):
        return state.step % 2 == 0

    def step(self, state, line, info=None):
        seen.append((line, info))
        return replace(state, step=state.step + 1, outcome="told")


@pytest.mark.parametrize("memory", ["swap", "recompute"])
def test_the_rule_is_told_the_losses_of_every_step(memory):
    net, step = built(stepsize=Told(), rule=GradDiff(0.7), memory=memory)
    infos = [step(net.R, net.F) for _ in range(4)]
    assert [line is not None for line, _ in seen] == [True, False] * 2
    for (_, told), info in zip(seen, infos, strict=True):
        losses = "step", "outcome", "retain", "retain_ce", "forget", "norm_R", "cosine"
        assert [getattr(told, x) for x in losses] == [getattr(info, x) for x in losses]
        assert math.isnan(told.eta) and info.eta == 0.05  # the rate is not known yet


def test_a_step_without_update_asks_no_rule():
    net, step = built(stepsize=Told())
    assert step(lambda: net.R() * math.nan, net.F).outcome == "nonfinite" and seen == []


def test_probes_run_in_eval_mode_without_gradients():
    net, step = built(stepsize=Look(), net=Net(dropout=0.5))
    net.two.eval()
    modes = {name: m.training for name, m in net.named_modules()}
    step(net.R, net.F)
    assert net.calls == [
        ("R", 16, True, True),
        ("F", 16, True, True),
        *[("R", 16, False, False)] * 2,
    ]
    assert {name: m.training for name, m in net.named_modules()} == modes
    (_, first), *_ = seen[0]
    assert first == pytest.approx(Net().eval().R().item(), rel=1e-12)  # no dropout at rate 0


@pytest.mark.parametrize(
    ("rule", "training", "forwards"),
    [
        (ThreePoint(), False, 2),  # two looks; the loss at 0 is the phase's own
        (ThreePoint(), True, 3),  # dropout may have been on: the loss at 0 is looked up
    ],
)
def test_forwards_of_a_probe(rule, training, forwards):
    net, step = built(stepsize=rule)
    net.train(training)
    for _ in range(11):
        step(net.micro("R", 2), net.F)
    looks = [call for call in net.calls if not call[3]]
    assert len(looks) == 2 * 2 * forwards  # two probes (steps 0 and 10) of two microbatches
    assert step.state.forwards == 2 * forwards
    assert len(net.calls) - len(looks) == 11 * 3


@pytest.mark.parametrize("start", [1e-6, 0.3, 1e3])
@pytest.mark.parametrize("slack", [0.0, 1.0])
def test_one_probe_of_a_quadratic_gives_the_rate_of_the_closed_form(start, slack):
    """R = ½x'Cx along d: slope −⟨Cx, d⟩, curvature d'Cd. R falls: e counts from a level line."""
    x_0 = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
    c = torch.tensor([1.0, 4.0, 9.0], dtype=torch.float64)
    g = torch.tensor([-0.3, 0.5, 1.0], dtype=torch.float64)
    x = x_0.clone().requires_grad_()
    step = UnlearningStep([x], None, NGDiff(), AutoLR(lr=start, slack=slack, fresh=0))
    info = step(lambda: 0.5 * c * x**2, lambda: g @ x)
    d = c * x_0 / (c * x_0).norm() - g / g.norm()
    best, e = (c * x_0 @ d / (c * d @ d)).item(), slack * (0.5 * c @ x_0**2).item()
    wanted = max(best, math.sqrt(2 * e / (c * d @ d).item()))
    assert wanted > best if slack else wanted == best  # the slack is what decides
    assert info.proposed == pytest.approx(best, rel=1e-6)
    assert info.eta == pytest.approx(wanted, rel=1e-6) and info.stepsize == "accepted"
    torch.testing.assert_close(x.detach(), x_0 - wanted * d, rtol=1e-6, atol=1e-9)


def test_precision_of_a_mixed_model_is_the_worst():
    net = Net(torch.float32)
    net.head_R.bfloat16()
    step = UnlearningStep(net, torch.optim.SGD(net.trained(), lr=0.1), NGDiff(), Look())
    x = net.head_R.weight
    step(lambda: (x.float() ** 2).sum() + net.one.weight.sum(), lambda: net.F())
    assert seen[0][-1].eps == torch.finfo(torch.bfloat16).eps


# ----------------------------------------------------------------------------------------- outcomes
def line_problem(g_R, g_F, dtype=torch.float64, offset=1.0):
    """Linear losses with the given gradients."""
    x = torch.zeros(len(g_R), dtype=dtype, requires_grad=True)
    g_R, g_F = (torch.tensor(g, dtype=dtype) for g in (g_R, g_F))
    return x, (lambda: g_R @ x + offset), (lambda: g_F @ x + offset)


BAD = {
    "loss nan": lambda p: p.sum() * math.nan,
    "loss inf": lambda p: p.sum() * 0 + math.inf,
    "loss -inf": lambda p: (p * 0).sum().log(),
    "gradient inf": lambda p: (p * 0).sum().sqrt(),
    "gradient nan": lambda p: (
        (p * 0).norm() / 1.0 + torch.where(p > 1e9, (p - p) / (p - p), p * 0).sum()
    ),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("phase", ["retain", "forget"])
@pytest.mark.parametrize("stepsize", [None, BELOW])
def test_nonfinite_changes_nothing(bad, phase, stepsize):
    net, step = built("adamw", stepsize=stepsize)
    step(net.R, net.F)  # so that there is an optimizer state to protect
    before, state = bits(net.parameters()), copy.deepcopy(step.state_dict())

    def broken():
        return BAD[bad](net.two.weight) + net.R()

    info = step(broken if phase == "retain" else net.R, broken if phase == "forget" else net.F)
    assert info.outcome == "nonfinite" and not info.updated
    assert same(before, bits(net.parameters()))
    after = step.state_dict()
    assert after["stepsize"] == state["stepsize"]
    for i, entry in state["optimizer"]["state"].items():
        assert all(
            torch.equal(value, after["optimizer"]["state"][i][key]) for key, value in entry.items()
        )
    assert all(p.grad is None for p in net.parameters())


@pytest.mark.parametrize("rule", [NGDiff(), PCGrad(), GradDiff(0.5), MGDA()], ids=repr)
@pytest.mark.parametrize(
    ("g_R", "g_F", "expected"),
    [
        ([0, 0], [3, 4], "zero_retain"),
        ([3, 4], [0, 0], "zero_forget"),
        ([0, 0], [0, 0], "zero_both"),
    ],
)
def test_zero_gradients_are_named(rule, g_R, g_F, expected):
    x, R, F = line_problem([float(g) for g in g_R], [float(g) for g in g_F])
    info = UnlearningStep([x], None, rule, Constant(0.1))(R, F)
    if rule == MGDA() and expected != "zero_both":
        expected = "aligned"  # the shortest combination of anything and nothing is nothing
    assert info.outcome == expected
    assert info.updated == (expected in ("zero_retain", "zero_forget")) == bool(x.detach().any())
    assert info.a == 0 or any(g_R)
    assert info.b == 0 or any(g_F)


def test_ngdiff_at_a_zero_retain_gradient_follows_the_forget_gradient_alone():
    x, R, F = line_problem([0.0, 0.0], [3.0, 4.0])
    info = UnlearningStep([x], None, NGDiff(), Constant(0.1))(R, F)
    torch.testing.assert_close(x.detach(), 0.1 * torch.tensor([0.6, 0.8]).double())
    assert (info.a, info.b, info.cosine) == (0.0, 0.2, 0.0)


@pytest.mark.parametrize(("noise", "expected"), [(1e-9, "zero_retain"), (1e-5, "ok")])
def test_a_gradient_below_its_floor_counts_as_zero(noise, expected):
    x, R, F = line_problem([0.0, noise], [3.0, 4.0])
    R = Reported(R, floor=1e-6)
    info = UnlearningStep([x], None, NGDiff(), Constant(0.1))(R, F)
    assert info.outcome == expected
    assert (info.a == 0) == (expected == "zero_retain")


def test_a_direction_of_zero_length_ends_the_run():
    x, R, F = line_problem([1.0, 2.0], [0.0, 0.0])
    assert UnlearningStep([x], None, GradAscent(), Constant(0.1))(R, F).outcome == "aligned"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_aligned_gradients_stop(dtype):
    x, R, F = line_problem([3.0, 4.0], [6.0, 8.0], dtype)
    info = UnlearningStep([x], None, NGDiff(), Constant(0.1))(R, F)
    assert info.outcome == "aligned" and not x.detach().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_nearly_aligned_gradients_go_on(dtype):
    """ρ = cos 10° = .985 is no rounding, not even in bfloat16, whose eps is 8e-3 but whose angles
    are good to 1e-2.
    """
    x, R, F = line_problem(
        [1.0, 0.0], [math.cos(math.radians(10)), math.sin(math.radians(10))], dtype
    )
    assert UnlearningStep([x], None, NGDiff(), Constant(0.1))(R, F).outcome == "ok"


def test_aligned_tolerance_is_that_of_the_worst_parameter():
    t = math.radians(0.02)  # 1 − ρ = 6e-8: resolved by float64, not by float32
    x, R, F = line_problem([1.0, 0.0], [math.cos(t), math.sin(t)])
    y = torch.zeros(1, dtype=torch.float32, requires_grad=True)
    assert UnlearningStep([x], None, NGDiff(), Constant(0.1))(R, F).outcome == "ok"
    assert UnlearningStep([x, y], None, NGDiff(), Constant(0.1))(R, F).outcome == "aligned"


@pytest.mark.parametrize("phase", ["retain", "forget"])
def test_lossnorm_at_a_zero_loss_raises_before_anything_changes(phase):
    net, step = built("adamw", LossNorm(), BELOW)

    def zero():
        return net.R() - net.R().detach()

    with pytest.raises(FloatingPointError, match="LossNorm"):
        step(*((zero, net.F) if phase == "retain" else (net.R, zero)))
    assert same(bits(net.parameters()), bits(Net().parameters()))
    assert not step.optimizer.state and step.state == BELOW.init()


@pytest.mark.parametrize(
    ("stop", "name"), [(ForgetLevel(0.5), "forget_level"), (RetainBound(0.5), "retain_bound")]
)
def test_stops_fire_before_the_update(stop, name):
    net, step = built("adamw", stepsize=BELOW, stop=[stop])
    info = step(net.R, net.F)
    assert info.outcome == name and not info.updated and info.retain > 0.5
    assert same(bits(net.parameters()), bits(Net().parameters()))
    assert not step.optimizer.state and step.state == BELOW.init()


def test_stops_read_the_cross_entropy_not_the_objective():
    net, step = built(rule=LossNorm(), stop=[ForgetLevel(50.0), RetainBound(60.0)])
    retain, forget = Reported(net.R, torch.tensor(2.0)), Reported(net.F, torch.tensor(3.0))
    info = step([retain, retain], forget)
    assert info.updated and (info.retain_ce, info.forget_ce) == (4.0, 3.0)
    # the rule sees the objectives
    assert (info.a, info.b) == pytest.approx((1 / info.retain, 1 / info.forget))
    forget.ce = torch.tensor(50.0)
    assert step(retain, forget).outcome == "forget_level"


@pytest.mark.parametrize("stop", [ForgetLevel(1.0), RetainBound(1.0)])
def test_stop_levels(stop):
    _, step = built(stop=[stop])
    x, R, F = line_problem([1.0, 0.0], [0.0, 1.0], offset=1.0)
    step = UnlearningStep([x], None, NGDiff(), Constant(0.1), stop=[stop])
    # reaching the level stops, reaching the bound does not
    assert step(R, F).updated == isinstance(stop, RetainBound)


# ------------------------------------------------------------------------------------------- errors
def test_empty_phases_are_refused():
    net, step = built()
    for phases in (([], net.F), (net.R, []), (net.R, net.F, [])):
        with pytest.raises(ValueError, match="empty"):
            step(*phases)
    assert not net.calls
    assert same(bits(net.parameters()), bits(Net().parameters()))


def test_phases_may_be_iterators():
    net, step = built(stepsize=Look())
    assert step(iter(net.micro("R", 2)), iter(net.micro("F", 2))).updated


def test_an_optimizer_that_lacks_a_parameter_is_refused():
    net = Net()
    with pytest.raises(ValueError, match="does not hold 2 of"):
        UnlearningStep(net, torch.optim.SGD(net.trained()[2:], lr=0.1), NGDiff())


def test_a_model_without_trainable_parameters_is_refused():
    net = Net()
    opt = torch.optim.SGD(net.trained(), lr=0.1)
    with pytest.raises(ValueError, match="requires a gradient"):
        UnlearningStep(net.requires_grad_(False), opt, NGDiff())


def test_sparse_gradients_are_refused_before_anything_changes():
    table = torch.nn.Embedding(4, 2, sparse=True)
    before = bits(table.parameters())
    step = UnlearningStep(table, torch.optim.SGD(table.parameters(), lr=0.1), NGDiff())
    with pytest.raises(TypeError, match="sparse=False"):
        step(lambda: table(torch.tensor([1])).sum(), lambda: table(torch.tensor([2])).sum())
    assert same(before, bits(table.parameters()))


# --------------------------------------------------------------------------------------- state_dict
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_state_dict_resumes_bit_for_bit(optimizer):
    rule = AutoLR(lr=0.01, every=3, fresh=0)
    net, step = built(optimizer, stepsize=rule)
    for _ in range(5):
        step(net.R, net.F)
    saved = copy.deepcopy((net.state_dict(), step.state_dict()))
    history = [step(net.R, net.F) for _ in range(5)]
    other, resumed = built(optimizer, stepsize=rule)
    other.load_state_dict(saved[0])
    resumed.load_state_dict(saved[1])
    assert list(map(repr, history)) == [repr(resumed(other.R, other.F)) for _ in range(5)]
    assert same(bits(net.parameters()), bits(other.parameters()))


# ------------------------------------------------------------------------------------------- memory
@pytest.mark.parametrize("rule", [None, AutoLR(every=1)])
def test_peak_memory_is_the_predicted_one(rule):
    """Beside GradDiff with two backwards: max(0, G − A_F) more, as the second gradient grows while
    its graph is freed.
    """
    layers = [m for _ in range(4) for m in (torch.nn.Linear(256, 256), torch.nn.Tanh())]
    net, extra = torch.nn.Sequential(*layers), {}
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    G = 4 * sum(p.numel() for p in net.parameters())
    for rows in (64, 512):
        x = torch.randn(rows, 256)

        def loss(x=x):
            return net(x).square().mean()

        def graddiff(loss=loss):
            optimizer.zero_grad()
            loss().backward()
            (-loss()).backward()
            optimizer.step()
            optimizer.zero_grad()

        step = UnlearningStep(net, optimizer, GradDiff(), rule)
        for warm in (graddiff, lambda step=step, loss=loss: step(loss, lambda: -loss(), loss)):
            warm()
            extra.setdefault(rows, []).append(peak_bytes(warm))
    (plain_64, swap_64), (plain_512, swap_512) = extra[64], extra[512]
    A_F = 8 * 64 * 256 * 4
    assert swap_64 - plain_64 == pytest.approx(G - A_F, abs=0.02 * G + (0.07 * G if rule else 0))
    assert swap_512 == pytest.approx(plain_512, rel=0.001)
