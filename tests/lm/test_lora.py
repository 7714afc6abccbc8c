"""Adapters: the step on (A, B) is the step on W + (alpha/r)·B·A written out.

The base is shared, frozen, and the start.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace

import peft
import pytest
import torch
from safetensors import safe_open
from torch.func import functional_call

import ngdiff as ng
from ngdiff import methods
from ngdiff.core.autolr import AutoLR
from ngdiff.core.directions import NGDiff
from ngdiff.core.stepsize import Constant
from ngdiff.engine.engine import Engine
from ngdiff.engine.master import Master
from ngdiff.lm import lora
from ngdiff.lm.model import LM, load, save
from ngdiff.methods.objectives import Tokens, start_values
from ngdiff.methods.problem import LMProblem
from ngdiff.methods.start import Starts, kind_of
from ngdiff.theory.twin import twin_direction
from tests.engine.test_engine import weights
from tests.helpers import micro
from tests.methods.test_problem import BENCH

RULE = AutoLR(lr=1e-2, every=3)
SGD = lambda groups: torch.optim.SGD(groups, lr=1.0, momentum=0.5)  # noqa: E731


def base(dtype=torch.float32, **shape):
    lm = micro.lm()
    model = micro._model(lm.tokenizer, 4, num_hidden_layers=2, **shape)
    model = micro.double(model) if dtype == torch.float64 else model.to(dtype)
    return LM(model, lm.tokenizer, lm.prompt, "base")


def adapted(lm=None, r=4, **kw):
    return lora.adapt(lm or base(), r, **kw)


def stirred(lm, size=0.05):
    """An adapter that is no longer fresh."""
    make = torch.Generator().manual_seed(9)
    with torch.no_grad():
        for name, p in lm.model.named_parameters():
            if "lora_B" in name:
                p.add_(size * torch.randn(p.shape, generator=make))
    return lm


def pieces(lm):
    """{'A' | 'B': {module: parameter}}."""
    found = {"A": {}, "B": {}}
    for name, p in lm.model.named_parameters():
        if ".lora_" in name:
            head, tail = name.removeprefix("base_model.model.").split(".lora_")
            found[tail[0]][head] = p
    return found


def go(lm, method=methods.ngdiff, rule=RULE, steps=6, path=None, optimizer=SGD, engine=None, **kw):
    options = {"batch_size": 4} | {k: kw.pop(k) for k in ("micro", "in_place") if k in kw}
    problem = LMProblem(BENCH, lm, engine=engine, **options)
    return ng.unlearn(
        problem, method, rule, steps, optimizer=optimizer, checkpoint=path, save_every=2, **kw
    )


def logits(model, lm):
    examples = [lm.encode(row["question"], row["answer"]) for row in BENCH.forget[:2]]
    with torch.no_grad():
        return [model.eval()(torch.tensor([e.input_ids])).logits for e in examples]


def equal(one, two, tolerance=0.0):
    assert all(
        torch.allclose(x, y, rtol=tolerance, atol=tolerance) for x, y in zip(one, two, strict=True)
    )


# ----------------------------------------------------------------------------------------- the step
@pytest.mark.parametrize("memory", ["swap", "recompute"])
@pytest.mark.parametrize("alpha", [4, 32])
@pytest.mark.parametrize("targets", [["q_proj", "v_proj"], "all-linear"], ids=str)
def test_a_step_is_that_of_the_parametrisation_written_out(targets, alpha, memory):
    """float64, NGDiff on (A, B): gradients through the base model called with W + (alpha/r)·B·A as
    its weights.
    """
    lm = stirred(adapted(base(torch.float64), alpha=alpha, targets=targets))
    lm.model.double()
    plain, parts = base(torch.float64).model, pieces(lm)
    problem = LMProblem(BENCH, lm, batch_size=4, engine=Engine(memory=memory)).bind(
        methods.ngdiff, 0
    )
    params = problem.parameters
    mine = {
        kind: {k: p.detach().clone().requires_grad_() for k, p in parts[kind].items()}
        for kind in "AB"
    }
    own = [p for kind in "AB" for p in mine[kind].values()]

    def loss(batch):
        merged = dict(plain.named_parameters())
        for k in mine["A"]:
            merged[f"{k}.weight"] = (
                merged[f"{k}.weight"].detach() + alpha / 4 * mine["B"][k] @ mine["A"][k]
            )
        out = functional_call(plain, merged, (batch["input_ids"], batch["attention_mask"])).logits
        tokens = Tokens(out, batch["labels"])
        return tokens.nll.sum() / len(tokens.nll)

    (retain,), (forget,) = problem.batch(0)
    d = twin_direction(own, lambda: loss(retain.batch), lambda: loss(forget.batch))
    info = ng.UnlearningStep(
        problem.module, SGD([{"params": params}]), NGDiff(), Constant(0.1), **problem.options
    )(retain, forget)
    after = pieces(problem.model)
    assert info.outcome == "ok" and {id(p) for p in params} == {
        id(p) for kind in "AB" for p in after[kind].values()
    }
    moved = torch.cat(
        [(after[k][m] - mine[k][m]).detach().flatten() for k in "AB" for m in mine[k]]
    )
    assert (moved + 0.1 * d).norm() <= 1e-12 * (0.1 * d).norm()
    assert len(parts["A"]) == {"all-linear": 14}.get(str(targets), 4)


def test_only_the_adapter_moves_and_the_base_is_shared():
    lm = base()
    before = {name: p.detach().clone() for name, p in lm.model.named_parameters()}
    places = {p.data_ptr() for p in lm.model.parameters()}
    start = adapted(lm)
    run = go(start)
    trained = {name for name, p in run.model.model.named_parameters() if p.requires_grad}
    assert trained and all(".lora_" in name for name in trained) and run.model is not start
    frozen = [p for p in run.model.model.parameters() if not p.requires_grad]
    assert {p.data_ptr() for p in frozen} == places  # of the copy that was unlearned too
    wanted = {
        name.replace(".base_layer", "").removeprefix("base_model.model."): p
        for name, p in run.model.model.named_parameters()
        if not p.requires_grad
    }
    assert wanted.keys() == before.keys() and all(torch.equal(wanted[k], before[k]) for k in before)
    assert lora.fresh(start.model) and not lora.fresh(run.model.model)
    moved = [
        not torch.equal(p, q)
        for p, q in zip(pieces(run.model)["B"].values(), pieces(start)["B"].values())
    ]
    assert all(moved)


def test_a_fresh_adapter_answers_as_before_and_is_drawn_from_its_seed():
    lm = base()
    plain, random = logits(lm.model, lm), torch.get_rng_state()
    one, two, other = (pieces(adapted(base(), seed=s))["A"] for s in (0, 0, 1))
    assert torch.equal(random, torch.get_rng_state())
    assert all(torch.equal(one[k], two[k]) and not torch.equal(one[k], other[k]) for k in one)
    equal(logits(adapted(lm).model, lm), plain)


def test_unlearning_through_the_adapter_unlearns():
    run = go(adapted(), rule=Constant(0.5), steps=20)
    first, last = run.history[0], run.history[-1]
    # of random weights
    assert (
        last.forget - last.retain > first.forget - first.retain + 0.2 and last.retain < first.retain
    )


@pytest.mark.parametrize("memory", ["swap", "recompute"])
@pytest.mark.parametrize("options", [{"checkpointing": True}, {"precision": "float32"}], ids=repr)
def test_engines_change_nothing(options, memory):
    one, two = (go(adapted(), engine=Engine(memory=memory, **kw)) for kw in ({}, options))
    assert repr(one.history) == repr(two.history) and torch.equal(weights(one), weights(two))


def test_bfloat16_rounds_the_base_and_keeps_adapters_in_float32():
    problem = LMProblem(BENCH, adapted(), engine=Engine(precision="bfloat16"), batch_size=4).bind(
        methods.ngdiff, 0
    )
    assert not isinstance(problem.optimizer(), Master)
    kinds = {p.requires_grad: p.dtype for p in problem.module.parameters()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}
    plain, coarse = (
        go(adapted(), rule=Constant(0.1), engine=Engine(precision=p)) for p in (None, "bfloat16")
    )
    assert [i.retain for i in coarse.history] == pytest.approx(
        [i.retain for i in plain.history], rel=0.02
    )


# ---------------------------------------------------------------------------------------- the start
@pytest.mark.parametrize(
    ("method", "kind"), [(methods.npo, "nll"), (methods.kl, "logp")], ids=lambda x: str(x)[:4]
)
@pytest.mark.parametrize("in_place", [False, True])
def test_start_values_are_those_of_the_base_model(method, kind, in_place):
    """Asked in the middle of a run, when the adapter has moved: it is switched off for it."""
    lm, plain = adapted(), base()
    problem = LMProblem(BENCH, lm, batch_size=4, in_place=in_place).bind(method, 0)
    stirred(problem.model)
    seen = 0
    for t in range(3):
        for loss in (
            part for phase in problem.batch(t) for part in phase if part.start is not None
        ):
            with torch.no_grad():
                out = plain.model(loss.batch["input_ids"], loss.batch["attention_mask"]).logits
            torch.testing.assert_close(
                loss.start,
                torch.cat(start_values(kind, Tokens(out, loss.batch["labels"]))),
                rtol=1e-5,
                atol=1e-5,
            )
            with torch.no_grad():
                now = problem.module(loss.batch["input_ids"], loss.batch["attention_mask"]).logits
            assert (now - out).abs().max() > 0.01  # the adapter is on again
            seen += 1
    assert seen == 3 and (problem.model is lm) == in_place


@pytest.mark.parametrize(
    "method", [methods.npo, methods.kl, methods.ngdiff_kl], ids=lambda m: m.name
)
def test_the_start_with_the_adapter_off_gives_the_run_of_a_start_beside_it(method, monkeypatch):
    """In float64: the start's values are rounded in batches here and row by row there."""

    def run():
        lm = adapted(base(torch.float64))
        lm.model.double()  # the adapter too
        return go(lm, method=method, rule=Constant(0.05))

    one = run()
    monkeypatch.setattr(Starts, "ask", beside := _beside(base(torch.float64)))
    two = run()
    assert beside.asked and [i.retain for i in one.history] == pytest.approx(
        [i.retain for i in two.history], rel=1e-10, abs=1e-10
    )
    assert (weights(one) - weights(two)).norm() <= 1e-10 * weights(two).norm()


def _beside(start):
    """`Starts.ask` by a model of its own, row by row."""

    def ask(self, lm, objective, chosen, forget, many, collated):
        ask.asked = True
        for i in chosen:
            batch = collated([i])
            with torch.no_grad():
                out = start.model.eval()(batch["input_ids"], batch["attention_mask"]).logits
            self.values[kind_of(objective), i, forget] = start_values(
                objective.start, Tokens(out, batch["labels"])
            )[0]

    ask.asked = False
    return ask


@pytest.mark.parametrize("method", [methods.npo, methods.kl], ids=lambda m: m.name)
def test_a_trained_adapter_is_refused_as_its_own_start(method):
    lm = stirred(adapted())
    with pytest.raises(ValueError, match=r"the adapter has been trained already.*merge_and_unload"):
        go(lm, method=method)
    assert go(lm, steps=1).history[0].updated  # NGDiff needs no start
    merged = replace(lm, model=lm.model.merge_and_unload())
    assert go(adapted(merged), method=method, steps=1).history[0].updated


# ----------------------------------------------------------------------------------------- refusals
def test_adapting_twice_is_refused():
    with pytest.raises(ValueError, match=r"has an adapter already: merge it"):
        lora.adapt(adapted())


@pytest.mark.parametrize(
    ("targets", "kinds"),
    [
        (
            "all-linear",
            {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"},
        ),
        (["q_proj"], {"q_proj"}),
        (("down_proj", "o_proj"), {"down_proj", "o_proj"}),
    ],
    ids=["all-linear", "one", "two"],
)
def test_targets_are_modules_by_name(targets, kinds):
    lm = adapted(targets=targets, r=3)
    assert {name.split(".")[-1] for name in pieces(lm)["A"]} == kinds
    assert all(p.shape[0] == 3 for p in pieces(lm)["A"].values())


def test_an_unknown_target_is_refused_and_leaves_the_model_as_it_was():
    lm = base()
    with pytest.raises(ValueError, match="nothing_proj"):
        lora.adapt(lm, targets=["nothing_proj"])
    assert not lm.adapted and all(p.requires_grad for p in lm.model.parameters())


# ------------------------------------------------------------------------------------------ on disk
@pytest.fixture
def saved(tmp_path):
    """(the base as loaded from its folder, an adapter trained on it, the adapter's folder)."""
    save(base(), tmp_path / "base")
    lm = load(tmp_path / "base")
    run = go(adapted(lm), rule=Constant(0.5), steps=3)
    return lm, run.model, save(run.model, tmp_path / "adapter")


def test_a_saved_adapter_is_peft_s_own(saved, tmp_path):
    lm, model, folder = saved
    names = {f.name for f in folder.iterdir()}
    assert {
        "adapter_config.json",
        "adapter_model.safetensors",
    } <= names and "model.safetensors" not in names
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["peft_type"]) == (4, 32, "LORA")
    assert config["base_model_name_or_path"] == str(tmp_path / "base")
    with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
        keys = file.keys()
        assert all("lora_" in key for key in keys)
    wanted = logits(model.model, model)
    assert max((x - y).abs().max() for x, y in zip(wanted, logits(base().model, lm))) > 0.01
    theirs = peft.PeftModel.from_pretrained(base().model, folder)
    ours = load(folder)
    equal(logits(theirs, lm), wanted)
    equal(logits(ours.model, lm), wanted)
    assert (
        ours.adapted
        and ours.prompt == model.prompt
        and ours.path == folder
        and ours.name == model.name
    )
    assert {p.requires_grad for n, p in ours.model.named_parameters() if "lora_" in n} == {True}
    assert not any(p.requires_grad for n, p in ours.model.named_parameters() if "lora_" not in n)


def test_a_loaded_adapter_trains_on_and_saves_again(saved, tmp_path):
    _, model, folder = saved
    one, two = go(model, steps=2), go(load(folder), steps=2)
    assert repr(one.history) == repr(two.history)
    save(two.model, folder)
    equal(logits(load(folder).model, model), logits(one.model.model, model))


def test_a_merged_adapter_is_a_plain_model_with_the_same_answers(saved, tmp_path):
    _, model, folder = saved
    wanted = logits(model.model, model)
    merged = LM(load(folder).model.merge_and_unload(), model.tokenizer, model.prompt, "merged")
    assert not merged.adapted
    equal(logits(merged.model, merged), wanted, 1e-5)
    save(merged, tmp_path / "merged")
    assert (tmp_path / "merged" / "model.safetensors").is_file()
    equal(logits(load(tmp_path / "merged").model, merged), wanted, 1e-5)


def test_an_adapter_without_weights_or_base_is_refused(saved):
    _, _, folder = saved
    kept = (folder / "adapter_model.safetensors").rename(folder / "elsewhere")
    with pytest.raises(
        ValueError, match=r"holds no whole adapter: adapter_model\.safetensors is missing"
    ):
        load(folder)
    kept.rename(folder / "adapter_model.safetensors")
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": None}))
    with pytest.raises(
        ValueError,
        match=r"names no base model: add its folder or hub id as base_model_name_or_path",
    ):
        load(folder)


def test_an_adapter_on_a_base_that_lives_in_memory_only_says_so_when_loaded(tmp_path):
    save(adapted(), tmp_path / "adapter")
    with pytest.raises(ValueError, match="names no base model"):
        load(tmp_path / "adapter")


def test_an_adapter_does_not_replace_a_folder_of_other_things(tmp_path):
    (tmp_path / "notes.txt").write_text("kept")
    with pytest.raises(FileExistsError, match="holds files that are no model"):
        save(adapted(), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "kept"


# -------------------------------------------------------------------------------------- checkpoints
class Interrupted(Exception):
    pass


@pytest.mark.parametrize("method", [methods.ngdiff, methods.npo], ids=lambda m: m.name)
@pytest.mark.parametrize("precision", [None, "bfloat16"])
def test_a_checkpoint_holds_the_adapter_alone_and_goes_on_bit_for_bit(tmp_path, method, precision):
    def interrupt(info):
        if info.step == 3:
            raise Interrupted

    path = tmp_path / "run.safetensors"
    kw = {"method": method, "optimizer": None, "engine": Engine(precision=precision)}
    with pytest.raises(Interrupted):
        go(adapted(), path=path, progress=interrupt, **kw)
    with safe_open(path, framework="pt") as file:
        keys = file.keys()
        sizes = {key: math.prod(file.get_slice(key).get_shape()) for key in keys}
    lm = adapted()
    trained = sum(p.numel() for p in lm.model.parameters() if p.requires_grad)
    buffers = sum(b.numel() for b in lm.model.buffers())
    assert sum(size for key, size in sizes.items() if key.startswith(".theta")) == trained + buffers
    # A and B, their two moments, counters and random states
    assert sum(sizes.values()) < 3.5 * trained + 6000
    seen = []
    resumed, whole = go(adapted(), path=path, progress=seen.append, **kw), go(adapted(), **kw)
    assert seen[0].step == 2 and repr(resumed.history) == repr(whole.history)
    assert torch.equal(weights(resumed), weights(whole))


def test_another_rank_is_another_run(tmp_path):
    go(adapted(r=4), path=tmp_path / "run", steps=2)
    with pytest.raises(ValueError, match="belongs to another run"):
        go(adapted(r=5), path=tmp_path / "run", steps=2)


ADAPTERS = {
    "LoRA": lambda: peft.LoraConfig(target_modules=["q_proj"], init_lora_weights=True),
    "DoRA": lambda: peft.LoraConfig(target_modules=["q_proj"], use_dora=True),
    "LoRA and a module": lambda: peft.LoraConfig(
        target_modules=["q_proj"], modules_to_save=["lm_head"]
    ),
    "IA3": lambda: peft.IA3Config(target_modules=["k_proj"], feedforward_modules=[]),
    "LoHa": lambda: peft.LoHaConfig(target_modules=["q_proj"]),
    "OFT": lambda: peft.OFTConfig(target_modules=["q_proj"], oft_block_size=4, r=0),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_point_10_any_adapter_is_fresh_until_it_changes_an_answer(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = peft.get_peft_model(base().copy().model, ADAPTERS[name]())
    model.train()
    assert lora.fresh(model) and model.training
    last = [p for p in model.parameters() if p.requires_grad][-1]
    with torch.no_grad():
        for p in model.parameters():
            if p.requires_grad and name != "LoRA and a module":
                p.add_(0.01)
        if name == "LoRA and a module":  # the adapter's own weights are as they were
            last.add_(0.01 * torch.arange(last.numel()).reshape(last.shape) / last.numel())
    assert not lora.fresh(model)


def test_a_prompt_that_is_trained_cannot_be_switched_off_and_so_is_never_fresh():
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    assert not lora.fresh(peft.get_peft_model(base().copy().model, config))
