"""Orphans: how a process ends when the one that started it is gone, killed by SIGKILL included.

Nobody can clean up after SIGKILL, so each process watches the one above it:

    reproduce, sweep  <-  papermill  <-  kernel  <-  workers, and whatever else a notebook starts

    end_with(parent)                                   in a process that `parent` started
    end_after(multiprocessing.parent_process().join)   in a worker of a pool
    guard()                                            in a process that leads a group

A kernel leads a process group of its own, which holds everything that its notebook started. The
group ends with it. All of this is POSIX, so it holds on Linux and macOS.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from threading import Thread

PAUSE = 0.2  # seconds between two looks at the parent
GRACE = 1.0  # seconds that a group has to end by itself


def end_with(parent: int) -> None:
    """End this process soon after its parent, the process with that id (`end_after`).

    The id comes from the parent itself: a child that asked for it might ask too late. Call it
    before slow imports, for it watches from then on.
    """

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(PAUSE)

    end_after(wait)


def guard() -> None:
    """Fork a small process that ends this one's group when this one is gone, however that comes.

    A kernel that runs out of memory is killed by the system, and can end nothing itself. Call it
    first, before threads start.
    """
    leader = os.getpid()
    if os.getpgrp() != leader or os.fork():
        return
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):  # those of the group
            signal.signal(number, signal.SIG_IGN)
        while os.getppid() == leader:
            time.sleep(PAUSE)
        os.killpg(leader, signal.SIGTERM)
        time.sleep(GRACE)
        os.killpg(leader, signal.SIGKILL)  # and this process with it
    finally:
        os._exit(1)


def end_after(wait: Callable[[], object]) -> None:
    """Start a thread that ends this process, without any clean-up, when `wait` returns.

    Where the process leads a group, the other members end too.
    """
    Thread(target=_end, args=(wait,), daemon=True).start()


def _end(wait: Callable[[], object]) -> None:
    wait()
    if os.getpgrp() == os.getpid():
        # not SIGKILL: multiprocessing's tracker outlives this and removes the semaphores
        with contextlib.suppress(OSError):
            os.killpg(os.getpid(), signal.SIGTERM)
    os._exit(1)
