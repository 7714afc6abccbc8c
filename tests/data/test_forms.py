"""Training rows as people keep them: read whole, or refused by name."""

from __future__ import annotations

import json
import warnings

import pytest

from ngdiff.data import files, forms

ROW = {"question": "Who?", "answer": "Ann"}
USER, SAYS = {"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ann"}
HUMAN, GPT = {"from": "human", "value": "Who?"}, {"from": "gpt", "value": "Ann"}
READ = {
    "null beside a question": ROW | {"text": None},
    "prompt/completion": {"prompt": "Who?", "completion": "Ann"},
    "turns in prompt/completion": {"prompt": [USER], "completion": [SAYS]},
    "input/output": {"input": "Who?", "output": "Ann"},
    "alpaca": {"instruction": "Who?", "input": "", "output": "Ann"},
    "alpaca without input": {"instruction": "Who?", "output": "Ann"},
    "messages": {"messages": [USER, SAYS]},
    "sharegpt": {"conversations": [HUMAN, GPT]},
}


def save(path, *rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("row", READ.values(), ids=READ)
def test_every_form_gives_the_same_row_and_no_word_is_lost(tmp_path, row):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is unused
        assert files.read(save(tmp_path / "rows.jsonl", row, row)) == [ROW, ROW]
        assert files.read(save(tmp_path / "rows.jsonl", row)) == [ROW]


def test_an_instructions_input_is_part_of_the_question():
    row = {"instruction": "Who is it?", "input": "She sings.", "output": "Ann"}
    assert forms.row(row, "w") == ({"question": "Who is it?\nShe sings.", "answer": "Ann"}, [])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (ROW | {"text": "All."}, "both a document and a question"),
        (ROW | {"completion": "Ben"}, "'completion' belongs to another form: drop one"),
        ({"messages": [USER, SAYS], "prompt": "Who?"}, "'prompt' belongs to another form"),
        ({"messages": [USER, SAYS, USER, SAYS]}, "a chat of the turns user, assistant, user"),
        ({"messages": [{"role": "system", "content": "Sing."}, USER, SAYS]}, "system, user, assis"),
        ({"messages": [USER]}, "a chat of the turns user: a row is one question"),
        ({"messages": "Who?"}, "'messages' is no list of turns"),
        ({"conversations": [HUMAN, GPT | {"value": 3}]}, "'value' is int, not text"),
        ({"prompt": "Who?", "chosen": "Ann", "rejected": "Ben"}, "no 'completion' .its keys: prom"),
        ({"question": "How many?", "answer": 7}, "'answer' is int, not text"),
        ({"question": "How many?", "answer": ["7"]}, "'answer' is list, not text"),
        ({"question": "Who?", "answer": None}, "no 'answer' .its keys: question; null: answer"),
    ],
)
def test_other_rows_are_refused_by_name(tmp_path, row, message):
    with pytest.raises(ValueError, match=rf"rows\.jsonl, line 2[:,] .*{message}"):
        files.read(save(tmp_path / "rows.jsonl", ROW, row))


def test_every_key_that_is_not_used_is_named_with_its_count(tmp_path):
    rows = [ROW | {"context": "A song.", "id": 1}, ROW | {"context": "A tale.", "id": None}, ROW]
    with pytest.warns(UserWarning, match=r"rows\.jsonl: not used.*: context \(2\), id \(1\)$"):
        assert files.read(save(tmp_path / "rows.jsonl", *rows)) == [ROW] * 3
    turn = SAYS | {"weight": 1, "name": None}
    with pytest.warns(UserWarning, match=r"not used.*: messages\.weight \(1\)$"):
        files.read(save(tmp_path / "rows.jsonl", {"messages": [USER, turn]}))


def test_an_empty_document_is_left_out_and_counted(tmp_path):
    path = save(tmp_path / "rows.jsonl", {"text": "a"}, {"text": " "}, {"text": ""})
    with pytest.warns(
        UserWarning, match=r"2 rows are left out because a text is empty \(.*, line 2\)"
    ):
        assert files.read(path) == [{"question": "", "answer": "a"}]
