"""Tables as rows: csv, parquet, Arrow files, and folders that `datasets` wrote.

Each reader returns (where, row): the place of a row in words, "FILE, row 3", and its columns by
name. A row is counted from 1, in the order of the file.
"""

from __future__ import annotations

import csv
import io
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ngdiff.store.textfile import content_of

Found = list[tuple[str, Any]]

PARQUET, ARROW, STREAM = b"PAR1", b"ARROW1", b"\xff\xff\xff\xff"
SAVED, SPLITS = "state.json", "dataset_dict.json"  # of `save_to_disk`: one split, several
SHARD = re.compile(r"(.+)-\d{5}-of-\d{5}(-[0-9a-f]+)?")
KINDS = ("parquet", "arrow", "jsonl", "json", "csv", "tsv")


def binary(raw: bytes, path: Path) -> Found | None:
    """Return the rows of a parquet or Arrow file, None for a file of another kind.

    raw: its bytes. Error: ValueError for a damaged one.
    """
    named = path.suffix.removeprefix(".")
    kind = "parquet" if raw.startswith(PARQUET) or named == "parquet" else ""
    if not kind and (raw.startswith((ARROW, STREAM)) or named == "arrow"):
        kind = "Arrow"
    if not kind:
        return None
    import pyarrow  # here and not above: few files need it

    try:
        table = _parquet(raw) if kind == "parquet" else _arrow(raw)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} is not a whole {kind} file ({error}): get it again") from error
    return placed(path, table.to_pylist())


def placed(path: Path, rows: list[Any]) -> Found:
    """Return the rows with their places."""
    return [(f"{path}, row {i}", row) for i, row in enumerate(rows, start=1)]


def _parquet(raw: bytes) -> Any:
    import pyarrow
    import pyarrow.parquet

    return pyarrow.parquet.read_table(pyarrow.BufferReader(raw))


def _arrow(raw: bytes) -> Any:
    import pyarrow

    kind = pyarrow.ipc.open_file if raw.startswith(ARROW) else pyarrow.ipc.open_stream
    return kind(pyarrow.BufferReader(raw)).read_all()


def separated(text: str, path: Path, delimiter: str = ",") -> Found:
    """Return the rows of a csv file: every cell is text, an empty one is None.

    Errors: ValueError for a column that stands twice, and a line of another length than the header.
    """
    lines = fields(text, path, delimiter)
    _, header = next(lines, (0, []))
    if double := [name for name, n in Counter(header).items() if n > 1]:
        raise ValueError(f"{path}: the column {double[0]!r} stands more than once")
    return [(place, {k: v or None for k, v in zip(header, cells)}) for place, cells in lines]


def fields(text: str, path: Path, delimiter: str = ",") -> Iterator[tuple[str, list[str]]]:
    """Yield the place and the cells of each line that is not empty, the header's first.

    Errors: ValueError with file and line for what is not csv, and for a line of another length
    than the header.
    """
    reader, width = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), 0
    with _long_cells():
        try:
            for row, cells in enumerate(filter(None, reader)):
                width = width or len(cells)
                if len(cells) != width:
                    raise ValueError(
                        f"{path}: not a whole csv file: row {row} (line {reader.line_num}) has "
                        f"{len(cells)} fields, the header {width}"
                    )
                yield f"{path}, row {row}", cells
        except csv.Error as error:
            raise ValueError(f"{path}, line {reader.line_num}: not csv: {error}") from error


@contextmanager
def _long_cells() -> Iterator[None]:
    """Cells of any length, as documents are; the setting of `csv` is put back."""
    before = csv.field_size_limit(sys.maxsize)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def saved(folder: Path) -> Found | None:
    """Return the rows of a folder that `datasets`' `save_to_disk` wrote, None for another folder.

    Error: ValueError naming the splits, where it holds several.
    """
    if (folder / SPLITS).is_file():
        names = sorted(path.name for path in folder.iterdir() if (path / SAVED).is_file())
        if len(names) == 1:
            return saved(folder / names[0])
        raise ValueError(
            f"{folder} holds the splits {', '.join(names) or 'none'}: give the folder of one, "
            f"such as {folder / (names or ['train'])[0]}"
        )
    if not (folder / SAVED).is_file():
        return None
    for path in sorted(folder.glob("*.arrow")):
        content_of(path)  # a pointer of git-lfs is named
    import datasets  # here and not above: it takes seconds to import

    try:
        return placed(folder, datasets.load_from_disk(str(folder)).to_list())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{folder} is not a whole folder of `datasets` ({error})") from error


def shards(folder: Path) -> list[Path]:
    """Return the files of the one set of rows that a folder holds, in their order.

    Errors: FileNotFoundError for a folder without any; ValueError for one with several, naming
    them.
    """
    for kind in KINDS:
        for place in (folder, folder / "data"):
            files = sorted([*place.glob(f"*.{kind}"), *place.glob(f"*.{kind}.gz")])
            if not files:
                continue
            names = {_set_of(path) for path in files}
            if len(names) == 1:
                return files
            raise ValueError(
                f"{folder} holds several sets of rows ({', '.join(sorted(names))}): give one file"
            )
    raise FileNotFoundError(
        f"no file {folder}: it is a folder without rows ({', '.join(KINDS)}, or a folder that "
        "`datasets` saved)"
    )


def _set_of(path: Path) -> str:
    """Return the name of the set that a shard belongs to; of another file, its own."""
    name = path.name.removesuffix(".gz").rpartition(".")[0]
    match = SHARD.fullmatch(name)
    return match[1] if match else path.name
