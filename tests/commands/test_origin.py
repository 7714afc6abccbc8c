"""OUT is the user's model less the rows: plain transformers finds its dtype, settings and files."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    GenerationConfig,
    MixtralConfig,
    MixtralForCausalLM,
)

from ngdiff.commands import origin
from ngdiff.commands import unlearn as command
from ngdiff.commands.origin import dtypes
from ngdiff.engine.engine import Engine
from ngdiff.lm.model import load
from tests.helpers import micro, own_model
from tests.helpers.own_model import done, go

TEXTS = {
    "README.md": "# My model\r\nmine\n",
    "LICENSE": "Do as you like.\n",
    "NOTICE.txt": "Noted.\n",
    "USE_POLICY.md": "Be nice.\n",
    "chat_template.jinja": "{% for m in messages %}{{ m.content }}\n{% endfor %}",
}
# as some published models have it: greedy, with a temperature
GENERATION = {"do_sample": False, "temperature": 0.6, "eos_token_id": [2], "max_new_tokens": 7}
FAST = ("--stepsize=constant", "--lr=0.02", "--optimizer=sgd", "--steps=2")


def rewritten(model, change):
    """A model's weights after `change` of each."""
    path = model / "model.safetensors"
    tensors = {name: change(name, x) for name, x in load_file(path).items()}
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A folder whose `model` is bfloat16 but for its norms, with files of all kinds beside it."""
    place = own_model.folder(tmp_path_factory.mktemp("given"))
    model = place / "model"
    rewritten(model, lambda name, x: x if "norm" in name else x.bfloat16())
    config = json.loads((model / "config.json").read_text())
    config = {key: value for key, value in config.items() if key != "dtype"}
    (model / "config.json").write_text(json.dumps(config | {"torch_dtype": "bfloat16"}))
    (model / "generation_config.json").write_text(json.dumps(GENERATION))
    for name, text in TEXTS.items():
        (model / name).write_bytes(text.encode())
    shutil.copyfile(place / "forget.jsonl", model / "forget.jsonl")
    (model / "optimizer.pt").write_bytes(b"state")
    return place


PROMPT = "--prompt=Question: {question}\\nAnswer: "  # the folder has a template, and was trained so


def test_plain_transformers_finds_the_same_model(given, tmp_path):
    out, model = tmp_path / "out", given / "model"
    done(given, out, *FAST, PROMPT)
    found, start = (AutoModelForCausalLM.from_pretrained(place) for place in (out, model))
    assert found.dtype == start.dtype == torch.bfloat16
    assert dtypes(out) == dtypes(model) and set(dtypes(out).values()) == {
        torch.bfloat16,
        torch.float32,
    }
    before, after = (place.state_dict() for place in (start, found))
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    settings = [GenerationConfig.from_pretrained(place).to_dict() for place in (out, model)]
    assert settings[0] == settings[1] and settings[0]["max_new_tokens"] == 7
    words = [AutoTokenizer.from_pretrained(place) for place in (out, model)]
    assert words[0].chat_template == words[1].chat_template == TEXTS["chat_template.jinja"]
    assert words[0].get_vocab() == words[1].get_vocab()


def test_files_come_over_byte_for_byte_and_rows_do_not(given, tmp_path):
    out, model = tmp_path / "out", given / "model"
    done(given, out, *FAST, PROMPT)
    names = (*TEXTS, "config.json", "generation_config.json", "tokenizer.json")
    for name in (*names, "tokenizer_config.json"):
        assert (out / name).read_bytes() == (model / name).read_bytes(), name
    assert not (out / "forget.jsonl").exists() and not (out / "optimizer.pt").exists()


def test_a_model_without_generation_settings_gets_none(given, tmp_path):
    model = shutil.copytree(given / "model", tmp_path / "model")
    (model / "generation_config.json").unlink()
    done(given, tmp_path / "out", *FAST, PROMPT, f"--model={model}")
    assert not (tmp_path / "out/generation_config.json").exists()
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").dtype == torch.bfloat16


def test_weights_in_several_files(given, tmp_path):
    model = shutil.copytree(given / "model", tmp_path / "model")
    whole = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float16)
    whole.generation_config = GenerationConfig()
    (model / "model.safetensors").unlink()
    whole.save_pretrained(model, max_shard_size="40KB")
    assert len(list(model.glob("model-*.safetensors"))) > 1
    done(given, tmp_path / "out", *FAST, PROMPT, f"--model={model}")
    assert set(dtypes(tmp_path / "out").values()) == {torch.float16}


def test_weights_get_their_dtype_on_the_host_and_frozen_ones_their_value(given, tmp_path):
    """Under bfloat16 the engine rounds what a method does not train: the file has it whole."""
    model = shutil.copytree(given / "model", tmp_path / "model")
    rewritten(model, lambda name, x: x.float() + 2**-12 if "norm" in name else x)
    start, lm = load_file(model / "model.safetensors"), load(model)
    for name, p in lm.model.named_parameters():
        p.requires_grad_("norm" not in name)
    low = Engine(device="cpu", precision="bfloat16").prepare(lm.model)[1]
    frozen = {name for name, p in lm.model.named_parameters() if p not in low}
    assert frozen and not torch.equal(
        lm.model.model.norm.weight.float(), start["model.norm.weight"]
    )
    after = origin.as_given(lm.model.state_dict(), lm, model, None)
    assert after.keys() == start.keys()
    for name, x in after.items():
        assert x.dtype == start[name].dtype and torch.equal(x, start[name]), name


def test_an_adapter_keeps_its_dtype(given, tmp_path):
    """Its parameters have the adapter's name in theirs, its file has not."""
    result = go(given, tmp_path / "one", *FAST, PROMPT, "--lora=2")
    assert result.exit_code in own_model.VERDICTS, result.output + repr(result.exception)
    path = tmp_path / "one/adapter_model.safetensors"
    mixed = {k: x.half() if "lora_A" in k else x for k, x in load_file(path).items()}
    save_file(mixed, path, metadata={"format": "pt"})
    done(given, tmp_path / "two", *FAST, PROMPT, f"--model={tmp_path / 'one'}")
    assert dtypes(tmp_path / "two") == dtypes(tmp_path / "one")
    assert set(dtypes(tmp_path / "two").values()) == {torch.float16, torch.float32}


def _composite():
    """A text model inside one with images, whose files have other names."""
    config = AutoConfig.for_model("qwen3_5")
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2, "head_dim": 16}
    sizes |= {"num_hidden_layers": 2, "num_key_value_heads": 1, "vocab_size": 64}
    sizes |= {"linear_num_value_heads": 2, "linear_num_key_heads": 2, "pad_token_id": None}
    sizes |= {"linear_key_head_dim": 16, "linear_value_head_dim": 16}
    seen = {"depth": 1, "hidden_size": 16, "num_heads": 2, "intermediate_size": 16}
    for part, values in (
        (config.text_config, sizes | {"layer_types": ["linear_attention", "full_attention"]}),
        (config.vision_config, seen | {"out_hidden_size": 32}),
    ):
        for key, value in values.items():
            setattr(part, key, value)
    return AutoModelForImageTextToText.from_config(config)


def _experts():
    """A mixture of experts: one tensor in the model, two an expert in the files."""
    sizes, _ = micro.shapes(64)
    return MixtralForCausalLM(MixtralConfig(**sizes, num_key_value_heads=1, num_local_experts=2))


@pytest.mark.parametrize("make", [_composite, _experts])
def test_models_whose_files_have_other_names(tmp_path, make):
    make().bfloat16().save_pretrained(tmp_path / "model")
    # as such models are published: little of it in float32
    exact = ("A_log", "norm", ".gate.")
    rewritten(
        tmp_path / "model",
        lambda name, x: x.float() + 2**-12 if any(one in name for one in exact) else x,
    )
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", dtype=torch.float32)
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.requires_grad_("norm" not in name)
            if not p.requires_grad:
                p.copy_(p.bfloat16())
    lm = SimpleNamespace(model=model, adapted=False)
    weights = origin.as_given(model.state_dict(), lm, tmp_path / "model", None)
    model.save_pretrained(tmp_path / "out", state_dict=weights)
    before, after = (load_file(tmp_path / n / "model.safetensors") for n in ("model", "out"))
    assert {x.dtype for x in after.values()} == {torch.bfloat16, torch.float32}
    for name, x in after.items():
        assert x.dtype == before[name].dtype and torch.equal(x, before[name]), name


def test_tied_weights_stay_tied(given):
    lm = load(given / "model")
    lm.model.config.tie_word_embeddings = True
    lm.model.lm_head.weight = lm.model.model.embed_tokens.weight
    after = origin.as_given(lm.model.state_dict(), lm, given / "model", None)
    assert after["lm_head.weight"] is after["model.embed_tokens.weight"]
    assert after["lm_head.weight"].dtype == torch.bfloat16


def test_a_model_of_the_hub_brings_its_texts_of_the_loaded_revision(given, tmp_path, monkeypatch):
    """Loading it fetched config and weights; its texts are fetched by name."""
    snapshot, out = tmp_path / "snapshots/0123abc", tmp_path / "out"
    snapshot.mkdir(parents=True)
    out.mkdir()
    shutil.copyfile(given / "model/config.json", snapshot / "config.json")
    shutil.copyfile(given / "model/config.json", out / "config.json")

    def fetched(place, name, revision):
        assert place == "acme/tiny" and revision == "0123abc"
        if name not in TEXTS:
            raise OSError(f"{place} has no {name}")
        (snapshot / name).write_bytes(TEXTS[name].encode())

    monkeypatch.setattr(origin, "cached_file", fetched)
    cached = {"config.json": str(snapshot / "config.json")}
    monkeypatch.setattr(origin, "try_to_load_from_cache", lambda place, name: cached.get(name))
    assert origin.fetched("acme/tiny") == snapshot
    monkeypatch.setattr(origin, "cached_file", None)  # nothing is fetched after the run
    origin.carry_over(snapshot, out, fresh_adapter=False)
    names = sorted(path.name for path in out.iterdir())
    assert names == ["LICENSE", "README.md", "USE_POLICY.md", "config.json"]
    assert (out / "README.md").read_bytes() == TEXTS["README.md"].encode()


def test_texts_are_fetched_before_the_first_step(given, tmp_path, monkeypatch):
    order = []
    place, steps = command.fetched, command.unlearn
    monkeypatch.setattr(command, "fetched", lambda at: order.append("texts") or place(at))
    monkeypatch.setattr(command, "unlearn", lambda *a, **k: order.append("steps") or steps(*a, **k))
    done(given, tmp_path / "out", *FAST, PROMPT)
    assert order == ["texts", "steps"]


def test_code_and_texts_are_those_that_the_model_needs(tmp_path):
    """Not a training script, and no rows whose name has a licence in it."""
    model, out = tmp_path / "model", tmp_path / "out"
    out.mkdir()
    model.mkdir()
    code = ["modeling_x.Model", "configuration_x.Config", "acme/other--far.Model"]
    maps = {"AutoModel": code[0], "AutoConfig": code[1], "AutoTokenizer": code[2]}
    words = {"auto_map": {"AutoTokenizer": ["words.Slow", None]}}
    for name, config in (("config.json", {"auto_map": maps}), ("tokenizer_config.json", words)):
        (model / name).write_text(json.dumps(config))
    (model / "modeling_x.py").write_text("from .layers import Layer\n")
    kept = {"modeling_x.py", "configuration_x.py", "words.py", "layers.py"}
    texts = {"LICENSE", "License-MIT.txt", "README.rst", "CITATION.cff", "Notice.html"}
    others = {"train.py", "far.py", "license_rows.jsonl", "readme.parquet", "notices.csv"}
    for name in (kept | texts | others) - {"modeling_x.py"}:
        (model / name).write_text("\n")
    origin.carry_over(model, out, fresh_adapter=False)
    assert {path.name for path in out.iterdir()} == kept | texts
    (model / "config.json").write_text("{}")
    (model / "tokenizer_config.json").unlink()
    shutil.rmtree(out)
    out.mkdir()
    origin.carry_over(model, out, fresh_adapter=False)
    assert {path.name for path in out.iterdir()} == texts


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"model_type": "acme", "text_config": {"model_type": "llama"}}, "model_type"),
        ({"quantization_config": {"quant_method": "fp8"}}, "quantization_config"),
    ],
)
def test_a_config_that_does_not_describe_the_weights_is_left(given, tmp_path, capsys, change, word):
    model, out = shutil.copytree(given / "model", tmp_path / "model"), tmp_path / "out"
    shutil.copytree(given / "model", out)
    config, path = json.loads((model / "config.json").read_text()), out / "config.json"
    saved = {key: value for key, value in config.items() if key != "torch_dtype"}
    path.write_text(json.dumps(saved | {"dtype": "float32"}))
    (model / "config.json").write_text(json.dumps(config | change))
    origin.carry_over(model, out, fresh_adapter=False)
    assert json.loads(path.read_text()) == saved | {"dtype": "bfloat16"}
    assert f"config.json is the saved model's: {word} of the given" in capsys.readouterr().err
    assert AutoModelForCausalLM.from_pretrained(out).dtype == torch.bfloat16


def test_a_file_that_cannot_be_copied_is_named(given, tmp_path, monkeypatch, capsys):
    out = shutil.copytree(given / "model", tmp_path / "out")
    (out / "LICENSE").unlink()

    def copied(source, target):
        raise PermissionError("not yours")

    monkeypatch.setattr(origin.shutil, "copyfile", copied)
    origin.carry_over(given / "model", out, fresh_adapter=False)
    assert f"{given / 'model/LICENSE'} is not copied: not yours" in capsys.readouterr().err
    assert not (out / "LICENSE").exists() and load(out)


def test_an_adapter_has_the_licence_and_a_card_of_its_own(given, tmp_path):
    result = go(given, tmp_path / "out", *FAST, PROMPT, "--lora=2")
    assert result.exit_code in own_model.VERDICTS, result.output + repr(result.exception)
    out = tmp_path / "out"
    assert (out / "LICENSE").read_text() == TEXTS["LICENSE"]
    assert "after unlearning" in (out / "README.md").read_text()
    assert not (out / "config.json").exists() and (out / "adapter_config.json").is_file()
    # trained on, it stays as it is
    (out / "README.md").write_text("My adapter.\n")
    assert done(given, tmp_path / "on", *FAST, PROMPT, f"--model={out}")
    assert (tmp_path / "on/README.md").read_text() == "My adapter.\n"
    assert dtypes(tmp_path / "on") == dtypes(out)
