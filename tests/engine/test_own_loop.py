"""Loops of one's own, as people write them, each against its twin in float32.

The twin clones gradients, flattens them and computes in float64 (`ngdiff.theory.twin`), on the same
float32 model and with the same random numbers. A float32 step may differ from it by rounding alone:
`ROUNDING` of the largest update so far, as each of a few hundred terms of a sum errs by 2⁻²⁴.
bfloat16 keeps 8 bits, so a loss under autocast may be off by a few parts in 2⁸.
"""

from __future__ import annotations

import copy

import peft
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState, PartialState
from torch import nn
from torch.nn import functional as fn
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from ngdiff.core.autolr import AutoLR
from ngdiff.core.directions import NGDiff
from ngdiff.core.step import UnlearningStep
from ngdiff.theory.twin import twin_direction, twin_step
from tests.helpers import strangers

WORDS, ROWS, TIME, STEPS = 48, 8, 12, 6
ROUNDING = 512 * 2.0**-24
COARSE = 4 * 2.0**-8


def llama():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=WORDS, num_hidden_layers=2, **sizes))


def gpt2():
    """With its default dropout of 0.1, in training mode."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=WORDS, n_positions=16, n_embd=32, n_layer=2, n_head=2)
    return GPT2LMHeadModel(config).train()


def adapted():
    """peft's LoRA with its usual dropout, in training mode."""
    model = peft.get_peft_model(
        llama(), peft.LoraConfig(r=4, lora_dropout=0.05, target_modules=["q_proj", "v_proj"])
    )
    return model.train()


def tokens(t):
    """The retain and the forget rows of a step, (rows, time) each."""
    make = torch.Generator().manual_seed(t)
    return torch.randint(WORDS, (2, ROWS, TIME), generator=make)


def mean_nll(model, ids):
    """The loss that every causal model of transformers computes from `labels`."""
    return lambda: model(input_ids=ids, labels=ids).loss


def trained(model):
    return [p for p in model.parameters() if p.requires_grad]


def adamw(model):
    return torch.optim.AdamW(trained(model), lr=1e-3)


def sgd(model):
    return torch.optim.SGD(trained(model), lr=0.1, momentum=0.9)


def losses(model, t):
    if isinstance(model, nn.Sequential):
        x_R, y_R, x_F, y_F = strangers.rows(t, torch.float32)
        return (lambda: fn.cross_entropy(model(x_R), y_R)), (
            lambda: fn.cross_entropy(model(x_F), y_F)
        )
    return [mean_nll(model, ids) for ids in tokens(t)]


def weights(model):
    return torch.cat([p.detach().double().flatten() for p in trained(model)])


LOOPS = {
    "plain MLP, SGD": (strangers.mlp, sgd),
    "Llama, AdamW": (llama, adamw),
    "GPT-2 with dropout": (gpt2, sgd),
    "peft LoRA with dropout": (adapted, sgd),
}


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_is_its_float32_twin(name):
    make, optimizer = LOOPS[name]
    with torch.random.fork_rng():
        mine, slow = make(), make()
        start = weights(mine)
        step, opt = UnlearningStep(mine, optimizer(mine), NGDiff()), optimizer(slow)
        for t in range(STEPS):
            torch.manual_seed(t)
            info = step(*losses(mine, t))
            torch.manual_seed(t)  # the same dropout
            twin_step(trained(slow), opt, twin_direction(trained(slow), *losses(slow, t)))
            assert info.outcome == "ok"
            far = (weights(slow) - start).abs().max()
            off = (weights(mine) - weights(slow)).abs().max()
            # AdamW divides a gradient by its own size, and blows up the rounding of a tiny one
            assert off <= ROUNDING * far * (2**6 if name == "Llama, AdamW" else 1)


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_s_rate_is_that_of_the_function_that_a_probe_sees(name):
    """AutoLR in training mode is never stuck on a slope of another function than it looks at.

    GPT-2's first rate is that of a loop in eval mode, up to what dropout makes of the gradient. (A
    fresh adapter has no scale yet.)
    """
    make, optimizer = LOOPS[name]
    found = {}
    with torch.random.fork_rng():
        for mode in (True, False):
            model = make().train(mode)
            torch.manual_seed(0)
            step = UnlearningStep(model, optimizer(model), NGDiff(), AutoLR(lr=1e-3, every=2))
            found[mode] = [step(*losses(model, 0)) for _ in range(STEPS)]
    train, evaluated = found[True], found[False]
    assert "skewed" not in [info.stepsize for info in train]
    if name == "GPT-2 with dropout":
        assert 1 / 3 <= train[0].eta / evaluated[0].eta <= 3


# --------------------------------------------------------------------------------- mixed precision
def auto(model, optimizer, retain_forget, rule=None, **options):
    """Steps of NGDiff on the rows of step 0."""
    step = UnlearningStep(model, optimizer, NGDiff(), rule, **options)
    return [step(*retain_forget) for _ in range(STEPS)]


RULE = AutoLR(lr=1e-4, every=2)


def inside(model, ids):
    """A loss callable that enters autocast itself."""

    def loss():
        with torch.autocast("cpu", torch.bfloat16):
            return mean_nll(model, ids)()

    return loss


@pytest.fixture
def accelerator(monkeypatch):
    """accelerate's own, for bfloat16; its state is the process's, so it is taken down again."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    yield Accelerator(cpu=True, mixed_precision="bf16")
    for state in (AcceleratorState, GradientState, PartialState):
        state._reset_state()
    monkeypatch.delenv("ACCELERATE_MIXED_PRECISION", raising=False)


def near(coarse, exact):
    """A run in bfloat16 against float32 at the same rates: every loss, and the first angle."""
    for one, two in zip(coarse, exact, strict=True):
        assert (one.retain, one.forget) == pytest.approx((two.retain, two.forget), rel=COARSE)
    assert coarse[0].cosine == pytest.approx(exact[0].cosine, abs=COARSE)
    assert exact[-1].forget > exact[0].forget * (1 + 2 * COARSE)  # it went somewhere


def test_llama_with_adamw_under_autocast_is_float32_s_within_bfloat16():
    model, twin = llama(), llama()
    coarse = auto(model, adamw(model), [inside(model, ids) for ids in tokens(0)])
    near(coarse, auto(twin, adamw(twin), losses(twin, 0)))
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.parametrize("how", ["autocast", "accelerate"])
def test_autolr_knows_the_rounding_of_a_mixed_precision_that_nobody_names(how, accelerator):
    """Its run is that of a step that is told, number by number."""
    loss = mean_nll if how == "accelerate" else inside
    found = []
    for told in ({}, {"dtype": torch.bfloat16}):
        model = llama()
        optimizer = adamw(model)
        if how == "accelerate":
            model, optimizer = accelerator.prepare(model, optimizer)
        phases = [loss(model, ids) for ids in tokens(0)]
        found.append(repr(auto(model, optimizer, phases, RULE, **told)))
    assert found[0] == found[1]


def test_accelerate_with_mixed_precision_is_float32_s_within_bfloat16(accelerator):
    plain, twin = llama(), llama()
    model, optimizer = accelerator.prepare(plain, adamw(plain))
    wrapped = auto(model, optimizer, [mean_nll(model, ids) for ids in tokens(0)])
    near(wrapped, auto(twin, adamw(twin), losses(twin, 0)))


def test_copies_of_a_model_are_alike():
    """What the tests above rest on."""
    one = llama()
    assert torch.equal(weights(one), weights(llama()))
    assert torch.equal(weights(one), weights(copy.deepcopy(one)))
