"""Text files that other tools wrote: one reader for all of them.

It reads UTF-8 with or without a byte-order mark, plain or compressed by gzip. Of another file the
error names the kind, by its first bytes, and says what to do.
"""

from __future__ import annotations

import gzip
import json
import zlib
from json import JSONDecodeError
from pathlib import Path
from typing import Any

GZIP = b"\x1f\x8b"
POINTER = b"version https://git-lfs.github.com/spec/"
UTF16 = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\xff\xfe\0\0": "UTF-32"}
PACKED = {b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ": "xz", b"PK\x03\x04": "zip", b"BZh": "bzip2"}


def content_of(path: Path) -> bytes:
    """Return a file's bytes, unpacked where gzip packed them.

    A pipe is read as a file is, and only once. Errors: FileNotFoundError; ValueError naming the
    file for a pointer of git-lfs, a damaged gzip file, and a file that another program packed.
    """
    if not path.exists() or path.is_dir():
        raise FileNotFoundError(f"no file {path}")
    raw = path.read_bytes()
    if raw.startswith(GZIP):
        try:
            raw = gzip.decompress(raw)
        except (OSError, EOFError, zlib.error) as error:
            raise ValueError(f"{path} is not a whole gzip file ({error}): get it again") from error
    if raw.startswith(POINTER):
        raise ValueError(
            f"{path} is a pointer of git-lfs, not the file itself: run `git lfs pull` in its "
            "folder, or download the file again"
        )
    for mark, program in PACKED.items():
        if raw.startswith(mark):
            raise ValueError(f"{path} is packed by {program}: unpack it, or pack it with gzip")
    return raw


def text_of(path: Path) -> str:
    """Return a file's text (`decoded`). Errors: those of `content_of` too."""
    return decoded(content_of(path), path)


def decoded(raw: bytes, path: Path) -> str:
    """Return the text of a file's bytes, without its byte-order mark.

    Error: ValueError with file and line for what is not UTF-8.
    """
    for mark in sorted(UTF16, key=len, reverse=True):
        if raw.startswith(mark):
            code = UTF16[mark]
            raise ValueError(
                f"{path} is written in {code}: save it as UTF-8, for one by "
                f"`iconv -f {code} -t UTF-8 {path.name} > new-{path.name}`"
            )
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise ValueError(
            f"{path}, line {line}: not UTF-8 (byte {raw[error.start]:#04x}): save the file as UTF-8"
        ) from error


def parsed(text: str, **options: Any) -> Any:
    """Return the value of a JSON text; options as of `json.loads`.

    Errors: JSONDecodeError, also for what Python cannot hold: brackets in brackets by the thousand,
    and whole numbers of thousands of digits.
    """
    try:
        return json.loads(text, **options)
    except JSONDecodeError:
        raise
    except RecursionError as error:
        raise JSONDecodeError("objects or lists nested too deeply", text, 0) from error
    except ValueError as error:
        raise JSONDecodeError("a number of too many digits", text, 0) from error
