"""Where a run computes does not change what it computes.

Asked of precisions, memory modes, checkpointing and compiled blocks.
"""

from __future__ import annotations

import copy
import json
import math
import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
import transformers
from safetensors import safe_open
from torch import nn

import ngdiff as ng
from ngdiff import methods
from ngdiff.core.autolr import AutoLR, ThreePoint
from ngdiff.core.checkpoint import load
from ngdiff.core.directions import NGDiff
from ngdiff.core.step import UnlearningStep
from ngdiff.core.stepsize import Constant
from ngdiff.data.benchmark import Benchmark
from ngdiff.engine.engine import Engine, blocks
from ngdiff.engine.master import Master
from ngdiff.lm.model import LM
from ngdiff.methods.problem import LMProblem
from tests.helpers import killed, micro
from tests.methods.test_problem import BENCH, rows

PLAIN = Engine()
SGD = lambda groups: torch.optim.SGD(groups, lr=1.0, momentum=0.5)  # noqa: E731
RULE = AutoLR(lr=1e-2, every=3)


def target(dropout=0.0, layers=2, dtype=torch.float32):
    """A Llama of two layers; weights of float32 that are no bfloat16."""
    lm = micro.lm()
    made = LM(
        micro._model(lm.tokenizer, 3, num_hidden_layers=layers),
        lm.tokenizer,
        lm.prompt,
        "two layers",
    )
    for layer in made.model.model.layers:
        layer.self_attn.attention_dropout = dropout
    micro.double(made.model) if dtype == torch.float64 else made.model.to(dtype)
    return made


def go(
    engine=PLAIN,
    path=None,
    lm=None,
    steps=6,
    method=methods.ngdiff,
    optimizer=SGD,
    rule=RULE,
    seed=0,
    **kw,
):
    options = {"batch_size": 4, "dropout": False} | {
        k: kw.pop(k) for k in ("micro", "dropout", "in_place") if k in kw
    }
    problem = LMProblem(BENCH, lm or target(), engine=engine, **options)
    torch.manual_seed(7)
    return ng.unlearn(
        problem, method, rule, steps, seed, optimizer=optimizer, checkpoint=path, save_every=2, **kw
    )


def weights(run):
    return torch.cat([p.detach().double().flatten() for p in run.model.model.parameters()])


def same(one, two):
    assert repr(one.history) == repr(two.history) and one.stopped == two.stopped
    states = [run.model.model.state_dict() for run in (one, two)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(x, y) for x, y in zip(*(state.values() for state in states)))


@pytest.fixture(scope="module")
def plain():
    return go()


def apart(one, two):
    """Largest relative difference of norms and rates, and of the weights' way."""
    numbers = [
        [x for i in run.history for x in (i.norm_R, i.norm_F, i.eta, i.retain)]
        for run in (one, two)
    ]
    start = torch.cat([p.detach().double().flatten() for p in target().model.parameters()])
    way = (weights(two) - weights(one)).norm() / (weights(one) - start).norm()
    return max(abs(x - y) / abs(x) for x, y in zip(*numbers)), way.item()


# ------------------------------------------------------------------------------------- the same run
EXACT = {
    "on the CPU": Engine(device="cpu"),
    "auto": Engine(device="auto"),
    "float32": Engine(precision="float32"),
    "checkpointing": Engine(checkpointing=True),
}


@pytest.mark.parametrize("name", EXACT)
def test_these_engines_change_no_bit(name, plain, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    run = go(EXACT[name])
    same(run, plain)
    assert [info.stepsize for info in plain.history] == [
        "accepted",
        "held",
        "held",
    ] * 2 or plain.history[0].updated


@pytest.mark.parametrize("memory", ["swap", "recompute"])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("micro", [None, 2])
def test_checkpointing_changes_no_bit_whatever_else_is_on(memory, dropout, micro):
    kw = {"micro": micro, "dropout": dropout > 0, "steps": 4}
    on, off = (
        go(Engine(memory=memory, checkpointing=checkpointing), lm=target(dropout), **kw)
        for checkpointing in (True, False)
    )
    same(on, off)


@pytest.mark.parametrize("micro", [None, 2])
def test_recompute_is_the_same_run(micro):
    """In float64: what a second backward rounds otherwise is 1e-16 of a gradient, grown by the
    quotient that is η*.
    """
    swap, again = (
        go(Engine(memory=m), lm=target(dtype=torch.float64), micro=micro)
        for m in ("swap", "recompute")
    )
    numbers, way = apart(swap, again)
    assert numbers < 1e-12 and way < 1e-12


def test_recompute_with_dropout_draws_the_masks_of_swap():
    runs = [
        go(Engine(memory=m), lm=target(0.5, dtype=torch.float64), dropout=True)
        for m in ("swap", "recompute")
    ]
    assert max(apart(*runs)) < 1e-9
    assert apart(runs[0], go(lm=target(dtype=torch.float64)))[1] > 0.01  # dropout was on


def by_hand(engine, rate, steps):
    """(history, the way of the exact weights): the loop written out, for who wants to see the
    optimizer.
    """
    problem = LMProblem(BENCH, target(), engine=engine, batch_size=4).bind(methods.ngdiff, 0)
    optimizer = problem.optimizer(SGD)
    step = UnlearningStep(problem.module, optimizer, NGDiff(), Constant(rate), **problem.options)
    exact = getattr(optimizer, "exact", lambda: [p.detach().clone() for p in problem.parameters])
    start = exact()
    history = [step(*problem.batch(t)) for t in range(steps)]
    return history, torch.cat([(x - y).double().flatten() for x, y in zip(exact(), start)])


@pytest.mark.parametrize("memory", ["swap", "recompute"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_bfloat16_is_the_same_run_but_for_the_rounding_of_its_forwards(memory, checkpointing):
    """bfloat16 errs by 2⁻⁹ a number. Each number passes about 80 roundings, forth and back through
    two layers; as chance adds them up that is √80·2⁻⁹ of a loss, norm or unit vector, and five
    steps let it grow: by four at most."""
    rough = 80**0.5 * 2**-9  # 1.7 %
    engine = Engine(precision="bfloat16", memory=memory, checkpointing=checkpointing)
    (one, way), (two, ours) = (by_hand(e, 0.05, 5) for e in (PLAIN, engine))
    numbers = [
        [x for i in history for x in (i.norm_R, i.norm_F, i.retain, i.forget)]
        for history in (one, two)
    ]
    first = [abs(x - y) / abs(x) for x, y in zip(*(n[:4] for n in numbers))]
    off = ((ours - way).norm() / way.norm()).item()
    assert max(first) < rough and off < 4 * rough
    assert numbers[1] == pytest.approx(numbers[0], rel=4 * rough)


def test_a_bfloat16_run_with_probes_unlearns():
    run = go(Engine(precision="bfloat16"), steps=12)
    first, last = run.history[0], run.history[-1]
    assert run.stopped == "steps" and all(info.forwards > 0 for info in run.history)
    assert last.forget > first.forget + 0.5 and {p.dtype for p in run.model.model.parameters()} == {
        torch.bfloat16
    }


@pytest.mark.skipif(shutil.which("g++") is None, reason="compiled blocks need a compiler")
@pytest.mark.slow
def test_compiled_blocks_are_the_same_run(plain):
    run = go(Engine(compile=True))
    numbers, way = apart(plain, run)
    assert numbers < 1e-4 and way < 1e-4


def test_compile_asks_for_every_block_and_nothing_else(monkeypatch):
    asked = Counter()
    monkeypatch.setattr(
        nn.Module, "compile", lambda self, *a, **k: asked.update([type(self).__name__])
    )
    go(Engine(compile=True), steps=1)
    assert asked == {"LlamaDecoderLayer": 2}


@pytest.mark.parametrize("checkpointing", [False, True])
def test_checkpointing_computes_each_block_twice_and_probes_once(monkeypatch, checkpointing):
    lm, calls = target(), []
    block = type(lm.model.model.layers[0])
    real = block.forward
    monkeypatch.setattr(
        block,
        "forward",
        lambda self, *a, **k: (calls.append(torch.is_grad_enabled()), real(self, *a, **k))[1],
    )
    run = go(Engine(checkpointing=checkpointing), lm=lm, rule=ThreePoint(), steps=1)
    trained, looked = calls.count(True), calls.count(False)
    assert trained == 2 * 2 * (1 + checkpointing) and looked == 2 * run.history[0].forwards > 0


# --------------------------------------------------------------------------------------- precisions
def test_bfloat16_keeps_every_bit_of_the_start():
    lm, engine = target(), Engine(precision="bfloat16")
    problem = LMProblem(BENCH, lm, engine=engine).bind(methods.ngdiff, 0)
    optimizer = problem.optimizer()
    assert isinstance(optimizer, Master) and isinstance(optimizer.inner, torch.optim.AdamW)
    assert all(
        torch.equal(x, p) for x, p in zip(optimizer.exact(), lm.model.parameters(), strict=True)
    )
    lost = [
        torch.equal(p.float(), q)
        for p, q in zip(problem.parameters, lm.model.parameters())
        if p.dim() > 1
    ]
    assert not any(lost)  # the rounded weights are not the start
    assert {p.dtype for p in lm.model.parameters()} == {torch.float32}  # the target is as it was


def test_tied_weights_are_rounded_once_and_stay_tied():
    lm = micro.lm()
    lm = LM(
        micro._model(lm.tokenizer, 3, tie_word_embeddings=True), lm.tokenizer, lm.prompt, "tied"
    )
    run = go(Engine(precision="bfloat16"), lm=lm, steps=2)
    assert run.model.model.lm_head.weight is run.model.model.model.embed_tokens.weight
    assert run.model.model.lm_head.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("precision", [None, "float32", "bfloat16"])
@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])
def test_what_precision_makes_of_trained_and_of_frozen_weights(precision, given):
    lm = target(dtype=given)
    lm.model.get_input_embeddings().requires_grad_(False)
    made = LMProblem(BENCH, lm, engine=Engine(precision=precision)).bind(methods.ngdiff, 0)
    wanted = given if precision is None else getattr(torch, precision)
    assert {p.dtype for p in made.module.parameters()} == {wanted}
    assert isinstance(made.optimizer(), Master) == (precision == "bfloat16")
    assert made.module.get_input_embeddings().weight not in made._low


def test_bfloat16_moves_weights_that_plain_bfloat16_does_not():
    """At a rate of 1e-6 every exact weight moves, and hardly a rounded one.

    Weights rounded outright stand still.
    """
    small = lambda groups: torch.optim.SGD(groups, lr=1e-6)  # noqa: E731
    problem = LMProblem(BENCH, target(), engine=Engine(precision="bfloat16"), batch_size=4).bind(
        methods.ngdiff, 0
    )
    optimizer = problem.optimizer(small)
    step = UnlearningStep(problem.module, optimizer, NGDiff(), **problem.options)
    before, rounded = optimizer.exact(), [p.detach().clone() for p in problem.parameters]
    for t in range(3):
        assert step(*problem.batch(t)).updated
    moved = (
        torch.cat([(x != y).flatten() for x, y in zip(optimizer.exact(), before)]).float().mean()
    )
    shown = (
        torch.cat([(x != y).flatten() for x, y in zip(problem.parameters, rounded)]).float().mean()
    )
    assert moved > 0.2 and shown < 0.02  # most rows of the embedding have no gradient


def test_an_engine_in_bfloat16_is_another_problem():
    assert repr(LMProblem(BENCH, micro.lm(), engine=Engine(precision="bfloat16"))) != repr(
        LMProblem(BENCH, micro.lm())
    )


# ------------------------------------------------------------------------------------- microbatches
def losses(problem):
    problem.module.zero_grad()
    found = []
    for phase in problem.batch(0):
        parts = [part().sum() for part in phase]
        sum(parts).backward()
        found.append(sum(part.item() for part in parts))
    return found, torch.cat([p.grad.double().flatten() for p in problem.parameters])


LONG = Benchmark(
    "long", "forget", {"forget": rows("Ann", 8), "retain": rows("Ben", 16)}, [], {"name": "long"}
)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
@pytest.mark.parametrize(
    "method", [methods.ngdiff, methods.ngdiff_npo, methods.kl, methods.simnpo], ids=lambda m: m.name
)
def test_eight_microbatches_of_one_are_one_of_eight(method, dtype, tolerance):
    lm, moved = target(dtype=dtype), []
    for micro_size in (8, 4, 1):
        problem = LMProblem(LONG, lm, batch_size=8, micro=micro_size).bind(method, 0)
        with torch.no_grad():
            for k, p in enumerate(problem.parameters):  # away from the start, where KL is zero
                p.mul_(1 + 0.05 * math.cos(k))
        moved.append(losses(problem))
    (whole, g), *cut = moved
    for found, h in cut:
        assert (
            found == pytest.approx(whole, rel=tolerance) and (h - g).norm() <= tolerance * g.norm()
        )


def test_rows_of_like_length_share_a_forward():
    problem = LMProblem(LONG, target(), batch_size=8, micro=2).bind(methods.ngdiff, 0)
    for step in range(3):
        for phase, examples, forget in zip(
            problem.batch(step), (problem.retain, problem.forget), (False, True)
        ):
            lengths = [len(examples[i]) for i in problem._take(step, forget)]
            pairs = [lengths[i : i + 2] for i in range(0, 8, 2)]
            drawn = sum(2 * max(pair) for pair in pairs)  # in the order of the draw
            sizes = [part.batch["input_ids"].shape for part in phase]
            assert [rows for rows, _ in sizes] == [2] * 4
            columns = [time for _, time in sizes]
            assert columns == sorted(columns, reverse=True)  # the longest first
            assert (
                sum(2 * time for time in columns)
                == sum(2 * max(p) for p in zip(*[iter(sorted(lengths))] * 2))
                < drawn
            )


# ------------------------------------------------------------------------------------------ dropout
@pytest.mark.parametrize(
    "engine", [PLAIN, Engine(precision="bfloat16"), Engine(checkpointing=True)], ids=repr
)
@pytest.mark.parametrize("dropout", [True, False])
def test_dropout_is_on_in_training_and_off_in_probes(engine, dropout):
    lm, seen = target(0.5), set()
    lm.model.register_forward_pre_hook(
        lambda module, args: seen.add((module.training, torch.is_grad_enabled()))
    )
    run = go(engine, lm=lm, dropout=dropout, steps=2, rule=AutoLR(lr=1e-2, every=1))
    assert seen == {(dropout, True), (False, False)} and run.model.model.training == dropout
    assert all(info.forwards > 0 for info in run.history)


# --------------------------------------------------------------------------------- where it is done
@pytest.mark.parametrize("precision", [None, "bfloat16"])
def test_in_place_unlearns_the_target_itself(precision):
    lm, start = target(), copy.deepcopy(target().model.state_dict())
    inside = go(Engine(precision=precision), lm=lm, in_place=True)
    assert inside.model is lm
    same(inside, go(Engine(precision=precision), lm=target()))
    assert not torch.equal(lm.model.lm_head.weight.float(), start["lm_head.weight"])
    kept = target()
    other = go(Engine(), lm=kept, method=methods.npo, in_place=True, steps=2)
    assert other.model is not kept  # NPO needs the start as it was
    assert all(torch.equal(x, start[k]) for k, x in kept.model.state_dict().items())


def test_a_single_process_is_alone_and_main():
    engine = Engine()
    assert engine.main and not engine.sharded and engine.place is None
    assert (engine.processes.rank, engine.processes.size) == (0, 1)
    assert Engine(device="cpu").place == torch.device("cpu")


def test_an_engine_is_its_repr():
    engine = Engine(precision="bfloat16", memory="recompute", checkpointing=True)
    assert eval(repr(engine)) == engine and len({engine, Engine(), Engine()}) == 2


SHAPES, GPT = micro.shapes(5000)
MODELS = {
    "Llama": SHAPES,
    "GPT2": GPT,
    "Phi": SHAPES,
    "Falcon": SHAPES,
    "Olmo": SHAPES,
    "Olmo2": SHAPES,
}


@pytest.mark.parametrize("kind", MODELS)
def test_blocks_are_the_transformers_layers(kind):
    """Though the embedding table is larger than all of them."""
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = getattr(transformers, f"{kind}Config")(**MODELS[kind], **ids)
    model = getattr(transformers, f"{kind}{'LMHeadModel' if kind == 'GPT2' else 'ForCausalLM'}")(
        config
    )
    found = blocks(model)
    assert len(found) == 3 and len({type(block) for block in found}) == 1
    assert sum(p.numel() for p in found[0].parameters()) > 16 * 16 * 3  # attention and feed-forward
    before = model.eval()(torch.arange(6)[None]).logits
    Engine(checkpointing=True).prepare(model)
    torch.testing.assert_close(
        model(torch.arange(6)[None], use_cache=False).logits, before, rtol=0, atol=0
    )
    model(torch.arange(6)[None], use_cache=False).logits.sum().backward()
    assert all(p.grad is not None for block in found for p in block.parameters())


def test_a_model_without_a_list_has_no_blocks():
    assert blocks(nn.Linear(2, 2)) == []
    assert (
        len(
            blocks(
                nn.ModuleDict({"few": nn.ModuleList([nn.Linear(9, 9)]), "none": nn.ModuleList()})
            )
        )
        == 1
    )


# ----------------------------------------------------------------------------------------- refusals
@pytest.mark.parametrize("precision", ["float16", "fp16"])
def test_float16_is_refused(precision):
    with pytest.raises(ValueError, match=r"a scaler skips steps unseen: use precision='bfloat16'"):
        Engine(precision=precision)


@pytest.mark.parametrize(
    ("options", "known"),
    [
        ({"precision": "bf16"}, "None, float32, bfloat16"),
        ({"memory": "offload"}, "swap, recompute"),
        ({"sharding": "zero3"}, "shard, replicate"),
    ],
    ids=repr,
)
def test_unknown_names_are_refused_with_the_known_ones(options, known):
    ((name, value),) = options.items()
    with pytest.raises(ValueError, match=f"unknown {name} {value!r}; choose one of: {known}"):
        Engine(**options)


@pytest.mark.parametrize("yes", ["true", "1", "True", "yes"])
def test_deepspeed_and_fsdp1_launches_are_refused_with_what_to_use(monkeypatch, yes):
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", yes)
    with pytest.raises(
        ValueError, match=r"DeepSpeed owns the gradients.*--use_fsdp --fsdp_version 2"
    ):
        Engine()
    monkeypatch.delenv("ACCELERATE_USE_DEEPSPEED")
    monkeypatch.setenv("ACCELERATE_USE_FSDP", yes)
    assert Engine().memory == "swap"
    monkeypatch.setenv("FSDP_VERSION", "1")
    with pytest.raises(ValueError, match=r"launch with --fsdp_version 2"):
        Engine()
    monkeypatch.setenv("FSDP_VERSION", "2")
    assert Engine().memory == "swap"


@pytest.mark.parametrize("scaler", [None, object()])
def test_an_optimizer_with_a_loss_scaler_is_refused(scaler):
    net = nn.Linear(2, 2)
    # accelerate's own asks for a whole Accelerator
    fields = {"optimizer": torch.optim.SGD(net.parameters(), lr=0.1), "scaler": scaler}
    optimizer = type("AcceleratedOptimizer", (), fields)()
    if scaler is None:
        assert UnlearningStep(net, optimizer, NGDiff()).count == 0
    else:
        with pytest.raises(ValueError, match="scaler .*use bfloat16"):
            UnlearningStep(net, optimizer, NGDiff())


def test_adafactor_in_a_master_is_refused_where_the_rule_probes():
    net = nn.Linear(2, 2).bfloat16()
    optimizer = Master(net.parameters(), torch.optim.Adafactor)
    with pytest.raises(ValueError, match="Adafactor's step is not linear in its rate"):
        UnlearningStep(net, optimizer, NGDiff(), AutoLR())
    assert UnlearningStep(net, optimizer, NGDiff(), Constant(0.1)).count == 0


# ----------------------------------------------------------------------------------- stop and go on
ADAMW = lambda groups: torch.optim.AdamW(groups, lr=1e-3)  # noqa: E731
RESUMED = {"engine": Engine(precision="bfloat16"), "optimizer": ADAMW, "steps": 7}


def test_a_killed_bfloat16_run_goes_on_bit_for_bit(tmp_path):
    path = tmp_path / "run.safetensors"
    run = (
        "from tests.engine import test_engine; "
        f"test_engine.go(path={str(path)!r}, **test_engine.RESUMED)"
    )
    script = killed.script(str(Path(__file__).resolve().parents[2]), run, at=3)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    seen = []
    resumed = go(path=path, progress=seen.append, **RESUMED)
    assert seen[0].step == 4  # the checkpoint after step 5 was half written
    same(resumed, go(**RESUMED))
    assert any(info.stepsize != "held" for info in seen)  # with a probe after the resumption


def test_low_bits_are_part_of_a_checkpoint(tmp_path):
    """Two steps so small that the bfloat16 weights of both runs are nearly the start's.

    The low bits tell them apart.
    """
    small = lambda groups: torch.optim.SGD(groups, lr=1e-6)  # noqa: E731
    kw = {"engine": Engine(precision="bfloat16"), "optimizer": small, "rule": Constant(1e-6)}
    go(path=tmp_path / "run", steps=2, **kw)
    problem = LMProblem(BENCH, target(), engine=kw["engine"], batch_size=4).bind(methods.ngdiff, 0)
    optimizer = problem.optimizer(small)
    step = UnlearningStep(problem.module, optimizer, NGDiff(), Constant(1e-6), **problem.options)
    start = optimizer.exact()
    with safe_open(tmp_path / "run", framework="pt") as file:
        name = json.loads(file.metadata()["run"])["name"]
    assert len(load(tmp_path / "run", name, step)) == 2
    moved = torch.cat([(x != y).flatten() for x, y in zip(optimizer.exact(), start)]).float().mean()
    assert moved > 0.2


@pytest.mark.slow  # two compilations
def test_compiled_blocks_run_backward_twice():
    one, two = (
        go(Engine(compile=True, memory=memory), steps=2) for memory in ("swap", "recompute")
    )
    assert apart(one, two) == pytest.approx((0.0, 0.0), abs=1e-3)


@pytest.mark.parametrize(
    "engine", [Engine(precision="bfloat16"), Engine(device="cpu", precision="bfloat16")], ids=repr
)
def test_a_frozen_base_is_left_as_it_was(engine):
    """The copy that is unlearned may not share what it rounds or moves."""
    lm = ng.lora.adapt(target(), 2)
    before = [p.detach().clone() for p in lm.model.parameters()]
    go(engine, lm=lm, steps=1, rule=Constant(1e-3))
    assert all(
        torch.equal(p, q) and p.dtype == q.dtype for p, q in zip(lm.model.parameters(), before)
    )


def test_a_launch_s_mixed_precision_is_not_ignored(monkeypatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(ValueError, match="--mixed_precision no"):
        Engine(precision="bfloat16")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    with pytest.raises(ValueError, match="--precision bfloat16"):
        Engine()
    assert Engine(precision="bfloat16").precision == "bfloat16"


def test_a_run_has_the_same_name_on_every_device():
    from ngdiff.core.loop import _name

    x = [torch.nn.Parameter(torch.ones(2))]
    names = {_name(torch.optim.AdamW(x, lr=1e-3, fused=fused), "start") for fused in (None, True)}
    assert len(names) == 1 and "lr: 0.001" in names.pop()
    assert _name(torch.optim.AdamW(x, lr=1e-3)) != _name(torch.optim.AdamW(x, lr=1e-4))
