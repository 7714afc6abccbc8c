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
from tests.helpers.processes import VARIABLE, commands, marked, none_left, wait_for
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
# the signal, the process that gets it (or the whole group), and how far the notebook is
KILLS_AT = [
    ("SIGKILL", "reproduce", "papermill"),
    ("SIGKILL", "reproduce", "kernel"),
    *((name, "reproduce", "works") for name in ("SIGKILL", "SIGTERM", "SIGHUP", "SIGINT")),
    *((name, "group", "works") for name in ("SIGTERM", "SIGHUP", "SIGINT")),
    ("SIGTERM", "execute", "works"),
    ("SIGKILL", "kernel", "works"),  # as the system does where memory runs out
]


def copy(source: Path, to: Path) -> None:
    shutil.copytree(source, to) if source.is_dir() else shutil.copy(source, to)


def reached(point: str, folder: Path) -> bool:
    """Return whether the reproduction in this folder has come as far as the point."""
    if point in ("papermill", "kernel"):
        return f"ngdiff.book.{'execute' if point == 'papermill' else point}" in commands(
            str(folder)
        )
    return (folder / point).exists()


def part_of(folder: Path, process: subprocess.Popen, which: str) -> int:
    """Return the id of a process of a reproduction."""
    if which in ("reproduce", "group"):
        return process.pid
    mine = marked(str(folder))
    return next(p.pid for p in mine if f"ngdiff.book.{which}" in " ".join(p.cmdline()))


def test_a_killed_reproduction_leaves_no_process_and_nothing_that_looks_done(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(repo, "00_a", BODY + WRITE.format(name="00_a", value=1))
    monkeypatch.setenv("PYTHONPATH", str(HOME.parent))
    left = {repo / "-".join(case): case for case in KILLS_AT}
    killed, ended = {}, {}
    for folder in left:
        folder.mkdir()
        for name in ("pyproject.toml", "notebooks", "data"):
            copy(repo / name, folder / name)
        env, null = os.environ | {VARIABLE: str(folder)}, subprocess.DEVNULL
        killed[folder] = subprocess.Popen(
            [sys.executable, "-c", RUN],
            cwd=folder,
            env=env,
            stdout=null,
            stderr=null,
            start_new_session=True,
        )

    def kill_those_that_are_there() -> bool:
        for folder, (name, which, point) in list(left.items()):
            if reached(point, folder):
                kill = os.killpg if which == "group" else os.kill
                kill(part_of(folder, killed[folder], which), getattr(signal, name))
                ended[folder] = time.monotonic()
                del left[folder]
        for folder, at in list(ended.items()):  # each has its own five seconds
            if not marked(str(folder)):
                del ended[folder]
            else:
                assert time.monotonic() - at < 5, f"{folder.name}:\n{commands(str(folder))}"
        return not left and not ended

    wait_for(kill_those_that_are_there, 120)
    for process in killed.values():
        process.wait()
    here = repo / "SIGKILL-reproduce-works"
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
