"""Where pages write: committed places only under a reproduction with defaults that ends well."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ngdiff.book import build, gallery
from ngdiff.book.execute import kernel_environment
from ngdiff.book.page import PAGE, Places, label_of, opened
from ngdiff.book.reproduce import reproduce
from ngdiff.store.rows import read_rows, write_rows
from ngdiff.study import plan as plans
from ngdiff.study import trials
from tests.helpers.toy_checkout import OPEN, add

ROWS = f"""{OPEN}
from ngdiff.store.rows import write_rows

write_rows(page.rows / "a.jsonl", [{{}}])
"""
FIGURE = f'{ROWS}\nwrite_rows(page.figures / "b.jsonl", [{{}}])\n'


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def commit(folder: Path, checkout: Path) -> None:
    """Put a folder under git, with our .gitignore."""
    shutil.copy(checkout / ".gitignore", folder)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "all")


def status(folder: Path) -> list[str]:
    return git(folder, "status", "--porcelain").splitlines()


# ------------------------------------------------------------------------------------------- labels
def test_git_ignores_every_run_but_those_of_a_plain_profile(tmp_path: Path, checkout: Path) -> None:
    commit(tmp_path, checkout)
    settings = itertools.product(
        ("tiny", "small", "paper-llama-2-7b-news", "paper-iclm-7b-books"),
        ("", "/rows", "muse:/rows", "semeval:hub"),
        (False, True),
        (None, (0,), (0, 1, 2)),
    )
    for profile, data, smoke, seeds in settings:
        label = label_of(profile, data, smoke, seeds)
        for top in ("data/results", "figures"):
            file = tmp_path / top / label / "file"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.touch()
            ignored = not status(tmp_path)
            assert ignored == (label != profile), label
            shutil.rmtree(file.parent)


# ---------------------------------------------------------------------------------- a page by hand
def test_a_page_by_hand_writes_to_an_ignored_folder_named_after_its_settings(
    repo: Path, checkout: Path, monkeypatch, capsys
) -> None:
    monkeypatch.delenv(PAGE, raising=False)
    for here, up in ((repo, ""), (repo / "notebooks", "../")):
        monkeypatch.chdir(here)
        for given, label in (
            ({"seeds": "[0, 1]"}, "tiny-seeds-0-1"),
            ({"seeds": 3, "smoke": True}, "tiny-smoke-seeds-3"),
            ({"seeds": 3, "data": "news"}, "tiny-news-seeds-3"),
            ({"seeds": 3, "data": "muse:hub"}, "tiny-muse-seeds-3"),
            ({}, "tiny-drawn"),
        ):
            page = opened(profile="tiny", **given)
            assert page.rows == repo / "data/results" / label
            assert page.figures == repo / "figures" / label
            said = capsys.readouterr().out
            folders = f"{up}data/results/{label} and {up}figures/{label}"
            assert said == f"This run writes to {folders}, which git ignores.\n"
    write_rows(repo / "data/results/tiny/known.jsonl", [{"x": 1}])
    page = opened(profile="tiny", seeds=0)
    assert page.saved("known.jsonl") == [{"x": 1}] and page.saved("unknown.jsonl") is None
    write_rows(page.rows / "known.jsonl", [{"x": 2}])
    assert page.saved("known.jsonl") == [{"x": 2}]
    drawn = opened(profile="tiny", rows="tiny-seeds-0")
    assert drawn.published == page.rows and drawn.rows.name == "tiny-seeds-0-drawn"
    with pytest.raises(AttributeError, match="no parameter 'seed'"):
        _ = page.seed


def test_refresh_by_hand_is_refused(repo: Path, monkeypatch) -> None:
    monkeypatch.chdir(repo)
    monkeypatch.delenv(PAGE, raising=False)
    with pytest.raises(ValueError, match="an option of `ngdiff reproduce --refresh` alone"):
        opened(profile="tiny", seeds=0, refresh=True)


def test_pages_name_no_folder_of_results_themselves() -> None:
    for source in build.sources(Path(__file__).resolve().parents[2] / "notebooks"):
        code = "".join(
            cell.source + "\n" for cell in build.notebook(source).cells if cell.cell_type == "code"
        )
        named = re.findall(r"rows_folder|protocol_folder|data/results", code)
        assert set(named) <= ({"data/results"} if source.stem == "cell" else set()), source


def run_papermill(folder: Path, page: str, out: Path, **given: object) -> str:
    """Run a notebook as a reader would; return its error, "" where it ended well."""
    command = [sys.executable, "-m", "papermill", page, str(out), "--no-progress-bar"]
    for name, value in given.items():
        command += ["-p", name, str(value)]
    env = kernel_environment(out.parent) | {"NGDIFF_CACHE": str(out.parent / "cache")}
    env.pop(PAGE, None)
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env)
    return done.stderr if done.returncode else ""


def test_git_status_is_empty_after_pages_exercises_and_wrong_parameters(
    tmp_path: Path, checkout: Path
) -> None:
    """A page of theory from the root, the page of all figures pointed at its rows, an exercise that
    stops at its first unanswered cell, a page of a language model that stops at its first line.
    """
    clone, out = tmp_path / "clone", tmp_path / "out"
    out.mkdir()
    clone.mkdir()
    shutil.copytree(checkout / "notebooks", clone / "notebooks")
    shutil.copytree(checkout / "data" / "published", clone / "data" / "published")
    shutil.copy(checkout / "pyproject.toml", clone)
    commit(clone, checkout)
    theory = run_papermill(
        clone, "notebooks/02_normalised_difference.ipynb", out / "a.ipynb", seeds="[0]", smoke=True
    )
    assert not theory and not status(clone)
    rows = clone / "data/results/tiny-smoke-seeds-0"
    (line,) = {tuple(r["stamp"]["config"]["seeds"]) for r in read_rows(rows / "theory_adamw.jsonl")}
    assert line == (0,) and (clone / f"figures/{rows.name}/fig2_interval.png").exists()
    drawn = run_papermill(
        clone / "notebooks", "10_every_figure.ipynb", out / "b.ipynb", rows=rows.name, smoke=True
    )
    assert not drawn and not status(clone)
    text = (out / "b.ipynb").read_text("utf-8")
    assert "fig2_interval. " in text and "fig1_losses: not run (theory_losses.jsonl)" in text
    exercise = run_papermill(
        clone / "notebooks" / "exercises", "01_two_losses.ipynb", out / "c.ipynb", seeds=0
    )
    assert "return two numbers: smallest c, largest c" in exercise and not status(clone)
    wrong = run_papermill(clone, "notebooks/07_tofu.ipynb", out / "d.ipynb", seeds="[0")
    assert "seeds = '[0': write whole numbers" in wrong and not status(clone)
    assert not (clone / "data/results/tiny").exists()


def test_a_page_of_runs_writes_to_its_ignored_folder_only(
    tmp_path: Path, checkout: Path, monkeypatch
) -> None:
    """Page 06, every cell, from notebooks/; committed rows stand in for its runs."""
    saved = gallery.Saved(checkout / "data" / "results" / "tiny")
    done = saved.done("") | {"tuning": saved.tuning(""), "claims": saved.read("claims.jsonl")}
    done |= {name: saved.read(f"{name}.parquet") for name in ("starts", "fixed")}

    def carry_out(plan, folder, prefix="", refresh=False, **settings):
        write_rows(folder / f"{prefix}matched.parquet", done["matched"])
        return done

    monkeypatch.setattr(plans, "carry_out", carry_out)
    monkeypatch.setattr(trials, "levels", lambda *_: tuple(done["levels"]))
    monkeypatch.delenv(PAGE, raising=False)
    shutil.copytree(checkout / "notebooks", tmp_path / "notebooks")
    shutil.copy(checkout / "pyproject.toml", tmp_path)
    commit(tmp_path, checkout)
    monkeypatch.chdir(tmp_path / "notebooks")
    space: dict[str, object] = {}
    for cell in build.notebook(tmp_path / "notebooks" / "06_baselines.py").cells:
        if cell.cell_type == "code":
            more = "\nseeds, smoke = '0, 3', True\n"
            exec(cell.source + more * ("parameters" in cell.metadata.get("tags", ())), space)
    assert not status(tmp_path)
    rows = read_rows(tmp_path / "data/results/tiny-smoke-seeds-0-3/matched.parquet")
    assert len(rows) == len(done["matched"])
    drawn = {path.stem for path in (tmp_path / "figures/tiny-smoke-seeds-0-3").glob("*.png")}
    assert drawn == {f"fig6_{name}" for name in ("plane", "rates", "learning_rate", "differences")}


# ---------------------------------------------------------------------------- under a reproduction
def test_only_a_default_reproduction_that_ends_well_changes_what_is_committed(
    repo: Path, checkout: Path
) -> None:
    add(repo, "00_good", FIGURE)
    add(repo, "01_bad", FIGURE.replace("b.jsonl", "c.jsonl") + "\nassert not seeds\n")
    write_rows(repo / "data/results/tiny/a.jsonl", [{"old": 1}])
    commit(repo, checkout)
    for settings in ({"seeds": [5]}, {"smoke": True}):
        assert reproduce(root=repo, only=["00"], say=[].append, **settings) == 0
        assert not status(repo), settings
    assert (repo / "data/results/tiny-seeds-5/a.jsonl").exists()
    assert (repo / "figures/tiny-smoke/b.jsonl").exists()
    assert reproduce(root=repo, only=["01"], say=[].append) == 1
    assert not status(repo), "a page that fails changes nothing"
    assert not list((repo / ".cache").rglob("*.files"))
    assert reproduce(root=repo, only=["00"], say=[].append) == 0
    assert [line[3:] for line in status(repo)] == ["data/results/tiny/a.jsonl", "figures/"]
    assert read_rows(repo / "data/results/tiny/a.jsonl") == [{}]


@pytest.mark.parametrize("settings", [{"seeds": [5]}, {"smoke": True}], ids=str)
def test_refresh_goes_with_the_defaults_only(repo: Path, settings) -> None:
    add(repo, "00_good", ROWS)
    with pytest.raises(ValueError, match="leave out seeds, smoke and data"):
        reproduce(root=repo, refresh=True, say=pytest.fail, **settings)
    assert not (repo / ".cache").exists()


def test_a_reproduction_tells_how_to_run_a_failed_page_again(repo: Path) -> None:
    add(repo, "01_bad", "# %%\nassert False\n")
    said: list[str] = []
    assert reproduce(root=repo, seeds=[3, 4], smoke=True, say=said.append) == 1
    assert "ngdiff reproduce --profile tiny --seeds 3,4 --smoke --only 01" in "\n".join(said)


def test_files_are_published_from_their_stage_and_others_left(tmp_path: Path) -> None:
    places = Places.of(tmp_path, "tiny")
    staged = places.staged(tmp_path / "stage")
    for file in (staged.rows / "a.jsonl", staged.figures / "part/b.jsonl", tmp_path / "c.jsonl"):
        write_rows(file, [{"x": 1}])
    files = [*staged.rows.rglob("*"), *staged.figures.rglob("*"), tmp_path / "c.jsonl"]
    done = places.publish(staged, [*files, staged.rows / "gone.jsonl"])
    assert [os.path.relpath(file, tmp_path) for file in done] == [
        "figures/tiny/part/b.jsonl",
        "data/results/tiny/a.jsonl",
    ]
    assert all(read_rows(file) == [{"x": 1}] for file in done)
