"""One reader for text files: what is read, and what a file is told to be instead."""

from __future__ import annotations

import gzip
import json

import pytest

from ngdiff.evaluation import mmlu
from ngdiff.evaluation.report import Report
from ngdiff.score import documents
from ngdiff.store.textfile import text_of

TEXT = '{"average_acc": 0.25, "é": 1}\r\n'
BOM = b"\xef\xbb\xbf"


@pytest.mark.parametrize("raw", [TEXT.encode(), BOM + TEXT.encode()], ids=["plain", "BOM"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress], ids=["as it is", "gzip"])
def test_utf8_is_read_with_and_without_a_mark(tmp_path, raw, pack):
    path = tmp_path / "metrics.json"
    path.write_bytes(pack(raw))
    assert text_of(path) == TEXT
    assert mmlu.read(path) == 0.25 and documents.read(path)["é"] == 1  # other readers of it


def test_a_report_with_a_mark_is_a_report(tmp_path):
    path = tmp_path / "report.json"
    path.write_bytes(BOM + json.dumps({"metrics": {"a": 1}, "items": {}, "meta": {}}).encode())
    assert Report.from_json(path).metrics == {"a": 1}


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        ("é".encode("utf-16"), "is written in UTF-16: save it as UTF-8, for one by `iconv -f UTF"),
        ("é".encode("utf-32"), "is written in UTF-32: "),
        (b"a\n\xe9", "line 2: not UTF-8 .byte 0xe9.: save the file as UTF-8"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:1\n", "a pointer of git-lfs"),
        (b"PK\x03\x04 and so on", "is packed by zip: unpack it"),
        (gzip.compress(b"a" * 99, mtime=0)[:-9], "is not a whole gzip file"),
    ],
)
def test_what_a_file_is_instead_is_said(tmp_path, raw, message):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(raw)
    with pytest.raises(ValueError, match=rf"rows\.jsonl,? .*{message}|rows\.jsonl {message}"):
        text_of(path)
    with pytest.raises(FileNotFoundError, match="no file"):
        text_of(tmp_path / "none")
