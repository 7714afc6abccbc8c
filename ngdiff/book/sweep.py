"""`ngdiff sweep`: a grid of cells, each one papermill execution of notebooks/cell.py.

    # notebooks/grid.toml is an example
    rows = "report/cells.jsonl"      # where the rows are gathered, in the checkout
    [grid]                                      # a list is swept over, the rest is in every cell
    profile = "tiny"
    method  = ["ngdiff", "graddiff-0.5"]
    lr      = [1e-4, 1e-3]
    seeds   = [0, 1, 2]                         # one cell a seed

A cell is done when its ledger (`ngdiff.book.ledger`) has this cell's content key and the sha256 of
the rows it wrote. A failing cell is recorded and stops no other; the rows are gathered when every
cell is done.
"""

from __future__ import annotations

import functools
import itertools
import math
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ngdiff.book import build as book
from ngdiff.book import execute
from ngdiff.book.gathered import ROWS, Gathered, place
from ngdiff.book.ledger import Ledger
from ngdiff.store import paths
from ngdiff.store.cache import probe_writable
from ngdiff.store.content import content_key
from ngdiff.store.progress import Progress
from ngdiff.store.rows import read_rows
from ngdiff.store.textfile import text_of
from ngdiff.store.values import content


@dataclass(frozen=True)
class Cell:
    """One point of the grid.

    folder: where its rows (<key>.jsonl), executed notebook (.ipynb) and ledger (.json) are.
    """

    parameters: dict[str, Any]
    key: str
    folder: Path

    def file(self, suffix: str) -> Path:
        return self.folder / f"{self.key}{suffix}"

    def ledger(self) -> Ledger:
        """Return its ledger, a file a cell, since the tasks of an array run at once."""
        return Ledger(self.file(".json"), self.folder).load({self.key: self.key})

    def done(self) -> bool:
        """Return whether it ended well, from what its key says, and its rows have their bytes."""
        return self.key in self.ledger().trusted

    def __str__(self) -> str:
        return " ".join(f"{k}={v}" for k, v in self.parameters.items() if k != "out")


def expand(grid: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return every combination of the grid's lists, in order; a seed becomes `seeds=[seed]`."""
    axes = {name: value if isinstance(value, list) else [value] for name, value in grid.items()}
    if empty := [name for name, values in axes.items() if not values]:
        raise ValueError(f"the grid's {empty[0]} is an empty list: give it a value or leave it out")
    points = [dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values())]
    return [point | ({"seeds": [point["seeds"]]} if "seeds" in point else {}) for point in points]


def cells(grid_file: Path, source: Path, root: Path) -> tuple[list[Cell], Path]:
    """Return the cells of a grid file and where their rows are gathered.

    Errors: ValueError on a file that is no grid, on rows outside the checkout, and on a parameter
    that cell.py does not have.
    """
    written = text_of(grid_file)
    try:
        text = tomllib.loads(written)
    except ValueError as error:
        raise ValueError(f"{grid_file} is not TOML: {error}") from error
    if unknown := set(text) - {"rows", "grid"}:
        raise ValueError(
            f"{grid_file}: unknown entry {sorted(unknown)[0]!r}; "
            "there are `rows` and the table [grid]"
        )
    if not isinstance(text.get("grid"), dict):
        raise ValueError(
            f"{grid_file} has no table [grid]: write one with the parameters to sweep over"
        )
    folder = root / ".cache" / "sweep" / grid_file.stem
    rows = place(grid_file, text["rows"], root) if "rows" in text else folder / ROWS
    for name, value in text["grid"].items():
        _check_values(f"{grid_file}: {name}", value if isinstance(value, list) else [value])
    declared = book.parameters(book.notebook(source), source)
    if unknown := set(text["grid"]) - set(declared) or {"out"} - set(declared):
        raise ValueError(
            f"{source} has no parameter {sorted(unknown)[0]!r}; it has {', '.join(declared)}"
        )
    made = []
    # hashes the folders that the texts name
    base = functools.cache(lambda texts: execute.execution_key(source, dict(texts)))
    for point in expand(text["grid"]):
        settings = declared | point | {"out": None, "refresh": None}
        texts = tuple((name, value) for name, value in settings.items() if isinstance(value, str))
        key = content_key(base(texts), settings, *_own(settings))
        made.append(Cell(point | {"out": str(folder / f"{key}.jsonl")}, key, folder))
    return made, rows


def _own(settings: Mapping[str, Any]) -> list[Any]:
    """Return the content of a method "module:name", code included; [] for the package's."""
    name = settings.get("method")
    if not (isinstance(name, str) and ":" in name):
        return []
    from ngdiff.methods import lookup  # imports torch, which names of ours do not need

    return [content(lookup.method(name).parts)]


def _check_values(where: str, values: list[Any]) -> None:
    """Raise ValueError for a value that no parameter can take, and for one that stands twice."""
    for value in values:
        if not isinstance(value, (bool, int, float, str)) or (
            isinstance(value, float) and not math.isfinite(value)
        ):
            raise ValueError(
                f"{where} = {value}: a parameter is a text, a finite number, true or false"
            )
    if twice := [value for value in values if values.count(value) > 1]:
        raise ValueError(f"{where} names {twice[0]} twice: leave one out")


def run_cell(cell: Cell, source: Path, root: Path) -> str | None:
    """Execute a cell, record how it ended, return the error; None when it wrote its rows."""
    ledger = cell.ledger()
    ledger.drop(cell.key)
    outcome = execute.run(source, cell.file(".ipynb"), cell.parameters, root / ".cache", jobs=1)
    error = f"cell {outcome.failure.cell}: {outcome.failure.error}" if outcome.failure else None
    if error is None and not cell.file(".jsonl").exists():
        error = f"{source.name} wrote nothing to its parameter `out`"
    seconds, about = round(outcome.seconds, 3), {"parameters": cell.parameters}
    if error is None:
        ledger.add(cell.key, cell.key, seconds, [cell.file(".jsonl").name], **about)
    else:
        ledger.fail(cell.key, cell.key, seconds, error, **about)
    return error


def sweep(
    grid_file: Path,
    jobs: int = 2,
    index: int | None = None,
    root: Path | None = None,
    say: Callable[[str], None] = print,
) -> int:
    """Run what is not done yet, gather the rows and return the exit code, 1 if a cell failed.

    index: of the one cell to run, whose rows are not gathered. Errors, all before a cell runs:
    those of `cells`, FileExistsError for a file of rows that is not this sweep's, PermissionError.
    """
    root = root or paths.need_checkout()
    source = root / "notebooks" / "cell.py"
    every, rows = cells(grid_file, source, root)
    if index is not None and not 0 <= index < len(every):
        raise ValueError(f"cell {index} of {grid_file}: it has the cells 0 to {len(every) - 1}")
    gathered = Gathered(rows, grid_file, every[0].folder, root)
    gathered.check()
    for folder in (every[0].folder, rows.parent):
        probe_writable(folder, f"put the checkout {root} where you can write")
    chosen = every if index is None else [every[index]]
    todo = [cell for cell in chosen if not cell.done()]
    for fault in filter(None, (cell.ledger().fault for cell in todo)):
        say(fault)
    say(f"{len(chosen)} cells, {len(chosen) - len(todo)} already done")
    failed: list[str] = []
    outcomes = execute.in_parallel(lambda cell: run_cell(cell, source, root), todo, jobs)
    progress = Progress("cell", len(todo), say)
    for cell, error in outcomes:
        failed += [f"{cell}\n  {error}\n  as far as it got: {cell.file('.ipynb')}"] if error else []
        progress.event(f"{cell}  {'FAILED' if error else 'done'}")
    if index is None:
        gather(every, gathered, say)
    for text in failed:
        say(f"failed: {text}")
    return 1 if failed else 0


def gather(every: Sequence[Cell], gathered: Gathered, say: Callable[[str], None]) -> None:
    """Write the rows of all cells to one file.

    While cells are not done, say how many and leave the file alone.
    """
    if missing := sum(not cell.done() for cell in every):
        say(f"{missing} of {len(every)} cells are not done: {gathered.rows} is left as it was")
        return
    gathered.write([row for cell in every for row in read_rows(cell.file(".jsonl"))])
    say(f"rows of {len(every)} cells: {gathered.rows}")


def slurm(grid_file: Path, count: int) -> str:
    """Return an sbatch script, one array task a cell; `ngdiff sweep` then gathers the rows."""
    return f"""#!/bin/bash
#SBATCH --job-name=ngdiff-{grid_file.stem}
#SBATCH --array=0-{count - 1}
#SBATCH --gpus=1
#SBATCH --time=04:00:00
#SBATCH --output=.cache/slurm-%A_%a.log
# submit from the checkout; then `ngdiff sweep {grid_file}` runs what failed and gathers the rows
srun ngdiff sweep {grid_file} --cell "$SLURM_ARRAY_TASK_ID"
"""
