"""Where rows come from: a file or folder of one of the kinds that are in use, or the hub.

Each error says which file and line.

One reader for every loader. What a row must hold is its loader's business.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from json import JSONDecodeError, JSONDecoder
from pathlib import Path
from typing import Any

from ngdiff.data import tables
from ngdiff.data.tables import Found
from ngdiff.store.textfile import content_of, decoded, parsed

PLAIN = (".json", ".jsonl", ".parquet", ".arrow", ".csv", ".tsv")
KINDS = (*PLAIN, *(f"{kind}.gz" for kind in PLAIN))  # how a file of rows ends
DELIMITERS = {"csv": ",", "tsv": "\t"}
TURNS = ("messages", "conversations", "prompt", "completion")  # of a chat: one row, no set of rows
BETWEEN = re.compile(r"[\s,]*")  # elements of an array


def records(path: Path) -> Found:
    """(where, value) of every row of a file or folder; where is "FILE, line 3", or "FILE, row 3".

    A pipe is read like a file, once. Of a csv pipe, which has no name to know it by, the first line
    tells.

    A file of JSON is JSON lines, one array of rows, or one object that holds the rows (under one
    key, or column by column). Parquet and Arrow files are known by their first bytes, csv by its
    name, each of them packed by gzip or not. A folder is one that `datasets` saved, or holds the
    shards of one set of rows.

    Errors: FileNotFoundError; ValueError with file and line for what is not UTF-8, not of its kind
    or cut short.
    """
    path = Path(path).expanduser()
    if path.is_dir():
        found = tables.saved(path)
        if found is None:
            found = [row for shard in tables.shards(path) for row in records(shard)]
        return found
    raw = content_of(path)
    if (found := tables.binary(raw, path)) is not None:
        return found
    text = decoded(raw, path)
    if delimiter := _delimiter(text, path):
        return tables.separated(text, path, delimiter)
    if text.lstrip().startswith("["):
        return list(_array(text, path))
    try:
        return list(_lines(text, path))
    except ValueError:
        whole = _object(text)
        if whole is None:
            raise
        return _inside(whole, path)


def _delimiter(text: str, path: Path) -> str:
    """Return what stands between the cells of a csv file; "" for a file of another kind.

    Spreadsheets of many countries write semicolons.
    """
    kind = path.name.removesuffix(".gz").rpartition(".")[2]
    if text.lstrip()[:1] in ("{", "[") or (kind not in DELIMITERS and path.is_file()):
        return ""
    header = text.lstrip().partition("\n")[0]
    usual = DELIMITERS.get(kind, ",")
    return next(
        (mark for mark in (usual, ",", ";", "\t") if mark in header), DELIMITERS.get(kind, "")
    )


def _object(text: str) -> dict[str, Any] | None:
    """Return the one JSON object that a text is, None where it is something else."""
    try:
        found = parsed(text)
    except JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _inside(whole: dict[str, Any], path: Path) -> Found:
    """Return the rows that one JSON object holds; itself, where it holds none."""
    parts = list(whole.values())
    if all(isinstance(part, dict) and part.keys() == parts[0].keys() for part in parts) and parts:
        return tables.placed(path, [{k: whole[k][i] for k in whole} for i in parts[0]])
    held = [k for k, v in whole.items() if isinstance(v, list) and v and isinstance(v[0], dict)]
    if len(held) != 1 or held[0] in TURNS:
        return [(f"{path}, line 1", whole)]
    if others := [key for key in whole if key != held[0]]:
        warnings.warn(
            f"{path}: rows are under {held[0]!r}; not used: {', '.join(others)}", stacklevel=4
        )
    return tables.placed(path, whole[held[0]])


def _lines(text: str, path: Path) -> Found:
    found = list(_each_line(text, path))
    if len(found) == 1 and isinstance(found[0][1], dict):
        return _inside(found[0][1], path)
    return found


def _each_line(text: str, path: Path) -> Iterator[tuple[str, Any]]:
    # not splitlines: U+2028 may stand in a string
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield f"{path}, line {number}", parsed(line)
            except JSONDecodeError as error:
                cut = (
                    "it is cut short, or "
                    if error.pos >= len(line.rstrip()) or "Unterminated" in error.msg
                    else ""
                )
                raise ValueError(
                    f"{path}, line {number}: not JSON ({error.msg}): {cut}one row must be one line"
                ) from error


def _array(text: str, path: Path) -> Iterator[tuple[str, Any]]:
    try:
        whole = parsed(text)
    except JSONDecodeError as error:
        why = f"not JSON ({error.msg}): the array is damaged or cut short"
        raise ValueError(f"{path}, line {error.lineno}: {why}") from error
    at, begin, line = text.index("[") + 1, 0, 1
    for _ in whole:  # once more, one by one, so that each knows its line
        start = BETWEEN.match(text, at).end()
        line, begin = line + text.count("\n", begin, start), start
        value, at = JSONDecoder().raw_decode(text, start)
        yield f"{path}, line {line}", value


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


def stored(place: Path) -> Path | None:
    """The file that holds the rows of a name without its ending, in the order of `KINDS`; or a
    folder of that name that `datasets` saved.
    """
    for kind in KINDS:
        if (path := place.with_name(place.name + kind)).is_file():
            return path
    return place if (place / tables.SAVED).is_file() else None


def filled(found: Found, empty: Callable[[Any], bool], source: str) -> Found:
    """The rows that are not empty; published sets have a few that are.

    What is left out is counted in a warning that begins with `source`.
    """
    blank = [where for where, value in found if empty(value)]
    if blank:
        rows = "1 row is" if len(blank) == 1 else f"{len(blank)} rows are"
        warnings.warn(
            f"{source}: {rows} left out because a text is empty (first: {blank[0]})", stacklevel=3
        )
    return [(where, value) for where, value in found if not empty(value)] if blank else found


def without(*keys: str) -> Callable[[Any], bool]:
    """Return whether a value, or one of an object's texts under these keys, is empty or null."""

    def empty(value: Any) -> bool:
        texts = [value[k] for k in keys if k in value] if isinstance(value, dict) else [value]
        return any(text is None or (isinstance(text, str) and not text.strip()) for text in texts)

    return empty


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
            "downloaded elsewhere by "
            f"`hf download {repository} --repo-type dataset --local-dir FOLDER`"
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
