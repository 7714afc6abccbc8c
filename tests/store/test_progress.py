"""One line of progress: live on a terminal, seldom elsewhere, with what is done, spent and left."""

from __future__ import annotations

import io
import os

import pytest

from ngdiff.store import progress as module
from ngdiff.store.progress import Progress, duration, to_stderr


class Clock:
    """A clock that is set by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_seconds_in_the_unit_of_a_person() -> None:
    seconds = (0.4, 119, 120, 7100, 7200, 12600)
    assert [duration(s) for s in seconds] == ["0 s", "119 s", "2 min", "118 min", "2.0 h", "3.5 h"]


def test_elsewhere_a_line_is_printed_every_heartbeat_and_at_the_end(clock: Clock) -> None:
    said: list[str] = []
    progress = Progress("epoch", 8, said.append)
    for done in range(1, 9):
        clock.now += 10
        progress(done, note=f"loss {done}")
    assert said == [
        "epoch 3/8, 30 s, about 50 s left: loss 3",
        "epoch 6/8, 60 s, about 20 s left: loss 6",
        "epoch 8/8, 80 s: loss 8",
    ]


def test_an_end_that_another_line_tells_of_is_silent(clock: Clock) -> None:
    said: list[str] = []
    progress = Progress("  rows", 3, said.append, every=0.0, last=False)
    for done in (1, 2, 3):
        clock.now += 1
        progress(done, 3)
    assert said == ["  rows 1/3, 1 s, about 2 s left", "  rows 2/3, 2 s, about 1 s left"]


def test_what_was_done_before_says_nothing_about_the_speed(clock: Clock) -> None:
    progress = Progress("step", 100, begun=60)
    assert progress.line() == "step 60/100, 0 s"
    clock.now += 10
    progress.done = 80
    assert progress.line() == "step 80/100, 10 s, about 10 s left"


def test_an_event_always_has_a_line_and_counts_one(clock: Clock) -> None:
    said: list[str] = []
    progress = Progress("cell", 3, said.append)
    clock.now += 100
    progress.event("lr=0.1 done")
    progress.event("lr=0.2 FAILED")
    progress.event("all", done=3)
    assert said == [
        "cell 1/3, 100 s, about 3 min left: lr=0.1 done",
        "cell 2/3, 100 s, about 50 s left: lr=0.2 FAILED",
        "cell 3/3, 100 s: all",
    ]


def test_a_total_may_be_known_late(clock: Clock) -> None:
    said: list[str] = []
    progress = Progress("text", 0, said.append, every=0.0)
    progress(1, 4)
    assert said == ["text 1/4, 0 s, about 0 s left"]


def test_on_a_terminal_the_line_is_written_over(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(module.sys, "stderr", terminal)
    with Progress("step", 4, to_stderr) as progress:
        progress(1)  # too soon after the beginning
        clock.now += 1
        progress(2, note="x" * 200)
        progress.event("two", done=2)
        progress(4)
    parts = terminal.getvalue().split(module.ERASE)
    assert parts[0] == "" and len(parts[1]) == module.WIDTH - 1 and "\n" not in parts[1]
    assert parts[2:] == ["step 2/4, 1 s, about 1 s left: two\n", "step 4/4, 1 s\n", ""]


def test_a_live_line_is_no_wider_than_its_window(monkeypatch: pytest.MonkeyPatch) -> None:
    class Window(Terminal):
        def fileno(self) -> int:
            return 7

    sizes = {7: os.terminal_size((10, 24))}
    monkeypatch.setattr(module.os, "get_terminal_size", sizes.__getitem__)
    assert module.fitted("0123456789abc", Window()) == "012345678"
    assert module.fitted("012345678", Window()) == "012345678"
    assert module.fitted("広い文字の行", Window()) == "広い文字"  # each takes two columns


def test_a_pipe_sees_no_control_characters(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Progress("step", 2, to_stderr) as progress:
        clock.now += 60
        progress(1)
        progress(2)
    err = capsys.readouterr().err
    assert err == "step 1/2, 60 s, about 60 s left\nstep 2/2, 60 s\n"
