"""What a reproduction remembers (which executions are still valid) and says while it works."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Lock, Thread
from typing import Any

from ngdiff.store.cache import atomic_write
from ngdiff.store.content import sha256

HEARTBEAT = 30.0  # seconds between progress lines where the output is no terminal


@dataclass
class Records:
    """What the last successful executions were made from and wrote: {name: {key, seconds, files:
    {path: sha256}}}.

    Notebooks may write the same file: what an execution wrote gets its new hash in every record
    that is valid in this run. A file changed by anything else, a failed execution too, makes its
    notebooks run again.
    """

    path: Path
    root: Path
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    trusted: set[str] = field(default_factory=set)

    def load(self, keys: Mapping[str, str]) -> None:
        """Reads the records; trusted are those with this run's key whose files still have their
        bytes.

        keys: of every notebook there is with these settings, chosen or not; a record of any other
        is not trusted.
        """
        try:
            rows = json.loads(self.path.read_text("utf-8"))
            self.rows = {
                name: {k: row[k] for k in ("key", "seconds", "files")} for name, row in rows.items()
            }
            hashes = {
                name: {file: sha256(self.root / file) for file in row["files"]}
                for name, row in self.rows.items()
            }
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
        ):  # not there, or of another shape: no records
            self.rows, hashes = {}, {}
        known = {name for name, row in self.rows.items() if row["key"] == keys.get(name)}
        self.trusted |= {name for name in known if hashes[name] == self.rows[name]["files"]}

    def add(self, name: str, key: str, seconds: float, files: set[str]) -> None:
        """Records a successful execution, and the new hashes of its files in all trusted
        records.
        """
        self.rows[name] = {"key": key, "seconds": seconds, "files": dict.fromkeys(files)}
        self.trusted.add(name)
        new = {file: sha256(self.root / file) for file in files}
        for row in (self.rows[known] for known in self.trusted):
            row["files"] |= {file: new[file] for file in row["files"].keys() & files}
        self.save()

    def drop(self, name: str) -> None:
        """Forgets an execution before its notebook runs again: a killed run must not look valid."""
        self.rows.pop(name, None)
        self.trusted.discard(name)
        self.save()

    def save(self) -> None:
        with atomic_write(self.path) as temporary:
            temporary.write_text(json.dumps(self.rows, indent=1), "utf-8")

    def files(self) -> set[str]:
        """Every file that a valid execution wrote."""
        return {file for name in self.trusted for file in self.rows[name]["files"]}


class Progress:
    """One line a notebook when it ends; meanwhile a live line on a terminal, else a line every
    HEARTBEAT seconds.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self.say, self.lock, self.stop = say, Lock(), Event()
        self.live = say is print and sys.stdout.isatty()
        self.running: dict[str, tuple[int, int, float]] = {}

    def __enter__(self) -> Progress:
        self.thread = Thread(target=self._tick, daemon=True)
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop.set()
        self.thread.join()

    def _tick(self) -> None:
        while not self.stop.wait(1.0 if self.live else HEARTBEAT):
            with self.lock:
                now, running = time.perf_counter(), sorted(self.running.items())
                line = " | ".join(
                    f"{name} cell {k}/{n} {now - start:.0f} s" for name, (k, n, start) in running
                )
                if self.live:
                    sys.stdout.write(f"\r\033[K{line[:110]}")
                    sys.stdout.flush()
                elif line:
                    self.say(f"... {line}")

    def cell(self, name: str, k: int, n: int) -> None:
        """Notebook `name` starts its cell k of n."""
        with self.lock:
            start = self.running.get(name, (0, 0, time.perf_counter()))[2]
            self.running[name] = (k, n, start)

    def end(self, name: str, cells: int, seconds: float, word: str) -> None:
        """Notebook `name` ended; `word` says how."""
        with self.lock:
            self.running.pop(name, None)
            if self.live:
                sys.stdout.write("\r\033[K")
            self.say(f"{name:<28} {cells:>3} cells {seconds:>7.1f} s  {word}")
