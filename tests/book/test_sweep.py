"""A sweep is resumable and isolated, and a bad grid is named before anything runs."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import pytest

from ngdiff.book import execute
from ngdiff.book import sweep as batch
from ngdiff.study.trial import Trial

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
    grid.write_text(
        'rows = "rows.jsonl"\n[grid]\nmethod = ["ngdiff", "broken"]\nlr = 0.1\nseeds = [0, 1]\n'
    )
    said: list[str] = []
    assert batch.sweep(grid, root=repo, say=said.append) == 1
    text = "\n".join(said)
    assert text.count("no such method") == 2 and "2 of 4 cells are not done" in text
    assert not (repo / "rows.jsonl").exists()  # never a part

    grid.write_text(
        'rows = "rows.jsonl"\n[grid]\nmethod = ["ngdiff"]\nlr = 0.1\nseeds = [0, 1, 2]\n'
    )
    every, rows = batch.cells(grid, repo / "notebooks/cell.py", repo)
    every[1].file(".jsonl").write_text('{"half')  # killed while writing
    assert [cell.done() for cell in every] == [True, False, False]
    assert batch.sweep(grid, root=repo, say=said.append) == 0
    assert [len(cell.file(".runs").read_text()) for cell in every] == [1, 2, 1]
    assert [json.loads(line)["seed"] for line in rows.read_text().splitlines()] == [0, 1, 2]


def test_a_damaged_ledger_of_a_cell_is_told_and_the_cell_runs_again(repo: Path) -> None:
    (repo / "notebooks/cell.py").write_text(CELL)
    grid = repo / "grid.toml"
    grid.write_text('rows = "rows.jsonl"\n[grid]\nlr = [0.1, 0.2]\n')
    assert batch.sweep(grid, root=repo, say=[].append) == 0
    every, _ = batch.cells(grid, repo / "notebooks/cell.py", repo)
    ledger = every[1].file(".json")
    for text in ("{", json.dumps({"key": every[1].key, "error": None, "rows": "0"})):
        ledger.write_text(text)  # cut off; the form before `Ledger`
        said: list[str] = []
        assert batch.sweep(grid, root=repo, say=said.append) == 0
        assert said[0].startswith(f"{ledger} is damaged (") and "run again" in said[0]
        assert said[1] == "2 cells, 1 already done"
    assert [len(cell.file(".runs").read_text()) for cell in every] == [1, 3]


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cells that write their rows without a kernel."""

    def run(source: Path, out: Path, parameters: dict, *rest: object, **more: object):
        Path(parameters["out"]).write_text(json.dumps({"lr": parameters["lr"]}) + "\n")
        return execute.Outcome(0.0, 1)

    monkeypatch.setattr(execute, "run", run)


def toy_grid(repo: Path, rows: str, lr: str = "0.1") -> Path:
    (repo / "notebooks/cell.py").write_text(CELL)
    (repo / "grid.toml").write_text(f"rows = '{rows}'\n[grid]\nlr = {lr}\n")
    return repo / "grid.toml"


@pytest.mark.parametrize(
    "rows", ["../outside.jsonl", "{outside}/a.jsonl", "link/a.jsonl", "a.jsonl"]
)
def test_rows_outside_the_checkout_are_refused_before_work(
    repo: Path, tmp_path_factory: pytest.TempPathFactory, rows: str
) -> None:
    outside = tmp_path_factory.mktemp("outside")
    (repo / "link").symlink_to(outside)
    (repo / "a.jsonl").symlink_to(outside / "there.jsonl")  # which is not there yet
    grid = toy_grid(repo, rows.format(outside=outside))
    with pytest.raises(ValueError, match="outside the checkout .*such as report/"):
        batch.sweep(grid, root=repo, say=lambda line: pytest.fail(line))
    assert not list(outside.iterdir()) and not (repo.parent / "outside.jsonl").exists()


def test_a_sweep_writes_over_no_file_but_its_own(repo: Path, at_once: None) -> None:
    grid, rows = toy_grid(repo, "rows.jsonl"), repo / "rows.jsonl"
    rows.write_text("committed\n")
    silent = [].append
    for text in ("committed\n", ""):
        rows.write_text(text)
        with pytest.raises(FileExistsError, match="this sweep did not write it as it is: give"):
            batch.sweep(grid, root=repo, say=lambda line: pytest.fail(line))
        assert rows.read_text() == text
    rows.unlink()
    assert batch.sweep(grid, root=repo, say=silent) == 0 and rows.read_text().count("\n") == 1
    toy_grid(repo, "rows.jsonl", "[0.1, 0.2]")
    assert batch.sweep(grid, root=repo, say=silent) == 0 and rows.read_text().count("\n") == 2

    (repo / "other").mkdir()  # another grid of the same name
    other = grid.rename(repo / "other" / "grid.toml")
    with pytest.raises(FileExistsError):
        batch.sweep(other, root=repo, say=silent)
    other.rename(grid)
    rows.write_text(rows.read_text() + "by hand\n")
    with pytest.raises(FileExistsError):
        batch.sweep(grid, root=repo, say=silent)


def test_a_sweep_killed_while_it_writes_its_rows_knows_them_afterwards(
    repo: Path, at_once: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, rows = toy_grid(repo, "rows.jsonl"), repo / "rows.jsonl"
    assert batch.sweep(grid, root=repo, say=[].append) == 0
    toy_grid(repo, "rows.jsonl", "[0.1, 0.2]")

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("ngdiff.book.gathered.shutil.copyfile", killed)
        batch.sweep(grid, root=repo, say=[].append)
    assert rows.read_text().count("\n") == 1
    assert batch.sweep(grid, root=repo, say=[].append) == 0
    assert rows.read_text().count("\n") == 2


OWN = """
import ngdiff as ng
from dataclasses import dataclass

@dataclass(frozen=True)
class Half:
    def weights(self, gram, losses):
        return gram.new_tensor([{share}, 1.0])

mine = ng.Method("mine", Half())
"""


def test_a_method_of_a_user_counts_with_its_code(repo: Path, monkeypatch) -> None:
    monkeypatch.chdir(repo)
    monkeypatch.syspath_prepend(repo)
    (repo / "notebooks/cell.py").write_text(CELL)
    grid = repo / "grid.toml"
    grid.write_text('[grid]\nmethod = ["own_rules:mine"]\n')
    keys = []
    for share in ("0.5", "0.25", "0.5"):
        (repo / "own_rules.py").write_text(OWN.format(share=share))
        monkeypatch.delitem(sys.modules, "own_rules", raising=False)
        importlib.invalidate_caches()
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        (cell,), _ = batch.cells(grid, repo / "notebooks/cell.py", repo)
        keys.append(cell.key)
    assert keys[0] == keys[2] != keys[1]
    grid.write_text('[grid]\nmethod = ["own_rules:nothing"]\n')
    with pytest.raises(ValueError, match="own_rules:nothing"):
        batch.cells(grid, repo / "notebooks/cell.py", repo)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[grid]\nnix = "a"\n', "no parameter 'nix'"),
        ("[grid]\nlr = []\n", "lr is an empty list"),
        ("[other]\n", "unknown entry 'other'"),
        ('rows = "a.jsonl"\n', r"no table \[grid\]"),
        ("grid = 3\n", r"no table \[grid\]"),
        ("[grid\n", r"grid\.toml is not TOML"),
        ("rows = 5\n[grid]\nlr = 1\n", "rows = 5: write the name of"),
        ('rows = "a.csv"\n[grid]\nlr = 1\n', "'a.csv': write the name of"),
        ("[grid]\nlr = nan\n", r"grid\.toml: lr = nan: a parameter is"),
        ("[grid]\nlr = 2024-01-01\n", "lr = 2024-01-01: a parameter is"),
        ("[grid]\nlr = [1, 2, 1]\n", "lr names 1 twice"),
    ],
)
def test_a_bad_grid_is_named(repo: Path, text: str, message: str) -> None:
    (repo / "notebooks/cell.py").write_text(CELL)
    grid = repo / "grid.toml"
    grid.write_text(text)
    with pytest.raises(ValueError, match=message):
        batch.cells(grid, repo / "notebooks/cell.py", repo)


def test_a_cell_is_of_the_data_it_names(repo: Path) -> None:
    source = repo / "notebooks/cell.py"
    source.write_text(CELL.replace('method = "ngdiff"', 'method = "ngdiff"\nbenchmark = "authors"'))
    grid, data = repo / "grid.toml", repo / "tofu" / "rows.jsonl"
    data.parent.mkdir()
    grid.write_text('[grid]\nbenchmark = ["authors", "../tofu"]\nseeds = [0]\n')
    keys = []
    for text in ("old", "new"):
        data.write_text(text)
        keys.append([cell.key for cell in batch.cells(grid, source, repo)[0]])
    assert keys[0][0] == keys[1][0] and keys[0][1] != keys[1][1]


def test_the_example_grid_is_of_valid_cells(checkout: Path) -> None:
    notebooks = checkout / "notebooks"
    every, rows = batch.cells(notebooks / "grid.toml", notebooks / "cell.py", checkout)
    points = [{k: v for k, v in cell.parameters.items() if k != "out"} for cell in every]
    for point in points:
        (seed,) = point.pop("seeds")
        Trial(**point, seed=seed)
    assert {(p["method"], p["lr"]) for p in points} == {
        (m, lr) for m in ("ngdiff", "graddiff-0.5") for lr in (1e-4, 1e-3)
    }
    assert len({cell.key for cell in every}) == 4 and rows.parent == checkout / "report"


def test_slurm_script_names_every_cell() -> None:
    text = batch.slurm(Path("grid.toml"), 12)
    assert "--array=0-11" in text and "ngdiff sweep grid.toml --cell" in text
