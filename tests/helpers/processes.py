"""The processes that a command started, found by a mark in the environment that they inherit."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import psutil

VARIABLE = "NGDIFF_TEST_MARK"


def marked(mark: str) -> list[psutil.Process]:
    """Return those that run with this mark, wherever in the tree of processes they are by now."""
    return [process for process in psutil.process_iter() if _mark(process) == mark]


def _mark(process: psutil.Process) -> str | None:
    try:
        if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
            return None
        return process.environ().get(VARIABLE)
    except (psutil.Error, OSError):
        return None


def commands(mark: str) -> str:
    """Return the command lines of the marked processes, a line each."""
    lines = []
    for process in marked(mark):
        try:
            lines.append(" ".join(process.cmdline()))
        except psutil.Error:  # it has ended since
            continue
    return "\n".join(lines)


def wait_for(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Return when the condition holds. Errors: AssertionError where it takes longer."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "waited too long"
        time.sleep(0.05)


def none_left(mark: str, seconds: float = 5.0) -> None:
    """Return when no marked process is left. Errors: AssertionError with those that are there."""
    try:
        wait_for(lambda: not marked(mark), seconds)
    except AssertionError as error:
        raise AssertionError(f"left after {seconds:.0f} s:\n{commands(mark)}") from error
