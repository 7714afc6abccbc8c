"""A benchmark from someone's own files: what to forget, what to retain, and rows the model has never seen.

A row is `{"question": …, "answer": …}`, of which the answer is learned, or a document `{"text": …}`, all of which is;
other keys are left out. A file holds one row a line (JSON lines), or one JSON array of them: its first character says
which, whatever its name ends in. A document becomes a row without a question, which is encoded without the prompt.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import Any

from ngdiff.data.benchmark import Benchmark, Row

BETWEEN = re.compile(r"[\s,]*")  # elements of an array
SHAPE = 'write {"question": "…", "answer": "…"}, or {"text": "…"} for a document'


def benchmark(forget: Path, retain: Path, holdout: Path | None = None) -> Benchmark:
    """The rows of the files, under the split "forget".

    holdout: rows the model was never trained on. Errors: those of `read`; ValueError for a row that is to be forgotten and
    kept, and for a hold-out row that is one of the others (the loss on it would not be that on unseen rows).
    """
    files = {"forget": forget, "retain": retain} | ({"holdout": holdout} if holdout else {})
    rows = {name: read(path) for name, path in files.items()}
    seen = {tuple(row.items()): (name, i) for name in ("retain", "forget") for i, row in enumerate(rows[name])}
    for i, row in enumerate(rows.get("holdout", [])):
        if found := seen.get(tuple(row.items())):
            name, j = found
            raise ValueError(
                f"{holdout}, row {i}: it is row {j} of {files[name]} ({(row['question'] or row['answer'])[:80]!r}), and "
                "hold-out rows must be ones the model was never trained on: remove it"
            )
    source = {"name": "files"} | {name: str(path) for name, path in files.items()}
    return Benchmark("files", "forget", rows, [], source)


def read(path: Path) -> list[Row]:
    """The rows of a file as {"question", "answer"}; a document has the question "".

    Errors: FileNotFoundError; ValueError with file, line and what is wrong (not UTF-8, cut short, no object, a missing or empty
    text, …), and for a file without rows.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: rows are JSON lines or a JSON array; {SHAPE}")
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path}, line {line}: not UTF-8 (byte {raw[error.start]:#04x}): save the file as UTF-8"
        ) from error
    parse = _array if text.lstrip().startswith("[") else _lines
    rows = [_row(value, f"{path}, line {line}") for line, value in parse(text, path)]
    if not rows:
        raise ValueError(f"{path} holds no rows: {SHAPE}")
    return rows


def _lines(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines: U+2028 may stand in a string
        if line.strip():
            try:
                yield number, json.loads(line)
            except JSONDecodeError as error:
                cut = "it is cut short, or " if error.pos >= len(line.rstrip()) or "Unterminated" in error.msg else ""
                raise ValueError(
                    f"{path}, line {number}: not JSON ({error.msg}): {cut}one row must be one line"
                ) from error


def _array(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    try:
        whole = json.loads(text)
    except JSONDecodeError as error:
        why = f"not JSON ({error.msg}): the array is damaged or cut short"
        raise ValueError(f"{path}, line {error.lineno}: {why}") from error
    at, begin, line = text.index("[") + 1, 0, 1
    for _ in whole:  # once more, one by one, so that each knows its line
        start = BETWEEN.match(text, at).end()
        line, begin = line + text.count("\n", begin, start), start
        value, at = JSONDecoder().raw_decode(text, start)
        yield line, value


def _row(value: Any, where: str) -> Row:
    """The row of a JSON value. Errors: ValueError that begins with `where`."""
    if not isinstance(value, dict):
        raise ValueError(f"{where}: no object but {type(value).__name__}: {SHAPE}")
    if "text" in value and ("question" in value or "answer" in value):
        raise ValueError(f"{where}: both a document and a question: {SHAPE}")
    keys = ("text",) if "text" in value else ("question", "answer")
    for key in keys:
        text = value.get(key)
        if key not in value:
            raise ValueError(f"{where}: no {key!r} (its keys: {', '.join(value) or 'none'}): {SHAPE}")
        if not isinstance(text, str):
            raise ValueError(f"{where}: {key!r} is {type(text).__name__}, not text: {SHAPE}")
        if not text.strip():
            raise ValueError(f"{where}: {key!r} is empty: fill it in or drop the row")
        if any("\ud800" <= letter <= "\udfff" for letter in text):
            raise ValueError(f"{where}: {key!r} holds half a character (a lone surrogate), which no tokenizer takes")
    return {"question": "", "answer": value["text"]} if "text" in value else {key: value[key] for key in keys}
