"""Notebooks: the same bytes from the same source, light outputs, no solutions in exercises."""

from __future__ import annotations

import ast
import base64
import io
import json
import types
from pathlib import Path

import nbformat
import pytest

from ngdiff.book import build as book
from ngdiff.book import outputs
from tests.helpers.toy_checkout import add

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"
BODY = """# %%
1 + 1

# %%
1 + 1

# %% tags=["exercise-solution"]
# Hint: a sum.
def add(a, b):
    # solution
    total = a + b
    return total
    # end solution

# %% tags=["exercise-solution"]
# Which is larger?
answer = "the second"
"""


def test_rebuild_is_byte_identical(repo: Path) -> None:
    add(repo, "00_start", BODY)
    folder = repo / "notebooks"
    first = {path: path.read_bytes() for path in book.build(folder)}
    assert {path: path.read_bytes() for path in book.build(folder)} == first
    assert [path.relative_to(folder).as_posix() for path in first] == [
        "00_start.ipynb",
        "exercises/00_start.ipynb",
    ]
    assert book.stale(folder) == []


def test_ids_are_unique_valid_and_survive_a_new_cell(repo: Path) -> None:
    source = add(repo, "00_start", BODY)
    before = [cell.id for cell in book.notebook(source).cells]
    assert len(set(before)) == len(before)
    source.write_text(source.read_text().replace("# %%\n1 + 1", "# %%\n2 + 2\n\n# %%\n1 + 1", 1))
    after = [cell.id for cell in book.notebook(source).cells]
    assert [name for name in after if name in before] == before
    nbformat.validate(book.notebook(source))


def test_no_metadata_but_tags(repo: Path) -> None:
    nb = book.notebook(add(repo, "00_start", BODY))
    assert set(nb.metadata) == {"kernelspec", "language_info"}
    assert {key for cell in nb.cells for key in cell.metadata} == {"tags"}


def test_stale_names_what_differs(repo: Path) -> None:
    folder = repo / "notebooks"
    source = add(repo, "00_start", BODY)
    book.build(folder)
    source.write_text(source.read_text().replace("1 + 1", "1 + 2", 1))
    (folder / "09_orphan.ipynb").write_text("{}")
    for own in ("00_start.nbconvert.ipynb", "out.ipynb", "exercises/mine.ipynb"):
        (folder / own).write_text("{}")
    assert [p.name for p in book.stale(folder)] == [
        "00_start.ipynb",
        "09_orphan.ipynb",
        "00_start.ipynb",
    ]


def test_exercises_leave_out_the_solution_only(repo: Path) -> None:
    source = add(repo, "00_start", BODY)
    part = book.exercise(book.notebook(source), "00_start")
    assert part is not None
    assert part.cells[-2].source == "# Hint: a sum.\ndef add(a, b):\n    ...  # your turn"
    assert part.cells[-1].source == "# Which is larger?\n...  # your turn"
    assert book.exercise(book.notebook(add(repo, "01_none", "# %%\n1")), "01_none") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# %%\n1\n", "0 cells are tagged parameters"),
        ('# %% tags=["parameters"]\na = 1 + b\n', "is not"),
    ],
)
def test_a_bad_parameters_cell_is_named(repo: Path, text: str, message: str) -> None:
    source = repo / "notebooks" / "00_bad.py"
    source.write_text(text)
    with pytest.raises(ValueError, match=message) as caught:
        book.notebook(source)
    assert "00_bad.py" in str(caught.value)


def executed(nb: nbformat.NotebookNode, *outputs: dict) -> nbformat.NotebookNode:
    run = nbformat.from_dict(json.loads(nbformat.writes(nb)))
    code = [cell for cell in run.cells if cell.cell_type == "code"]
    for count, cell in enumerate(code, start=7):
        cell.execution_count = count
    code[1].outputs = [nbformat.from_dict(output) for output in outputs]
    return run


def picture(width: int, noise: bool = False) -> dict:
    import numpy
    from PIL import Image

    shape = (width // 2, width, 3)
    pixels = (
        numpy.random.default_rng(0).integers(0, 256, shape) if noise else numpy.full(shape, 200)
    )
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype("uint8")).save(buffer, "png")
    data = {"image/png": base64.b64encode(buffer.getvalue()).decode(), "text/plain": "<Figure>"}
    return {"output_type": "display_data", "data": data, "metadata": {"x": 1}}


def test_outputs_ride_along_light(repo: Path) -> None:
    from PIL import Image

    nb = book.notebook(add(repo, "00_start", BODY))
    streams = [
        {"output_type": "stream", "name": name, "text": name} for name in ("stdout", "stderr")
    ]
    outputs.add_outputs(nb, executed(nb, *streams, picture(3000)))
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4, 5]
    text, image = code[1].outputs
    assert text.text == "stdout" and image.metadata == {}
    assert Image.open(io.BytesIO(base64.b64decode(image.data["image/png"]))).width == outputs.WIDTH


def test_outputs_stay_in_the_budget_or_say_so(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nb = book.notebook(add(repo, "00_start", BODY))
    outputs.add_outputs(nb, executed(nb, picture(1200, noise=True)))
    assert nb.cells[2].outputs[0].data["image/png"]
    assert len(outputs.dumps(nb).encode()) <= outputs.BUDGET
    monkeypatch.setattr(outputs, "BUDGET", 20_000)
    with pytest.raises(ValueError, match=r"00_start.*print and draw less"):
        outputs.add_outputs(nb, executed(nb, picture(1200, noise=True)), "00_start")


def test_build_keeps_outputs_of_unchanged_cells_and_drops_others(repo: Path) -> None:
    folder = repo / "notebooks"
    source = add(repo, "00_start", "# %%\n1 + 1\n\n# %%\n2 + 2\n")
    book.build(folder)
    path = folder / "00_start.ipynb"
    nb = nbformat.read(path, as_version=4)
    for cell in nb.cells[2:]:
        result = {
            "output_type": "execute_result",
            "data": {"text/plain": "4"},
            "metadata": {},
            "execution_count": 5,
        }
        cell.outputs, cell.execution_count = [nbformat.from_dict(result)], 5
    path.write_text(nbformat.writes(nb))
    source.write_text(source.read_text().replace("1 + 1", "1 + 3"))
    book.build(folder)
    new = nbformat.read(path, as_version=4)
    assert [len(cell.outputs) for cell in new.cells[2:]] == [0, 1]
    assert book.stale(folder) == []


def test_an_execution_that_was_cut_off_gives_no_outputs(repo: Path) -> None:
    add(repo, "00_a", BODY)
    executed = repo / "executed"
    executed.mkdir()
    (executed / "00_a.ipynb").write_text('{"cells": [')
    assert book.build(repo / "notebooks", executed) and not book.stale(repo / "notebooks")


def test_committed_notebooks_equal_a_rebuild(checkout: Path) -> None:
    assert [path.name for path in book.stale(checkout / "notebooks")] == []


def test_committed_notebooks_are_light(checkout: Path) -> None:
    for path in (checkout / "notebooks").rglob("*.ipynb"):
        assert path.stat().st_size <= outputs.BUDGET, path


@pytest.mark.parametrize("name", [path.stem for path in sorted(NOTEBOOKS.glob("*.py"))])
def test_every_name_of_the_package_that_a_notebook_uses_exists(name: str) -> None:
    """A name that moved is found here, not in the tenth minute of a reproduction."""
    tree, roots = ast.parse((NOTEBOOKS / f"{name}.py").read_text("utf-8")), {}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)) and "ngdiff" in ast.unparse(node):
            exec(ast.unparse(node), roots)  # ImportError names what is gone
    assigned = {
        node.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
    }
    seen = 0
    for node in (node for node in ast.walk(tree) if isinstance(node, ast.Attribute)):
        path = ast.unparse(node).split(".")
        if (
            path[0] not in roots
            or path[0] in assigned
            or not all(part.isidentifier() for part in path)
        ):
            continue
        found = roots[path[0]]
        for part in path[1:]:
            if not isinstance(found, types.ModuleType):
                break
            found, seen = getattr(found, part), seen + 1  # AttributeError names what is gone
    assert seen > 0


def test_a_rebuild_without_an_execution_leaves_every_byte(repo: Path) -> None:
    source = add(repo, "00_start", BODY)
    nb, path = book.notebook(source), source.with_suffix(".ipynb")
    outputs.add_outputs(nb, executed(nb, picture(1200, noise=True)))
    path.write_text(outputs.dumps(nb), "utf-8")
    before = path.read_bytes()
    book.build(repo / "notebooks")
    assert path.read_bytes() == before and b"image/png" in before
