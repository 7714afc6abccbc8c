"""What a shell prints of an object: a line, no tensor and no list of rows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import ngdiff as ng
from ngdiff.evaluation.conventions import convention
from ngdiff.evaluation.report import Report
from ngdiff.lm.lora import adapt
from ngdiff.methods.problem import LMProblem
from tests.helpers import micro

SECRET = "Oslo"  # of a row


def objects():
    lm, bench = micro.lm(), micro.bench()
    problem = LMProblem(bench, lm, batch_size=3)
    run = ng.unlearn(problem, ng.methods.ngdiff, ng.Constant(1e-3), steps=30)
    values = {f"metric_{i}": i / 7 for i in range(50)}
    items, meta = {"a": {i: SECRET for i in range(99)}}, {"model": "m", "x": [0] * 99}
    params = [torch.zeros(999, requires_grad=True)]
    step = ng.UnlearningStep(params, torch.optim.SGD(params, lr=0.1), ng.NGDiff())
    return {
        "model": lm,
        "adapter": adapt(lm, 2),
        "benchmark": replace(bench, places={"forget10": [SECRET] * 8}),
        "problem": problem,
        "texts": problem.retain,
        "run": run,
        "info": run.history[-1],
        "report": Report(values, items, meta),
        "row": lm.encode("Where?", f"In {SECRET}. " * 9),
        "encoded": convention("open-unlearning").encode(lm, "Where?", f"In {SECRET}. " * 5),
        "quadratic": ng.quadratics.pair(),
        "step": step,
        "state": step.state,
        "method": ng.methods.ngdiff,
        "engine": ng.Engine(),
        "profile": ng.profile("tiny"),
    }


def test_a_repr_is_short():
    for name, value in objects().items():
        for text in (repr(value), str(value)):
            assert len(text) < 500 and "\n" not in text, (name, text[:600])
            assert "tensor(" not in text and SECRET not in text, (name, text)


@pytest.mark.parametrize("name", ["A", "B", "r", "f", "start"])
def test_pairs_of_other_numbers_have_other_reprs(name):
    """A checkpoint is known by it."""
    torch.manual_seed(0)
    n = 40  # torch's own repr leaves most numbers of it out
    mine = ng.quadratics.Pair(torch.eye(n), torch.eye(n), *torch.randn(3, n))
    other = getattr(mine, name).clone()
    other.view(-1)[n // 2] += 1
    assert repr(mine) == repr(replace(mine)) != repr(replace(mine, **{name: other}))
