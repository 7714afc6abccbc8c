"""A sweep is resumable and isolated, and a bad grid is named before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ngdiff import batch

CELL = """# %% tags=["parameters"]
method = "ngdiff"
lr = 1.0
seeds = (0,)
out = ""

# %%
import json, pathlib
assert method != "broken", "no such method"
runs = pathlib.Path(out).with_suffix(".runs")
runs.write_text(runs.read_text() + "x" if runs.exists() else "x")
pathlib.Path(out).write_text(json.dumps({"method": method, "lr": lr, "seed": seeds[0]}) + "\\n")
"""


def test_a_sweep_is_resumable_and_isolated(repo: Path) -> None:
    (repo / "notebooks/cell.py").write_text(CELL)
    grid = repo / "grid.toml"
    grid.write_text('rows = "rows.jsonl"\n[grid]\nmethod = ["ngdiff", "broken"]\nlr = 0.1\nseeds = [0, 1]\n')
    said: list[str] = []
    assert batch.sweep(grid, root=repo, say=said.append) == 1
    text = "\n".join(said)
    assert text.count("no such method") == 2 and "rows of 2 of 4 cells" in text
    assert len((repo / "rows.jsonl").read_text().splitlines()) == 2

    grid.write_text('rows = "rows.jsonl"\n[grid]\nmethod = ["ngdiff"]\nlr = 0.1\nseeds = [0, 1, 2]\n')
    every, rows = batch.cells(grid, repo / "notebooks/cell.py", repo)
    every[1].file(".jsonl").write_text('{"half')  # killed while writing
    assert [cell.done() for cell in every] == [True, False, False]
    assert batch.sweep(grid, root=repo, say=said.append) == 0
    assert [len(cell.file(".runs").read_text()) for cell in every] == [1, 2, 1]
    assert [json.loads(line)["seed"] for line in rows.read_text().splitlines()] == [0, 1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[grid]\nnix = "a"\n', "no parameter 'nix'"),
        ("[grid]\nlr = []\n", "lr is an empty list"),
        ("[other]\n", "unknown entry 'other'"),
        ('rows = "a.jsonl"\n', r"no table \[grid\]"),
    ],
)
def test_a_bad_grid_is_named(repo: Path, text: str, message: str) -> None:
    (repo / "notebooks/cell.py").write_text(CELL)
    grid = repo / "grid.toml"
    grid.write_text(text)
    with pytest.raises(ValueError, match=message):
        batch.cells(grid, repo / "notebooks/cell.py", repo)


def test_slurm_script_names_every_cell() -> None:
    text = batch.slurm(Path("grid.toml"), 12)
    assert "--array=0-11" in text and "ngdiff sweep grid.toml --cell" in text
