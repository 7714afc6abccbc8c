"""A full disk: one error for it, which names the file and says how to go on.

Each library words it in its own way, often many lines below its own calls:

    with room(path):
        save_file(tensors, path)  # safetensors raises an error of its own, without the path
"""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

CODES = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # the disk, a quota, the limit of a file's size
BYTES = 1 << 16  # a full disk often has room for a few more, so a trial writes so many


class FullDiskError(OSError):
    """There is no room for a file: the disk is full, or a limit of the user is reached."""

    @classmethod
    def at(cls, place: object, why: str) -> FullDiskError:
        """Return the error for a place. why: the system's words (`full`)."""
        return cls(
            f"no room to write {place} ({why}): free some space and run the same command again; "
            "files that were finished are kept"
        )


def full(error: Exception | str) -> str:
    """Return the message of the system about a full disk, from an error or its text.

    "" where the fault is another one.
    """
    if isinstance(error, OSError) and error.errno in CODES:
        return os.strerror(error.errno)
    return next((words for words in map(os.strerror, CODES) if words in str(error)), "")


@contextlib.contextmanager
def room(path: Path) -> Iterator[None]:
    """Turn any error about a full disk into a FullDiskError, which names the path."""
    try:
        yield
    except FullDiskError:
        raise
    except Exception as error:
        if why := full(error):
            raise FullDiskError.at(path, why) from error
        raise


def probe_room(folder: Path) -> None:
    """Try some bytes in a folder. Errors: FullDiskError where there is no room for them."""
    trial = folder / f".probe-{uuid.uuid4().hex}.tmp"
    try:
        with room(folder), open(trial, "wb") as handle:
            handle.write(os.urandom(BYTES))
            handle.flush()
            os.fsync(handle.fileno())
    finally:
        trial.unlink(missing_ok=True)
