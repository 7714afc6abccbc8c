"""Products by oneDNN against those of `torch.nn.functional.linear`."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import nn

from ngdiff.engine import linear
from ngdiff.evaluation import forward, gradients
from ngdiff.evaluation.generate import greedy
from tests.helpers import causal

needs = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="torch was built without oneDNN"
)


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Take oneDNN on every CPU, and for a single token."""
    monkeypatch.setattr(linear, "_there", lambda: True)
    monkeypatch.setattr(linear, "FEW", 1)


def _layer(bias: bool) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(24, 40, bias=bias)


@needs
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(24,), (5, 24), (3, 7, 24), (0, 24), (2, 0, 24)])
def test_a_product_and_its_gradients_are_those_of_torch(shape, bias):
    layer, make = _layer(bias), torch.Generator().manual_seed(1)
    x = torch.randn(shape, generator=make, requires_grad=True)
    wanted, among = layer(x), (x, *layer.parameters())
    up = torch.randn(wanted.shape, generator=make)
    back = torch.autograd.grad(wanted, among, up)
    with linear.quick(layer):
        found = layer(x)
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(torch.autograd.grad(found, among, up), back)


@needs
def test_only_the_gradients_that_are_wanted_are_computed(monkeypatch):
    layer, made = _layer(True), []
    x = torch.randn(5, 24, requires_grad=True)
    true = linear.product
    monkeypatch.setattr(linear, "product", lambda *a: made.append(a[0].shape) or true(*a))
    for weights in (False, True):
        with linear.quick(layer, weights):
            out = layer(x)
        made.clear()
        torch.autograd.grad(out.sum(), x)
        assert made == [(5, 40)] + [(40, 5)] * weights
    layer.weight.requires_grad_(False)
    with linear.quick(layer):
        layer(x).sum().backward()
    assert layer.weight.grad is None and layer.bias.grad.eq(5).all()


@needs
def test_what_it_gives_may_be_changed_in_place_before_a_backward():
    """OLMo clips its projections so."""
    layer = _layer(True)
    x = torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(1), requires_grad=True)
    wanted = torch.autograd.grad(layer(x).clamp_(-0.5, 0.5).square().sum(), x)[0]
    with linear.quick(layer):
        found = torch.autograd.grad(layer(x).clamp_(-0.5, 0.5).square().sum(), x)[0]
    torch.testing.assert_close(found, wanted)


@needs
def test_slices_and_transposed_inputs_are_read_as_they_stand():
    layer = _layer(True)
    x = torch.randn(24, 9, 4).transpose(0, 2)[:, 2:]  # (4, 7, 24)
    with torch.inference_mode(), linear.quick(layer):
        found = layer(x)
    torch.testing.assert_close(found, nn.functional.linear(x, layer.weight, layer.bias))


def test_layers_get_their_own_forward_back_after_an_error_too():
    layer = _layer(False)
    with pytest.raises(ValueError), linear.quick(layer):
        assert "forward" in vars(layer)
        raise ValueError
    assert "forward" not in vars(layer)


def test_only_plain_float32_layers_are_taken():
    class Own(nn.Linear):
        pass

    held = _layer(False)
    held.forward = held.forward  # something else has replaced it, and takes it away again
    others = [Own(3, 4), _layer(False).bfloat16(), held, nn.Linear(3, 4, device="meta")]
    before = [vars(layer).get("forward") for layer in others]
    with linear.quick(nn.ModuleList(others)):
        assert [vars(layer).get("forward") for layer in others] == before


def test_a_model_with_gradient_checkpointing_is_left_as_it_is():
    model = nn.Sequential(_layer(False))
    for again in (False, True):
        model.gradient_checkpointing = again
        with linear.quick(model):
            assert ("forward" in vars(model[0])) == (not again)


def test_autocast_still_decides_about_precision():
    layer, x = _layer(False), torch.randn(4, 24)
    with torch.autocast("cpu", torch.bfloat16), linear.quick(layer):
        assert layer(x).dtype == torch.bfloat16


@needs
@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3_text", "mamba", "qwen2_moe"])
@pytest.mark.filterwarnings("ignore")
def test_an_evaluation_gives_the_same_numbers_and_texts(name, monkeypatch):
    model, texts, found = copy.deepcopy(causal.model(name)), causal.texts(), []
    prompts = [text.prompt_ids for text in texts if text.prompt_ids][::3]
    for way in (linear.quick, lambda *_, **__: nullcontext()):
        for module in (forward, gradients):
            monkeypatch.setattr(module, "quick", way)
        monkeypatch.setattr("ngdiff.evaluation.generate.quick", way)
        stats = forward.likelihood(model, texts)
        norms = gradients.gradient_norms(model, texts)
        found.append(
            (np.concatenate([s.logp for s in stats]), norms, greedy(model, prompts, set(), 8))
        )
    (logp, norms, said), (logp_, norms_, said_) = found
    np.testing.assert_allclose(logp, logp_, atol=1e-5)
    np.testing.assert_allclose(norms, norms_, rtol=1e-4)
    assert said == said_


@needs
def test_norms_of_a_model_that_trains_one_layer_are_the_same(monkeypatch):
    model, texts = copy.deepcopy(causal.model("llama")).requires_grad_(False), causal.texts()
    model.model.layers[0].self_attn.q_proj.weight.requires_grad_(True)  # its input has no gradient
    found = gradients.gradient_norms(model, texts)
    monkeypatch.setattr(gradients, "quick", lambda model, weights: nullcontext())
    np.testing.assert_allclose(found, gradients.gradient_norms(model, texts), rtol=1e-4)


def test_a_cpu_without_avx512_keeps_torchs_products(monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    layer = _layer(False)
    with linear.quick(layer):
        assert "forward" not in vars(layer)
