"""Slots bound how many processes compute at once, and a killed holder gives its slot back."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from ngdiff.store import slots


def work(log: str, seconds: float) -> None:
    """Hold a slot for a while, writing its begin and end as lines of one write each."""
    with slots.slot(), open(log, "ab", buffering=0) as handle:
        handle.write(f"{time.monotonic()} 1\n".encode())
        time.sleep(seconds)
        handle.write(f"{time.monotonic()} -1\n".encode())


def start(*arguments: object) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=work, args=arguments)
    process.start()
    return process


def most_at_once(log: Path) -> int:
    events = sorted(
        (float(when), int(step)) for when, step in map(str.split, log.read_text().splitlines())
    )
    level = most = 0
    for _, step in events:
        level += step
        most = max(most, level)
    return most


@pytest.mark.parametrize("count", [1, 2])
def test_no_more_than_count_processes_hold_a_slot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv(slots.VARIABLE, slots.variable(tmp_path / "slots", count)[slots.VARIABLE])
    for process in [start(str(log), 0.2) for _ in range(4)]:
        process.join(30)
        assert process.exitcode == 0
    assert most_at_once(log) == count and log.read_text().count("\n") == 8


def test_without_the_variable_there_is_no_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(slots.VARIABLE, raising=False)
    with slots.slot(), slots.slot():
        pass


def test_a_killed_holder_frees_its_slot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "log"
    monkeypatch.setenv(slots.VARIABLE, slots.variable(tmp_path / "slots", 1)[slots.VARIABLE])
    holder = start(str(log), 60)
    end = time.monotonic() + 30
    while not log.exists() and time.monotonic() < end:
        time.sleep(0.02)
    os.kill(holder.pid, signal.SIGKILL)
    holder.join(30)
    with slots.slot():
        pass
