"""A benchmark from someone's own files: what to forget, what to retain, and rows never seen.

A row is `{"question": …, "answer": …}`, of which the answer is learned, or a document `{"text":
…}`, of which all is. `ngdiff.data.forms` says which other forms are read, and
`ngdiff.data.sources.records` which kinds of files. Keys that are not used are named with their
count. A document becomes a row without a question, which is encoded without the prompt.
"""

from __future__ import annotations

import warnings
from collections import Counter
from pathlib import Path

from ngdiff.data import forms
from ngdiff.data.benchmark import Benchmark, Row
from ngdiff.data.forms import SHAPE
from ngdiff.data.sources import filled, records


def benchmark(forget: Path, retain: Path, holdout: Path | None = None) -> Benchmark:
    """The rows of the files, under the split "forget".

    holdout: rows the model was never trained on. Errors: those of `read`. ValueError for a row that
    is to be forgotten and kept. ValueError for a hold-out row that is one of the others, since the
    loss on it would not be that on unseen rows.
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
    """The rows of a file or folder as {"question", "answer"}; a document has the question "".

    An empty document is left out, and counted in a warning; so are keys that are not used.

    Errors: FileNotFoundError; ValueError with file, line and what is wrong (not UTF-8, cut short,
    no object, a missing or empty text, …), and for a file without rows.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"no file {path}: rows are JSON lines or a JSON array; {SHAPE}")
    unused: Counter[str] = Counter()
    rows = []
    for where, value in filled(records(path), forms.blank, f"{path}"):
        row, others = forms.row(value, where)
        rows.append(row)
        unused.update(dict.fromkeys(others, 1))
    if not rows:
        raise ValueError(f"{path} holds no rows: {SHAPE}")
    if unused:
        named = ", ".join(f"{key or 'a column without a name'} ({n})" for key, n in unused.items())
        warnings.warn(f"{path}: not used, with the number of rows: {named}", stacklevel=2)
    return rows
