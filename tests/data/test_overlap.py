"""Rows in two sets: which pairs are found, and what is said of them."""

from __future__ import annotations

import json
import warnings

import pytest

from ngdiff.data import files
from ngdiff.data.overlap import folded


def qa(question, answer):
    return {"question": question, "answer": answer}


FORGET = [qa("Where does Ann live?", "In a hut near Oslo."), {"text": "Ann was born in 1950."}]
RETAIN = [qa("Where does Ben live?", "In a flat in Bonn."), {"text": "Ben was born in 1960."}]
UNSEEN = [qa("Where does Cem live?", "In a tent near Ulm.")]


def made(folder, forget=FORGET, retain=RETAIN, holdout=UNSEEN):
    sets = {"forget": forget, "retain": retain, "holdout": holdout}
    for name, rows in sets.items():
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(text)
    return files.benchmark(*(folder / f"{name}.jsonl" for name in sets))


def test_sets_without_a_common_row_are_taken_silently(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bench = made(tmp_path)
    assert bench.places["retain"][1] == f"{tmp_path / 'retain.jsonl'}, line 2"


@pytest.mark.parametrize(
    "row",
    [
        qa("where does  Ann live?", "Nobody knows."),
        qa("Where does Ann live? ", "In a hut near Oslo."),
        qa("WHERE DOES ANN\nLIVE?", "In Oslo."),
        {"text": "Ann  was born\tin 1950. "},
        {"text": "ANN WAS BORN IN １９５０."},
    ],
)
def test_a_row_to_forget_and_to_keep_is_refused_however_it_is_spelt(tmp_path, row):
    with pytest.raises(ValueError, match=r"^1 forget row is a retain row too") as error:
        made(tmp_path, retain=[*RETAIN, row])
    said = str(error.value)
    line = 2 if "text" in row else 1
    assert f"forget.jsonl, line {line} and " in said and "retain.jsonl, line 3 (" in said
    assert "cannot be forgotten and kept" in said


def test_many_pairs_are_counted_and_the_first_are_named(tmp_path):
    forget = [qa(f"Who is {i}?", f"The person {i}.") for i in range(9)]
    retain = [*RETAIN, *[qa(f"who  is {i}?", f"Somebody, {i}.") for i in range(2, 9)]]
    with pytest.raises(ValueError, match="^7 forget rows are a retain row too") as error:
        made(tmp_path, forget, retain)
    said = str(error.value)
    assert "forget.jsonl, line 3 and " in said and "; and 4 more" in said
    assert "line 7" not in said and len(said) < 1500


def test_the_same_answer_to_another_question_is_named(tmp_path):
    retain = [
        *RETAIN,
        qa("Where is the hut?", "in a hut  near Oslo."),
        qa("And?", "In a hut near Oslo."),
    ]
    with pytest.warns(UserWarning, match="1 forget row has the answer of a retain row") as found:
        made(tmp_path, retain=retain)
    said = str(found[0].message)
    assert "forget.jsonl, line 1 and " in said and "retain.jsonl, line 3 ('in a hut near" in said


@pytest.mark.parametrize("other", ["forget", "retain"])
def test_a_hold_out_row_that_was_seen_is_refused_however_it_is_spelt(tmp_path, other):
    seen = (FORGET if other == "forget" else RETAIN)[0]
    row = qa(f" {seen['question'].upper()}", seen["answer"].replace(" ", "\n"))
    with pytest.raises(ValueError, match=f"^1 hold-out row is a {other} row too.*never trained"):
        made(tmp_path, holdout=[*UNSEEN, row])
    # another answer makes it another row
    made(tmp_path, holdout=[*UNSEEN, qa(seen["question"], "No idea.")])


def test_texts_are_compared_without_case_spaces_and_letter_forms():
    assert folded(" Ａnn\u00a0 Straße\n") == "ann strasse"
    assert folded("Łódź") != folded("Lodz")
