"""Memory modes: `recompute` takes the step of `swap` and of the flat twin, with one forget graph
kept or with a phase run twice, and holds one gradient where `swap` holds two."""

from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from torch import nn

from ngdiff.core.autolr import AutoLR
from ngdiff.core.directions import MGDA, GradAscent, GradDiff, LossNorm, NGDiff, PCGrad, Sum
from ngdiff.core.info import ForgetLevel, RetainBound
from ngdiff.core.step import UnlearningStep
from ngdiff.core.stepsize import Constant, WarmupCosine
from tests.core.test_step import BAD, Reads, bits, line_problem, same
from tests.helpers.memory import peak_bytes
from tests.helpers.twin import OPTIMIZERS, Net, flat_gradient, twin_step

NORMS = [GradAscent(), GradDiff(1.0), GradDiff(0.9), GradDiff(0.1), Sum(), LossNorm(), NGDiff()]
ANGLE = [PCGrad(), MGDA()]
# of an angle not known yet MGDA makes (½, ½): torch.where(length > 0, …) takes NaN for a length of
# zero
UNTOLD = [PCGrad(), MGDA()]
PARTS = [1, 4]
MODES = ["swap", "recompute"]


def weights(net):
    return torch.cat([p.detach().double().reshape(-1) for p in net.parameters()])


def built(memory, rule=NGDiff(), optimizer="sgd", stepsize=None, net=None, **kw):
    net = net or Net()
    made = OPTIMIZERS[optimizer](net.trained()) if isinstance(optimizer, str) else optimizer(net)
    return net, UnlearningStep(net, made, rule, stepsize, memory=memory, **kw)


def phase(net, name, parts):
    return getattr(net, name) if parts == 1 else net.micro(name, parts)


def take(net, step, parts=1):
    return step(phase(net, "R", parts), phase(net, "F", parts))


def close(one, two, rel=1e-12, apart=()):
    """Two `Info`s, number by number."""
    for field in dataclasses.fields(one):
        x, y = getattr(one, field.name), getattr(two, field.name)
        if field.name not in apart:
            assert x == (
                y if isinstance(x, str) else pytest.approx(y, rel=rel, abs=1e-13, nan_ok=True)
            ), field.name


def flat_step(net, optimizer, rule, parts, forget_first=False):
    """The twin's step, its phases in a given order; (loss R, loss F, Gramian)."""
    params, gradient, value = net.trained(), {}, {}
    for name in "FR" if forget_first else "RF":
        losses = phase(net, name, parts)
        random = torch.get_rng_state()
        gradient[name] = flat_gradient(losses, params)
        torch.set_rng_state(random)
        with torch.no_grad():
            value[name] = sum(loss().sum() for loss in ([losses] if callable(losses) else losses))
    G = torch.stack([gradient["R"], gradient["F"]])
    a, b = rule.weights(G @ G.T, torch.stack([value["R"], value["F"]]))
    twin_step(params, optimizer, a * gradient["R"] - b * gradient["F"])
    return value["R"], value["F"], G @ G.T


# ----------------------------------------------------------------------------------------- the twin
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("rule", NORMS, ids=repr)
def test_every_mode_takes_the_step_of_the_twin(rule, parts, optimizer):
    """Weight decay included: what only the phase of weight 0 touches has a gradient of zeros, and
    is decayed.
    """
    (swap, step_s), (again, step_r) = (built(memory, rule, optimizer) for memory in MODES)
    slow = Net()
    opt = OPTIMIZERS[optimizer](slow.trained())
    for _ in range(4):
        one, two = take(swap, step_s, parts), take(again, step_r, parts)
        _, _, gram = flat_step(slow, opt, rule, parts)
        # g_R and g_F never met
        unknown = ("cosine",) if parts > 1 and 0.0 in (one.a, one.b) else ()
        close(two, one, apart=unknown)
        assert one.outcome == "ok" and one.norm_F == pytest.approx(
            gram[1, 1].sqrt().item(), rel=1e-12
        )
        assert (weights(again) - weights(slow)).norm() <= 1e-12 * weights(slow).norm()
        assert (weights(again) - weights(swap)).norm() <= 1e-12 * weights(swap).norm()


@pytest.mark.parametrize("rule", ANGLE, ids=repr)
def test_rules_that_need_the_angle_know_it_from_one_kept_graph(rule):
    (swap, step_s), (again, step_r) = (built(memory, rule, "adamw") for memory in MODES)
    slow = Net()
    opt = OPTIMIZERS["adamw"](slow.trained())
    for _ in range(4):
        close(step_r(again.micro("R", 3), again.F), step_s(swap.R, swap.F))
        flat_step(slow, opt, rule, 1)
    assert (weights(again) - weights(slow)).norm() <= 1e-12 * weights(slow).norm()


@pytest.mark.parametrize("rule", UNTOLD, ids=repr)
@pytest.mark.parametrize(
    "stepsize", [None, AutoLR(lr=0.01, every=1, fresh=0)], ids=["plain", "autolr"]
)
def test_rules_that_need_the_angle_are_refused_with_several_before_anything_changes(rule, stepsize):
    net, step = built("recompute", rule, "adamw", stepsize)
    with pytest.raises(FloatingPointError, match=r"the rule needs their angle.*use 'swap'"):
        take(net, step, 4)
    assert same(bits(net.parameters()), bits(Net().parameters())) and not step.optimizer.state
    net, step = built("swap", rule, "adamw")
    assert take(net, step, 4).outcome == "ok"


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("parts", PARTS)
def test_low_precision_is_that_of_swap(parts, dtype):
    (swap, step_s), (again, step_r) = (built(memory, net=Net(dtype)) for memory in MODES)
    one, two = take(swap, step_s, parts), take(again, step_r, parts)
    rough = 1e-5 if dtype == torch.float32 else 0.05  # d is rounded twice where swap rounds it once
    moved = weights(swap) - weights(Net(dtype))
    assert (weights(again) - weights(swap)).norm() <= rough * moved.norm()
    assert two.cosine == pytest.approx(one.cosine, abs=rough) and two.norm_F == pytest.approx(
        one.norm_F, rel=rough
    )


@pytest.mark.parametrize(("retain", "forget"), [(1, 4), (4, 1), (3, 2)])
def test_the_phases_may_be_cut_differently(retain, forget):
    (swap, step_s), (again, step_r) = (built(memory) for memory in MODES)
    info = step_r(phase(again, "R", retain), phase(again, "F", forget))
    close(info, take(swap, step_s))
    assert (weights(again) - weights(swap)).norm() <= 1e-12 * weights(swap).norm()


# --------------------------------------------------------------------------------- what is computed
@pytest.mark.parametrize(
    ("memory", "parts", "calls"),
    [("swap", 1, "RF"), ("swap", 2, "RRFF"), ("recompute", 1, "RF"), ("recompute", 2, "FFRRFF")],
)
def test_the_forwards_of_a_step(memory, parts, calls):
    net, step = built(memory)
    take(net, step, parts)
    assert "".join(name for name, *_ in net.calls) == calls


@pytest.mark.parametrize(("parts", "reads"), [(1, 1), (4, 2)])
def test_the_reads_of_a_step(parts, reads):
    net, step = built("recompute", stop=[ForgetLevel(99.0)])
    with Reads() as seen:
        take(net, step, parts)
    assert seen.count == reads


@pytest.mark.parametrize("memory", MODES)
@pytest.mark.parametrize("parts", PARTS)
def test_dropout_draws_the_same_masks_again_and_then_goes_on(memory, parts):
    """Against the twin from the same seed, which draws each mask once.

    What is drawn afterwards is new.
    """
    net, step = built(memory, GradDiff(0.4), "momentum", net=Net(dropout=0.4))
    slow = Net(dropout=0.4)
    opt, drawn = OPTIMIZERS["momentum"](slow.trained()), {}
    for which in ("ours", "twin"):
        torch.manual_seed(11)
        for _ in range(3):
            if which == "ours":
                take(net, step, parts)
            else:
                flat_step(
                    slow,
                    opt,
                    GradDiff(0.4),
                    parts,
                    forget_first=memory == "recompute" and parts > 1,
                )
            drawn.setdefault(which, []).append(torch.rand(3))
    assert (weights(net) - weights(slow)).norm() <= 1e-12 * weights(slow).norm()
    assert torch.equal(torch.stack(drawn["ours"]), torch.stack(drawn["twin"]))
    torch.manual_seed(11)
    first = torch.rand(3)
    assert len({tuple(x.tolist()) for x in [first, *drawn["ours"]]}) == 4
    plain, step = built(memory, GradDiff(0.4), "momentum")
    take(plain, step, parts)
    assert (weights(plain) - weights(net)).norm() > 1e-3  # dropout was on


# ----------------------------------------------------------------------------------------- outcomes
@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("rule", [NGDiff(), GradDiff(0.5), GradAscent(), GradDiff(1.0)], ids=repr)
@pytest.mark.parametrize(
    "g", [([0, 0], [3, 4]), ([3, 4], [0, 0]), ([0, 0], [0, 0]), ([3, 4], [4, 3])], ids=repr
)
def test_zero_gradients_have_the_names_and_the_steps_of_swap(g, rule, parts):
    seen = []
    for memory in MODES:
        x, R, F = line_problem(*([float(part) for part in side] for side in g))
        retain, forget = ([lambda loss=loss: loss() / parts] * parts for loss in (R, F))
        info = UnlearningStep([x], None, rule, Constant(0.1), memory=memory)(retain, forget)
        seen.append((info, x.detach()))
    (one, x), (two, y) = seen
    assert {"zero_retain": g[0] == [0, 0], "zero_forget": g[1] == [0, 0]}.get(one.outcome, True)
    close(two, one, apart=("cosine",) if parts > 1 and 0.0 in (one.a, one.b) else ())
    torch.testing.assert_close(x, y, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize(("noise", "expected"), [(1e-9, "zero_retain"), (1e-5, "ok")])
def test_a_gradient_below_its_floor_counts_as_zero(noise, expected, parts):
    x, R, F = line_problem([0.0, noise], [3.0, 4.0])
    R.floor = 1e-6
    forget = [lambda: F() / parts] * parts
    info = UnlearningStep([x], None, NGDiff(), Constant(0.1), memory="recompute")(R, forget)
    d = torch.tensor([-0.6, (expected == "ok") - 0.8], dtype=torch.float64)
    assert info.outcome == expected and (info.a == 0) == (expected == "zero_retain")
    torch.testing.assert_close(x.detach(), -0.1 * d, rtol=1e-12, atol=0)


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("angle", "expected"), [(0.0, "aligned"), (10.0, "ok")])
def test_aligned_gradients_end_the_run_and_nearly_aligned_ones_do_not(
    angle, expected, dtype, parts
):
    t = math.radians(angle)
    x, R, F = line_problem(
        [3.0, 4.0], [6 * math.cos(t) - 8 * math.sin(t), 8 * math.cos(t) + 6 * math.sin(t)], dtype
    )
    forget = [lambda: F() / parts] * parts
    step = UnlearningStep([x], torch.optim.AdamW([x], lr=0.1), NGDiff(), memory="recompute")
    info = step(R, forget)
    assert info.outcome == expected and x.grad is None
    assert bool(x.detach().any()) == bool(step.optimizer.state) == (expected == "ok")
    assert info.cosine == pytest.approx(math.cos(t), abs=1e-2 if dtype == torch.bfloat16 else 1e-6)


def test_the_angle_is_resolved_from_the_length_of_d():
    """Several microbatches: ⟨g_R, g_F⟩ is known from ‖d‖² only.

    It is no coarser than from the gradients themselves.
    """
    t = math.radians(0.02)  # 1 − ρ = 6e-8
    x, R, F = line_problem([1.0, 0.0], [math.cos(t), math.sin(t)])
    info = UnlearningStep([x], None, NGDiff(), Constant(0.1), memory="recompute")(
        R, [lambda: F() / 2] * 2
    )
    assert info.outcome == "ok" and 1 - info.cosine == pytest.approx(1 - math.cos(t), rel=1e-6)


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("side", ["retain", "forget"])
@pytest.mark.parametrize("bad", BAD)
def test_nonfinite_changes_nothing(bad, side, parts):
    net, step = built("recompute", optimizer="adamw")
    take(net, step, parts)
    before, state = bits(net.parameters()), copy.deepcopy(step.state_dict()["optimizer"]["state"])

    def broken():
        return BAD[bad](net.two.weight) + net.R()

    phases = {"retain": phase(net, "R", parts), "forget": phase(net, "F", parts)}
    phases[side] = [broken] * parts
    info = step(phases["retain"], phases["forget"])
    assert info.outcome == "nonfinite" and same(before, bits(net.parameters()))
    after = step.state_dict()["optimizer"]["state"]
    assert all(torch.equal(x, after[i][key]) for i, row in state.items() for key, x in row.items())
    assert all(p.grad is None for p in net.parameters())
    assert take(net, step, parts).outcome == "ok"  # no hook and no stash is left behind


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("side", "RF")
def test_lossnorm_at_a_zero_loss_is_refused_before_anything_changes(side, parts):
    net, step = built("recompute", LossNorm(), "adamw")

    def zero():
        return net.R() - net.R().detach()

    phases = [[zero] * parts if side == name else phase(net, name, parts) for name in "RF"]
    with pytest.raises(FloatingPointError, match=r"LossNorm\(\) has no finite weights at R = "):
        step(*phases)
    assert same(bits(net.parameters()), bits(Net().parameters())) and not step.optimizer.state


class Raises(Exception):
    pass


@pytest.mark.parametrize("parts", PARTS)
def test_an_error_in_a_loss_leaves_no_hook_behind(parts):
    net, step = built("recompute")

    def broken():
        net.F().backward()
        raise Raises

    with pytest.raises(Raises):
        step(net.R, [broken] * parts)
    take(net, step, parts)
    other, other_step = built("recompute")
    take(other, other_step, parts)
    assert torch.equal(weights(net), weights(other))


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize(
    ("stop", "name"),
    [
        (ForgetLevel(0.5), "forget_level"),
        (RetainBound(0.5), "retain_bound"),
        # known after d is written
        (lambda info: "conflict" if abs(info.cosine) > 0 else None, "conflict"),
    ],
    ids=["forget", "retain", "cosine"],
)
def test_stops_fire_before_the_update(stop, name, parts):
    net, step = built("recompute", optimizer="adamw", stop=[stop])
    info = take(net, step, parts)
    assert (
        info.outcome == name and not info.updated and all(p.grad is None for p in net.parameters())
    )
    assert same(bits(net.parameters()), bits(Net().parameters())) and not step.optimizer.state


# --------------------------------------------------------------------------------- which parameters
@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("rule", [NGDiff(), GradAscent(), GradDiff(1.0)], ids=repr)
def test_groups_frozen_tied_and_untouched_parameters_move_as_under_swap(rule, parts):
    """A tied layer, a frozen one, a head for each phase, a parameter of neither.

    Rates 1 : 5 : 0, decay in one group.
    """

    def groups(net):
        net.unused = nn.Parameter(torch.ones(3, dtype=torch.float64))
        heads = [*net.head_R.parameters(), *net.head_F.parameters()]
        body = [p for p in net.parameters() if all(p is not q for q in [*heads, net.one.bias])]
        rates = (
            {"params": heads, "lr": 0.1, "weight_decay": 0.3},
            {"params": [net.one.bias], "lr": 0.0},
        )
        return torch.optim.AdamW([{"params": body}, *rates], lr=0.02, weight_decay=0.01)

    (swap, step_s), (again, step_r) = (built(memory, rule, groups) for memory in MODES)
    start = Net()
    for _ in range(3):
        take(swap, step_s, parts)
        take(again, step_r, parts)
    torch.testing.assert_close(weights(again), weights(swap), rtol=1e-12, atol=1e-13)
    for still in ("frozen.weight", "frozen.bias", "one.bias"):
        assert torch.equal(again.get_parameter(still), start.get_parameter(still))
    assert torch.equal(again.unused.detach(), torch.ones(3).double())
    assert again.tied.weight is again.two.weight and not torch.equal(
        again.two.weight, start.two.weight
    )
    for head in ("head_R.weight", "head_F.weight"):
        assert not torch.equal(again.get_parameter(head), start.get_parameter(head))
    assert all(p.grad is None for p in again.parameters())


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("side", "RF")
def test_sparse_gradients_are_refused_before_anything_changes(side, parts):
    table, net = nn.Embedding(4, 2, sparse=True), nn.Linear(1, 1)
    before = bits(table.parameters())
    params = [*table.parameters(), *net.parameters()]
    step = UnlearningStep(params, torch.optim.SGD(params, lr=0.1), NGDiff(), memory="recompute")
    sparse, dense = lambda: table(torch.tensor([1])).sum(), lambda: net(torch.ones(1)).sum()
    with pytest.raises(TypeError, match="sparse=False"):
        step(*([sparse if side == name else dense] * parts for name in "RF"))
    assert same(before, bits(table.parameters()))


# ------------------------------------------------------------------------------------------- probes
@pytest.mark.parametrize("fresh", [True, False])
@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_autolr_finds_the_rates_of_swap(optimizer, parts, fresh):
    rule = AutoLR(lr=0.01, every=2, slack=0.01, fresh=0)
    (swap, step_s), (again, step_r) = (built(memory, NGDiff(), optimizer, rule) for memory in MODES)
    for _ in range(6):
        infos = [
            step(phase(net, "R", parts), phase(net, "F", parts), [net.R, net.R] if fresh else None)
            for net, step in ((swap, step_s), (again, step_r))
        ]
        close(infos[1], infos[0], rel=1e-6)  # η* = −slope/curvature: differences of losses
        assert infos[1].eta > 0 and math.isfinite(infos[1].eta)
        assert infos[1].stepsize not in ("flat", "nonfinite")
    assert step_s.state.found and step_r.state.found
    torch.testing.assert_close(weights(again), weights(swap), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("parts", PARTS)
def test_rate_zero_restores_every_bit(parts):
    net, step = built("recompute", NGDiff(), "adamw", AutoLR(lr=0.01, every=1, fresh=0))
    before = bits(net.parameters())

    def breaks():
        raise Raises

    with pytest.raises(Raises):
        step(phase(net, "R", parts), phase(net, "F", parts), breaks)
    assert same(before, bits(net.parameters()))


@pytest.mark.parametrize(
    "stepsize", [Constant(0.03), WarmupCosine(0.1, warmup=2, total=4)], ids=repr
)
@pytest.mark.parametrize("parts", PARTS)
def test_schedules_run_as_under_swap(stepsize, parts):
    (swap, step_s), (again, step_r) = (built(memory, stepsize=stepsize) for memory in MODES)
    etas = [(take(swap, step_s, parts).eta, take(again, step_r, parts).eta) for _ in range(4)]
    assert all(x == y for x, y in etas) and etas[0][0] > 0
    assert (weights(again) - weights(swap)).norm() <= 1e-12 * weights(swap).norm()


# ----------------------------------------------------------------------------------------- refusals
def test_an_unknown_mode_is_refused_with_the_known_ones():
    with pytest.raises(
        ValueError, match=r"unknown memory mode 'offload'; choose one of: swap, recompute"
    ):
        built("offload")


def test_what_needs_the_retain_gradient_later_is_refused():
    with pytest.raises(ValueError, match=r"memory='recompute' does not keep g_R.*use 'swap'"):
        built("recompute", measure=True)
    assert take(*built("swap", measure=True)).updated
    assert take(*built("recompute", stepsize=AutoLR(fresh=0))).updated  # no probe needs it


# ------------------------------------------------------------------------------------------- memory
@pytest.mark.parametrize("parts", [1, 2])
def test_recompute_holds_one_gradient_where_swap_holds_two(parts):
    """16 rows: activations A_F are an eighth of the gradients G, so that swap needs G − A_F more
    than GradDiff does.
    """
    layers = [m for _ in range(4) for m in (nn.Linear(256, 256), nn.Tanh())]
    net = nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, fused=True)
    G, x = 4 * sum(p.numel() for p in net.parameters()), torch.randn(16, 256)
    losses = [lambda c=c: net(c).square().sum() / len(x) for c in x.chunk(parts)]
    forget = [lambda loss=loss: -loss() for loss in losses]

    def graddiff():
        optimizer.zero_grad()
        for loss in [*losses, *forget]:
            loss().backward()
        optimizer.step()
        optimizer.zero_grad()

    peak = {}
    runs = {name: UnlearningStep(net, optimizer, GradDiff(0.4), memory=name) for name in MODES}
    for name, run in [
        ("graddiff", graddiff),
        *((k, lambda step=step: step(losses, forget)) for k, step in runs.items()),
    ]:
        run()  # so that the optimizer's state is there
        peak[name] = peak_bytes(run)
    assert peak["swap"] - peak["recompute"] >= 0.5 * G
    assert peak["recompute"] <= 1.03 * peak["graddiff"]


def test_a_compiled_model_s_graph_is_walked_once():
    """Its backward writes over what the forward saved.

    A second one through the same graph gives another gradient.
    """
    net = Net()
    net.two.compile(backend="eager")
    step = UnlearningStep(net, torch.optim.SGD(net.trained(), lr=0.1), NGDiff(), memory="recompute")
    step(net.R, net.F)
    assert [name for name, *_ in net.calls] == ["F", "R", "F"]
    plain = Net()
    UnlearningStep(plain, torch.optim.SGD(plain.trained(), lr=0.1), NGDiff())(plain.R, plain.F)
    for p, q in zip(net.parameters(), plain.parameters()):
        torch.testing.assert_close(p, q, rtol=1e-12, atol=1e-13)
