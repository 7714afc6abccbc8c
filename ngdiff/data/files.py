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

from ngdiff.data import forms, overlap
from ngdiff.data.benchmark import Benchmark, Row
from ngdiff.data.forms import SHAPE
from ngdiff.data.sources import filled, records
from ngdiff.store.progress import Progress, to_stderr

MANY = 20_000  # rows of a file whose reading is shown


def benchmark(forget: Path, retain: Path, holdout: Path | None = None) -> Benchmark:
    """The rows of the files, under the split "forget".

    holdout: rows the model was never trained on. Errors: those of `read` and of
    `ngdiff.data.overlap.check`.
    """
    files = {"forget": forget, "retain": retain} | ({"holdout": holdout} if holdout else {})
    found = {name: placed(path) for name, path in files.items()}
    rows = {name: one for name, (one, _) in found.items()}
    places = {name: where for name, (_, where) in found.items()}
    overlap.check(rows, places)
    source = {"name": "files"} | {name: str(path) for name, path in files.items()}
    return Benchmark("files", "forget", rows, [], source, places=places)


def need(path: Path) -> Path:
    """Return a path of rows without `~`, where there is something.

    Error: FileNotFoundError. It reads nothing, so it may come before all that takes time.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(f"no file {path}: rows are JSON lines or a JSON array; {SHAPE}")
    return path


def read(path: Path) -> list[Row]:
    """The rows of a file or folder as {"question", "answer"}; a document has the question "".

    An empty document is left out, and counted in a warning; so are keys that are not used.

    Errors: FileNotFoundError; ValueError with file, line and what is wrong (not UTF-8, cut short,
    no object, a missing or empty text, …), and for a file without rows.
    """
    return placed(path)[0]


def placed(path: Path) -> tuple[list[Row], list[str]]:
    """Return the rows as `read` does, and the place of each: "FILE, line 3"."""
    path = need(path)
    unused: Counter[str] = Counter()
    rows, places = [], []
    found = filled(records(path), forms.blank, f"{path}")
    say = to_stderr if len(found) >= MANY else lambda text: None
    with Progress(f"rows of {path.name}", len(found), say) as bar:
        for n, (where, value) in enumerate(found, start=1):
            row, others = forms.row(value, where)
            rows.append(row)
            places.append(where)
            unused.update(dict.fromkeys(others, 1))
            if not n % MANY or n == len(found):
                bar(n)
    if not rows:
        raise ValueError(f"{path} holds no rows: {SHAPE}")
    if unused:
        named = ", ".join(f"{key or 'a column without a name'} ({n})" for key, n in unused.items())
        warnings.warn(f"{path}: not used, with the number of rows: {named}", stacklevel=3)
    return rows, places
