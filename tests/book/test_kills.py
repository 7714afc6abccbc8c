"""A reproduction that is killed leaves no process and nothing that looks done.

The toy notebook starts what real ones do: a pool of workers, and a process by its command line.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ngdiff.book.reproduce import reproduce
from ngdiff.store.code import HOME
from tests.helpers.processes import VARIABLE, commands, wait_for
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


def reached(point: str, folder: Path) -> bool:
    """Return whether the reproduction in this folder has come as far as the point."""
    if point in ("papermill", "kernel"):
        return f"ngdiff.book.{'execute' if point == 'papermill' else point}" in commands(point)
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
            subprocess.run(["cp", "-R", str(repo / name), str(folder / name)], check=True)
        env, null = os.environ | {VARIABLE: point}, subprocess.DEVNULL
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
    for point in POINTS:
        wait_for(lambda point=point: not commands(point), 5)
    here = folders["works"]
    assert not (here / "report/tiny.html").exists()
    (here / "go").touch()
    said: list[str] = []
    assert reproduce(root=here, say=said.append) == 0
    assert said[0] == "0 of 1 notebooks are still valid" and "00_a done" in said[1]
    assert (here / "data/results/tiny/00_a.count").read_text() == "1"
