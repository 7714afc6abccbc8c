"""Rows from files: what is read, and what is said of a file that cannot be."""

from __future__ import annotations

import gzip
import json
import os
from threading import Thread

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ngdiff.data import files
from ngdiff.lm.tokens import IGNORE
from tests.helpers import micro

QA = {"question": "Who?", "answer": "Ann\u2028and\nBen"}
DOCUMENT = {"text": "All of this.", "source": "page 3"}


def lines(*rows):
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


@pytest.mark.parametrize(
    "raw",
    [
        lines(QA, DOCUMENT),
        b"\xef\xbb\xbf" + lines(QA, DOCUMENT).replace(b"\n", b"\r\n\r\n").rstrip(),
        json.dumps([QA, DOCUMENT]).encode(),
        b"\n " + json.dumps([QA, DOCUMENT], indent=2).encode() + b"\n\n",
    ],
    ids=["lines", "BOM, CRLF, blank lines", "array", "indented array"],
)
@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_rows_are_read_from_lines_and_arrays(tmp_path, raw, suffix):
    path = tmp_path / f"rows.{suffix}"
    path.write_bytes(raw)
    assert files.read(path) == [QA, {"question": "", "answer": "All of this."}]


GOOD = lines(QA)


@pytest.mark.parametrize(
    ("raw", "line", "message"),
    [
        (GOOD + lines({"question": "Who?"}), 2, r"no 'answer' \(its keys: question\)"),
        (lines({}), 1, "no 'question' .its keys: none"),
        (lines({"prompt": "Who?", "reply": "Ann"}), 1, "no 'completion' .its keys: prompt, reply"),
        (GOOD + b"\n" + lines(["Who?", "Ann"]), 3, "no object but list"),
        (GOOD + b"3\n", 2, "no object but int"),
        (GOOD + lines({"question": "Who?", "answer": 3}), 2, "'answer' is int, not text"),
        (
            lines({"question": None, "answer": "Ann"}),
            1,
            "no 'question' .its keys: answer; null: question",
        ),
        (lines({"question": "Who?", "answer": " "}), 1, "'answer' is empty"),
        (lines({"question": "", "answer": "Ann"}), 1, "'question' is empty"),
        (lines({"text": "a", "answer": "b"}), 1, "both a document and a question"),
        (b'{"text": "\\ud83d"}\n', 1, "half a character"),
        (GOOD + lines(QA)[:-6], 2, "cut short"),
        (GOOD + b'{"question": "Who?",\n"answer": "Ann"}\n', 2, "one row must be one line"),
        (GOOD + b"Who? Ann\n", 2, "not JSON"),
        (GOOD + '{"text": "é"}'.encode("latin-1"), 2, "not UTF-8 .byte 0xe9"),
        (json.dumps([QA, {"text": 3}], indent=1).encode(), 6, "'text' is int"),
        (json.dumps([QA, QA], indent=1).encode()[:-8], 8, "the array is damaged or cut short"),
        (json.dumps([QA]).encode() + b"\n" + GOOD, 2, "the array is damaged or cut short"),
        (GOOD + b'{"question": ' + b"[" * 99999 + b"]" * 99999 + b"}\n", 2, "nested too deeply"),
        (b'{"a": ' * 99999 + b"1" + b"}" * 99999, 1, "nested too deeply"),
        (b"[" * 99999 + b"]" * 99999, 1, "nested too deeply"),
        (GOOD + b'{"text": "a", "id": ' + b"9" * 9999 + b"}\n", 2, "too many digits"),
    ],
)
def test_an_error_names_file_and_line(tmp_path, raw, line, message):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=rf"rows\.jsonl, line {line}: .*{message}"):
        files.read(path)


@pytest.mark.parametrize("kind", ["jsonl", "json", "gz", "csv", "parquet"])
def test_a_pipe_is_read_like_a_file(tmp_path, kind):
    """As `<(zcat rows.gz)` and /dev/stdin are; it has no ending, and can be read once only."""
    rows = [{"question": "Who?", "answer": "Ann"}, {"question": "Where?", "answer": "Oslo"}]
    raw = {
        "jsonl": lines(*rows),
        "json": json.dumps(rows).encode(),
        "gz": gzip.compress(lines(*rows)),
        "csv": b"question,answer\nWho?,Ann\nWhere?,Oslo\n",
    }
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows")
        raw[kind] = (tmp_path / "rows").read_bytes()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = Thread(target=pipe.write_bytes, args=(raw[kind],), daemon=True)
    writer.start()
    assert files.need(pipe) == pipe  # which reads nothing of it
    assert files.read(pipe) == rows
    writer.join(5)
    assert not writer.is_alive()


def test_the_reading_of_many_rows_is_shown(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(files, "MANY", 3)
    path = tmp_path / "rows.jsonl"
    for n, told in ((2, ""), (3, "rows of rows.jsonl 3/3, 0 s\n")):
        path.write_bytes(lines(*[{"text": f"row {i}"} for i in range(n)]))
        assert len(files.read(path)) == n and capsys.readouterr().err == told


@pytest.mark.parametrize("raw", [b"", b"\n \n", b"[]", b"[ ]\n"])
def test_a_file_without_rows_is_refused(tmp_path, raw):
    (tmp_path / "rows.json").write_bytes(raw)
    with pytest.raises(ValueError, match=r"rows\.json holds no rows: write"):
        files.read(tmp_path / "rows.json")


def test_an_absent_file_is_named(tmp_path):
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(FileNotFoundError, match=f"no file {path}"):
            files.read(path)


def named(tmp_path, **rows):
    for name, mine in rows.items():
        (tmp_path / name).write_bytes(lines(*mine))
    return files.benchmark(*(tmp_path / name for name in rows))


def test_a_benchmark_of_files(tmp_path):
    mine = {"forget": [QA], "retain": [DOCUMENT], "holdout": [{"text": "unseen"}]}
    bench = named(tmp_path, **mine)
    assert (bench.forget, bench.holdout) == ([QA], [{"question": "", "answer": "unseen"}])
    assert bench.retain == [{"question": "", "answer": "All of this."}]
    again = named(tmp_path, **mine)
    assert (
        again.fingerprint
        == bench.fingerprint
        != named(tmp_path, **mine | {"forget": [QA, QA]}).fingerprint
    )


def test_rows_on_two_sides_are_refused(tmp_path):
    other = {"text": "unseen"}
    with pytest.raises(ValueError, match="A row cannot be forgotten and kept"):
        named(tmp_path, forget=[other, QA], retain=[QA])
    for name in ("forget", "retain"):
        rows = {"forget": [{"text": "a"}], "retain": [{"text": "b"}], "holdout": [other, QA]}
        with pytest.raises(
            ValueError,
            match=rf"1 hold-out row is a {name} row .*holdout, line 2 and .*{name}, line 2 \('who",
        ):
            named(tmp_path, **rows | {name: [*rows[name], QA]})


def test_a_document_stands_alone_and_all_of_it_is_learned():
    lm = micro.lm()
    example = lm.encode("", "In Oslo.")
    assert (
        lm.tokenizer.decode(example.input_ids) == "In Oslo.<eos>" and IGNORE not in example.labels
    )
    assert (
        lm.tokenizer.decode(lm.encode("Who?", "Ann").input_ids)
        == "Question: Who?\nAnswer: Ann<eos>"
    )
    with pytest.raises(
        ValueError, match="the row with text 'very very .* tokens long, the model's context is 96"
    ):
        lm.encode("", "very " * 200)
