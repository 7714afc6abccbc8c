"""Committed numbers against new ones: which rows each side has, and whether they agree.

Committed rows come from git's HEAD (or, without git, from a copy made before the first run), new
ones only from files that a valid execution wrote. What was not run says so; it is never filled from
the other side.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ngdiff.store.rows import read_rows
from ngdiff.store.table import Column, Table

SUMMARY = "*summary.jsonl"  # under data/results/<label>/
NOT_RUN = "not run"


@dataclass(frozen=True)
class Compared:
    """One number: committed and new, None where a side has no row.

    Its status is ok, differs, new, not run, or not compared.
    """

    name: str
    committed: dict[str, Any] | None
    new: dict[str, Any] | None

    @property
    def tolerance(self) -> float | None:
        return (self.committed or self.new or {}).get("tolerance")

    @property
    def of_evidence(self) -> bool:
        """Return whether the number is of the long comparison, which `ngdiff evidence` runs."""
        return any(
            name.startswith("evidence_") for name in sources(self.committed or self.new or {})
        )

    @property
    def status(self) -> str:
        if self.new is None:
            return NOT_RUN
        if self.committed is None:
            return "new"
        old, new = self.committed["value"], self.new["value"]
        if not (_number(old) and _number(new)):
            return "ok" if old == new else "differs"
        if self.tolerance is None:
            return "not compared"
        return "ok" if abs(new - old) <= self.tolerance else "differs"


def sources(row: Mapping[str, Any]) -> list[str]:
    """Return the names of the saved files that a summary row was computed from."""
    source = row.get("source") or []
    return [source] if isinstance(source, str) else source


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


# --------------------------------------------------------------------------------------------- rows
def _git(root: Path, *arguments: str) -> str | None:
    command = ["git", "-C", str(root), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None


def committed_rows(root: Path, label: str, backup: Path) -> dict[str, dict[str, Any]]:
    """Return name -> summary row, as committed.

    Without git they are as they were before the first run, kept in `backup`.
    """
    folder = f"data/results/{label}"
    top = _git(root, "rev-parse", "--show-toplevel")
    names = _git(root, "ls-tree", "--name-only", "HEAD", f"{folder}/") if top else None
    if top and Path(top.strip()) == root.resolve() and names is not None:
        texts = (
            _git(root, "show", f"HEAD:{name}")
            for name in names.splitlines()
            if Path(name).match(SUMMARY)
        )
        rows = [json.loads(line) for text in texts for line in (text or "").splitlines()]
        return {row["name"]: row for row in rows}
    if not backup.exists():
        temporary = backup.with_name(f".{backup.name}.tmp")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        for path in (root / folder).glob(SUMMARY):
            shutil.copy(path, temporary)
        temporary.rename(backup)
    return {row["name"]: row for path in sorted(backup.glob(SUMMARY)) for row in read_rows(path)}


def fresh_files(folder: Path, pattern: str, root: Path, files: Iterable[str]) -> list[Path]:
    """The files of `folder` that a valid execution wrote."""
    written = set(files)
    return [
        path
        for path in sorted(folder.glob(pattern))
        if path.relative_to(root).as_posix() in written
    ]


def new_rows(root: Path, label: str, files: Iterable[str]) -> dict[str, dict[str, Any]]:
    """name -> summary row of this run; `files`: what valid executions wrote, relative to root.

    A row that was computed from saved rows names their files as its `source`. One of these may not
    be of this run, because its notebook failed or was not chosen. Then the number was read from
    committed rows, and counts as not run.
    """
    folder, written = f"data/results/{label}", set(files)

    def fresh(row: Mapping[str, Any]) -> bool:
        return {f"{folder}/{name}" for name in sources(row)} <= written

    rows = [
        row
        for path in fresh_files(root / folder, SUMMARY, root, written)
        for row in read_rows(path)
    ]
    return {row["name"]: row for row in rows if fresh(row)}


def compare(
    committed: Mapping[str, dict[str, Any]], new: Mapping[str, dict[str, Any]]
) -> list[Compared]:
    """Return every number that either side has, in the committed order, new names last."""
    return [
        Compared(name, committed.get(name), new.get(name))
        for name in dict.fromkeys([*committed, *new])
    ]


# --------------------------------------------------------------------------------------------- text
def shown(value: Any) -> str:
    """Return a number of a row as it is printed."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


COLUMNS = (
    Column("number"),
    Column("committed", format=shown),
    Column("new", format=shown),
    Column("tolerance", format=shown),
    Column("ok"),
)


def table(comparison: Iterable[Compared]) -> Table:
    """Return the comparison as a table, a row a number."""

    def row(item: Compared) -> dict[str, Any]:
        unit = (item.committed or item.new or {}).get("unit")
        return {
            "number": f"{item.name} [{unit}]" if unit else item.name,
            "committed": item.committed and item.committed["value"],
            "new": item.new["value"] if item.new else NOT_RUN,
            "tolerance": item.tolerance,
            "ok": item.status,
        }

    return Table(COLUMNS, [row(item) for item in comparison])


def as_text(comparison: Sequence[Compared]) -> str:
    """Return the verdict, then a table of the numbers outside tolerance, for a terminal.

    The whole table stands in the HTML report.
    """
    wrong = [item for item in comparison if item.status in ("differs", "not compared")]
    return "\n\n".join([verdict(comparison), *[table(wrong).text()] * bool(wrong)])


def verdict(comparison: Sequence[Compared]) -> str:
    """Return the comparison in sentences: what is within tolerance, not run, new."""
    if not comparison:
        return "There are no numbers to compare, neither committed nor new."
    both = [item for item in comparison if item.committed and item.new]
    ok = sum(item.status == "ok" for item in both)
    said = [f"{ok} of {len(both)} reproduced numbers are within tolerance."] if both else []
    missing = [item for item in comparison if item.new is None]
    grid = sum(item.of_evidence for item in missing)
    if grid:
        said.append(f"{grid} belong to the long comparison (ngdiff evidence) and were not run.")
    if rest := len(missing) - grid:
        said.append(f"{rest} {'more ' if said else ''}were not run.")
    if new := sum(item.committed is None for item in comparison):
        said.append(f"{new} are new: nothing is committed to compare them with.")
    return " ".join(said)
