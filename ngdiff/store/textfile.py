"""Text files that other tools wrote: one reader for all of them.

It reads UTF-8 with or without a byte-order mark, plain or compressed by gzip. Of another file the
error names the kind, by its first bytes, and says what to do.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

GZIP = b"\x1f\x8b"
POINTER = b"version https://git-lfs.github.com/spec/"
UTF16 = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"\xff\xfe\0\0": "UTF-32"}
PACKED = {b"\x28\xb5\x2f\xfd": "zstd", b"\xfd7zXZ": "xz", b"PK\x03\x04": "zip", b"BZh": "bzip2"}


def content_of(path: Path) -> bytes:
    """Return a file's bytes, unpacked where gzip packed them.

    Errors: FileNotFoundError; ValueError naming the file for a pointer of git-lfs, a damaged gzip
    file, and a file that another program packed.
    """
    if not path.is_file():
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
    """Return a file's text, without its byte-order mark.

    Errors: those of `content_of`; ValueError with file and line for what is not UTF-8.
    """
    raw = content_of(path)
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
