"""What the start says of the rows: kept up to a bound, said anew beyond it, and in the estimate."""

from __future__ import annotations

import pytest
import torch

import ngdiff as ng
from ngdiff import methods
from ngdiff.core.stepsize import Constant
from ngdiff.engine import watch
from ngdiff.lm import lora
from ngdiff.lm.tokens import Example
from ngdiff.methods import start
from ngdiff.methods.problem import LMProblem
from tests.helpers import micro
from tests.methods.test_problem import BENCH

METHODS = pytest.mark.parametrize(
    "method", [methods.ngdiff_kl, methods.npo, methods.undial, methods.rmu], ids=lambda m: m.name
)


def made(method, **options):
    return LMProblem(BENCH, micro.lm(), batch_size=4, **options).bind(method, 0)


@METHODS
def test_point_9_the_estimate_of_host_memory_is_what_is_kept(method):
    problem = made(method)
    expected = problem.host()
    for step in range(12):  # until every row has come
        problem.batch(step)
    assert expected == sum(x.nbytes for x in problem._starts.values.values()) > 0
    found = watch.prepared(problem, problem.optimizer(), None)
    assert found.host == expected and "of the host for the start's values" in str(found)


@pytest.mark.parametrize("adapter", [False, True], ids=["full", "adapter"])
@METHODS
def test_point_9_beyond_the_bound_nothing_is_kept_and_the_run_is_the_same(
    method, adapter, monkeypatch
):
    """Up to rounding of another padding: 2⁻²³ times the float32 losses, and what 3 steps make of
    it."""

    def run():
        lm = micro.lm().copy()
        micro_lm = lora.adapt(lm, 4) if adapter else lm
        problem = LMProblem(BENCH, micro_lm, batch_size=4, micro=2)
        optimizer = lambda groups: torch.optim.SGD(groups, lr=1.0)  # noqa: E731
        done = ng.unlearn(problem, method, Constant(1e-3), steps=3, optimizer=optimizer)
        return problem, done.history

    _, kept = run()
    monkeypatch.setattr(start, "KEPT", 0)
    problem, anew = run()
    assert not problem._starts.values
    for one, two in zip(kept, anew, strict=True):
        assert (two.retain, two.forget) == pytest.approx(
            (one.retain, one.forget), rel=64 * micro.ROUNDING, abs=64 * micro.ROUNDING
        )


def test_what_is_not_kept_is_estimated_as_one_batch_and_a_probe(monkeypatch):
    whole = made(methods.ngdiff_kl).host()
    monkeypatch.setattr(start, "KEPT", 0)
    problem = made(methods.ngdiff_kl)
    rows = len(problem.retain)
    assert problem.host() == whole * 4 // rows and problem.host(1) == whole * 8 // rows


def test_the_start_s_values_at_the_paper_s_size_stay_below_the_bound():
    """4000 rows of 60 answer tokens of a vocabulary of 50 000: 48 GB, which are not kept."""
    text = Example([1] * 60, [1] * 60)
    config = type("Config", (), {"vocab_size": 50_000, "hidden_size": 2048})
    KL = methods.ngdiff_kl.retain
    size = start.bytes_of(KL, [text] * 4000, config)
    assert size == 48_000_000_000 and not start.keeps(KL, size)
