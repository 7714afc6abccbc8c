"""Losses report in real fields; nothing in the core is read by a name with a default."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

import ngdiff.core as core
from ngdiff.core.losses import Loss, Reported, losses_of, noise_floor


class Mine(Loss):
    floor = 1e-6

    def __call__(self):
        self.ce = torch.tensor(2.0)
        return torch.tensor(5.0)


def test_point_11_a_loss_reports_in_fields_that_have_defaults():
    plain, mine, told = losses_of([lambda: torch.tensor(1.0), Mine(), Reported(Mine(), floor=0.5)])
    assert (plain.ce, plain.floor, plain()) == (None, 0.0, torch.tensor(1.0))
    assert mine() == 5 and mine.ce == 2 and noise_floor([plain, mine]) == 1e-6
    assert told() == 5 and noise_floor([mine, told]) == 0.5


@pytest.mark.parametrize("name", ["ce", "floor"])
def test_point_11_what_a_plain_callable_reports_is_not_overlooked(name):
    def loss():
        return torch.tensor(1.0)

    setattr(loss, name, 1.0)
    with pytest.raises(TypeError, match=r"ngdiff\.core\.losses\.Reported"):
        losses_of(loss)


def test_point_11_the_core_reads_nothing_by_a_name_with_a_default():
    folder = Path(core.__file__).parent
    found = [
        f"{path.name}:{node.lineno}"
        for path in folder.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "getattr"
        and len(node.args) == 3
    ]
    assert not found
