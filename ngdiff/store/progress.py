"""The line of progress of whatever takes long: how much is done, for how long, how much is left.

    progress = Progress("trial", len(todo))
    for n, trial in enumerate(todo, 1):
        run(trial)
        progress(n)

    trial 3/12, 95 s, about 5 min left

On a terminal the line is written over and over; elsewhere one is printed every HEARTBEAT seconds.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from threading import Lock
from types import TracebackType
from typing import TextIO

from ngdiff.store.table import displayed

HEARTBEAT = 30.0  # seconds between two lines where the output is no terminal
LIVE = 0.2  # where it is one
WIDTH = 80  # of a terminal that does not tell its own
ERASE = "\r\033[K"  # back to the beginning of the line, and nothing right of it

Say = Callable[[str], None]


def to_stderr(text: str) -> None:
    """Print a line where progress goes: it is no result."""
    print(text, file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """Return seconds in the unit that a person would use: 95 s, 12 min, 3.5 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def fitted(text: str, stream: TextIO) -> str:
    """Return as much of a line as its terminal shows without wrapping it: what wraps, stays."""
    try:
        width = os.get_terminal_size(stream.fileno()).columns or WIDTH
    except (OSError, ValueError):  # it has no file, or a closed one
        width = WIDTH
    while displayed(text) >= width:
        text = text[:-1]
    return text


class Progress:
    """One line of progress, which shows how much is done; threads may share it.

    what    the unit that is counted, such as "trial"
    total   how many there are
    say     prints a line. The line is live only where this is `print` or `to_stderr`, onto a
            terminal
    every   seconds between two lines that are not live
    begun   how many were done before: they say nothing about the speed
    last    False: the end has no line, because another one reports it
    """

    def __init__(
        self,
        what: str,
        total: int,
        say: Say = to_stderr,
        *,
        every: float = HEARTBEAT,
        begun: int = 0,
        last: bool = True,
    ) -> None:
        self.what, self.total, self.say, self.last = what, total, say, last
        self.begun = self.done = begun
        self.stream = {print: sys.stdout, to_stderr: sys.stderr}.get(say)
        self.live = self.stream is not None and self.stream.isatty()
        self.every = LIVE if self.live else every
        self.started = self.shown = time.monotonic()
        self.lock = Lock()

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        """Tell that so many are done; show it where the last line is old enough, and at the end.

        total: where it is known only now.
        """
        with self.lock:
            self.done, self.total = done, self.total if total is None else total
            now, ended = time.monotonic(), self.done >= self.total
            if ended and not self.last:
                self._write(ERASE)
            elif ended or now - self.shown >= self.every:
                self.shown = now
                if self.stream is not None and self.live and not ended:
                    self._write(f"{ERASE}{fitted(self.line(note), self.stream)}")
                else:
                    self._print(self.line(note))

    def event(self, text: str, done: int | None = None) -> None:
        """Print a line that stays, with the count before the text; `done`: one more than before."""
        with self.lock:
            self.done = self.done + 1 if done is None else done
            self._print(self.line(text))

    def line(self, note: str = "") -> str:
        """Return the count, the time spent and left, and the note.

        The time left is estimated from the speed so far.
        """
        spent = time.monotonic() - self.started
        made, left = self.done - self.begun, self.total - self.done
        words = [f"{self.what} {self.done}/{self.total}", duration(spent)]
        words += [f"about {duration(spent / made * left)} left"] if made > 0 and left > 0 else []
        return ", ".join(words) + (f": {note}" if note else "")

    def close(self) -> None:
        """Take a live line away."""
        with self.lock:
            self._write(ERASE)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _print(self, text: str) -> None:
        self._write(ERASE)
        self.say(text)

    def _write(self, text: str) -> None:
        if self.live and self.stream is not None:
            self.stream.write(text)
            self.stream.flush()
