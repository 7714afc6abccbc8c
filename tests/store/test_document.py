"""JSON is written one way: strict, UTF-8, whole or not at all, with a line end."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from ngdiff.store import document
from ngdiff.store.rows import write_document

VALUE = {
    "η": [1, 0.1 + 0.2, math.nan, {"x": -math.inf}],
    3: np.float32(0.5),
    "n": np.int64(7),
    "path": Path("a/b"),
    "flag": True,
    "none": None,
}
PLAIN = {
    "η": [1, 0.1 + 0.2, None, {"x": None}],
    "3": 0.5,
    "n": 7,
    "path": "a/b",
    "flag": True,
    "none": None,
}


def test_a_document_is_strict_json_in_utf8_with_a_line_end(tmp_path: Path) -> None:
    write_document(tmp_path / "new" / "a.json", VALUE)
    data = (tmp_path / "new" / "a.json").read_bytes()

    def refuse(word: str) -> None:
        pytest.fail(f"{word} is no JSON")

    assert json.loads(data, parse_constant=refuse) == PLAIN
    assert "η".encode() in data and data.endswith(b"\n}\n") and b"\n " in data
    assert data.decode() == document.text(VALUE)
    assert json.loads(document.line(VALUE)) == PLAIN and document.line(VALUE).count("\n") == 1


def test_a_document_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_document(path, {"a": 1})

    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        write_document(path, {"a": Broken()})
    assert path.read_text() == '{\n "a": 1\n}\n' and [p.name for p in tmp_path.iterdir()] == [
        "a.json"
    ]


def test_numbers_that_become_null_are_named() -> None:
    assert list(document.not_finite(VALUE)) == ["η 2 is nan", "η 3 x is -inf"]
    assert list(document.not_finite(math.inf)) == ["is inf"] and not [*document.not_finite(PLAIN)]
    arrays = {"a": np.array([1.0, math.nan], np.float32), "b": np.float32("inf")}
    assert list(document.not_finite(arrays)) == ["a 1 is nan", "b is inf"]
