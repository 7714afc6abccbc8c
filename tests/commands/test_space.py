"""Disk space of a run: estimated before it starts, and what is kept where there is none left."""

from __future__ import annotations

import errno
import os
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from ngdiff.commands import finish
from ngdiff.commands import space as space_of
from ngdiff.commands.claim import CHECKPOINT
from ngdiff.commands.job import Job
from ngdiff.commands.origin import loaded
from ngdiff.core import checkpoint
from ngdiff.store.cache import SPARE, atomic_write
from ngdiff.store.content import digests
from tests.helpers import own_model
from tests.helpers.own_model import VERDICTS, done, go, weights

RUN = ("--stepsize=constant", "--lr=0.01", "--steps=4", "--save-every=2")
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    return own_model.folder(tmp_path_factory.mktemp("given"))


def job_of(given, out, **options):
    return Job(
        model=str(given / "model"),
        forget=given / "forget.jsonl",
        retain=given / "retain.jsonl",
        out=out,
        device="cpu",
        **options,
    )


@pytest.mark.parametrize("options", [{}, {"optimizer": "sgd"}, {"precision": "bfloat16"}])
def test_the_estimate_covers_what_is_written_and_not_much_more(
    given, tmp_path, monkeypatch, options
):
    sizes = []
    real = checkpoint.save_file

    def seen(tensors, path, **kw):
        real(tensors, path, **kw)
        sizes.append(Path(path).stat().st_size)

    monkeypatch.setattr(checkpoint, "save_file", seen)
    job = job_of(given, tmp_path / "out", steps=4, save_every=2, **options)
    needed = space_of.space(job, loaded(job, job.place), given / "model")
    words = [f"--{name}={value}" for name, value in options.items()]
    done(given, job.out, *RUN, *words)
    out = sum(path.stat().st_size for path in job.out.iterdir())
    assert len(sizes) == 2 and needed.copies == 2
    assert max(sizes) <= needed.checkpoint <= 1.2 * max(sizes)
    assert out <= needed.out <= out + space_of.BESIDE
    assert needed.needed == max(2 * needed.checkpoint, needed.checkpoint + needed.out)


def test_a_disk_with_less_room_is_refused_before_the_first_step(given, tmp_path, monkeypatch):
    def free(folder, bytes_):
        return lambda place: (
            Usage(10**9, 0, bytes_) if Path(place) == folder else pytest.fail(place)
        )

    job = job_of(given, tmp_path / "out", steps=4, save_every=2)
    needed = space_of.space(job, loaded(job, job.place), given / "model")
    monkeypatch.setattr(shutil, "disk_usage", free(tmp_path, needed.needed - 1))
    said = str(go(given, job.out, *RUN).exception)
    assert f"the run takes {needed}" in said and f"is free at {tmp_path}: free some space" in said
    assert "or give --save-every 0, which needs" in said and list(tmp_path.iterdir()) == []
    result = go(given, job.out, *RUN, "--save-every=0")
    assert result.exit_code in VERDICTS
    monkeypatch.setattr(shutil, "disk_usage", free(tmp_path, needed.needed))
    result = go(given, tmp_path / "two", *RUN)
    assert result.exit_code in VERDICTS and f"at most 4 steps; {needed}" in result.output


def test_a_run_that_goes_on_needs_no_room_for_the_checkpoint_that_is_there():
    first, later = space_of.Space(10, 2, 5), space_of.Space(10, 2, 5, 10)
    assert (first.needed, later.needed) == (20, 10)
    assert space_of.Space(10, 0, 5).needed == 5 and space_of.Space(10, 1, 50, 10).needed == 50


@pytest.mark.parametrize("at", ["checkpoint", "model"])
def test_a_full_disk_in_the_middle_is_one_line_and_loses_nothing(given, tmp_path, monkeypatch, at):
    out, work = tmp_path / "out", tmp_path / ".out.unfinished"
    more = (*RUN, "--steps=6")
    whole = done(given, tmp_path / "whole", *more)
    calls = []

    def full(real):
        def write(*args, **kw):
            calls.append(args)
            if len(calls) == (2 if at == "checkpoint" else 1):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*args, **kw)

        return write

    with monkeypatch.context() as patch:
        if at == "checkpoint":
            patch.setattr(checkpoint, "save_file", full(checkpoint.save_file))
        else:
            patch.setattr(finish, "save", full(finish.save))
        said = str(go(given, out, *more).exception)
    assert said.startswith("no room to write ") and "run the same command again" in said
    assert "\n" not in said and sorted(digests(work)) == [CHECKPOINT, "lock", "start.json"]
    result = go(given, out, *more)
    assert "resumes from its checkpoint" in result.output
    assert all(torch.equal(x, whole[name]) for name, x in weights(out).items())


def test_a_name_that_is_taken_leaves_room_for_a_temporary_one(tmp_path):
    most = os.pathconf(tmp_path, "PC_NAME_MAX") - SPARE
    with atomic_write(tmp_path / ("x" * most)) as temporary:
        temporary.write_text("whole")
    assert (tmp_path / ("x" * most)).read_text() == "whole"
    with (
        pytest.raises(OSError, match=f"{most + 1} bytes, and it may have {most} here"),
        atomic_write(tmp_path / ("x" * (most + 1))),
    ):
        pytest.fail("it was begun")
