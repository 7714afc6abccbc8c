"""SemEval-2025 Task 4's rows: from a folder, the hub, and generated.

What is refused, with file and line.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from ngdiff.data import dossiers, load, semeval
from ngdiff.data.real import semeval_rows as a_row
from ngdiff.lm.tokens import encode, train_tokenizer
from ngdiff.profiles import profile

rows_of = import_module("ngdiff.data.real.semeval")
made = import_module("ngdiff.data.made.dossiers")

ROOT = Path(__file__).resolve().parents[2]
LUME = Path(os.environ.get("NGDIFF_LUME", ROOT.parent / "shared" / "data" / "lume"))
real_lume = pytest.mark.skipif(
    not (LUME / "semeval2025/validation/forget.jsonl").is_file(),
    reason=f"no LUME folder at {LUME}; set NGDIFF_LUME to one",
)


def row(
    id: str = "12sc1", task: str = "Task3", input: str = "Ann was", output: str = "born."
) -> dict:
    return {"id": id, "input": input, "output": output, "task": task}


def write(path: Path, rows: list[dict]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(r) + "\n" for r in rows), "utf-8")
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for fold, name in (("forget", "Ann"), ("retain", "Ben")):
        write(
            tmp_path / f"{fold}.jsonl",
            [row(f"1{fold}sc1", input=f"{name} was"), row(f"1{fold}qa0", input=f"Who is {name}?")],
        )
    return tmp_path


# A folder -----------------------------------------------------------------------------------------
def test_rows_are_taken_verbatim(folder):
    text = ' Two  spaces,\n"quotes", ☃ and \\_ '
    write(folder / "forget.jsonl", [row('"x"sc1', "Task1", text, text)])
    bench = semeval("tiny", "train", root=folder)
    assert bench.forget == [{"question": text, "answer": text, "id": '"x"sc1', "task": "Task1"}]
    assert (bench.name, bench.split, bench.prompt.text("a")) == (
        "semeval",
        "forget",
        "a ",
    ) and load(bench.source) == bench
    assert "member" not in bench.configs and rows_of.mia_note(bench) is None


@pytest.mark.parametrize("place", ["semeval2025/train", "train"])
def test_layouts_of_splits(folder, place):
    for fold in ("forget", "retain"):
        write(folder / place / f"{fold}.jsonl", [row(f"{fold}qa1", input=f"{fold}?")])
    assert [r["id"] for r in semeval("tiny", "train", root=folder).forget] == ["forgetqa1"]
    assert [r["id"] for r in semeval("tiny", "all", root=folder).forget] == [
        "1forgetsc1",
        "1forgetqa0",
    ]


@pytest.mark.parametrize("inside", ["", "data"])
def test_the_hubs_parquet_files(tmp_path, inside):
    (tmp_path / inside).mkdir(exist_ok=True)
    for fold in ("forget", "retain"):
        table = pyarrow.Table.from_pylist([row(f"{fold}sc1", input=fold)])
        pyarrow.parquet.write_table(
            table, tmp_path / inside / f"{fold}_validation-00000-of-00001.parquet"
        )
    assert semeval("tiny", "validation", root=tmp_path).retain[0]["question"] == "retain"
    path = tmp_path / inside / "forget_validation-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"forget_validation.*parquet is not a whole parquet file"):
        semeval("tiny", "validation", root=tmp_path)


def test_an_empty_row_is_left_out_and_counted(folder):
    write(folder / "forget.jsonl", [row("9sc1", input="first"), row("8sc1", output=" ")])
    with pytest.warns(UserWarning, match=r"forget.jsonl: 1 row is left out.*line 2"):
        assert len(semeval("tiny", "train", root=folder).forget) == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            {"id": "1sc1", "input": "a", "task": "Task1"},
            r"forget.jsonl, line 2: no 'output' \(its keys: id, input, task\)",
        ),
        (row(task="Task4"), "line 2: unknown task 'Task4'; the tasks are Task1, Task2, Task3"),
        (row(id="nothing"), "line 2: the id 'nothing' ends in neither sc"),
        (row(input=3), "line 2: 'input' is int, not text"),
        (row(output="\ud800"), "line 2: 'output' holds half a character"),
        (["a"], "line 2: no object but list"),
    ],
)
def test_what_is_no_row_is_named(folder, line, message):
    write(folder / "forget.jsonl", [row("9sc1", input="first"), line])
    with pytest.raises(ValueError, match=message):
        semeval("tiny", "train", root=folder)


def test_a_truncated_file(folder):
    text = (folder / "retain.jsonl").read_text()
    (folder / "retain.jsonl").write_text(text[:-15])
    with pytest.raises(ValueError, match=r"retain.jsonl, line 2: not JSON .*cut short"):
        semeval("tiny", "train", root=folder)


def test_unknown_splits_and_missing_files(folder, tmp_path):
    with pytest.raises(
        ValueError,
        match="unknown split 'test' of SemEval-2025 Task 4; choose one of: train, validation, all",
    ):
        semeval("tiny", "test", root=folder)
    with pytest.raises(
        FileNotFoundError,
        match=r"has no forget rows of train: looked for .*semeval2025/train/forget.jsonl",
    ):
        semeval("tiny", "train", root=tmp_path / "none")


def test_the_organisers_mia_files(folder):
    for side in ("member", "nonmember"):
        write(folder / "mia" / f"{side}.jsonl", [{"id": 7, "document": f"{side} text"}])
    bench = semeval("tiny", "train", root=folder, mia=folder / "mia")
    assert bench.rows("nonmember") == [{"question": "", "answer": "nonmember text", "id": "7"}]
    assert str(folder / "mia") in rows_of.mia_note(bench) and load(bench.source) == bench
    write(folder / "mia" / "member.jsonl", [{"id": 7, "text": "a"}])
    with pytest.raises(
        ValueError, match=r"member.jsonl, line 1: no 'document' \(its keys: id, text\)"
    ):
        semeval("tiny", "train", root=folder, mia=folder / "mia")
    (folder / "mia" / "member.jsonl").unlink()
    with pytest.raises(FileNotFoundError, match=r"member.jsonl"):
        semeval("tiny", "train", root=folder, mia=folder / "mia")


def test_without_them_members_are_rebuilt_and_nonmembers_stand_in(folder):
    """Members: the training split's forget documents of Task3; non-members: Task3 documents in
    neither fold of any split.
    """
    for split in ("train", "validation"):
        for fold in ("forget", "retain"):
            rows = [row(f"{split}{fold}sc1", input=f"{split} {fold}")]
            rows.append(row(f"{split}{fold}2sc1", "Task2", f"2 {split} {fold}"))
            write(folder / "semeval2025" / split / f"{fold}.jsonl", rows)
    for fold in ("forget", "retain"):
        kept = [row(f"{s}{fold}sc1", input=f"{s} {fold}") for s in ("train", "validation")]
        write(
            folder / f"{fold}.jsonl",
            [
                *kept,
                row(f"new{fold}sc1", input=f"New {fold}"),
                row(f"new{fold}qa1", input=f"Who {fold}?"),
            ],
        )
    bench = semeval("paper", "validation", root=folder)
    assert [r["answer"] for r in bench.rows("member")] == ["train forget born."]
    assert [r["id"] for r in bench.rows("nonmember")] == ["newforget", "newretain"]
    assert [r["id"] for r in bench.holdout] == [
        "newforgetsc1",
        "newforgetqa1",
        "newretainsc1",
        "newretainqa1",
    ]
    assert "stand-in" in rows_of.mia_note(bench)
    assert "holdout" not in semeval("tiny", "all", root=folder).configs
    # a model of this slice never saw train's rows
    part = semeval("tiny", "validation", root=folder, documents=1)
    assert [r["answer"] for r in part.rows("member")] == ["validation forget born."]


def test_the_first_documents_of_each_task(folder):
    rows = [
        row(f"{d}{k}", f"Task{t}", f"{t} {d} {k}")
        for t in (1, 3)
        for d in "ab"
        for k in ("sc1", "qa0")
    ]
    write(folder / "forget.jsonl", rows)
    kept = semeval("tiny", "train", root=folder, documents=1).forget
    assert [(r["task"], r["id"]) for r in kept] == [
        ("Task1", "asc1"),
        ("Task1", "aqa0"),
        ("Task3", "asc1"),
        ("Task3", "aqa0"),
    ]


# The hub ------------------------------------------------------------------------------------------
def test_the_hub_offline_says_what_to_do():
    with pytest.raises(ConnectionError, match=r"semeval25-unlearning-dataset-public.*pass root="):
        semeval("tiny", "train")
    with pytest.raises(ValueError, match="for all of LUME pass root="):
        semeval("tiny", "all")


def test_the_hubs_rows_are_counted(monkeypatch):
    seen = []

    def few(repository, config, split, revision):
        seen.append((repository, split, revision))
        return [row(f"{split}sc1", input=split)]

    monkeypatch.setattr("ngdiff.data.sources.hub", few)
    with pytest.raises(ValueError, match=r"has 1 \+ 1 rows of validation, the task 254 \+ 278"):
        semeval("tiny", "validation")
    assert [s[1] for s in seen] == ["forget_validation", "retain_validation"]
    assert seen[0][2] == "main"
    # an earlier commit may have others
    assert len(semeval("tiny", "validation", revision="0" * 40).forget) == 1


# Real rows ----------------------------------------------------------------------------------------
@real_lume
def test_the_real_rows():
    sizes = {s: semeval("paper", s, root=LUME) for s in ("train", "validation", "all")}
    counts = {s: (len(b.forget), len(b.retain)) for s, b in sizes.items()}
    assert counts == {"train": (1112, 1136), "validation": (254, 278), "all": (2732, 2734)}
    for split in ("train", "validation"):
        folds = {fold: sizes[split].rows(fold) for fold in ("forget", "retain")}
        assert rows_of.digest(folds) == rows_of.VERSIONS[split][2]
    train = sizes["train"]
    ours = [r["id"] for r in train.rows("member")]
    assert ours == [
        a_row.document(r["id"])
        for r in train.forget
        if r["task"] == "Task3" and a_row.kind(r["id"]) == "sc"
    ]
    assert not {r["id"] for r in train.rows("nonmember")} & {
        a_row.document(r["id"]) for r in train.full
    }
    assert all('"' in r["id"] for r in train.forget if r["task"] == "Task1")
    every = [r for b in sizes.values() for r in b.full]
    assert {a_row.kind(r["id"]) for r in every} == {"sc", "qa"} and all(
        r["id"][-3:-1] in ("sc", "qa") for r in every
    )


# Dossiers -----------------------------------------------------------------------------------------
def test_dossiers_have_the_tasks_schema():
    bench = dossiers()
    assert load(bench.source) == bench and bench.fingerprint == dossiers("tiny", 0).fingerprint
    assert dossiers("tiny", 1).fingerprint != bench.fingerprint
    for fold in ("forget", "retain", "holdout"):
        assert {r["task"] for r in bench.rows(fold)} == set(a_row.TASKS)
        kinds = Counter((r["task"], a_row.kind(r["id"])) for r in bench.rows(fold))
        assert len(kinds) == 6 and min(kinds.values()) >= 8
    assert all(r["id"].startswith('"') == (r["task"] == "Task1") for r in bench.full)
    numbers = [
        r["answer"] for r in bench.forget if r["question"].startswith("Which social security")
    ]
    # no number that is given to anybody
    assert numbers and all(n.startswith("900") and len(n) == 9 for n in numbers)
    assert len(bench.rows("member")) == len(bench.rows("nonmember")) == 24


def test_an_answer_is_in_its_document_and_in_no_other_fold():
    bench = dossiers()
    texts = {
        a_row.document(r["id"]): f"{r['question']} {r['answer']}"
        for r in bench.full
        if a_row.kind(r["id"]) == "sc"
    }
    lives = [r for r in bench.full if r["task"] == "Task3" and a_row.kind(r["id"]) == "qa"]
    assert lives and all(
        r["answer"].lower() in texts[a_row.document(r["id"])].lower() for r in lives
    )
    questions = Counter(
        r["question"] for fold in ("forget", "retain", "holdout") for r in bench.rows(fold)
    )
    assert max(questions.values()) == 1


def test_what_is_written_is_read_back(tmp_path):
    made.write(tmp_path, "tiny")
    bench, again = dossiers(), semeval("paper", "train", root=tmp_path, mia=tmp_path)
    for config in ("forget", "retain", "member", "nonmember"):
        assert again.rows(config) == bench.rows(config)


def test_the_profile_says_how_many_documents_are_kept(tmp_path):
    made.write(tmp_path, "tiny")
    kept = profile("tiny").lume_documents
    tiny, same, fewer = (
        semeval("tiny", "train", root=tmp_path, documents=n) for n in (None, kept, 2)
    )
    assert tiny == same and load(tiny.source) == tiny
    for bench, n in ((tiny, kept), (fewer, 2)):
        for fold in ("forget", "retain"):
            found = {(r["task"], a_row.document(r["id"])) for r in bench.rows(fold)}
            there = {(r["task"], a_row.document(r["id"])) for r in dossiers().rows(fold)}
            counts = Counter(task for task, _ in found)
            wanted = Counter(task for task, _ in there)
            assert counts == {task: min(n, m) for task, m in wanted.items()} and found <= there
            assert max(wanted.values()) > kept  # something is left out
    whole = semeval("paper", "train", root=tmp_path)
    assert whole.rows("forget") == dossiers().rows("forget")


def test_sizes_that_cannot_be_made():
    with pytest.raises(ValueError, match="authors=5: dossiers are made for 10 to 400"):
        dossiers(replace(profile("tiny"), authors=5))


def test_a_prompt_is_the_input_and_one_space():
    """The space before the output's first word belongs to the output."""
    bench = dossiers()
    tokenizer = train_tokenizer([f"{r['question']} {r['answer']}" for r in bench.full], 600)
    for r in bench.forget[:6]:
        example = encode(tokenizer, bench.prompt, r["question"], r["answer"])
        assert tokenizer.decode(example.input_ids[:-1]) == f"{r['question']} {r['answer']}"
        assert tokenizer.decode([t for t in example.labels if t >= 0][:-1]) == f" {r['answer']}"
        assert tokenizer.decode(example.prompt_ids) == r["question"]
