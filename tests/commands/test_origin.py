"""OUT is the user's model less the rows: plain transformers finds its dtype, settings and files."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from ngdiff.commands import origin
from ngdiff.commands.origin import dtypes
from tests.helpers import own_model
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


def test_weights_that_were_saved_in_another_dtype_are_cast(given, tmp_path):
    """As those of shards are, which are saved as the exact weights that were trained."""
    out = shutil.copytree(given / "model", tmp_path / "out")
    rewritten(out, lambda name, x: x.float() + 0.25)
    origin.restore_files(out, str(given / "model"))
    assert dtypes(out) == dtypes(given / "model")
    before, after = (load_file(place / "model.safetensors") for place in (given / "model", out))
    for name, x in before.items():
        assert torch.equal(after[name], (x.float() + 0.25).to(x.dtype)), name
    stamp = (out / "model.safetensors").stat().st_mtime_ns
    origin.restore_files(out, str(given / "model"))  # nothing to do
    assert (out / "model.safetensors").stat().st_mtime_ns == stamp


def test_a_model_of_the_hub_brings_its_readme(given, tmp_path, monkeypatch):
    """Loading it fetched config and weights; its texts are asked for by name."""
    snapshot, out = tmp_path / "snapshot", tmp_path / "out"
    snapshot.mkdir()
    out.mkdir()
    shutil.copyfile(given / "model/config.json", snapshot / "config.json")

    def fetched(place, name):
        assert place == "acme/tiny"
        if name not in TEXTS:
            raise OSError(f"{place} has no {name}")
        (snapshot / name).write_bytes(TEXTS[name].encode())

    monkeypatch.setattr(origin, "cached_file", fetched)
    cached = {"config.json": str(snapshot / "config.json")}
    monkeypatch.setattr(origin, "try_to_load_from_cache", lambda place, name: cached.get(name))
    origin.carry_over("acme/tiny", out, fresh_adapter=False)
    names = sorted(path.name for path in out.iterdir())
    assert names == ["LICENSE", "README.md", "USE_POLICY.md", "config.json"]
    assert (out / "README.md").read_bytes() == TEXTS["README.md"].encode()


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
