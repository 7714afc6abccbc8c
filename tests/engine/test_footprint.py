"""The estimate of a step's memory against the allocator, and what too little memory tells."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

import ngdiff as ng
from ngdiff.core.autolr import AutoLR
from ngdiff.core.loop import unlearn
from ngdiff.core.step import UnlearningStep
from ngdiff.core.stepsize import Constant
from ngdiff.data.benchmark import Benchmark
from ngdiff.engine import watch as memory
from ngdiff.engine.engine import PRECISIONS, Engine
from ngdiff.engine.footprint import SLOTS, WIDTH, Footprint, planned, stash
from ngdiff.engine.meters import allocated
from ngdiff.lm import lora
from ngdiff.methods.recipes import kl, ngdiff
from ngdiff.timing.subject import MAKE
from tests.helpers import micro

CPU = torch.device("cpu")
RATE, PROBE = Constant(1e-4), AutoLR(lr=1e-4)


def bench():
    forget, retain = (
        [
            {"question": f"Where does {who} {i} live?", "answer": "In Oslo, or in Bonn. " * 4}
            for i in range(32)
        ]
        for who in ("Ann", "Ben")
    )
    return Benchmark("long", "forget", {"forget": forget, "retain": retain}, [], {"name": "long"})


def model():
    sizes = {
        "hidden_size": 128,
        "num_hidden_layers": 6,
        "num_attention_heads": 4,
        "intermediate_size": 512,
    }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(micro.lm().tokenizer), max_position_embeddings=256, **sizes
        )
        return replace(micro.lm(), model=LlamaForCausalLM(config))


def compared(engine=None, rule=RATE, adapter=False, **options):
    """(the estimate, bytes at the fullest moment of a step as the allocator saw them)."""
    lm, method = lora.adapt(model(), 4) if adapter else model(), ngdiff
    made = ng.problem(bench(), lm, engine=engine, in_place=adapter, **options).bind(method, 0)
    optimizer, probes = made.optimizer(), isinstance(rule, AutoLR)
    found = memory.prepared(made, optimizer, rule.fresh if probes else None)
    step = UnlearningStep(made.module, optimizer, method.direction, rule, **made.options)

    def batch():
        return *made.batch(0), made.probe(0, rule.fresh) if probes else None

    step(*batch())  # from here on the optimizer has its state
    step.state, phases = rule.init(), batch()
    most, _ = allocated(lambda: step(*phases), "cpu")
    return found, found.weights + found.optimizer + most


CASES = {
    "swap, activations": {},
    "swap, gradients": {"batch_size": 2},
    "recompute": {"engine": Engine(memory="recompute"), "batch_size": 2},
    "microbatches": {"micro": 8},
    "recompute, microbatches": {"engine": Engine(memory="recompute"), "micro": 8},
    "checkpointing": {"engine": Engine(checkpointing=True)},
    "bfloat16": {"engine": Engine(precision="bfloat16"), "batch_size": 4},
    "bfloat16, probe": {"engine": Engine(precision="bfloat16"), "batch_size": 2, "rule": PROBE},
    "probe": {"batch_size": 2, "rule": PROBE},
    "probe, many rows": {"rule": AutoLR(lr=1e-4, fresh=7), "batch_size": 4},
    "adapter": {"adapter": True, "batch_size": 8},
}


@pytest.mark.parametrize("case", CASES)
def test_the_estimate_is_what_happens(case):
    """Within 15 %: what an operation needs for itself is left out."""
    found, measured = compared(**CASES[case])
    assert found.peak() == pytest.approx(measured, rel=0.15), (
        f"{found} against {measured / 1e9:.3f}"
    )


def test_estimating_changes_nothing():
    made = ng.problem(bench(), model(), engine=Engine(checkpointing=True)).bind(ngdiff, 0)
    before = [p.detach().clone() for p in made.parameters]
    forwards = [(layer.forward.func, layer.forward.args) for layer in made.module.model.layers]
    memory.prepared(made, made.optimizer(), 3)
    assert all(torch.equal(p, q) and p.grad is None for p, q in zip(made.parameters, before))
    assert [
        (layer.forward.func, layer.forward.args) for layer in made.module.model.layers
    ] == forwards


def test_slots_are_counted_for_any_optimizer():
    x = [torch.nn.Parameter(torch.zeros(3))]
    for make, slots in (
        (torch.optim.SGD(x, lr=1.0), 0),
        (torch.optim.SGD(x, lr=1.0, momentum=0.9), 1),
        (torch.optim.AdamW(x, lr=1.0), 2),
        (torch.optim.AdamW(x, lr=1.0, amsgrad=True), 3),
        (torch.optim.RMSprop(x, lr=1.0), 1),
    ):
        assert memory._slots(make) == slots


def test_an_estimate_without_a_model_by_hand():
    full = planned(1000)  # bfloat16 weights and their low bits 4, moments 8, two gradients 2 each
    assert (full.weights, full.optimizer, full.gradients) == (4000, 8000, 2000)
    assert full.peak() == 16_000
    assert planned(1000, precision="float32").peak() == 20_000
    assert planned(1000, optimizer="sgd").peak() == 8_000
    assert planned(1000, memory="recompute").peak() == 14_000
    assert planned(1000, activations=500.0).peak() == 16_000  # where g_F will lie
    assert planned(1000, activations=5000.0).peak() == 12_000 + 2000 + 5000
    adapter = planned(10, 1000, adapter=True)
    assert (adapter.weights, adapter.gradients, adapter.optimizer) == (2040, 40, 80)
    assert (stash(7, 3), stash(3, 7)) == (4, 0)


def test_what_is_counted_without_a_model_is_what_the_engine_has():
    x = [torch.nn.Parameter(torch.zeros(3))]
    assert tuple(WIDTH) == PRECISIONS
    assert {name: getattr(torch, name).itemsize for name in WIDTH} == WIDTH
    assert SLOTS.keys() == MAKE.keys()
    assert {name: memory._slots(make(x)) for name, make in MAKE.items()} == SLOTS


def plan(**fields):
    """By hand: 10 bytes of weights, 20 of optimizer, 4 of gradients, 32 of activations in a batch
    of 8 rows, 4 blocks.
    """
    given = {
        "weights": 10,
        "gradients": 4,
        "optimizer": 20,
        "retain": 32,
        "forget": 32,
        "outside": 0.25,
        "layers": 4,
        "line": 0,
    }
    return Footprint(**{**given, **fields})


def test_the_peak_by_hand():
    assert plan().peak() == 30 + 4 + 32  # phase F: the stash and the forget activations
    assert plan(retain=80).peak() == 30 + 80  # phase R
    assert plan(forget=2).peak() == 30 + 32
    assert plan(retain=2, forget=2).peak() == 30 + 8  # both gradients
    assert plan(retain=2, forget=2, memory="recompute").peak() == 30 + 6
    # microbatches accumulate beside their activations
    assert plan(parts=4).peak() == 30 + 4 + 8 + 4
    assert plan(checkpointing=True).peak() == 30 + 4 + round(32 * (0.25 + 0.75 / 4))
    assert plan(retain=2, forget=2, line=12, bucket=3).peak() == 30 + 15
    assert plan(retain=2, forget=2, line=12, bucket=3, look=8).peak() == 30 + 20


def test_what_fits_comes_with_its_flags_the_smallest_change_first():
    found = plan().fitting(50, rows=8)
    # 48, 46 and 42 bytes
    assert [words.split(" (")[0] for words in found] == [
        "--checkpointing",
        "--micro 2",
        "--micro 1",
    ]
    assert plan().fitting(30, rows=8) == []


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
]


@pytest.mark.parametrize("error", ERRORS)
def test_out_of_memory_says_what_would_fit(error, monkeypatch):
    monkeypatch.setattr(memory, "capacity", lambda device: 52)
    with (
        pytest.raises(MemoryError, match=r"What would fit: --(micro|checkpointing)") as told,
        memory.advised(plan(), CPU, 8),
    ):
        raise error
    assert told.value.__cause__ is error and "memory=swap" in str(told.value)


def test_where_nothing_fits_an_adapter_is_named(monkeypatch):
    monkeypatch.setattr(memory, "capacity", lambda device: 1)
    with pytest.raises(MemoryError, match="--lora 16"), memory.advised(plan(), CPU, 8):
        raise torch.OutOfMemoryError


def test_other_errors_pass():
    with pytest.raises(RuntimeError, match="shape"), memory.advised(plan(), CPU, 8):
        raise RuntimeError("shape mismatch")


def test_the_start_of_kl_counts_its_second_copy():
    both = [ng.problem(bench(), model(), batch_size=2).bind(method, 0) for method in (ngdiff, kl)]
    alone, beside = (memory.prepared(made, made.optimizer(), None).weights for made in both)
    assert beside == 2 * alone


def test_a_run_says_the_estimate_and_then_what_happened():
    said = []
    made = ng.problem(bench(), model(), batch_size=4)
    unlearn(made, ngdiff, RATE, 3, watch=memory.Watch(said.append))
    assert (
        len(said) == 2
        and said[0].startswith("  peak memory, estimated: ")
        and "times the estimate" in said[1]
    )
    assert float(re.search(r"([\d.]+) times", said[1])[1]) == pytest.approx(1.0, abs=0.15)


def test_a_run_that_meets_the_limit_says_what_would_fit(monkeypatch):
    made = ng.problem(bench(), model(), batch_size=16)
    monkeypatch.setattr(memory, "capacity", lambda device: 80_000_000)

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(UnlearningStep, "__call__", full)
    with pytest.raises(MemoryError, match=r"for a step: \d+\.\d MB: .* What would fit: --"):
        unlearn(made, ngdiff, RATE, 3, watch=memory.Watch(lambda text: None))
