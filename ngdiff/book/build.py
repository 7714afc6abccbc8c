"""One-way build of the notebooks: NN_name.py (py:percent) -> NN_name.ipynb, and the exercises.

The .py is the source. Sources, cell ids and metadata of the .ipynb are a pure function of it. So a
rebuild gives the same bytes, and a diff shows only what an author changed. Outputs are kept, made
smaller, where their cell is unchanged. Solutions are written, exercises are generated from them
(after scikit-learn-mooc, Inria).
"""

from __future__ import annotations

import copy
import hashlib
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import jupytext
import nbformat
from nbformat import NotebookNode

from ngdiff.book.outputs import add_outputs, dumps, keep_outputs
from ngdiff.book.parameters import declared
from ngdiff.store.cache import atomic_write

SOLUTION = "exercise-solution"  # tag of a cell whose solution the exercise leaves out
# lines around the part left out; without them all but leading comments
BEGIN, END = "# solution", "# end solution"
OURS = re.compile(r"\d\d_\w+|cell")  # names without suffix of the notebooks that are built
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


# ------------------------------------------------------------------------------------------ sources
def sources(folder: Path) -> list[Path]:
    """Return the sources NN_name.py of a folder, in order, then cell.py if there is one."""
    return [*sorted(folder.glob("[0-9][0-9]_*.py")), *folder.glob("cell.py")]


def notebook(source: Path) -> NotebookNode:
    """Return the notebook of a py:percent file, without outputs.

    Its ids are stable, and its metadata are tags and its header. Raises ValueError where the file
    has no single cell tagged `parameters`.
    """
    read = jupytext.read(source, fmt="py:percent")
    own = {"ngdiff": read.metadata["ngdiff"]} if "ngdiff" in read.metadata else {}
    nb = nbformat.v4.new_notebook(metadata=copy.deepcopy(METADATA) | own)
    nb.nbformat_minor = 5
    make = {"code": nbformat.v4.new_code_cell, "markdown": nbformat.v4.new_markdown_cell}
    for cell in read.cells:
        tags = list(cell.metadata.get("tags", ()))
        metadata = {"tags": tags} if tags else {}
        nb.cells.append(
            make.get(cell.cell_type, nbformat.v4.new_raw_cell)(cell.source, metadata=metadata)
        )
    _number(nb, source.stem)
    parameters(nb, source)
    return nb


@dataclass(frozen=True)
class Header:
    """What a notebook says of itself, in the YAML header of its source under `jupyter: ngdiff:`.

    question: what it answers, in one line. needs: numbers of the notebooks whose results it reads;
    ("all",) makes it run after all others, every time. rows: the benchmark whose real rows it alone
    reads, so that `ngdiff reproduce --data` on such rows runs it. profile: the only one that it
    runs under, but for a smoke budget.
    """

    question: str = ""
    needs: tuple[str, ...] = ()
    rows: str = ""
    profile: str = ""


def header(source: Path) -> Header:
    """Return the header of a notebook source, an empty one where there is none.

    Errors: ValueError for an entry that `Header` does not have, and for a need that is no number in
    quotes.
    """
    found = dict(jupytext.read(source, fmt="py:percent").metadata.get("ngdiff", {}))
    if unknown := set(found) - {field.name for field in fields(Header)}:
        raise ValueError(
            f"{source}: its header has an unknown entry {sorted(unknown)[0]!r}; known: "
            f"{', '.join(field.name for field in fields(Header))}"
        )
    needs = found.get("needs", [])
    if not (isinstance(needs, list) and all(isinstance(need, str) for need in needs)):
        raise ValueError(
            f'{source}: needs = {needs!r}; write numbers in quotes, such as ["00", "05"], or '
            '["all"]'
        )
    return Header(**found | {"needs": tuple(needs)})


def _number(nb: NotebookNode, stem: str) -> None:
    """Give each cell an id from notebook, kind, source and the count of equal cells before.

    It is unique and does not change when cells around it do.
    """
    seen: dict[str, int] = {}
    for cell in nb.cells:
        text = f"{stem}\0{cell.cell_type}\0{cell.source}"
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        count = seen[digest] = seen.get(digest, 0) + 1
        cell["id"] = digest if count == 1 else f"{digest}-{count}"


def parameters(nb: NotebookNode, source: Path) -> dict[str, Any]:
    """Return names and default values of the one cell tagged `parameters`.

    Errors: ValueError where there is no single one, or one that holds more than literals.
    """
    cells = [cell for cell in nb.cells if "parameters" in cell.metadata.get("tags", ())]
    if len(cells) != 1:
        raise ValueError(
            f"{source}: {len(cells)} cells are tagged parameters; "
            'write one `# %% tags=["parameters"]`'
        )
    return declared(cells[0].source, source)


def exercise(nb: NotebookNode, stem: str) -> NotebookNode | None:
    """The notebook with its solutions left out; None where it has none."""
    nb = copy.deepcopy(nb)
    solved = [cell for cell in nb.cells if SOLUTION in cell.metadata.get("tags", ())]
    for cell in solved:
        cell.source = _hole(cell.source)
        cell.metadata = {"tags": ["exercise"]}
    _number(nb, f"exercises/{stem}")
    return nb if solved else None


def _hole(text: str) -> str:
    """Return `text` with each part from a line BEGIN to END replaced by `...`, at its indentation.

    A part without an END goes to the end.
    """
    lines = text.splitlines()
    if not any(line.strip() == BEGIN for line in lines):
        first = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
        return "\n".join([*lines[:first], "...  # your turn"])
    kept, inside = [], False
    for line in lines:
        if line.strip() == BEGIN:
            inside = True
            kept.append(line.replace(BEGIN, "...  # your turn"))
        elif line.strip() == END:
            inside = False
        elif not inside:
            kept.append(line)
    return "\n".join(kept)


# -------------------------------------------------------------------------------------------- build
def bare(nb: NotebookNode) -> str:
    """The text without outputs and counts: what a rebuild must reproduce byte for byte."""
    nb = copy.deepcopy(nb)
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return dumps(nb)


def targets(folder: Path) -> dict[Path, NotebookNode]:
    """Return every file the build makes and its notebook, without outputs."""
    made = {}
    for source in sources(folder):
        nb = notebook(source)
        made[source.with_suffix(".ipynb")] = nb
        if (part := exercise(nb, source.stem)) is not None:
            made[folder / "exercises" / f"{source.stem}.ipynb"] = part
    return made


def stale(folder: Path) -> list[Path]:
    """Return the built files that differ from a rebuild, outputs apart.

    A missing one counts, and one that has lost its source. Notebooks with other names are a
    reader's own, such as what nbconvert has written.
    """
    made = targets(folder)
    every = (*folder.glob("*.ipynb"), *folder.glob("exercises/*.ipynb"))
    there = {path for path in every if OURS.fullmatch(path.stem)}
    wrong = {
        path
        for path in there & set(made)
        if bare(nbformat.read(path, as_version=4)) != bare(made[path])
    }
    return sorted(wrong | there ^ set(made))


def _whole(executed: Path) -> bool:
    """Return whether this is a notebook that ran to its end."""
    try:
        run = nbformat.read(executed, as_version=4).metadata.get("papermill", {})
    except (OSError, nbformat.reader.NotJSONError):  # not there, or cut off by a kill
        return False
    return bool(run.get("end_time")) and not run.get("exception")


def build(folder: Path, executed: Path | None = None) -> list[Path]:
    """Write every built notebook and return their paths.

    Outputs come from `executed`/NAME.ipynb, else from the file that is replaced.
    """
    made = targets(folder)
    for path, nb in made.items():
        run = executed / path.name if executed and path.parent == folder else path
        donor = run if _whole(run) else path
        if donor.exists() and path.parent == folder:
            given = nbformat.read(donor, as_version=4)
            if donor == path:
                keep_outputs(nb, given)
            else:
                add_outputs(nb, given, path.name)
        with atomic_write(path) as temporary:
            temporary.write_text(dumps(nb), "utf-8")
    for path in set(folder.glob("exercises/*.ipynb")) - set(made):
        path.unlink()
    return sorted(made)
