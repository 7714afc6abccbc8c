"""The ledger: which executions are done and still valid, of a reproduction and of a sweep."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ngdiff.store.content import changed, sha256
from ngdiff.store.rows import write_document

FIELDS = ("key", "seconds", "files")  # of an entry; one of a failed execution has an `error` too


@dataclass
class Ledger:
    """What the last executions were made from and wrote: {name: {key, seconds, files: {path:
    sha256}}}, in one file.

    An execution is still valid (`trusted`) while its key is the one of this run, it did not fail,
    and every file that it wrote has the same bytes. Executions may write the same file: what one
    wrote gets its new hash in every entry that is valid in this run. A file changed by anything
    else, a failed execution too, makes those that wrote it run again.

    root: what the paths of files are relative to.
    """

    path: Path
    root: Path
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    trusted: set[str] = field(default_factory=set)

    def load(self, keys: Mapping[str, str]) -> Ledger:
        """Read the entries and return the ledger; trusted are those with this run's key whose files
        still have their bytes.

        keys: of everything there is with these settings, chosen or not; an entry of another name is
        not trusted.
        """
        try:
            rows = json.loads(self.path.read_text("utf-8"))
            self.rows = {
                name: row | {key: row[key] for key in FIELDS} for name, row in rows.items()
            }
            whole = {
                name for name, row in self.rows.items() if changed(self.root, row["files"]) is None
            }
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
        ):  # not there, or of another shape: no entries
            self.rows, whole = {}, set()
        good = {name for name, row in self.rows.items() if row.get("error") is None}
        known = {name for name, row in self.rows.items() if row["key"] == keys.get(name)}
        self.trusted |= good & known & whole
        return self

    def add(self, name: str, key: str, seconds: float, files: Iterable[str], **about: Any) -> None:
        """Record a successful execution, and the new hashes of its files in all trusted entries.

        about: what else a reader of the file may want to know.
        """
        new = {file: sha256(self.root / file) for file in files}
        self._enter(name, key, seconds, new, about)
        self.trusted.add(name)
        for row in (self.rows[known] for known in self.trusted):
            row["files"] |= {file: new[file] for file in row["files"].keys() & new.keys()}
        self._save()

    def fail(self, name: str, key: str, seconds: float, error: str, **about: Any) -> None:
        """Record a failed execution, which is never valid."""
        self._enter(name, key, seconds, {}, about | {"error": error})
        self.trusted.discard(name)
        self._save()

    def drop(self, name: str) -> None:
        """Forget an execution before it runs again: a killed run must not look valid."""
        self.rows.pop(name, None)
        self.trusted.discard(name)
        self._save()

    def files(self) -> set[str]:
        """Return every file that a valid execution wrote."""
        return {file for name in self.trusted for file in self.rows[name]["files"]}

    def _enter(
        self,
        name: str,
        key: str,
        seconds: float,
        files: dict[str, str | None],
        about: Mapping[str, Any],
    ) -> None:
        self.rows[name] = {"key": key, "seconds": seconds, "files": files, **about}

    def _save(self) -> None:
        write_document(self.path, self.rows)
