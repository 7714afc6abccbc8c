"""The ledger: which executions are done and still valid, of a reproduction and of a sweep."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ngdiff.store.content import changed, sha256
from ngdiff.store.rows import write_document


@dataclass
class Ledger:
    """What the last executions were made from and wrote, in one file.

    The file holds {name: {key, seconds, files: {path: sha256}}}; a failed one has an `error` too.

    An execution is still valid (`trusted`) while its key is the one of this run, it did not fail,
    and every file that it wrote has the same bytes. Executions may write the same file: what one
    wrote gets its new hash in every entry that is valid in this run. A file changed by anything
    else, a failed execution too, makes those that wrote it run again.

    root: what the paths of files are relative to. fault: the message about a file that could not be
    read; "" where it could, or where there is none.
    """

    path: Path
    root: Path
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    trusted: set[str] = field(default_factory=set)
    fault: str = ""

    def load(self, keys: Mapping[str, str]) -> Ledger:
        """Read the entries and return the ledger.

        Trusted are those with this run's key whose files still have their bytes. A file that is
        damaged, or of another shape, has no entries, and `fault` says why.

        keys: of everything there is with these settings, chosen or not; an entry of another name is
        not trusted.
        """
        self.rows, self.trusted, self.fault = {}, set(), ""
        try:
            rows = json.loads(self.path.read_text("utf-8"))
            for name, row in rows.items():
                _check(name, row)
            good = {name for name, row in rows.items() if row.get("error") is None}
            known = {name for name in good if rows[name]["key"] == keys.get(name)}
            whole = {name for name in known if changed(self.root, rows[name]["files"]) is None}
            self.rows, self.trusted = rows, whole
        except FileNotFoundError:
            pass
        except (OSError, ValueError, AttributeError) as error:
            self.fault = f"{self.path} is damaged ({error}): its executions run again"
        return self

    def add(self, name: str, key: str, seconds: float, files: Iterable[str], **about: Any) -> None:
        """Record a successful execution, and the new hashes of its files in all trusted entries.

        about: other information for a reader of the file.
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


def _check(name: str, row: Any) -> None:
    """Raise ValueError for an entry that is not of the shape that `Ledger` writes."""
    kinds: dict[str, Any] = {"key": str, "seconds": (int, float), "files": dict}
    if not isinstance(row, dict):
        raise ValueError(f"the entry {name} is no mapping")
    if wrong := [field for field, kind in kinds.items() if not isinstance(row.get(field), kind)]:
        raise ValueError(f"the entry {name} has no {wrong[0]}, or not in a form that is known")
