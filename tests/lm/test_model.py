"""Folders of models that do not load: each is one error, which says what is wrong."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from ngdiff.lm.lora import adapt
from ngdiff.lm.model import load, save
from tests.helpers import micro


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return save(micro.lm(), tmp_path_factory.mktemp("whole") / "model")


@pytest.fixture
def folder(whole, tmp_path):
    """A copy of the model, to be damaged."""
    return shutil.copytree(whole, tmp_path / "model")


def change(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hidden_size": 64}, r"12 tensors have another shape, such as lm_head\.weight: .320, 32"),
        ({"vocab_size": 100}, r"2 tensors .*\(320, 32\) in the file, \(100, 32\) by the conf"),
        ({"intermediate_size": 16}, "3 tensors have another shape"),
        ({"num_key_value_heads": 1}, "2 tensors have another shape"),
        (
            {"num_attention_heads": 3},
            "cannot be loaded .*not a multiple of the number of attention",
        ),
        ({"hidden_size": "many"}, "cannot be loaded .*expected int"),
        ({"hidden_act": "zilu"}, "cannot be loaded .*zilu"),
        ({"num_hidden_layers": 3}, "18 tensors are missing"),
    ],
)
def test_a_configuration_that_does_not_fit_the_weights(folder, capfd, fields, message):
    change(folder / "config.json", **fields)
    with pytest.raises(ValueError, match=f"model.*{message}"):
        load(folder)
    assert "LOAD REPORT" not in capfd.readouterr().err  # a table of every tensor


def test_tensors_without_a_place_are_named(folder, capfd):
    path = folder / "model.safetensors"
    save_file(load_file(path) | {"spare.weight": torch.zeros(3)}, path, {"format": "pt"})
    load(folder)
    said = capfd.readouterr().err
    assert "1 tensors of the files are not used" in said and "first: spare.weight" in said


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("config.json", '{"a": ' * 9999 + "1" + "}" * 9999, "the model in .* cannot be loaded"),
        ("ngdiff.json", '{"a": ' * 9999 + "1" + "}" * 9999, r"ngdiff\.json is damaged"),
        ("tokenizer.json", "{}", "the tokenizer in .* cannot be loaded"),
        ("generation_config.json", '{"eos_token_id": "x"}', "eos_token_id of generation_config"),
        ("adapter_config.json", "[" * 99999, r"adapter_config\.json is damaged"),
        ("adapter_config.json", "[]", r"adapter_config\.json is damaged"),
    ],
)
def test_files_of_nonsense(folder, name, text, message):
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        load(folder)


def test_an_adapter_of_another_shape(folder, tmp_path):
    save(adapt(load(folder), 4), tmp_path / "adapter")
    change(tmp_path / "adapter/adapter_config.json", r=2)
    with pytest.raises(ValueError, match="the adapter in .* cannot be loaded .*size mismatch"):
        load(tmp_path / "adapter")


def test_special_tokens_beyond_the_embedding(folder):
    own = AutoTokenizer.from_pretrained(folder)
    own.add_special_tokens({"eos_token": "<end>"})
    own.save_pretrained(folder)
    with pytest.raises(ValueError, match="the tokenizer has 321 tokens, the model 320"):
        load(folder)


def test_a_tokenizer_without_eos_says_where_to_name_it(folder):
    change(folder / "tokenizer_config.json", eos_token=None)
    with pytest.raises(ValueError, match="no EOS token.*--tokenizer.*tokenizer_config.json"):
        load(folder).encode("Who?", "Ann")
