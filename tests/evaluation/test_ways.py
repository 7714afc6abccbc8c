"""Each causal architecture gives what it gives one text at a time, or is refused by name."""

from __future__ import annotations

import warnings
import weakref

import numpy as np
import pytest
import torch
from torch import nn
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from ngdiff.evaluation import forward, gradients
from ngdiff.evaluation import ways as module
from ngdiff.evaluation.generate import greedy
from ngdiff.evaluation.ways import ways
from ngdiff.lm.model import load
from tests.helpers import causal, micro
from tests.helpers.real import smollm2

# one of each kind of memory: full attention, latent, window, state alone, state beside attention,
# positions learnt, counted from the padding or given as a bias, no cache at all
SOME = (
    *("llama", "gpt2", "gemma3_text", "bloom", "mamba", "rwkv", "recurrent_gemma", "openai-gpt"),
    *("moshi", "qwen3_next", "nemotron_h", "olmo_hybrid", "lfm3", "roberta", "bart", "deepseek_v4"),
)


def _equal(model) -> None:
    examples = causal.texts()
    found = forward.likelihood(model, examples)
    for example, stats in zip(examples, found, strict=True):
        logp = micro.slow(model, example)[0]
        bound = 1e-5 * max(1.0, float(np.abs(logp).max()))
        np.testing.assert_allclose(stats.logp, logp, rtol=0, atol=bound)
    prompts = [example.prompt_ids for example in examples if example.prompt_ids][::3]
    expected = [causal.greedy(model, prompt, 8) for prompt in prompts]
    stop = {expected[0][3]}  # rows end at different times
    cut = [text[: next((t for t, x in enumerate(text) if x in stop), 8)] for text in expected]
    assert greedy(model, prompts, stop, 8) == cut


@pytest.mark.parametrize("name", SOME)
@pytest.mark.filterwarnings("ignore")
def test_an_architecture_gives_what_plain_forwards_give(name):
    _equal(causal.model(name))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", sorted(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))
def test_every_causal_class_of_transformers(name):
    try:
        model = causal.model(name)
        causal.logits(model, [3, 4, 5])
    except Exception as error:
        pytest.skip(f"no tiny model of it: {error}")
    try:
        ways(model)
    except ValueError as error:
        assert type(model).__name__ in str(error) and "causal" in str(error)
        return
    _equal(model)


def test_what_is_found_of_an_architecture():
    llama, mamba, roberta = (ways(causal.model(n)) for n in ("llama", "mamba", "roberta"))
    assert llama.packs and llama.continues and llama.steps and llama.pads
    assert not (mamba.packs or mamba.continues or mamba.steps) and mamba.pads
    assert not (roberta.packs or roberta.steps)


class _Plain(nn.Module):
    """A model of nothing but what `Ways` asks, whose logits `look` makes of one-hot tokens."""

    def __init__(self, look) -> None:
        super().__init__()
        self.look, self.config = look, causal.model("llama").config
        self.device, self.dtype = torch.device("cpu"), torch.float32

    def forward(self, input_ids, **_):
        seen = nn.functional.one_hot(input_ids, causal.VOCABULARY).float()
        return type("Output", (), {"logits": self.look(seen)})()


def test_a_model_that_sees_later_tokens_is_refused_by_name():
    with pytest.raises(ValueError, match=r"_Plain is not causal.*is_decoder"):
        forward.likelihood(_Plain(lambda x: x + x.mean(1, keepdim=True)), causal.texts())


def test_a_model_whose_plain_forward_fails_is_refused_by_name():
    with pytest.raises(ValueError, match=r"_Plain cannot be evaluated: .* RuntimeError"):
        greedy(_Plain(lambda x: x.view(7, 7)), [[3, 4]], set(), 2)


def test_recomputing_is_said_once():
    model = _Plain(lambda x: x.cumsum(1))
    with pytest.warns(UserWarning, match="_Plain keeps no attention cache"):
        ways(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ways(model).pads and len(greedy(model, [[3, 4], [5, 6, 6]], set(), 3)[1]) == 3


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma3_text", "mamba", "qwen2_moe"])
@pytest.mark.filterwarnings("ignore")
def test_gradient_norms_of_a_batch_are_those_of_its_rows(name):
    model, examples = causal.model(name), causal.texts()
    one = [gradients.gradient_norms(model, [example])[0] for example in examples]
    np.testing.assert_allclose(gradients.gradient_norms(model, examples), one, rtol=2e-4)


def test_gradient_norms_of_tied_and_frozen_tensors_come_from_batches(monkeypatch):
    model = causal.model("gpt2")  # its head is its embedding; its layers are not nn.Linear
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    examples = causal.texts()
    model.transformer.wpe.weight.requires_grad_(False)
    try:
        one = [gradients.gradient_norms(model, [example])[0] for example in examples]
        calls = []
        alone = gradients._alone
        monkeypatch.setattr(gradients, "_alone", lambda *a: calls.append(1) or alone(*a))
        found = gradients.gradient_norms(model, examples)
    finally:
        model.transformer.wpe.weight.requires_grad_(True)
    np.testing.assert_allclose(found, one, rtol=2e-4)
    assert len(calls) == 2  # the two that the batch is tried on


def test_a_batch_that_gives_other_norms_is_not_believed(monkeypatch):
    model, examples = causal.model("llama"), causal.texts()
    one = [gradients.gradient_norms(model, [example])[0] for example in examples]
    monkeypatch.setattr(gradients.Use, "_weight", lambda self, a, b: 2 * self.layer.weight[None])
    np.testing.assert_allclose(gradients.gradient_norms(model, examples), one, rtol=1e-6)


def test_the_rehearsal_takes_ordinary_tokens(monkeypatch):
    """The first tokens of a vocabulary are often special ones that were never trained."""
    lm, seen = micro.lm(), []
    forward = type(lm.model).forward

    def seeing(self, input_ids=None, **options):
        seen.extend(input_ids.unique().tolist())
        return forward(self, input_ids=input_ids, **options)

    monkeypatch.setattr(type(lm.model), "forward", seeing)
    monkeypatch.setattr(module, "_KNOWN", weakref.WeakKeyDictionary())
    assert module.ways(lm.model).steps
    size = lm.model.config.vocab_size
    assert {i for i in seen if not size // 2 <= i < size} <= {0}  # 0 pads


def test_the_real_model_steps_in_bfloat16():
    found = module.ways(load(smollm2(), dtype="bfloat16").model)
    assert found == module.Ways(True, True, True, True)
