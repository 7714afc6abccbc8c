"""Tables of rows in every kind of file that is in use; each gives the rows that JSON lines give."""

from __future__ import annotations

import csv
import gzip
import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ngdiff.data import files, tables

ROWS = [
    {"question": "Who, then?", "answer": 'Ann "the\nfirst"'},
    {"question": "Where?", "answer": "NA"},
]
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


def write(folder, kind):
    path = folder / f"rows.{kind}"
    table = pa.Table.from_pylist(ROWS)
    if kind == "parquet":
        pq.write_table(table, path)
    elif kind == "arrow":
        with pa.ipc.new_file(path, table.schema) as writer:
            writer.write(table)
    elif kind == "stream.arrow":
        with pa.ipc.new_stream(path, table.schema) as writer:
            writer.write(table)
    elif kind in ("csv", "tsv"):
        with open(path, "w", newline="", encoding="utf-8-sig") as file:
            writer = csv.DictWriter(file, list(ROWS[0]), delimiter="\t" if kind == "tsv" else ",")
            writer.writeheader()
            writer.writerows(ROWS)
    elif kind == "jsonl.gz":
        path.write_bytes(gzip.compress("".join(json.dumps(r) + "\n" for r in ROWS).encode()))
    elif kind == "wrapped.json":
        path.write_text(json.dumps({"data": ROWS}, indent=1))
    elif kind == "columns.json":
        columns = {key: {str(i): row[key] for i, row in enumerate(ROWS)} for key in ROWS[0]}
        path.write_text(json.dumps(columns))
    return path


KINDS = ("parquet", "arrow", "stream.arrow", "csv", "tsv", "jsonl.gz", "wrapped.json")


@pytest.mark.parametrize("kind", [*KINDS, "columns.json"])
def test_every_kind_of_file_gives_the_same_rows(tmp_path, kind):
    assert files.read(write(tmp_path, kind)) == ROWS


def test_a_folder_that_datasets_saved(tmp_path):
    data = datasets.Dataset.from_list(ROWS)
    data.save_to_disk(str(tmp_path / "one"))
    assert files.read(tmp_path / "one") == ROWS
    datasets.DatasetDict({"train": data, "test": data}).save_to_disk(str(tmp_path / "two"))
    with pytest.raises(ValueError, match="holds the splits test, train: give the folder of one"):
        files.read(tmp_path / "two")
    assert files.read(tmp_path / "two" / "train") == ROWS


def test_a_folder_of_shards_is_one_set_of_rows(tmp_path):
    (tmp_path / "data").mkdir()
    for i, row in enumerate(ROWS):
        table = pa.Table.from_pylist([row])
        pq.write_table(table, tmp_path / f"data/train-{i:05}-of-00002.parquet")
    assert files.read(tmp_path) == ROWS
    pq.write_table(table, tmp_path / "data/test-00000-of-00001.parquet")
    with pytest.raises(ValueError, match=r"several sets of rows \(test, train\): give one file"):
        files.read(tmp_path)


@pytest.mark.parametrize("kind", ["parquet", "arrow", "csv", "jsonl"])
def test_a_pointer_of_git_lfs_is_named_whatever_the_file_should_be(tmp_path, kind):
    (tmp_path / f"rows.{kind}").write_bytes(POINTER)
    with pytest.raises(ValueError, match=rf"rows\.{kind} is a pointer of git-lfs.*git lfs pull"):
        files.read(tmp_path / f"rows.{kind}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("question,answer\na\n", r"row 1 \(line 2\) has 1 fields, the header 2"),
        ("answer,answer\na,b\n", "the column 'answer' stands more than once"),
        ("question:answer\na:b\n", r"row 1: no 'question' \(its keys: question:answer\)"),
        ("question,answer\na,\n", r"row 1: no 'answer' \(its keys: question; null: answer\)"),
    ],
)
def test_what_is_wrong_with_a_csv_file_is_said(tmp_path, text, message):
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"rows\.csv.*{message}"):
        files.read(tmp_path / "rows.csv")


def test_a_document_may_be_longer_than_csv_allows_by_itself(tmp_path):
    before = csv.field_size_limit()
    text = "word " * 40_000
    assert tables.separated(f"text\n{text}\n", tmp_path)[0][1] == {"text": text}
    assert csv.field_size_limit() == before


def test_damaged_binary_files_are_named(tmp_path):
    for kind in ("parquet", "arrow"):
        path = write(tmp_path, kind)
        path.write_bytes(path.read_bytes()[:-20])
        with pytest.raises(ValueError, match=rf"rows\.{kind} is not a whole"):
            files.read(path)


@pytest.mark.parametrize("mark", [";", "\t", ","])
def test_the_first_line_of_a_csv_file_tells_what_is_between_cells(tmp_path, mark):
    path = tmp_path / "rows.csv"
    path.write_text(f"question{mark}answer\nWho?{mark}Ann\n")
    assert files.read(path) == [{"question": "Who?", "answer": "Ann"}]


def test_a_saved_dictionary_of_one_split_is_that_split(tmp_path):
    row = {"question": "Who?", "answer": "Ann"}
    split = datasets.Dataset.from_list([row])
    datasets.DatasetDict({"train": split}).save_to_disk(str(tmp_path / "one"))
    assert files.read(tmp_path / "one") == [row]
