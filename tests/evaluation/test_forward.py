"""The batched forward, generation and gradients against one plain text at a time."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ngdiff.evaluation import evaluate, forward, gradients
from ngdiff.evaluation.generate import greedy, stop_tokens
from ngdiff.evaluation.stats import HEAD
from ngdiff.lm.tokens import IGNORE, Example
from tests.helpers import micro


def _examples(lm, bench) -> list[Example]:
    rows = bench.forget_perturbed + bench.world_facts_perturbed
    texts = [
        (row["question"], answer)
        for row in rows
        for answer in (row["answer"], *row["perturbed_answer"])
    ]
    odd = [
        Example([5], [5]),
        Example([7, 2], [7, 2]),
        Example([7, 9, 2], [IGNORE, 9, 2]),
        Example([7, 2], [IGNORE, 2]),
    ]
    return [lm.encode(*text) for text in texts] + odd


# Forward ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [1, 100, 4096])
def test_likelihood_is_the_plain_forward_in_any_batch(lm, bench, budget):
    examples = _examples(lm, bench)
    for example, stats in zip(
        examples,
        forward.likelihood(lm.model, examples, [True] * len(examples), budget),
        strict=True,
    ):
        if len(example) == 1:  # its only token has no predictor
            assert stats.logp.size == stats.hits.size == 0
            continue
        logp, hits, mean, var = micro.slow(lm.model, example)
        np.testing.assert_allclose(stats.logp, logp, atol=2e-5)
        np.testing.assert_array_equal(stats.hits, hits)
        np.testing.assert_allclose(stats.mean, mean, atol=1e-4)
        np.testing.assert_allclose(stats.var, var, rtol=1e-3, atol=1e-4)


def test_likelihood_gives_moments_only_where_asked(lm, bench):
    examples = _examples(lm, bench)[:2]
    first, second = forward.likelihood(lm.model, examples, [False, True])
    assert first.mean is None and first.var is None and second.mean.shape == second.logp.shape
    assert forward.likelihood(lm.model, []) == []


def test_a_text_without_a_label_has_no_statistics_and_harms_no_other(lm, bench):
    none, one = Example([7, 9, 2], [IGNORE] * 3), _examples(lm, bench)[0]
    empty, full = forward.likelihood(lm.model, [none, one])
    assert empty.logp.size == empty.hits.size == 0
    np.testing.assert_allclose(full.logp, micro.slow(lm.model, one)[0], atol=2e-5)
    assert forward.likelihood(lm.model, [none])[0].logp.size == 0


def test_head_runs_in_pieces(lm, bench, monkeypatch):
    examples = _examples(lm, bench)
    whole = forward.likelihood(lm.model, examples)
    monkeypatch.setitem(HEAD, "cpu", 5 * len(lm.tokenizer))
    for a, b in zip(whole, forward.likelihood(lm.model, examples), strict=True):
        np.testing.assert_array_equal(a.logp, b.logp)


def test_masked_vocabulary_has_moments(lm, bench):
    """Logits of −∞ (a tokenizer smaller than the head) are impossible tokens, not NaN."""
    model, examples = copy.deepcopy(lm.model), _examples(lm, bench)[:3]
    model.lm_head.register_forward_hook(
        lambda module, inputs, z: z.index_fill(-1, torch.tensor([0, 1]), -torch.inf)
    )
    for stats in forward.likelihood(model, examples, [True] * 3):
        assert (
            np.isfinite(stats.mean).all()
            and np.isfinite(stats.var).all()
            and np.isfinite(stats.logp).all()
        )


def test_modes_and_gradients_come_back(lm, bench, memorised):
    model = copy.deepcopy(lm.model)
    model.train()
    model.model.norm.eval()
    before = [module.training for module in model.modules()]
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    evaluate(replace(lm, model=model), bench, max_new_tokens=2)
    assert [module.training for module in model.modules()] == before
    assert all(bool((p.grad == 1).all()) for p in model.parameters())
    with pytest.raises(RuntimeError), forward.evaluating(model):
        assert not any(module.training for module in model.modules())
        raise RuntimeError
    assert [module.training for module in model.modules()] == before


def test_gradient_norms(lm, bench):
    examples, model = _examples(lm, bench)[:2], copy.deepcopy(lm.model)
    with torch.inference_mode():
        norms = gradients.gradient_norms(model, examples)
    for example, norm in zip(examples, norms, strict=True):
        labels = torch.tensor([[*example.labels[:-1], IGNORE]])  # the final EOS does not count
        model.zero_grad()
        model(torch.tensor([example.input_ids]), labels=labels).loss.backward()
        assert norm == pytest.approx(
            np.mean([float(p.grad.norm()) for p in model.parameters()]), rel=1e-4
        )
    assert all(
        math.isnan(norm) for norm in gradients.gradient_norms(model, [Example([7, 2], [IGNORE, 2])])
    )
    assert all(
        math.isnan(norm) for norm in gradients.gradient_norms(model.requires_grad_(False), examples)
    )


# Generation ---------------------------------------------------------------------------------------


def _prompts(lm, bench) -> list[list[int]]:
    return [
        lm.encode(row["question"], row["answer"]).prompt_ids for row in bench.forget + bench.retain
    ]


@pytest.mark.parametrize("name", ["lm", "memorised"])
def test_greedy_is_transformers_generate_in_any_batch(name, request, bench):
    lm = request.getfixturevalue(name)
    prompts, stop = _prompts(lm, bench), {lm.tokenizer.eos_token_id}
    expected = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = lm.model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12
        )
        expected.append(
            [
                token
                for token in out[0, len(prompt) :].tolist()
                if token != lm.tokenizer.eos_token_id
            ]
        )
    for budget in (1, 150, 16384):
        assert greedy(lm.model, prompts, stop, 12, budget) == expected


def test_greedy_stops(lm, bench):
    prompts = _prompts(lm, bench)[:3]
    free = greedy(lm.model, prompts, set(), 20)
    assert [len(text) for text in free] == [20] * 3
    stop = {free[0][4]}
    cut = greedy(lm.model, prompts, stop, 20)
    assert cut == [
        text[: next((t for t, token in enumerate(text) if token in stop), 20)] for text in free
    ]
    assert len(cut[0]) <= 4 and not stop & {token for text in cut for token in text}
    room = 96 - len(prompts[0])  # the model's context
    assert len(greedy(lm.model, prompts[:1], set(), 500)[0]) == room
    assert greedy(lm.model, [[5] * 96], set(), 5) == [[]] and greedy(lm.model, [], set(), 5) == []
    with pytest.raises(ValueError, match="empty prompt"):
        greedy(lm.model, [[]], set(), 5)


def test_stop_tokens(lm):
    model = copy.deepcopy(lm.model)
    model.generation_config.eos_token_id = [2, 9]
    assert stop_tokens(model, lm.tokenizer, [Example([4, 11], [IGNORE, 11])]) == {2, 9, 11}
