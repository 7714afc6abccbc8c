"""The model that is timed: its size, its precision, its FLOPs."""

from __future__ import annotations

import pytest
import torch

from ngdiff.engine import meters
from ngdiff.engine.master import Master
from ngdiff.timing import case
from ngdiff.timing.case import Case
from ngdiff.timing.subject import Subject
from tests.helpers.timed import TWO, built, rows_of


def test_bfloat16_steps_exact_masters_for_all_variants():
    subject = Subject(Case("micro", 16, precision="bfloat16"), "cpu")
    assert isinstance(subject.optimizer, Master) and {p.dtype for p in subject.params} == {
        torch.bfloat16
    }
    rows = rows_of(
        precision="bfloat16", variants=("graddiff-two", "naive", "ngdiff", "ngdiff+autolr")
    )
    assert {row["dtype"] for row in rows.values()} == {"torch.bfloat16"}
    assert rows["graddiff-two"]["gradient_bytes"] == 2 * 18_528
    assert 2 * 18_528 * (2 + 2 + 4 + 4) // 2 <= rows["graddiff-two"]["held_bytes"] < 13 * 18_528
    assert (
        rows["ngdiff"]["reads"] == 1
        and rows["graddiff-two"]["reads"] == 0
        and rows["ngdiff"]["skipped"] == 0
    )


def test_sgd_keeps_nothing():
    rows = rows_of(optimizer="sgd", variants=TWO)
    assert rows["ngdiff"]["held_bytes"] == 4 * 18_528 and rows["ngdiff"]["optimizer"] == "sgd"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_lora_trains_an_adapter_on_a_frozen_model(precision):
    rows = rows_of(lora=2, precision=precision, variants=TWO)
    trained = 2 * (4 * 2 * 32 + 3 * (32 + 64))  # r·(inputs + outputs) of seven matrices
    assert rows["ngdiff"]["trained"] == trained and rows["ngdiff"]["parameters"] == 18_528 + trained
    assert rows["ngdiff"]["gradient_bytes"] == 4 * trained and rows["ngdiff"]["lora"] == 2
    assert rows["ngdiff"]["tied_bytes"] == 0 and rows["ngdiff"]["reads"] == 1


def test_model_flops_by_hand():
    model = built("ngdiff").subject.model
    # the tied table counts once: it is the output layer
    N = 256 * 32 + 4 * 32 * 32 + 3 * 32 * 64 + 3 * 32
    assert meters.flops(model, 32, 16) == 32 * (6 * N + 12 * 1 * 32 * 16)
    adapted = built("ngdiff", lora=2).subject.model
    r = 2 * (4 * 2 * 32 + 3 * (32 + 64))
    # frozen: no gradient of their own
    assert meters.flops(adapted, 32, 16) == 32 * (4 * N + 6 * r + 12 * 1 * 32 * 16)


def test_a_look_up_is_no_flop(monkeypatch):
    monkeypatch.setattr(case, "LARGE", ("micro",))
    untied = built("ngdiff").subject
    assert sum(p.numel() for p in untied.params) == 18_528 + 256 * 32
    assert meters.flops(untied.model, 1, 16) == 6 * 18_528 + 12 * 32 * 16
