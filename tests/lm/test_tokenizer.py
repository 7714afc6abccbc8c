"""What is saved is what came, and a saved model is measured as the one that was saved."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from datetime import datetime
from functools import cache
from pathlib import Path

import pytest
import torch
import transformers.utils.chat_template_utils as rendering
from transformers import AutoTokenizer

from ngdiff.data.benchmark import Benchmark
from ngdiff.evaluation.conventions import CONVENTIONS, convention
from ngdiff.evaluation.tofu import evaluate
from ngdiff.lm.chat import SYSTEM, prompt_of
from ngdiff.lm.lora import adapt
from ngdiff.lm.model import load, save
from ngdiff.lm.tokenizer import identity, padding
from tests.helpers import micro, saved


class Tomorrow(datetime):
    @classmethod
    def now(cls):
        return datetime(2031, 7, 3)


@cache
def bench() -> Benchmark:
    """One or two rows of each set but the hold-out, which the tokens of no other differ from."""
    rows = {
        name: rows[: 1 if name[0] in "rw" else 2]
        for name, rows in micro.bench().configs.items()
        if name != "holdout10"
    }
    return replace(micro.bench(), configs=rows)


def measured(lm) -> dict:
    """Everything that each convention makes of a model: reports, and tokens of free texts."""
    found: dict = {}
    for name in ("ngdiff", "tofu", "open-unlearning"):
        report = evaluate(lm, bench(), convention=name, max_new_tokens=4, gradnorm=False)
        found[name] = report.metrics, report.items, {**report.meta, "seconds": 0, "model": ""}
    text = "Ann lives in Oslo. "
    for name, how in CONVENTIONS.items():
        texts = (how.ids(lm, text), how.opening(lm, text), how.document(lm, text))
        reads = how.reply(lm, texts[0]), how.response(lm, texts[0], False)
        rule = how.training()
        found[f"{name}, texts"] = (*texts, *reads, how.stops(lm), rule.padding(lm), how.hidden(lm))
    return found


@pytest.mark.parametrize("name", saved.CASES)
def test_a_copy_gives_the_same_bits_in_every_convention(name, tmp_path, monkeypatch):
    given = saved.folder(name, tmp_path / "given")
    lm = load(given)
    first = measured(lm)
    copy = save(lm, tmp_path / "llama-2-7b-chat")  # a name says nothing
    own = [path.name for path in given.iterdir() if "token" in path.name or "chat" in path.name]
    assert len(own) >= 3
    for file in own:
        assert (copy / file).read_bytes() == (given / file).read_bytes(), file
    monkeypatch.setattr(rendering, "datetime", Tomorrow)
    again = load(copy)
    assert again.prompt == lm.prompt and measured(again) == first
    assert prompt_of(again.tokenizer) == lm.prompt, "nor does our own file beside the weights"


def theirs(own, question: str, answer: str) -> tuple[list[int], list[int]]:
    """open-unlearning's prompt and row of a chat: what the template gives, tokenised as it is."""
    for chat in ([SYSTEM], []):
        chat = [*chat, {"role": "user", "content": question}]
        both = [chat, [*chat, {"role": "assistant", "content": answer}]]
        options = {"date_string": "10 Apr 2025", "tokenize": True, "return_dict": False}
        try:
            asked = own.apply_chat_template(both[0], add_generation_prompt=True, **options)
            row = own.apply_chat_template(both[1], **options)
        except Exception:
            continue
        return list(asked), [*row, *([own.eos_token_id] if row[-1] != own.eos_token_id else [])]
    raise AssertionError("no turn")


@pytest.mark.parametrize("name", [n for n, c in saved.CASES.items() if c.template and n != "clock"])
def test_rows_are_the_templates_tokens(name, tmp_path):
    """With the tokenizer exactly as it was saved: no BOS but the template's, EOS as it stands."""
    lm = load(saved.folder(name, tmp_path))
    own = AutoTokenizer.from_pretrained(tmp_path)
    asked, row = theirs(own, "Where is Ann?", "In Oslo.")
    got = convention("open-unlearning").encode(lm, "Where is Ann?", "In Oslo.")
    assert (got.given, got.input_ids) == (asked, row)
    mine = lm.encode("Where is Ann?", "In Oslo.")
    # ours ends with the answer's end; the template may write more before and behind it
    assert mine.input_ids[:-1] == row[: len(mine) - 1] and mine.input_ids[-1] in row
    text = own.decode([t for t in mine.labels if t >= 0][:-1]).strip().lower()
    assert text == "in oslo.", "all of the answer and nothing else is learned"


@pytest.mark.parametrize(
    ("name", "hidden"),
    [("plain", "<pad>"), ("phi-3", "</s>"), ("llama-3", "<|end|>"), ("mistral", "</s>")],
)
def test_padding_is_settled_by_no_one_before_a_convention_reads_it(name, hidden, tmp_path):
    """Padded with EOS, or without padding: open-unlearning's mask hides each EOS."""
    lm = load(saved.folder(name, tmp_path))
    ids = lm.tokenizer.convert_tokens_to_ids
    assert convention("open-unlearning").hidden(lm) == ids(hidden)
    assert lm.pad_id == padding(lm.tokenizer) == ids("<pad>") != lm.tokenizer.eos_token_id


@pytest.mark.parametrize("name", ["plain-pad-is-eos", "phi-3", "zephyr", "llama-3-pad-is-eos"])
def test_probabilities_are_those_of_the_original_collator(name, tmp_path):
    """A plain forward of a whole padded batch, its mask hiding every token that is the padding."""
    lm = load(saved.folder(name, tmp_path))
    own = AutoTokenizer.from_pretrained(tmp_path)
    rows = micro.bench().forget[:3]
    report = evaluate(lm, bench(), convention="open-unlearning", generate=False, gradnorm=False)
    for i, row in enumerate(rows[: len(report.items["forget_Q_A_Prob"])]):
        if own.chat_template:
            asked, ids = theirs(own, row["question"], row["answer"])
        else:
            head = f"Question: {row['question']}\nAnswer: "
            asked, ids = own(head)["input_ids"], [*own(head + row["answer"])["input_ids"]]
            ids.append(own.eos_token_id)
        padded = torch.tensor([ids + [own.pad_token_id] * 5])
        with torch.no_grad():
            mask = (padded != own.pad_token_id).long()
            logp = lm.model(padded, attention_mask=mask).logits[0].log_softmax(-1)
        told = [logp[t - 1, ids[t]].item() for t in range(len(asked), len(ids))]
        prob = math.exp(sum(told) / len(told))
        assert report.items["forget_Q_A_Prob"][i]["prob"] == pytest.approx(prob, rel=1e-4)


def test_a_tokenizer_made_here_is_written_for_other_releases_too(tmp_path):
    lm = micro.lm()
    folder = save(replace(lm), tmp_path / "model")
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"  # also what release 4 reads
    again = load(folder)
    assert identity(again.tokenizer) == identity(lm.tokenizer)
    # what was changed since it came is written, not what it came from
    again.tokenizer.pad_token = again.tokenizer.eos_token
    changed = load(save(again, tmp_path / "changed")).tokenizer
    assert changed.pad_token == again.tokenizer.eos_token
    before = (folder / "tokenizer_config.json").read_bytes()
    assert before != (tmp_path / "changed" / "tokenizer_config.json").read_bytes()


def test_a_hub_tokenizer_is_copied_from_the_cache(tmp_path, monkeypatch):
    given = saved.folder("phi-3", tmp_path / "given")
    place = "ngdiff.lm.tokenizer.try_to_load_from_cache"
    monkeypatch.setattr(place, lambda hub_id, name: str(given / name))
    lm = load(given)
    lm.tokenizer.name_or_path = "owner/name"
    copy = save(lm, tmp_path / "copy")
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (copy / file).read_bytes() == (given / file).read_bytes(), file


def test_an_adapter_keeps_the_tokenizer_and_the_prompt_of_its_base(tmp_path):
    """Also where the base has no tokenizer of its own, or was saved with a prompt."""
    given, other = (saved.folder(n, tmp_path / n) for n in ("chatml", "qwen-3"))
    for path in given.iterdir():
        if "token" in path.name or "chat" in path.name:
            path.unlink()
    with pytest.raises(ValueError, match=r"chatml holds no tokenizer: .*--tokenizer"):
        load(given)
    lm = load(given, tokenizer=str(other))
    base = save(replace(lm, prompt=replace(lm.prompt, answer_start="So: ")), tmp_path / "base")
    again = load(save(adapt(lm, 2), tmp_path / "adapter"))
    assert again.prompt == lm.prompt and again.adapted
    assert identity(again.tokenizer) == identity(lm.tokenizer)
    adapter = save(adapt(load(base), 2), tmp_path / "second")
    (adapter / "ngdiff.json").unlink()  # as another tool saves one
    assert load(adapter).prompt.answer_start == "So: "


def test_which_tokenizer_it_is_does_not_hang_on_padding_or_spelling(tmp_path):
    every = {name: identity(saved.tokenizer(case)) for name, case in saved.CASES.items()}
    assert every["llama-3"] == every["llama-3-pad-is-eos"]
    assert len(set(every.values())) > 9
    assert Path(saved.folder("llama-3", tmp_path)).is_dir()
    assert identity(load(tmp_path).tokenizer) == every["llama-3"]
