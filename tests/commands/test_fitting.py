"""Rows that do not fit the model: named together, cut or left out, before anything starts."""

from __future__ import annotations

import json
import shutil

import pytest
from transformers import AutoTokenizer

from ngdiff.commands import origin
from ngdiff.commands.fitting import fitted
from ngdiff.data import files
from ngdiff.lm import tokens
from ngdiff.lm.model import LM, load
from ngdiff.lm.tokens import IGNORE, may_exceed
from ngdiff.methods.problem import LMProblem
from ngdiff.store.rows import write_rows
from tests.helpers import micro, own_model
from tests.helpers.own_model import VERDICTS, go

STEPS = ("--optimizer=sgd", "--stepsize=constant", "--lr=0.02", "--steps=2")
LONG = [{"text": f"{i} is very long " * 30} for i in range(5)]
ASKED = {"question": "very " * 60, "answer": "Yes, it is."}


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """The model, and files with long rows among others."""
    place = own_model.folder(tmp_path_factory.mktemp("given"))
    write_rows(place / "long.jsonl", [micro.bench().forget[0], *LONG, *micro.bench().forget[1:]])
    write_rows(place / "longr.jsonl", [*micro.bench().retain, LONG[0] | {"text": "x" * 200}])
    write_rows(place / "asked.jsonl", [*micro.bench().forget, ASKED])
    return place


def long_of(given, *more, forget="long", retain="longr"):
    return (f"--forget={given / forget}.jsonl", f"--retain={given / retain}.jsonl", *STEPS, *more)


def test_long_rows_are_named_together_and_nothing_is_left(given, tmp_path):
    said = str(go(given, tmp_path / "out", *long_of(given)).exception)
    assert said.startswith("6 rows are longer than the model's context of 96 tokens: ")
    lm = load(given / "model")
    length = len(lm.tokenizer(LONG[0]["text"])["input_ids"]) + 1  # EOS
    assert f"long.jsonl, line 2 ({length} tokens); " in said and said.count("tokens)") == 3
    assert "and 3 more" in said and "--long truncate" in said and "--long skip" in said
    assert list(tmp_path.iterdir()) == []


def test_they_are_left_out_where_that_is_asked_for(given, tmp_path):
    result = go(given, tmp_path / "out", *long_of(given, "--long=skip"))
    assert result.exit_code in VERDICTS, result.output
    assert "6 rows are longer" in result.output and "they are left out" in result.output
    assert "8 forget rows, 3 retain rows" in result.output
    row = json.loads((tmp_path / "out/run.json").read_text())
    assert row["sizes"] == {"forget": 8, "retain": 3} and row["settings"]["long"] == "skip"
    assert go(given, tmp_path / "out", *long_of(given, "--long=skip")).exit_code == 0
    other = str(go(given, tmp_path / "out", *long_of(given, "--long=truncate")).exception)
    assert "long: skip there, truncate here" in other


def test_they_lose_their_end_where_that_is_asked_for(given, tmp_path):
    result = go(given, tmp_path / "out", *long_of(given, "--long=truncate"))
    assert result.exit_code in VERDICTS, result.output
    assert "6 rows are longer" in result.output and "their end is cut off" in result.output
    assert "13 forget rows, 4 retain rows" in result.output
    assert json.loads((tmp_path / "out/run.json").read_text())["after"]


def test_a_cut_row_is_its_first_tokens_and_has_no_end(given):
    lm = load(given / "model")
    bench = files.benchmark(given / "long.jsonl", given / "longr.jsonl")
    assert fitted(bench, lm, "truncate") is bench
    text = LONG[0]["text"]
    example = lm.encode("", text)
    assert example.input_ids == lm.tokenizer(text)["input_ids"][:96] == example.labels
    # a question is not learned
    example = lm.encode("Who? ", "very " * 60)
    assert len(example) == 96 and example.labels.count(IGNORE) == len(example.prompt_ids) > 5
    assert lm.copy().cut and example.input_ids[-1] != lm.tokenizer.eos_token_id


def test_a_question_that_leaves_no_room_for_an_answer_cannot_be_cut(given, tmp_path):
    more = long_of(given, forget="asked", retain="retain")
    said = str(go(given, tmp_path / "out", *more, "--long=truncate").exception)
    assert "1 row is so long before the answer" in said and "asked.jsonl, line 9 (" in said
    assert go(given, tmp_path / "out", *more, "--long=skip").exit_code in VERDICTS


def test_a_set_of_long_rows_alone_is_not_skipped(given, tmp_path):
    write_rows(tmp_path / "f.jsonl", LONG)
    more = (f"--forget={tmp_path / 'f.jsonl'}", *STEPS, "--long=skip")
    assert "no forget row is left" in str(go(given, tmp_path / "out", *more).exception)


def test_another_word_is_refused_before_the_model_is_loaded(given, tmp_path, monkeypatch):
    monkeypatch.setattr(origin, "load", lambda *a, **k: pytest.fail("the model was loaded"))
    said = str(go(given, tmp_path / "out", "--long=cut").exception)
    assert said == "--long takes truncate or skip, not 'cut'"


@pytest.mark.parametrize("name", ["forget", "retain"])
def test_rows_with_tokens_beyond_the_embedding_are_named_together(given, tmp_path, name):
    model = shutil.copytree(given / "model", tmp_path / "model")
    own = AutoTokenizer.from_pretrained(model)
    own.add_tokens(["Ann" if name == "forget" else "Ben", "<spare>"])
    own.save_pretrained(model)
    said = str(go(given, tmp_path / "out", f"--model={model}").exception)
    n = len(getattr(micro.bench(), name))
    assert said.startswith(f"{n} rows have a token that the model does not know ('"), said
    assert f"{name}.jsonl, line 1; " in said and "--tokenizer" in said
    assert not (tmp_path / "out").exists()


# ------------------------------------------------------------------------------------ many rows
@pytest.mark.parametrize(
    "text", ["In Oslo.", "ﷺ" * 9, "東京 " * 9, "Łódź" * 5, "e\u0301" * 20, "\u1e9b\u0323" * 9, ""]
)
def test_a_text_that_is_said_to_fit_fits(text):
    lm = micro.lm()
    n = len(lm.encode("", text + "a"))
    for context in range(4 * n):
        assert may_exceed(text + "a", context) or n <= context
    assert not may_exceed(text, None) and not may_exceed(text, 10_000)


def test_only_rows_that_may_be_long_are_encoded_before_they_are_needed(monkeypatch):
    """Hundreds of thousands of rows start at once."""
    made = []
    real = tokens.encode.__wrapped__

    def seen(*args):
        made.append(args)
        return real(*args)

    monkeypatch.setattr("ngdiff.lm.model.encode", seen)
    lm = LM(micro.lm().model, micro.lm().tokenizer, micro.lm().prompt, "m", limit=200)
    problem = LMProblem(micro.bench(), lm, batch_size=2)
    fitted(micro.bench(), lm, "")
    assert made == []
    problem.batch(0)
    assert len(made) == 4
    problem.batch(0)
    assert len(made) == 4 and len(problem.retain) == 3
    assert [len(e) for e in problem.retain] == [len(e) for e in problem.retain[:]]
    assert problem.retain[-1] == problem.retain[2] and len(made) <= 4 + 3
