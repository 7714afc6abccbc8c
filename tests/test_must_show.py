"""What goes wrong is named before a weight changes and loses nothing: the cases that span several
modules.

Elsewhere: non-finite and zero gradients of any model (core/test_step), empty and overlapping sets
(data/test_benchmark), rows beyond the context (methods/test_problem, lm/test_pair,
evaluation/test_tofu), damaged caches (store/test_results, lm/test_pair, study/test_trials), unknown
names (methods/test_recipes, study/test_trials, data/test_benchmark, commands/test_build), killed
processes (store/test_results, core/test_checkpoint, study/test_trials, book/test_reproduce).
"""

from __future__ import annotations

import math
import multiprocessing
import os
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch

import ngdiff as ng
from ngdiff.book import sweep as batch
from ngdiff.book.reproduce import reproduce
from ngdiff.core.autolr import AutoLR
from ngdiff.core.directions import GradDiff, LossNorm, NGDiff
from ngdiff.core.stepsize import Constant
from ngdiff.data import authors
from ngdiff.lm import pair as models
from ngdiff.lm import train
from ngdiff.methods.definition import Method
from ngdiff.methods.objectives import CE, KL, SimNPO
from ngdiff.methods.problem import LMProblem
from ngdiff.store.cache import cache_dir, found
from tests.helpers import micro
from tests.helpers.micro_trials import MICRO
from tests.helpers.toy_checkout import WRITE, add
from tests.methods.test_problem import BENCH


def weights(lm) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in lm.model.parameters()]).clone()


def run(method: Method, stepsize=None, lm=None):
    lm = lm or micro.lm()
    before = weights(lm)
    done = ng.unlearn(
        LMProblem(BENCH, lm, batch_size=4), method, stepsize or Constant(1e-3), steps=3
    )
    assert torch.equal(weights(lm).nan_to_num(), before.nan_to_num())
    return done, before


# --------------------------------------------------------------------- a language model's gradients
@dataclass(frozen=True)
class Broken(CE):
    """Cross-entropy whose second backward pass meets `value`."""

    value: float
    seen: ClassVar[list[bool]] = []

    def sums(self, tokens, start):
        self.seen.append(torch.is_grad_enabled())  # a probe is none
        return super().sums(tokens, start) * (
            self.value if sum(self.seen) > 1 and self.seen[-1] else 1.0
        )


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("phase", ["retain", "forget"])
@pytest.mark.parametrize("stepsize", [Constant(1e-3), AutoLR(every=5)], ids=["constant", "autolr"])
def test_a_loss_that_is_not_finite_ends_the_run_with_the_last_good_weights(phase, value, stepsize):
    Broken.seen.clear()
    done, _ = run(Method("broken", NGDiff(), **{phase: Broken(value)}), stepsize)
    assert done.stopped == "nonfinite" and [info.updated for info in done.history] == [True, False]
    good = ng.unlearn(LMProblem(BENCH, micro.lm(), batch_size=4), NGDiff(), stepsize, steps=1)
    assert (
        torch.equal(weights(done.model), weights(good.model))
        and torch.isfinite(weights(good.model)).all()
    )


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_model_that_is_broken_already_is_left_alone(value):
    lm = micro.lm().copy()
    with torch.no_grad():
        lm.model.lm_head.weight[5] = value
    done, _ = run(Method("NGDiff", NGDiff()), AutoLR(), lm)
    assert (done.stopped, len(done.history)) == ("nonfinite", 1)
    assert torch.equal(weights(done.model).nan_to_num(), weights(lm).nan_to_num())


def test_a_forget_gradient_that_vanished_gets_no_weight():
    # log σ(10⁴·7) is flat in float32
    saturated = Method("saturated", NGDiff(), forget=SimNPO(beta=1e4))
    done, before = run(saturated)
    first = done.history[0]
    assert (first.outcome, first.b, first.norm_F) == ("zero_forget", 0.0, 0.0)
    assert abs(first.a * first.norm_R - 1) <= 2**-52  # 1/x · x is off by one rounding at most
    assert not torch.equal(weights(done.model), before)


def test_two_vanished_gradients_end_the_run():
    done, before = run(Method("flat", NGDiff(), KL(), SimNPO(beta=1e4)))
    assert (done.stopped, len(done.history)) == ("zero_both", 1) and torch.equal(
        weights(done.model), before
    )


def test_lossnorm_refuses_a_loss_of_zero():
    class Zero(CE):
        def sums(self, tokens, start):
            return 0.0 * super().sums(tokens, start)

    with pytest.raises(
        FloatingPointError, match="LossNorm divides by the losses and refuses a zero one"
    ):
        run(Method("refused", LossNorm(), Zero()))


def test_a_rate_that_overflows_ends_the_run_with_finite_weights():
    done, _ = run(Method("huge", GradDiff(0.5)), Constant(1e30))
    assert (
        done.stopped == "nonfinite"
        and len(done.history) == 2
        and torch.isfinite(weights(done.model)).all()
    )


# ------------------------------------------------------------------------------- folders of results
def block(folder: Path) -> None:
    """Makes a folder one that cannot be written, for root as well: a file stands in its place."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    if folder.is_dir():
        folder.rmdir()
    folder.touch()


@pytest.mark.parametrize("folder", ["data/results/tiny", "figures/tiny", "report", ".cache"])
def test_a_reproduction_refuses_folders_it_cannot_write_before_any_notebook_runs(
    repo: Path, folder: str
) -> None:
    add(repo, "00_a", WRITE.format(name="00_a", value=1.0))
    saved = repo / "data/results/saved.jsonl"
    saved.write_text("{}\n")
    block(repo / folder)
    with pytest.raises(PermissionError, match=r"cannot write to .*put the checkout"):
        reproduce(root=repo, say=lambda line: None)
    assert not list(repo.rglob("00_a.count")) and saved.read_text() == "{}\n"


def test_a_sweep_refuses_a_folder_it_cannot_write_before_any_cell_runs(repo: Path) -> None:
    (repo / "notebooks/cell.py").write_text(
        '# %% tags=["parameters"]\nlr = 1.0\nseeds = (0,)\nout = ""\n'
    )
    grid = repo / "grid.toml"
    grid.write_text('rows = "data/results/tiny/rows.jsonl"\n[grid]\nlr = 0.1\nseeds = [0]\n')
    block(repo / "data/results/tiny")
    with pytest.raises(PermissionError, match="cannot write to"):
        batch.sweep(grid, root=repo, say=lambda line: pytest.fail(line))


# -------------------------------------------------------------------------------------------- kills
def test_a_killed_training_leaves_no_model_and_the_next_one_completes():
    P = replace(MICRO, training=replace(MICRO.training, epochs=2, pretrain_epochs=1, lr=2e-3))
    bench, steps = authors(P, "forget10"), []
    key = models.key_of(bench, P, 0, "target")

    def child():
        rate = train.rate
        train.rate = lambda *a: (
            steps.append(1),
            len(steps) == 20 and os.kill(os.getpid(), signal.SIGKILL),
            rate(*a),
        )[2]
        models.target(bench, P)

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL and found(cache_dir() / "models", key) is None
    lm = models.target(bench, P)
    assert found(cache_dir() / "models", key) == lm.path and torch.isfinite(weights(lm)).all()
    assert not list((cache_dir() / "models").glob(f".{key}.*.tmp"))
