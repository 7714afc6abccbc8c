"""Notebooks: built byte-identically, executed apart, reported truthfully, swept resumably."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from ngdiff import batch, book, execute, paths, report
from ngdiff.reproduce import plan, reproduce
from ngdiff.results import write_rows

HEAD = """# %% [markdown]
# # A notebook

# %% tags=["parameters"]
profile = "tiny"
seeds = (0, 1, 2)
refresh = False
smoke = False

"""
WRITE = """# %%
import json, pathlib
out = pathlib.Path("../data/results/tiny")
count = out / "{name}.count"
n = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(n))
(out / "{name}_summary.jsonl").write_text(json.dumps({{"name": "{name}", "value": {value}, "tolerance": 0.1}}) + "\\n")
"""


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    """A checkout of trivial notebooks, the committed rows outside git."""
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "ngdiff"\n')
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "data/results/tiny").mkdir(parents=True)
    return tmp_path


def add(repo: Path, name: str, body: str) -> Path:
    path = repo / "notebooks" / f"{name}.py"
    path.write_text(HEAD + body)
    return path


# --------------------------------------------------------------------------------------------------------------- book
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
    assert [path.relative_to(folder).as_posix() for path in first] == ["00_start.ipynb", "exercises/00_start.ipynb"]
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
    assert [p.name for p in book.stale(folder)] == ["00_start.ipynb", "09_orphan.ipynb", "00_start.ipynb"]


def test_exercises_leave_out_the_solution_only(repo: Path) -> None:
    source = add(repo, "00_start", BODY)
    part = book.exercise(book.notebook(source), "00_start")
    assert part is not None
    assert part.cells[-2].source == "# Hint: a sum.\ndef add(a, b):\n    ...  # your turn"
    assert part.cells[-1].source == "# Which is larger?\n...  # your turn"
    assert book.exercise(book.notebook(add(repo, "01_none", "# %%\n1")), "01_none") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [("# %%\n1\n", "0 cells are tagged parameters"), ('# %% tags=["parameters"]\na = 1 + b\n', "is not")],
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
    pixels = numpy.random.default_rng(0).integers(0, 256, shape) if noise else numpy.full(shape, 200)
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype("uint8")).save(buffer, "png")
    data = {"image/png": base64.b64encode(buffer.getvalue()).decode(), "text/plain": "<Figure>"}
    return {"output_type": "display_data", "data": data, "metadata": {"x": 1}}


def test_outputs_ride_along_light(repo: Path) -> None:
    from PIL import Image

    nb = book.notebook(add(repo, "00_start", BODY))
    streams = [{"output_type": "stream", "name": name, "text": name} for name in ("stdout", "stderr")]
    book.add_outputs(nb, executed(nb, *streams, picture(3000)))
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == [1, 2, 3, 4, 5]
    text, image = code[1].outputs
    assert text.text == "stdout" and image.metadata == {}
    assert Image.open(io.BytesIO(base64.b64decode(image.data["image/png"]))).width == book.WIDTH


def test_outputs_stay_in_the_budget_or_say_so(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nb = book.notebook(add(repo, "00_start", BODY))
    book.add_outputs(nb, executed(nb, picture(1200, noise=True)))
    assert nb.cells[2].outputs[0].data["image/png"]
    assert len(book.dumps(nb).encode()) <= book.BUDGET
    monkeypatch.setattr(book, "BUDGET", 20_000)
    with pytest.raises(ValueError, match=r"00_start.*print and draw less"):
        book.add_outputs(nb, executed(nb, picture(1200, noise=True)), "00_start")


def test_build_keeps_outputs_of_unchanged_cells_and_drops_others(repo: Path) -> None:
    folder = repo / "notebooks"
    source = add(repo, "00_start", "# %%\n1 + 1\n\n# %%\n2 + 2\n")
    book.build(folder)
    path = folder / "00_start.ipynb"
    nb = nbformat.read(path, as_version=4)
    for cell in nb.cells[2:]:
        result = {"output_type": "execute_result", "data": {"text/plain": "4"}, "metadata": {}, "execution_count": 5}
        cell.outputs, cell.execution_count = [nbformat.from_dict(result)], 5
    path.write_text(nbformat.writes(nb))
    source.write_text(source.read_text().replace("1 + 1", "1 + 3"))
    book.build(folder)
    new = nbformat.read(path, as_version=4)
    assert [len(cell.outputs) for cell in new.cells[2:]] == [0, 1]
    assert book.stale(folder) == []


def test_committed_notebooks_equal_a_rebuild(checkout: Path) -> None:
    assert [path.name for path in book.stale(checkout / "notebooks")] == []


def test_committed_notebooks_are_light(checkout: Path) -> None:
    for path in (checkout / "notebooks").rglob("*.ipynb"):
        assert path.stat().st_size <= book.BUDGET, path


# ---------------------------------------------------------------------------------------------------------- reproduce
def test_a_reproduction_runs_once_and_reuses_until_something_changes(repo: Path) -> None:
    for name in ("00_a", "05_b", "10_c"):
        add(repo, name, WRITE.format(name=name, value=1.0))
    rows = repo / "data/results/tiny"
    write_rows(rows / "old_summary.jsonl", [{"name": "05_b", "value": 1.05, "tolerance": 0.1}])

    def counts() -> list[int]:
        return [int((rows / f"{name}.count").read_text()) for name in ("00_a", "05_b", "10_c")]

    said: list[str] = []
    assert reproduce(root=repo, say=said.append) == 0 and counts() == [1, 1, 1]
    text = "\n".join(said)
    assert "05_b    1.05       1    0.1        ok" in text and "3 of 3 notebooks" in text
    assert reproduce(root=repo, say=said.append) == 0 and counts() == [1, 1, 2]  # 10 always rebuilds
    assert "still valid" in "\n".join(said)

    (rows / "05_b_summary.jsonl").write_text("damaged")  # by hand, or by checking out another commit
    assert reproduce(root=repo, say=said.append) == 0 and counts() == [1, 2, 3]
    assert reproduce(root=repo, seeds=[0], only=["00"], say=said.append) == 0 and counts()[0] == 2
    assert reproduce(root=repo, force=True, only=["05"], say=said.append) == 0 and counts()[1] == 3


def test_a_failing_notebook_is_named_and_stops_no_other(repo: Path) -> None:
    add(repo, "01_bad", "# %%\nx = 1\n\n# %%\nassert x == 2, 'x is not two'\n")
    add(repo, "02_good", WRITE.format(name="02_good", value=1))
    write_rows(repo / "data/results/tiny/01_summary.jsonl", [{"name": "lost", "value": 3.0, "tolerance": 0.0}])
    said: list[str] = []
    assert reproduce(root=repo, say=said.append) == 1
    text = "\n".join(said)
    assert "01_bad failed in cell 4 of 4: AssertionError: x is not two" in text
    assert "assert x == 2" in text and "ngdiff reproduce --profile tiny --only 01" in text
    assert "1 of 2 notebooks" in text and (repo / "data/results/tiny/02_good_summary.jsonl").exists()
    page = (repo / "report/tiny.html").read_text()
    assert "FAILED" in page and "lost" in page and report.NOT_RUN in page  # the committed row is no result
    said.clear()
    assert reproduce(root=repo, say=said.append) == 1, "a failed execution must not look valid"


def test_parameters_reach_the_kernel_of_this_interpreter(repo: Path) -> None:
    source = add(
        repo,
        "00_a",
        f"# %%\nimport sys, os\nassert sys.executable == {sys.executable!r}\n"
        "assert tuple(seeds) == (4,) and smoke and os.environ['OMP_NUM_THREADS'] == '1'\n",
    )
    seen: list[tuple[int, int]] = []
    given = {"seeds": [4], "smoke": True}
    outcome = execute.run(source, repo / "out" / "00_a.ipynb", given, repo / ".cache", lambda k, n: seen.append((k, n)))
    assert outcome.failure is None and seen[-1] == (3, 3)


def test_a_kernel_that_dies_is_a_failure(repo: Path) -> None:
    source = add(repo, "00_a", "# %%\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    outcome = execute.run(source, repo / "out" / "00_a.ipynb", {}, repo / ".cache")
    assert outcome.failure is not None and "exit code" in outcome.failure.error


def test_plan_gives_only_declared_parameters(repo: Path) -> None:
    add(repo, "00_a", "")
    add(repo, "07_real", "").write_text(HEAD.replace("smoke = False", 'data = ""'))
    jobs = {job.name: job.parameters for job in plan(repo, "tiny", smoke=True)}
    assert jobs["00_a"] == {"profile": "tiny", "refresh": False, "smoke": True}
    assert jobs["07_real"] == {"profile": "tiny", "refresh": False}
    (job,) = plan(repo, "tiny", data="/tofu")
    assert job.name == "07_real" and job.parameters["data"] == "/tofu" and job.out.parent.name == "tiny-tofu"
    with pytest.raises(ValueError, match="00_a, 07_real"):
        plan(repo, "tiny", only=["99"])


def test_the_key_is_of_source_parameters_and_not_of_refresh(repo: Path) -> None:
    source = add(repo, "00_a", "")
    (key,) = [job.key for job in plan(repo, "tiny")]
    assert key == plan(repo, "tiny", refresh=True, seeds=[0, 1, 2])[0].key  # the seeds it has anyway
    assert key != plan(repo, "tiny", seeds=[0])[0].key
    source.write_text(source.read_text() + "# %%\n1\n")
    assert key != plan(repo, "tiny")[0].key


# ------------------------------------------------------------------------------------------------------------- report
def row(value: object, tolerance: float | None = 0.1) -> dict:
    return {"name": "n", "value": value, "tolerance": tolerance}


@pytest.mark.parametrize(
    ("committed", "new", "status"),
    [
        (row(1.0), row(1.05), "ok"),
        (row(1.0), row(1.2), "differs"),
        (row(1.0), None, "not run"),
        (None, row(1.0), "new"),
        (row(1.0, None), row(1.0, None), "not compared"),
        (row(None), row(None), "ok"),
        (row(None), row(1.0), "differs"),
        (row(float("nan")), row(1.0), "differs"),
        (row("holds"), row("holds"), "ok"),
        (row(True), row(False), "differs"),
        (row(1.0, 0.1), row(1.5, 9.0), "differs"),  # a run cannot widen the committed tolerance
    ],
)
def test_compared(committed: dict | None, new: dict | None, status: str) -> None:
    assert report.Compared("n", committed, new).status == status


def git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)


def test_committed_rows_are_gits_not_the_working_trees(repo: Path) -> None:
    path = repo / "data/results/tiny/06_summary.jsonl"
    write_rows(path, [{"name": "a", "value": 1.0}])
    git(repo, "init")
    git(repo, "add", ".")
    git(repo, "commit", "-m", "rows")
    write_rows(path, [{"name": "a", "value": 2.0}])
    assert report.committed_rows(repo, "tiny", repo / "backup")["a"]["value"] == 1.0
    assert not (repo / "backup").exists()


def test_without_git_the_first_state_counts_as_committed(repo: Path) -> None:
    path = repo / "data/results/tiny/06_summary.jsonl"
    for value in (1.0, 2.0):
        write_rows(path, [{"name": "a", "value": value}])
        assert report.committed_rows(repo, "tiny", repo / "backup")["a"]["value"] == 1.0


def test_the_report_is_one_file_and_tells_what_was_not_run(repo: Path) -> None:
    from matplotlib.figure import Figure

    figures = repo / "figures/tiny"
    figures.mkdir(parents=True)
    figure = Figure()
    figure.subplots().plot([1, 2])
    for name in ("fig1_new", "fig2_old"):
        figure.savefig(figures / f"{name}.png", metadata={"Description": "A <line>"})
    write_rows(repo / "data/results/tiny/06_claims.jsonl", [{"claim": "η < 1", "holds": True, "seeds": [0]}])
    files = {"figures/tiny/fig1_new.png", "data/results/tiny/06_claims.jsonl"}
    comparison = [report.Compared("a & b", row(1.0), None)]
    config = {"profile": "tiny", "seeds": None}
    page = report.write(repo, "tiny", [report.Ran("00_a", "done", 1.0)], files, comparison, config, 1.0)
    text = page.read_text("utf-8")
    assert text.count("data:image/png;base64,") == 1 and "A &lt;line&gt;" in text
    assert "fig2_old: not run" in text and "a &amp; b" in text and "η &lt; 1" in text
    assert "http" not in text.split("<h2>Stamp")[0] and max(map(len, text.splitlines())) < 1_000_000


# -------------------------------------------------------------------------------------------------------------- sweep
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


# ---------------------------------------------------------------------------------------------------- paths, commands
def test_labels_never_collide() -> None:
    labels = {paths.run_label("tiny", data, smoke) for data in ("", "/x") for smoke in (False, True)}
    assert labels == {"tiny", "tiny-tofu", "tiny-smoke", "tiny-tofu-smoke"}


def ngdiff(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from ngdiff.cli import main; main()"
    package = str(Path(__file__).resolve().parent.parent)
    return subprocess.run([sys.executable, "-c", code, package, *arguments], cwd=cwd, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["reproduce"], "no ngdiff checkout"),
        (["reproduce", "--profile", "huge"], "tiny"),
        (["reproduce", "--seeds", "a"], "--seeds takes whole numbers"),
        (["reproduce", "--data", "nowhere"], "no such folder"),
        (["sweep", "nothing.toml"], "no grid file"),
    ],
)
def test_an_error_is_one_line_and_exit_code_2(tmp_path: Path, arguments: list[str], message: str) -> None:
    done = ngdiff(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
    assert "Traceback" in ngdiff("--debug", *arguments, cwd=tmp_path).stderr


# ---------------------------------------------------------------------------------------------------------- repository
def tracked(root: Path) -> list[Path]:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True)
    if names.returncode or not names.stdout:
        pytest.skip("no git, so it is not known which files belong to the repository")
    return [path for name in names.stdout.split("\0") if name and (path := root / name).is_file()]


def test_no_line_is_longer_than_a_megabyte(checkout: Path) -> None:
    for path in tracked(checkout):
        assert max(map(len, path.read_bytes().split(b"\n"))) < 1_000_000, path


def test_every_dependency_has_its_pin(checkout: Path) -> None:
    import re
    import tomllib

    project = tomllib.loads((checkout / "pyproject.toml").read_text())["project"]
    pins = dict(re.findall(r"^([\w.-]+)==(\S+)$", (checkout / "constraints.txt").read_text(), re.M))
    names = {re.sub(r"[-_.]+", "-", name).lower() for name in pins}
    for line in project["dependencies"] + project["optional-dependencies"]["test"]:
        name = re.match(r"[\w.-]+", line)
        assert name and name[0].lower() in names, f"{line} has no pin in constraints.txt"
    assert pins["torch"] == "2.13.0" and "torch==2.13.0" in project["dependencies"]
