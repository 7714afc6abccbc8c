"""The loss of the whole forget set, which ends a matched run."""

from __future__ import annotations

import os
import signal
from multiprocessing import get_context
from pathlib import Path

import pytest
import torch

import ngdiff as ng
from ngdiff import methods
from ngdiff.core.autolr import AutoLR
from ngdiff.core.info import SetLevel
from ngdiff.core.stepsize import Constant
from ngdiff.engine.engine import Engine
from ngdiff.evaluation.forward import loss
from ngdiff.lm.model import LM
from ngdiff.methods.problem import LMProblem
from tests.helpers import micro
from tests.methods.test_problem import BENCH, weights


def noisy() -> LM:
    """A model with dropout in its attention."""
    lm = micro.lm().copy("noisy")
    lm.model.config.attention_dropout = 0.5
    for layer in lm.model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    return lm


def measured(made: LMProblem) -> float:
    """The same by the evaluation, which packs, sorts and averages in its own way."""
    modes = {m: m.training for m in made.module.modules()}
    found = loss(made.model, BENCH.forget)
    assert modes == {m: m.training for m in made.module.modules()}
    return found


@pytest.mark.parametrize("batch_size", [1, 3, 4, 7, 32])
@pytest.mark.parametrize("micro_", [None, 1, 3])
@pytest.mark.parametrize("name", ["ngdiff", "npo", "dpo", "rmu", "kl", "npo-0.9"])
def test_it_is_the_evaluations_loss_of_all_forget_rows(name, micro_, batch_size):
    """Whatever the method ascends, and however the rows are cut."""
    made = LMProblem(BENCH, micro.lm(), batch_size=batch_size, micro=micro_)
    bound = made.bind(methods.method(name), 0)
    wanted = measured(bound)
    assert bound.forget_loss() == pytest.approx(wanted, rel=micro.ROUNDING)
    assert wanted != pytest.approx(loss(bound.model, BENCH.retain), rel=0.01)


def test_tokens_count_and_not_rows():
    """Answers have unlike lengths, so the mean over rows is another number."""
    bound = LMProblem(BENCH, micro.lm(), batch_size=2).bind(methods.ngdiff, 0)
    parts = [micro.slow(bound.model.model, row)[0] for row in bound.forget]
    by_token = -sum(part.sum() for part in parts) / sum(map(len, parts))
    by_row = -sum(part.mean() for part in parts) / len(parts)
    assert bound.forget_loss() == pytest.approx(by_token, rel=micro.ROUNDING)
    assert abs(by_token - by_row) > 100 * micro.ROUNDING * by_token


@pytest.mark.parametrize("micro_", [None, 3])
def test_it_is_without_dropout_and_leaves_the_run_as_it_was(micro_):
    made = LMProblem(BENCH, noisy(), batch_size=4, dropout=True, micro=micro_)
    bound = made.bind(methods.ngdiff, 0)
    (retain, *_), _ = bound.batch(0)
    retain().sum().backward()
    grads = [p.grad.clone() for p in bound.parameters]
    before, state = weights(bound.model), torch.get_rng_state()
    found = [bound.forget_loss() for _ in range(3)]
    assert len(set(found)) == 1 and found[0] == pytest.approx(measured(bound), rel=micro.ROUNDING)
    assert bound.module.training and torch.equal(state, torch.get_rng_state())
    assert torch.equal(before, weights(bound.model))
    assert all(torch.equal(p.grad, g) for p, g in zip(bound.parameters, grads, strict=True))


@pytest.mark.parametrize("dropout", [False, True])
def test_it_follows_the_weights(dropout):
    """A rule at the end of the stops sees it in every step; the weights are then those of `t`."""
    made, seen = LMProblem(BENCH, noisy(), batch_size=4, dropout=dropout), []

    class Watch:
        def bind(self, problem):
            def rule(info):
                seen.append((problem.forget_loss(), measured(problem)))

            return rule

    assert made.forget_loss() == pytest.approx(measured(made), rel=micro.ROUNDING)  # not bound yet
    run = ng.unlearn(made, methods.ngdiff, Constant(3e-3), 5, stop=Watch())
    assert len(seen) == 5 and len({found for found, _ in seen}) == 5
    for found, wanted in seen:
        assert found == pytest.approx(wanted, rel=micro.ROUNDING)
    again = made.bind(methods.ngdiff, 0)  # the set of one run is not that of another
    assert again.forget_loss() == pytest.approx(seen[0][0], rel=micro.ROUNDING)
    assert loss(run.model, BENCH.forget) > seen[-1][1]


def test_in_bfloat16_it_sees_the_rounded_weights_of_now():
    made = LMProblem(BENCH, micro.lm(), batch_size=4, engine=Engine(precision="bfloat16"))
    bound = made.bind(methods.ngdiff, 0)
    # a product in bfloat16 is off by 2⁻⁸; a dozen of them one after the other
    assert bound.forget_loss() == pytest.approx(measured(bound), rel=12 * 2.0**-8)


# ------------------------------------------------------------------------------------ the stop rule
def go(stop, steps=40, rule=None, **kw):
    made = LMProblem(BENCH, micro.lm(), batch_size=3, dropout=False)
    rule = rule or AutoLR(lr=1e-3, every=4)
    return ng.unlearn(made, methods.ngdiff, rule, steps, stop=stop, **kw)


def test_a_run_ends_at_the_first_step_whose_set_has_passed():
    level = loss(micro.lm(), BENCH.forget) + 1.5
    run = go(SetLevel(level), rule=Constant(1e-3))
    assert run.stopped == "forget_level" and not run.history[-1].updated
    updates = len(run.history) - 1
    assert 2 < updates < 39
    assert loss(run.model, BENCH.forget) >= level * (1 - micro.ROUNDING)
    shorter = go((), steps=updates - 1, rule=Constant(1e-3))
    assert loss(shorter.model, BENCH.forget) < level
    same = go((), steps=updates, rule=Constant(1e-3))
    assert torch.equal(weights(same.model), weights(run.model)), "looking changes no run"


@pytest.mark.parametrize("at", [3, 5])
def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path, at: int):
    """Killed by a signal in the middle, as by a power cut; weights and history come out equal."""
    path = tmp_path / "run.safetensors"
    stop = SetLevel(loss(micro.lm(), BENCH.forget) + 1.5)

    def kill(info):
        if info.step == at:
            os.kill(os.getpid(), signal.SIGKILL)

    saved = {"checkpoint": path, "save_every": 2}
    process = get_context("fork").Process(
        target=go, args=(stop,), kwargs=saved | {"progress": kill}
    )
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL and path.is_file()
    seen: list[int] = []
    again = go(stop, progress=lambda info: seen.append(info.step), **saved)
    whole = go(stop)
    assert seen[0] == at // 2 * 2 and whole.stopped == again.stopped == "forget_level"
    assert repr(whole.history) == repr(again.history)
    assert torch.equal(weights(whole.model), weights(again.model))
    with pytest.raises(ValueError, match="another run"):
        go(SetLevel(stop.level + 1), **saved)
