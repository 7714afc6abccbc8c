"""Slots: how many processes of one reproduction may compute at the same time.

A reproduction runs several notebooks, and each starts workers of its own. Together they must keep
every core busy and use no more than there are. So each worker holds one of `count` slots while it
computes:

    with slot():
        train()

A slot is a file that is locked (flock), so the system frees it when its holder dies. Without
NGDIFF_SLOTS, which `ngdiff reproduce` sets, there is no limit.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

VARIABLE = "NGDIFF_SLOTS"  # FOLDER:COUNT
PAUSE = 0.05  # seconds between two looks for a free slot


def variable(folder: Path, count: int) -> dict[str, str]:
    """Return the environment variable that gives a process and its children `count` slots.

    They are kept in `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return {VARIABLE: f"{folder}:{count}"}


@contextlib.contextmanager
def slot() -> Iterator[None]:
    """Hold one slot while the block runs; wait for one while all are taken."""
    folder, _, count = os.environ.get(VARIABLE, "").rpartition(":")
    if not folder:
        yield
        return
    with contextlib.ExitStack() as stack:
        while not any(_taken(Path(folder) / f"slot-{i}", stack) for i in range(int(count))):
            time.sleep(PAUSE)
        yield


def _taken(path: Path, stack: contextlib.ExitStack) -> bool:
    """Lock the file until `stack` closes; return False where another process holds it."""
    handle = open(path, "a")  # noqa: SIM115 - the stack closes it
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return False
    stack.enter_context(handle)
    return True
