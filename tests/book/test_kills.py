"""A reproduction that is killed leaves no process and nothing that looks done.

The toy notebook starts what real ones do: a pool of workers, and a process by its command line.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from ngdiff.book.reproduce import reproduce
from ngdiff.store.code import HOME
from ngdiff.store.rows import read_rows
from tests.helpers.processes import VARIABLE, commands, none_left, wait_for
from tests.helpers.toy_checkout import WRITE, add

BODY = """# %%
import multiprocessing, pathlib, subprocess, sys, time
from concurrent.futures import ProcessPoolExecutor
here = pathlib.Path("..")
if not (here / "go").exists():
    pool = ProcessPoolExecutor(2, multiprocessing.get_context("forkserver"))
    work = [pool.submit(time.sleep, 60) for _ in range(2)]
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(61)"])
    while not all(future.running() for future in work):
        time.sleep(0.01)
    (here / "works").touch()
    pool.shutdown()

"""
RUN = "from ngdiff.book.reproduce import reproduce; reproduce()"
POINTS = ("papermill", "kernel", "works")  # where it is killed


def copy(source: Path, to: Path) -> None:
    shutil.copytree(source, to) if source.is_dir() else shutil.copy(source, to)


def reached(point: str, folder: Path) -> bool:
    """Return whether the reproduction in this folder has come as far as the point."""
    if point in ("papermill", "kernel"):
        return f"ngdiff.book.{'execute' if point == 'papermill' else point}" in commands(
            str(folder)
        )
    return (folder / point).exists()


def test_a_killed_reproduction_leaves_no_process_and_nothing_that_looks_done(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(repo, "00_a", BODY + WRITE.format(name="00_a", value=1))
    monkeypatch.setenv("PYTHONPATH", str(HOME.parent))
    folders = {point: repo / point for point in POINTS}
    killed = {}
    for point, folder in folders.items():
        folder.mkdir()
        for name in ("pyproject.toml", "notebooks", "data"):
            copy(repo / name, folder / name)
        env, null = os.environ | {VARIABLE: str(folder)}, subprocess.DEVNULL
        killed[point] = subprocess.Popen(
            [sys.executable, "-c", RUN], cwd=folder, env=env, stdout=null, stderr=null
        )
    left = list(POINTS)

    def kill_those_that_are_there() -> bool:
        for point in [point for point in left if reached(point, folders[point])]:
            killed[point].kill()
            killed[point].wait()
            left.remove(point)
        return not left

    wait_for(kill_those_that_are_there)
    for folder in folders.values():
        none_left(str(folder))
    here = folders["works"]
    assert not (here / "report/tiny.html").exists()
    (here / "go").touch()
    said: list[str] = []
    assert reproduce(root=here, say=said.append) == 0
    assert said[0] == "0 of 1 notebooks are still valid" and "00_a done" in said[1]
    assert (here / "data/results/tiny/00_a.count").read_text() == "1"


# ---------------------------------------------------------------------------------- the real ones
KILLS = 12
CLOCK = ("seconds", "stamp")  # of a row: what a clock put into it


def rows_of(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the rows that a reproduction wrote, by file, without what a clock put into them."""
    files = sorted((folder / "data/results/tiny").iterdir())
    return {
        file.name: [{k: v for k, v in row.items() if k not in CLOCK} for row in read_rows(file)]
        for file in files
        if file.name != "times.jsonl"
    }


@pytest.mark.slow
@pytest.mark.parametrize("command", [("reproduce",), ("sweep", "notebooks/grid.toml")])
def test_the_notebooks_killed_at_twelve_points_come_to_the_same_rows(
    checkout: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """Nearly half an hour of a quiet machine with two cores; the rows begin without any."""
    call = [sys.executable, "-m", "ngdiff", *command]
    env = os.environ | {"PYTHONPATH": str(checkout)}
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
        for name in ("pyproject.toml", "notebooks", "data/protocol"):
            copy(checkout / name, folder / name)
        (folder / "data/results/tiny").mkdir(parents=True)
    began = time.monotonic()
    subprocess.run(call, cwd=whole, env=env | {"NGDIFF_CACHE": str(whole / "cache")}, check=True)
    share = (time.monotonic() - began) / (KILLS + 1)
    mine = env | {"NGDIFF_CACHE": str(killed / "cache"), VARIABLE: str(killed)}
    for n in range(KILLS):
        process = subprocess.Popen(call, cwd=killed, env=mine)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(share * (0.5 + n % 3 / 2))  # not always as far into a notebook
        process.kill()
        assert process.wait() == -signal.SIGKILL
        none_left(str(killed))
    subprocess.run(call, cwd=killed, env=mine, check=True)
    assert rows_of(killed) == rows_of(whole)
