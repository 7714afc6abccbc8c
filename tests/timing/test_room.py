"""What a case needs, and what would fit where it does not."""

from __future__ import annotations

import pytest
import torch
from transformers import LlamaForCausalLM

from ngdiff.timing import room, step, variants
from ngdiff.timing.case import Case
from ngdiff.timing.step import step_table
from ngdiff.timing.subject import Subject, config
from ngdiff.timing.variants import Variant


def _full(*_):
    raise torch.OutOfMemoryError("no memory")


@pytest.mark.parametrize("size", ["1M", "10M", "100M", "1B", "7B"])
def test_sizes_are_about_what_they_say(size):
    count = room.needs(Case(size), 0.0).weights / 4
    assert count == pytest.approx(float(size[:-1]) * (1e9 if size[-1] == "B" else 1e6), rel=0.3)
    with torch.device("meta"):
        assert sum(p.numel() for p in LlamaForCausalLM(config(Case(size))).parameters()) == count
    assert size != "7B" or count == 6_738_415_616  # Llama-2-7B


def test_a_case_that_does_not_fit_says_what_would(monkeypatch):
    """With 1M the next size in the table, which does not fit either and is built in no time."""
    monkeypatch.setattr(room, "SIZES", {name: room.SIZES[name] for name in ("1M", "micro")})
    monkeypatch.setattr(variants, "graddiff_two", _full)
    monkeypatch.setattr(step, "capacity", lambda device: 600_000.0)
    with pytest.raises(ValueError) as raised:
        step_table(Case(size="micro", tokens=128, pairs=1))
    needs, fits = str(raised.value).split("; estimated to fit: ")
    assert "micro_128 needs about" in needs and "activations" in needs and "has 0.0006" in needs
    assert (
        "--optimizer sgd --checkpointing (about" in fits
        and "--size" not in fits
        and "--lora 16" not in fits
    )


def test_what_cannot_fit_is_refused_before_it_is_built(monkeypatch):
    monkeypatch.setattr(step, "capacity", lambda device: 80e9)
    monkeypatch.setattr(step, "measure", lambda *_: pytest.fail("built first"))
    monkeypatch.setattr(room, "per_token", lambda case, device: 1e6 if case.checkpointing else 7e6)
    with pytest.raises(ValueError) as raised:
        step_table(Case(size="7B", tokens=1024, precision="bfloat16"))
    assert "adamw 54" in str(raised.value) and "weights 27" in str(raised.value)
    needs, fits = str(raised.value).split("; estimated to fit: ")
    # weights 27, gradients 13.5, stash and activations 13.5, moments 54
    assert "needs about 108 GB" in needs
    assert "--lora 16" in fits and "--optimizer sgd (about 54 GB)" in fits and "--size 1B" in fits
    assert "--memory recompute" not in fits


def test_needs_are_what_a_step_takes():
    """The estimate of a small model beside its measured peak."""
    case = Case("1M", 256)
    subject = Subject(case, "cpu")
    ours = Variant("ngdiff", subject)
    ours.step()
    assert room.needs(case, room.per_token(case, "cpu")).peak() == pytest.approx(
        ours.peak(), rel=0.1
    )
