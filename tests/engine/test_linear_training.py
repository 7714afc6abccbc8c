"""Products by oneDNN where a model is trained and unlearned: gradients are those of torch."""

from __future__ import annotations

import copy
import itertools

import numpy as np
import pytest
import torch
from torch import nn

import ngdiff as ng
from ngdiff import methods
from ngdiff.core.stepsize import Constant
from ngdiff.engine import linear
from ngdiff.engine.engine import Engine
from ngdiff.evaluation import gradients
from ngdiff.lm import lora, train
from ngdiff.lm.model import LM
from ngdiff.methods.problem import LMProblem
from ngdiff.profiles import Training
from tests.helpers import causal, micro
from tests.methods.test_problem import BENCH

pytestmark = pytest.mark.skipif(
    not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="torch was built without oneDNN"
)


@pytest.fixture
def products(monkeypatch):
    """Take oneDNN on every CPU, and for a single token; the shapes of its products so far."""
    made, true = [], linear.product

    def counted(*given):
        made.append(tuple(given[0].shape))
        return true(*given)

    monkeypatch.setattr(linear, "_there", lambda: True)
    monkeypatch.setattr(linear, "FEW", 1)
    monkeypatch.setattr(linear, "product", counted)
    return made


def both(monkeypatch, products, go):
    """What `go` gives by oneDNN, which it must use, and without it."""
    found = go()
    assert products
    used = len(products)
    with monkeypatch.context() as patch:
        patch.setattr(linear, "_there", lambda: False)
        wanted = go()
    assert len(products) == used
    return found, wanted


def same(found: list, wanted: list) -> None:
    """Equal but for the rounding of sums of a hundred float32 terms or fewer."""
    assert [g is None for g in found] == [g is None for g in wanted]
    pairs = [(f, w) for f, w in zip(found, wanted, strict=True) if w is not None]
    size = torch.cat([w.flatten() for _, w in pairs]).norm()
    assert size > 0 and len(pairs) > 3
    for f, w in pairs:
        torch.testing.assert_close(f, w, rtol=1e-4, atol=1e-5 * float(size))


def grads(model: nn.Module) -> list:
    return [None if p.grad is None else p.grad.clone() for p in model.parameters()]


# ----------------------------------------------------------------------------------------- training
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("name", ["llama", "gpt2", "gpt_neox"])
def test_an_update_of_training_has_the_same_gradients(monkeypatch, products, name, checkpointed):
    rows = [text for text in causal.texts() if text.prompt_ids][:5]

    def go():
        model = copy.deepcopy(causal.model(name)).float()
        if checkpointed:
            Engine(checkpointing=True).prepare(model)
        still = torch.optim.SGD(model.parameters(), lr=0.0)
        loss = train._update(model, still, rows, 0, lr=0.0)
        return [loss, *grads(model)]

    same(*both(monkeypatch, products, go))


def test_a_target_is_trained_to_the_same_loss(monkeypatch, products):
    """A few steps of AdamW; then its steps are as long as the rates, so rounding stays small."""
    lm = micro.lm()
    rows = [lm.encode(row["question"], row["answer"]) for row in BENCH.forget]
    training = Training(epochs=2, pretrain_epochs=0, lr=1e-3, batch_size=4)

    def go():
        model = copy.deepcopy(lm.model)
        return train.fit(model, rows, [], 2, training, seed=0, pad_id=lm.pad_id, what="test")

    found, wanted = both(monkeypatch, products, go)
    assert found == pytest.approx(wanted, rel=1e-3)


# --------------------------------------------------------------------------------------- unlearning
METHODS = ["ngdiff", "npo-0.9", "kl", "rmu", "dpo"]


@pytest.mark.parametrize("micro_", [None, 2])
@pytest.mark.parametrize("checkpointed", [False, True])
@pytest.mark.parametrize("name", METHODS)
def test_an_objective_has_the_same_gradients(monkeypatch, products, name, checkpointed, micro_):
    """Both phases, each by itself; RMU's losses end inside the model."""
    made = LMProblem(BENCH, deep(), engine=Engine(checkpointing=checkpointed), micro=micro_)
    bound = made.bind(methods.method(name), 0)
    with torch.no_grad():  # away from the start, where KL has no gradient
        for p in bound.parameters:
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())) * 0.02)
    for phase in (0, 1):

        def go(phase=phase):
            found = []
            bound.module.zero_grad()
            for loss in bound.batch(0)[phase]:
                rows = loss()
                rows.sum().backward()
                found += [rows.detach(), loss.ce]
            return found + grads(bound.module)

        same(*both(monkeypatch, products, go))


def deep() -> LM:
    """Three layers, biases among them."""
    base = micro.lm()
    model = micro._model(base.tokenizer, 3, num_hidden_layers=3, attention_bias=True)
    model.lm_head.weight.data.div_(20)
    return LM(model, base.tokenizer, base.prompt, "deep")


@pytest.mark.parametrize(
    ("memory", "checkpointed"), itertools.product(("swap", "recompute"), (False, True))
)
def test_a_run_is_the_same_but_for_rounding(monkeypatch, products, memory, checkpointed):
    def go():
        engine = Engine(memory=memory, checkpointing=checkpointed)
        problem = LMProblem(BENCH, deep(), batch_size=4, engine=engine)
        sgd = lambda theta: torch.optim.SGD(theta, lr=1.0)  # noqa: E731
        run = ng.unlearn(problem, methods.ngdiff, Constant(0.01), 4, optimizer=sgd)
        return [[i.retain, i.forget, i.norm_R, i.norm_F, i.cosine] for i in run.history]

    found, wanted = both(monkeypatch, products, go)
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_an_adapters_gradients_are_the_same_and_its_base_has_none(
    monkeypatch, products, checkpointed
):
    made = LMProblem(BENCH, lora.adapt(deep(), 4), engine=Engine(checkpointing=checkpointed))
    bound = made.bind(methods.npo, 0)
    with torch.no_grad():  # a fresh adapter's B is 0, and A has no gradient
        for p in bound.parameters:
            p.add_(torch.randn(p.shape, generator=torch.Generator().manual_seed(p.numel())) * 0.1)

    def go():
        bound.module.zero_grad()
        sum(loss().sum() for loss in bound.batch(0)[1]).backward()
        return grads(bound.module)

    found, wanted = both(monkeypatch, products, go)
    same(found, wanted)
    trained = [p.requires_grad for p in bound.module.parameters()]
    assert [g is not None for g in found] == trained and not all(trained)


def test_checkpointed_blocks_use_it_the_second_time_too(products):
    """A block's seven products are made twice; the backward adds two for each of them."""
    made = {}
    for checkpointed in (False, True):
        problem = LMProblem(BENCH, deep(), engine=Engine(checkpointing=checkpointed))
        bound = problem.bind(methods.ngdiff, 0)
        (loss,) = bound.batch(0)[0]
        products.clear()
        rows = loss()
        forward = len(products)
        rows.sum().backward()
        made[checkpointed] = forward, len(products) - forward
        assert "forward" not in vars(bound.module.lm_head), "put back"
    layers, head = 3 * 7, 1
    assert made[False] == (layers + head, 2 * (layers + head))
    assert made[True] == (layers + head, 2 * (layers + head) + layers)


@pytest.mark.parametrize("frozen", [False, True])
def test_gradient_norms_of_a_checkpointed_model_are_those_of_a_plain_one(products, frozen):
    """They ask for no gradients of weights: nor must the second forward of a block."""
    texts, found = causal.texts(), []
    for checkpointed in (False, True):
        model = copy.deepcopy(causal.model("llama"))
        if frozen:
            model.requires_grad_(False)
            model.model.layers[0].self_attn.q_proj.weight.requires_grad_(True)
        if checkpointed:
            Engine(checkpointing=True).prepare(model)
        found.append(gradients.gradient_norms(model, texts))
    assert products
    np.testing.assert_allclose(*found, rtol=1e-4)
