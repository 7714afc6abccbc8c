"""A benchmark from someone's own files: what to forget, what to retain, and rows never seen.

A row is `{"question": …, "answer": …}`, of which the answer is learned, or a document `{"text":
…}`, all of which is; other keys are left out. A file holds one row a line (JSON lines), or one JSON
array of them: its first character says which, whatever its name ends in. A document becomes a row
without a question, which is encoded without the prompt.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ngdiff.data.benchmark import Benchmark, Row
from ngdiff.data.sources import records, text

SHAPE = 'write {"question": "…", "answer": "…"}, or {"text": "…"} for a document'


def benchmark(forget: Path, retain: Path, holdout: Path | None = None) -> Benchmark:
    """The rows of the files, under the split "forget".

    holdout: rows the model was never trained on. Errors: those of `read`; ValueError for a row that
    is to be forgotten and kept, and for a hold-out row that is one of the others (the loss on it
    would not be that on unseen rows).
    """
    files = {"forget": forget, "retain": retain} | ({"holdout": holdout} if holdout else {})
    rows = {name: read(path) for name, path in files.items()}
    seen = {
        tuple(row.items()): (name, i)
        for name in ("retain", "forget")
        for i, row in enumerate(rows[name])
    }
    for i, row in enumerate(rows.get("holdout", [])):
        if found := seen.get(tuple(row.items())):
            name, j = found
            raise ValueError(
                f"{holdout}, row {i}: it is row {j} of {files[name]} "
                f"({(row['question'] or row['answer'])[:80]!r}), and "
                "hold-out rows must be ones the model was never trained on: remove it"
            )
    source = {"name": "files"} | {name: str(path) for name, path in files.items()}
    return Benchmark("files", "forget", rows, [], source)


def read(path: Path) -> list[Row]:
    """The rows of a file as {"question", "answer"}; a document has the question "".

    Errors: FileNotFoundError; ValueError with file, line and what is wrong (not UTF-8, cut short,
    no object, a missing or empty text, …), and for a file without rows.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}: rows are JSON lines or a JSON array; {SHAPE}")
    rows = [_row(value, f"{path}, line {line}") for line, value in records(path)]
    if not rows:
        raise ValueError(f"{path} holds no rows: {SHAPE}")
    return rows


def _row(value: Any, where: str) -> Row:
    """The row of a JSON value. Errors: ValueError that begins with `where`."""
    if not isinstance(value, dict):
        raise ValueError(f"{where}: no object but {type(value).__name__}: {SHAPE}")
    if "text" in value and ("question" in value or "answer" in value):
        raise ValueError(f"{where}: both a document and a question: {SHAPE}")
    keys = ("text",) if "text" in value else ("question", "answer")
    texts = {key: text(value, key, where, f": {SHAPE}") for key in keys}
    return {"question": "", "answer": texts["text"]} if "text" in texts else texts
