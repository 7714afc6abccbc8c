"""Where rows come from: a file of JSON, a parquet file, or a data set of the hub.

Each error says which file and line.

One reader for every loader. What a row must hold is its loader's business.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import Any

BETWEEN = re.compile(r"[\s,]*")  # elements of an array


def records(path: Path) -> list[tuple[int, Any]]:
    """(line, value) of every value in a file of JSON lines, or of one JSON array.

    The file's first character says which.

    Errors: FileNotFoundError; ValueError with file and line for what is not UTF-8, not JSON or cut
    short.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    raw = path.read_bytes()
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path}, line {line}: not UTF-8 (byte {raw[error.start]:#04x}): save the file as UTF-8"
        ) from error
    return list((_array if text.lstrip().startswith("[") else _lines)(text, path))


def _lines(text: str, path: Path) -> Iterator[tuple[int, Any]]:
    # not splitlines: U+2028 may stand in a string
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except JSONDecodeError as error:
                cut = (
                    "it is cut short, or "
                    if error.pos >= len(line.rstrip()) or "Unterminated" in error.msg
                    else ""
                )
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


def text(value: dict[str, Any], key: str, where: str, hint: str = "") -> str:
    """value[key], which must be text that a tokenizer takes.

    Error: ValueError that begins with `where` and ends in `hint`.
    """
    if key not in value:
        raise ValueError(f"{where}: no {key!r} (its keys: {', '.join(value) or 'none'}){hint}")
    found = value[key]
    if not isinstance(found, str):
        raise ValueError(f"{where}: {key!r} is {type(found).__name__}, not text{hint}")
    if not found.strip():
        raise ValueError(f"{where}: {key!r} is empty: fill it in or drop the row")
    if any("\ud800" <= letter <= "\udfff" for letter in found):
        raise ValueError(
            f"{where}: {key!r} holds half a character (a lone surrogate), which no tokenizer takes"
        )
    return found


def parquet(path: Path) -> list[tuple[int, Any]]:
    """(row number from 1, row) of a parquet file.

    Errors: FileNotFoundError; ValueError for a damaged one.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        return list(enumerate(pyarrow.parquet.read_table(path).to_pylist(), start=1))
    except pyarrow.ArrowInvalid as error:
        raise ValueError(f"{path} is not a whole parquet file ({error}): get it again") from error


def hub(repository: str, config: str, split: str, revision: str | None) -> list[dict[str, Any]]:
    """The rows of a data set on the hub, from its cache or by download.

    Error: ConnectionError saying what to do.
    """
    try:
        return dataset(repository, config, split=split, revision=revision)
    except (OSError, ValueError) as error:
        raise ConnectionError(
            f"cannot get config {config!r} ({split}) of {repository} (revision {revision}): "
            f"{error}. Connect to the hub (and unset HF_HUB_OFFLINE), "
            "or pass root=FOLDER (--data FOLDER) with the hub's files, "
            f"got elsewhere by `hf download {repository} --repo-type dataset --local-dir FOLDER`"
        ) from error


def dataset(path: str, config: str, split: str = "train", **options: Any) -> list[dict[str, Any]]:
    """`datasets.load_dataset(path, config, split=split)` as plain rows."""
    import datasets  # here and not above: it takes seconds to import

    with _quiet(datasets):
        return datasets.load_dataset(path, config, split=split, **options).to_list()


@contextmanager
def _quiet(datasets: Any) -> Iterator[None]:
    """No progress bars for a dozen small files; the setting is put back."""
    were_off = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not were_off:
            datasets.enable_progress_bars()
