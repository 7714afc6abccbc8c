"""Norms of texts' gradients: by products of their factors, and by adding them up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from ngdiff.evaluation import gradients
from ngdiff.evaluation.gradients import Use
from ngdiff.lm.tokens import IGNORE, Example
from tests.helpers import causal

WORDS, SIZE, ROWS = 50, 6, 3


def _uses(kind: str, time: int) -> tuple[list[tuple[Use, Tensor]], Tensor]:
    """Return the uses of one tensor with gradients of their outputs, and its gradients."""
    make = torch.Generator().manual_seed(time)
    table, head, wide = (
        nn.Embedding(WORDS, SIZE),
        nn.Linear(SIZE, WORDS, False),
        Conv1D(WORDS, SIZE),
    )
    head.weight = table.weight if kind == "tied" else head.weight
    wide.bias.requires_grad_(False)
    tokens = torch.randint(4, (ROWS, time), generator=make)  # few: each stands several times
    hidden = torch.randn(ROWS, time, SIZE, generator=make)
    given = {
        "embedding": [(table, tokens)],
        "linear": [(head, hidden)],
        "Conv1D": [(wide, hidden)],
        "tied": [(table, tokens), (head, hidden), (head, hidden.flip(1))],
    }[kind]
    uses, total = [], 0.0
    for layer, a in given:
        made = layer(a)
        b = torch.randn(made.shape, generator=make)
        uses.append((Use(layer, a, made), b))
        grads = [
            torch.autograd.grad(layer(x), layer.weight, up)[0] for x, up in zip(a, b, strict=True)
        ]
        total = total + torch.stack(grads)
    return uses, total


@pytest.mark.parametrize("time", [3, 20])  # few tokens, and many beside the tensor's sizes
@pytest.mark.parametrize("kind", ["embedding", "linear", "Conv1D", "tied"])
def test_each_rows_norm_is_that_of_its_own_gradient(kind, time, monkeypatch):
    uses, total = _uses(kind, time)
    added, add = [], Use.add
    monkeypatch.setattr(Use, "add", lambda self, *a: added.append(1) or add(self, *a))
    found = gradients._norms(uses, ROWS)
    np.testing.assert_allclose(found, total.flatten(1).norm(dim=1), rtol=1e-5)
    assert bool(added) == (time == 20)


@pytest.mark.parametrize("kind", ["embedding", "linear", "Conv1D", "tied"])
def test_gradients_in_bfloat16_are_multiplied_in_float32(kind, monkeypatch):
    uses, _ = _uses(kind, 3)
    uses = [(Use(u.layer, _narrow(u.given), _narrow(u.made)), _narrow(b)) for u, b in uses]
    found = gradients._norms(uses, ROWS)
    monkeypatch.setattr(Use, "factors", lambda self, b: None)
    np.testing.assert_allclose(found, gradients._norms(uses, ROWS), rtol=1e-5)


def _narrow(x: Tensor) -> Tensor:
    return x.bfloat16() if x.is_floating_point() else x


def test_gradients_that_cancel_have_no_negative_square():
    layer, a = nn.Linear(SIZE, WORDS, False), torch.randn(1, 1, SIZE).expand(1, 2, SIZE)
    b = torch.randn(1, 1, WORDS)
    uses = [(Use(layer, a, layer(a)), torch.cat([b, -b], dim=1))]
    assert gradients._norms(uses, 1)[0] == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_models_norms_by_products_are_those_added_up(name, monkeypatch):
    model = causal.model(name)
    texts = ([4, 5, 6, 7, 3, 2], [4, 8, 8, 2], [3, 7, 7, 5, 2])
    examples = [Example(ids, [IGNORE, *ids[1:]]) for ids in texts]
    calls, by = [], gradients._by_products
    monkeypatch.setattr(gradients, "_by_products", lambda pairs: calls.append(1) or by(pairs))
    found = gradients.gradient_norms(model, examples)
    assert calls
    monkeypatch.setattr(Use, "factors", lambda self, b: None)
    np.testing.assert_allclose(found, gradients.gradient_norms(model, examples), rtol=1e-5)


def test_losses_are_each_rows_mean():
    make = torch.Generator().manual_seed(0)
    rows = [
        Example([4, 5, 6, 7, 2], [IGNORE, IGNORE, 6, 7, 2]),
        Example([4, 5, 9, 2], [IGNORE, 5, 9, 2]),
    ]
    logits = torch.randn(2, 3, 12, generator=make)  # of positions 0 to 2
    found = gradients._losses(logits, rows, 0)
    wanted = [
        nn.functional.cross_entropy(logits[0, 1:3], torch.tensor([6, 7])),
        nn.functional.cross_entropy(logits[1, 0:2], torch.tensor([5, 9])),
    ]
    torch.testing.assert_close(found, torch.stack(wanted))
