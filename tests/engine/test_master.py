"""Exact float32 weights behind a bfloat16 model.

No bit lost, no update lost, every optimizer as on float32 weights.
"""

from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ngdiff.core.autolr import AutoLR
from ngdiff.core.directions import NGDiff
from ngdiff.core.step import UnlearningStep
from ngdiff.core.stepsize import Constant
from ngdiff.engine import master as master_module
from ngdiff.engine.halves import join, split
from ngdiff.engine.master import Master
from tests.core.test_step import Look, seen
from tests.helpers.twin import OPTIMIZERS

KINDS = OPTIMIZERS | {
    "rmsprop": lambda groups: torch.optim.RMSprop(groups, lr=0.01),
    "adagrad": lambda groups: torch.optim.Adagrad(groups, lr=0.05),
    "amsgrad, fused": lambda groups: torch.optim.AdamW(groups, lr=0.02, amsgrad=True, fused=True),
    "adafactor": lambda groups: torch.optim.Adafactor(groups, lr=0.01),
}
SHAPES = [(4, 6), (7,), (1,), (3, 2, 2), (), (5, 5)]
BUCKETS = [1, 30, 2**26]  # a parameter at a time, a few, all


@pytest.fixture(autouse=True)
def _forget_what_was_seen():
    seen.clear()


@pytest.fixture(params=BUCKETS)
def bucket(request, monkeypatch):
    monkeypatch.setattr(master_module, "BUCKET", request.param)
    return request.param


def floats(*bits):
    return torch.tensor(bits, dtype=torch.int64).to(torch.int32).view(torch.float32)


def same(u, v):
    """Bit for bit: −0 is not 0."""
    views = {torch.bfloat16: torch.int16, torch.float32: torch.int32, torch.float64: torch.int64}
    return len(u) == len(v) and all(
        x.dtype == y.dtype
        and torch.equal(x.detach().view(views[x.dtype]), y.detach().view(views[y.dtype]))
        for x, y in zip(u, v)
    )


def exact_start(shapes=SHAPES, seed=0, scale=1.0):
    make = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(shape, generator=make) for shape in shapes]


def rounded(start, make, low=True, wide=()):
    """bfloat16 parameters under a Master that knows their low bits.

    Those numbered in `wide` stay float32.
    """
    parts = [(theta.clone(), None) if i in wide else split(theta) for i, theta in enumerate(start)]
    params = [nn.Parameter(high.clone()) for high, _ in parts]
    optimizer = Master(params, make)
    for p, (_, bits) in zip(params, parts):
        if bits is not None and low:
            optimizer.low[p].copy_(bits)
    return params, optimizer


def gradients(params, turn, lacking=()):
    """Random bfloat16 gradients, the same for the same turn."""
    make = torch.Generator().manual_seed(100 + turn)
    drawn = [torch.randn(p.shape, generator=make).bfloat16() for p in params]
    for i, (p, g) in enumerate(zip(params, drawn)):
        p.grad = None if i in lacking else g.to(p.dtype)


# -------------------------------------------------------------------------------------- split, join
@settings(max_examples=300)
@given(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=1, max_size=50))
def test_join_is_the_inverse_of_split_for_every_float(bits):
    theta = floats(*bits)
    high, low = split(theta)
    assert (high.dtype, low.dtype) == (
        torch.bfloat16,
        torch.int16,
    ) and high.shape == low.shape == theta.shape
    assert same([join(high, low)], [theta])


@settings(max_examples=300)
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=50))
def test_the_high_half_is_the_nearest_bfloat16(values):
    theta = torch.tensor(values)
    high, _ = split(theta)
    tie = (theta.view(torch.int32) & 0xFFFF) == 0x8000
    assert torch.equal(high[~tie], theta[~tie].bfloat16())
    away = (
        ((theta.view(torch.int32)[tie].to(torch.int64) >> 16) + 1)
        .to(torch.int16)
        .view(torch.bfloat16)
    )
    assert torch.equal(high[tie].view(torch.int16), away.view(torch.int16))


EDGES = {
    "zero": (0.0, 0x0000),
    "minus zero": (-0.0, -0x8000),
    "infinity": (math.inf, 0x7F80),
    "minus infinity": (-math.inf, 0x7F80 - 0x8000),
    "smallest subnormal": (2.0**-149, 0x0000),
    "minus smallest subnormal": (-(2.0**-149), -0x8000),
    "largest subnormal": (2.0**-126 - 2.0**-149, 0x0080),
    "largest": (2.0**128 - 2.0**104, 0x7F80),
    "a tie goes away from zero": (1 + 2.0**-8, 0x3F81),
    "and below zero": (-1 - 2.0**-8, 0x3F81 - 0x8000),
    "odd tie": (1 + 3 * 2.0**-8, 0x3F82),
}


@pytest.mark.parametrize("name", EDGES)
def test_edges(name):
    """Golden; the largest floats round to infinity, as torch rounds them, and come back all the
    same.
    """
    value, high = EDGES[name]
    theta = torch.tensor([value])
    assert split(theta)[0].view(torch.int16).item() == high
    assert same([join(*split(theta))], [theta])


def test_all_magnitudes_come_back_and_all_bfloat16_have_no_low_bits():
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.bfloat16)
    real = every[~every.isnan()]
    high, low = split(real.float())
    assert same([high], [real]) and not low.any()
    make = torch.Generator().manual_seed(0)
    theta = torch.randn(2**16, generator=make) * 10 ** (76 * torch.rand(2**16, generator=make) - 38)
    high, low = split(theta)
    assert same([join(high, low)], [theta]) and len(low.unique()) > 3e4
    normal = theta.abs() > 2.0**-126
    # half a step of 8 bits
    assert ((high.float() - theta).abs() <= 2.0**-8 * theta.abs())[normal].all()


# -------------------------------------------------------------------------------- no update is lost
@pytest.mark.parametrize("lr", [1e-6, 1e-5])
def test_small_steps_are_not_lost(lr):
    """A hundred steps at a relative size of lr.

    The result is float32's own, where plain bfloat16 does not move at all.
    """
    (params, optimizer), exact = (
        rounded([torch.ones(1000)], lambda g: torch.optim.SGD(g, lr=lr)),
        torch.ones(1000),
    )
    plain, wide = nn.Parameter(torch.ones(1000).bfloat16()), nn.Parameter(exact.clone())
    others = [torch.optim.SGD([p], lr=lr) for p in (plain, wide)]
    for turn in range(100):
        gradients([*params, plain, wide], turn)
        plain.grad, wide.grad = params[0].grad.abs() + 0.5, params[0].grad.float().abs() + 0.5
        params[0].grad = params[0].grad.abs() + 0.5
        wide.grad = params[0].grad.float()
        for o in (optimizer, *others):
            o.step()
    assert same(optimizer.exact(), [wide]) and same(params, [split(wide.detach())[0]])
    assert torch.equal(plain.detach(), torch.ones(1000).bfloat16())
    assert (wide.detach() < 1 - 50 * lr).all()


@pytest.mark.parametrize("kind", KINDS)
def test_every_optimizer_is_the_one_on_float32_weights(kind, bucket):
    """Bit for bit, from the same gradients, whatever the buckets.

    One parameter gets no gradient at first.
    """
    start = exact_start()
    params, optimizer = rounded(start, KINDS[kind])
    wide = [nn.Parameter(theta.clone()) for theta in start]
    other = KINDS[kind](wide)
    for turn in range(6):
        gradients(params, turn, lacking=(1,) if turn < 3 else ())
        for p, q in zip(params, wide):
            q.grad = None if p.grad is None else p.grad.float()
        kept = [None if p.grad is None else p.grad.clone() for p in params]
        optimizer.step()
        other.step()
        assert same(optimizer.exact(), wide)
        assert same(params, [split(q.detach())[0] for q in wide])
        assert all(g is p.grad is None or torch.equal(g, p.grad) for g, p in zip(kept, params))
    assert not same([q.detach() for q in wide], start)
    for p, q in zip(params, wide):
        for key, value in other.state[q].items():
            assert torch.equal(
                torch.as_tensor(optimizer.inner.state[optimizer.shadow[p]][key]),
                torch.as_tensor(value),
            )


def hollow(optimizer):
    """No float32 weights or gradients are in memory."""
    shadows = [optimizer.shadow[p] for p in optimizer.low]
    return all(s.grad is None and s.untyped_storage().nbytes() <= 4 for s in shadows)


def test_no_float32_copy_of_the_weights_is_left(bucket):
    params, optimizer = rounded(exact_start(), OPTIMIZERS["momentum"])
    gradients(params, 0)
    optimizer.step()
    assert hollow(optimizer)
    assert sum(low.nbytes for low in optimizer.low.values()) == 2 * sum(p.numel() for p in params)


@pytest.mark.parametrize("kind", ["momentum", "adamw", "lion"])
def test_float32_parameters_among_them_are_stepped_as_they_are(kind, bucket):
    start, wide = exact_start(), [0, 3]
    params, optimizer = rounded(start, KINDS[kind], wide=wide)
    others = [nn.Parameter(theta.clone()) for theta in start]
    other = KINDS[kind](others)
    for turn in range(4):
        gradients(params, turn, lacking=(3, 4) if turn == 1 else ())
        for p, q in zip(params, others):
            q.grad = None if p.grad is None else p.grad.float()
        optimizer.step()
        other.step()
    assert [p.dtype for p in params] == [
        torch.float32 if i in wide else torch.bfloat16 for i in range(len(params))
    ]
    assert same(optimizer.exact(), others) and same(
        [params[i] for i in wide], [others[i] for i in wide]
    )


def test_parameters_without_a_gradient_are_left_alone(bucket):
    start = exact_start()
    params, optimizer = rounded(start, KINDS["adamw"], wide=[5])
    gradients(params, 0, lacking=(0, 2, 5))
    optimizer.step()
    for i, (now, theta) in enumerate(zip(optimizer.exact(), start)):
        assert same([now], [theta]) == (i in (0, 2, 5))
    optimizer.zero_grad()
    before = optimizer.exact()
    optimizer.step()
    assert same(optimizer.exact(), before)


# ---------------------------------------------------------------------------------- as an optimizer
def test_groups_keep_their_options_and_schedulers_set_their_rates(bucket):
    start, make = exact_start(), lambda groups: torch.optim.AdamW(groups, lr=0.01, weight_decay=0.5)
    wide, (high, low) = [nn.Parameter(theta.clone()) for theta in start], zip(*map(split, start))
    params = [nn.Parameter(p.clone()) for p in high]

    def groups(ps):
        return [{"params": iter(ps[:2]), "lr": 0.02}, {"params": ps[2:], "weight_decay": 0.0}]

    optimizer, other = Master(groups(params), make), make(groups(wide))
    for p, bits in zip(params, low):
        optimizer.low[p].copy_(bits)
    schedules = [torch.optim.lr_scheduler.ExponentialLR(o, 0.5) for o in (optimizer, other)]
    rates = []
    for turn in range(4):
        gradients(params, turn)
        for p, q in zip(params, wide):
            q.grad = p.grad.float()
        rates.append([g["lr"] for g in optimizer.param_groups])
        for o in (optimizer, other, *schedules):
            o.step()
    assert rates == [[0.02 / 2**t, 0.01 / 2**t] for t in range(4)]
    assert [g["weight_decay"] for g in optimizer.param_groups] == [0.5, 0.0]
    assert same(optimizer.exact(), wide)


@pytest.mark.parametrize("kind", ["momentum", "adamw", "lion", "adafactor"])
def test_a_saved_state_goes_on_bit_for_bit(kind):
    params, optimizer = rounded(exact_start(), KINDS[kind], wide=[1])
    for turn in range(3):
        gradients(params, turn)
        optimizer.step()
    optimizer.param_groups[0]["lr"] = 0.003
    saved, weights = copy.deepcopy(optimizer.state_dict()), [p.detach().clone() for p in params]
    other = [nn.Parameter(p) for p in weights]
    resumed = Master(other, KINDS[kind])
    resumed.load_state_dict(saved)
    assert resumed.param_groups[0]["lr"] == 0.003 and same(resumed.exact(), optimizer.exact())
    for turn in range(3, 6):
        for ps, o in ((params, optimizer), (other, resumed)):
            gradients(ps, turn)
            o.step()
    assert same(resumed.exact(), optimizer.exact()) and same(other, params)


def test_the_state_of_other_weights_is_refused_before_anything_changes():
    (_, optimizer), (_, mine) = (
        rounded(exact_start(shapes, i), KINDS["adamw"])
        for i, shapes in enumerate([[(3, 2)], [(2, 3)]])
    )
    before = mine.exact()
    with pytest.raises(ValueError, match="the saved state is that of other weights"):
        mine.load_state_dict(optimizer.state_dict())
    assert same(mine.exact(), before)


def test_weights_cannot_be_added_later():
    _, optimizer = rounded(exact_start(), KINDS["sgd"])
    with pytest.raises(ValueError, match="knows its weights from the start: make a new one"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(2))]})
    assert len(optimizer.param_groups) == 1


def test_its_repr_names_rates_and_decay():
    """A checkpoint is named after it."""
    text = repr(rounded(exact_start(), lambda g: torch.optim.AdamW(g, lr=0.125))[1])
    assert "Master" in text and "lr: 0.125" in text and "betas" in text


class Fails(Exception):
    pass


def test_an_error_inside_a_bucket_leaves_no_gradient_behind(monkeypatch):
    """Else the next step would take the interrupted bucket along twice."""
    monkeypatch.setattr(master_module, "BUCKET", 1)
    params, optimizer = rounded(exact_start(), KINDS["adamw"])
    calls = []

    def fail(*_):
        calls.append(len(calls))
        if len(calls) == 2:
            raise Fails

    handle = optimizer.inner.register_step_post_hook(fail)
    gradients(params, 0)
    with pytest.raises(Fails):
        optimizer.step()
    handle.remove()
    assert hollow(optimizer)
    gradients(params, 1)
    optimizer.step()
    steps = [int(optimizer.inner.state[optimizer.shadow[p]]["step"]) for p in params]
    assert steps == [2, 2, 1, 1, 1, 1]


# -------------------------------------------------------------------------------------- in the step
class Split(nn.Module):
    """Linear regressions whose weights are bfloat16 but for one; losses computed in float32."""

    def __init__(self, seed=0):
        super().__init__()
        make = torch.Generator().manual_seed(seed)
        self.start = [
            0.1 * torch.randn(shape, generator=make) for shape in ((6, 8), (8, 3), (3,), (2,))
        ]
        highs = [split(theta)[0] for theta in self.start[:3]]
        self.a, self.b, self.c = (nn.Parameter(h.clone()) for h in highs)
        self.d = nn.Parameter(self.start[3].clone())
        self.x = torch.randn(2, 32, 6, generator=make)
        self.y = torch.randn(2, 32, 3, generator=make)

    def loss(self, i):
        out = (self.x[i] @ self.a.float()).tanh() @ self.b.float() + self.c.float() * self.d.sum()
        return (out - self.y[i]).square().mean(1) / 32

    def made(self, kind="adamw", stepsize=None, **kw):
        optimizer = Master(self.parameters(), KINDS[kind])
        for p, theta in zip((self.a, self.b, self.c), self.start):
            optimizer.low[p].copy_(split(theta)[1])
        return optimizer, UnlearningStep(self, optimizer, NGDiff(), stepsize, **kw)

    def go(self, step, probe=None):
        return step(lambda: self.loss(0), lambda: self.loss(1), probe)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_rate_zero_restores_all_32_bits(kind, bucket):
    net = Split()
    optimizer, step = net.made(kind, Look(eta=0.0, at=(0.3, -7.0, 1e3)))
    rounded_before = [p.detach().clone() for p in net.parameters()]
    net.go(step)
    assert same(optimizer.exact(), net.start) and same(list(net.parameters()), rounded_before)
    assert len({value for _, value in seen[0][:-1]}) == 3  # it did look elsewhere


@pytest.mark.parametrize("eta", [1e-7, 0.05])
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_probed_step_ends_at_the_exact_point_of_the_line(kind, eta, bucket):
    """θ₀ + η·u in float32, u the update of float32 weights at rate 1."""
    net, plain = Split(), Split()
    optimizer, step = net.made(kind, Look(eta=eta, at=(0.4, -0.2)))
    net.go(step)
    u = seen[0][-1].point.u
    assert same(optimizer.exact(), [start.add(way, alpha=eta) for start, way in zip(net.start, u)])
    assert same([net.a, net.b, net.c], [split(theta)[0] for theta in optimizer.exact()[:3]])
    assert not any(same([now], [start]) for now, start in zip(optimizer.exact(), net.start))
    reference, step = plain.made(kind, Constant(1.0))
    plain.go(step)
    for now, start, way in zip(reference.exact(), net.start, u):
        torch.testing.assert_close(start + way, now, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_the_optimizer_advances_once_in_a_probe_as_in_a_step(kind, bucket):
    nets = Split(), Split()
    made = [
        net.made(kind, rule)
        for net, rule in zip(nets, (Look(eta=1.0, at=(0.4, -0.2)), Constant(1.0)))
    ]
    for net, (_, step) in zip(nets, made):
        net.go(step)
    for s, t in zip(made[0][0].shadow.values(), made[1][0].shadow.values()):
        states = [o.inner.state[x] for (o, _), x in zip(made, (s, t))]
        assert states[0].keys() == states[1].keys()
        assert all(
            torch.equal(torch.as_tensor(states[0][k]), torch.as_tensor(states[1][k]))
            for k in states[0]
        )


@pytest.mark.parametrize(
    "rule", [Constant(1e-6), Look(eta=1e-6, at=(0.1,)), AutoLR(lr=0.01, fresh=0)], ids=repr
)
def test_measure_is_of_the_exact_step(rule, bucket):
    """⟨g_R, Δθ⟩ and ⟨g_F, Δθ⟩ even of a step so small that hardly a bfloat16 weight moves."""
    net = Split()
    optimizer, step = net.made("adamw", rule, measure=True)
    params = list(net.parameters())
    g_R, g_F = (torch.autograd.grad(net.loss(i).sum(), params) for i in (0, 1))
    info = net.go(step)
    moved = [now.double() - start.double() for now, start in zip(optimizer.exact(), net.start)]
    assert sum(m.abs().sum() for m in moved) > 0
    if info.eta == 1e-6:
        assert (net.a != split(net.start[0])[0]).float().mean() < 0.05
    for found, g in ((info.dR, g_R), (info.dF, g_F)):
        assert found == pytest.approx(
            sum((x.double() * m).sum().item() for x, m in zip(g, moved)), rel=1e-4
        )


@pytest.mark.parametrize("where", ["optimizer", "first look", "second look"])
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_an_interrupted_probe_restores_all_32_bits(kind, where, bucket):
    net = Split()
    optimizer, step = net.made(kind, AutoLR(lr=0.01, fresh=0))
    before, calls = [p.detach().clone() for p in net.parameters()], []

    def fail(*_):
        calls.append(len(calls))
        if (
            len(calls)
            == {"optimizer": 2 if bucket == 1 else 1, "first look": 1, "second look": 2}[where]
        ):
            raise Fails
        return net.loss(0)

    if where == "optimizer":
        handle = optimizer.inner.register_step_post_hook(fail)
    with pytest.raises(Fails):
        net.go(step, net.loss if where == "optimizer" else fail)
    assert same(optimizer.exact(), net.start) and same(list(net.parameters()), before)
    if where == "optimizer":
        handle.remove()
    assert net.go(step).outcome == "ok" and hollow(optimizer)


@pytest.mark.parametrize("memory", ["swap", "recompute"])
def test_a_run_with_probes_is_that_of_float32_weights_but_for_the_rounding_of_the_forward(memory):
    """A slack of 2 % keeps the rates where bfloat16 weights can show them."""
    net, wide, rule = Split(), Split(), AutoLR(lr=0.01, slack=0.02, every=3)
    _, step = net.made("momentum", rule, memory=memory)
    for name, theta in zip("abcd", wide.start):
        setattr(wide, name, nn.Parameter(theta.clone()))
    other = UnlearningStep(wide, OPTIMIZERS["momentum"](wide.parameters()), NGDiff(), rule)
    for _ in range(9):
        infos = [n.go(s, [lambda n=n: n.loss(0)]) for n, s in ((net, step), (wide, other))]
        assert infos[0].retain == pytest.approx(infos[1].retain, rel=0.02)
        assert infos[0].stepsize == infos[1].stepsize and infos[0].eta == pytest.approx(
            infos[1].eta, rel=0.1
        )
    moved, wanted = (
        torch.cat([(now.detach() - start).flatten() for now, start in zip(theta, wide.start)])
        for theta in (step.optimizer.exact(), wide.parameters())
    )
    assert (moved - wanted).norm() <= 0.1 * wanted.norm()


def test_sharded_weights_are_refused():
    p = nn.Parameter(torch.ones(2).bfloat16())
    p.device_mesh = None  # as a DTensor has it
    with pytest.raises(ValueError, match="FSDP2's mixed precision casts them"):
        Master([p], OPTIMIZERS["sgd"])


def test_a_state_of_the_step_goes_on_bit_for_bit():
    rule, nets = AutoLR(lr=0.01, every=3, fresh=0), (Split(), Split())
    (optimizer, step), (other, resumed) = (net.made("adamw", rule) for net in nets)
    for _ in range(4):
        nets[0].go(step)
    weights, state = copy.deepcopy((nets[0].state_dict(), step.state_dict()))
    nets[1].load_state_dict(weights)
    resumed.load_state_dict(state)
    assert [repr(nets[0].go(step)) for _ in range(4)] == [
        repr(nets[1].go(resumed)) for _ in range(4)
    ]
    assert same(optimizer.exact(), other.exact())


def test_update_leaves_the_weights_where_they_are(bucket):
    start = exact_start()
    params, optimizer = rounded(start, KINDS["sgd"], wide=[2])
    gradients(params, 0, lacking=(4,))
    drawn = [None if p.grad is None else p.grad.float() for p in params]
    u = optimizer.update(0.05)  # the rate it has
    assert same(optimizer.exact(), start) and hollow(optimizer)
    assert len(u) == len(params) - 1
    for p, g in zip(params, drawn):
        if g is not None:
            torch.testing.assert_close(u[p], -g, rtol=1e-5, atol=1e-5)
