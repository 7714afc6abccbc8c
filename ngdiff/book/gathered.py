"""Where a sweep gathers its rows: inside the checkout, and over no file but its own.

A file is the sweep's own while its bytes are those that this sweep last wrote there. A record in
the cache lists those files.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ngdiff.store.cache import atomic_write
from ngdiff.store.content import sha256
from ngdiff.store.rows import write_document, write_rows

ROWS = "rows.jsonl"  # where a grid does not say


def place(grid_file: Path, where: Any, root: Path) -> Path:
    """Return the file that a grid's `rows` names. Errors: ValueError for one outside the checkout,
    through `..` or a link too, and for another kind of file.
    """
    if not (isinstance(where, str) and where.endswith((".jsonl", ".parquet"))):
        raise ValueError(
            f"{grid_file}: rows = {where!r}: write the name of a .jsonl or .parquet file"
        )
    leads = (root / where).resolve()
    if not leads.is_relative_to(root.resolve()):
        raise ValueError(
            f"{grid_file}: rows = {where!r} leads to {leads}, outside the checkout {root}: write a "
            f"path inside it, such as report/{leads.name}"
        )
    return root / where


@dataclass(frozen=True)
class Gathered:
    """The file of a sweep's rows. folder: in the cache, of this sweep; its own file lies there
    where the grid names none.
    """

    rows: Path
    grid_file: Path
    folder: Path
    root: Path

    def check(self) -> None:
        """Raise FileExistsError where something stands that this sweep did not write."""
        own = self.rows.parent == self.folder or sha256(self.rows) in self._known()
        if os.path.lexists(self.rows) and not own:
            raise FileExistsError(
                f"{self.grid_file}: {self.rows} exists, and this sweep did not write it as it is: "
                "give `rows` the name of a new file, or move this one away"
            )

    def write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write the rows, after a record of them. Errors: those of `check`."""
        self.check()
        made = self.folder / f"gathered{self.rows.suffix}"
        write_rows(made, rows)
        digests = [digest for digest in map(sha256, (self.rows, made)) if digest]
        write_document(self._record, {"grid": self._name, "rows": self._at, "sha256": digests})
        with atomic_write(self.rows) as temporary:
            shutil.copyfile(made, temporary)

    def _known(self) -> list[str]:
        """Return the sha256 of what this sweep wrote to this file, before and at last."""
        try:
            record = json.loads(self._record.read_text("utf-8"))
            mine = (record["grid"], record["rows"]) == (self._name, self._at)
            return list(record["sha256"]) if mine else []
        except (OSError, ValueError, KeyError, TypeError):
            return []

    @property
    def _record(self) -> Path:
        return self.folder / "gathered.json"

    @property
    def _name(self) -> str:
        """The grid's file as seen from the checkout, which may be moved with both."""
        return os.path.relpath(self.grid_file.resolve(), self.root.resolve())

    @property
    def _at(self) -> str:
        return os.path.relpath(self.rows, self.root)
