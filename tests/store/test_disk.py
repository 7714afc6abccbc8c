"""A full disk is one error, which names the file; the limit of a file's size stands for it here."""

from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from ngdiff.store.cache import atomic_write, cached
from ngdiff.store.disk import CODES, FullDiskError, full, probe_room, room
from ngdiff.store.rows import read_rows, write_rows


@pytest.fixture
def small() -> Iterator[None]:
    """No file of this process may be longer than 20 kB: the system refuses the write itself."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_rows_without_room_leave_the_file_as_it_was(tmp_path: Path, small: None, name: str) -> None:
    path, rows = tmp_path / name, [{"text": os.urandom(40_000).hex()}]
    write_rows(path, [{"text": "old"}])
    with pytest.raises(FullDiskError) as caught:
        write_rows(path, rows)
    said = str(caught.value)
    assert said.startswith(f"no room to write {path} ({os.strerror(errno.EFBIG)}): free some space")
    assert read_rows(path) == [{"text": "old"}] and os.listdir(tmp_path) == [name]


def test_a_cache_entry_without_room_is_no_entry(tmp_path: Path, small: None) -> None:
    def build(folder: Path) -> None:
        (folder / "weights").write_bytes(bytes(40_000))

    with pytest.raises(FullDiskError, match="no room to write .*key"):
        cached(tmp_path, "key", build, "weights")
    assert not (tmp_path / "key").exists()


def test_the_error_of_another_library_is_known_by_its_words(tmp_path: Path, small: None) -> None:
    with pytest.raises(FullDiskError), atomic_write(tmp_path / "model.safetensors") as temporary:
        save_file({"w": torch.zeros(10_000)}, temporary)


def test_a_trial_finds_a_full_disk_and_leaves_nothing(tmp_path: Path, small: None) -> None:
    with pytest.raises(FullDiskError, match=f"no room to write {tmp_path} "):
        probe_room(tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("code", CODES)
def test_every_code_of_a_full_disk_is_one(tmp_path: Path, code: int) -> None:
    with pytest.raises(FullDiskError, match=os.strerror(code)), room(tmp_path):
        raise OSError(code, os.strerror(code))
    assert full(f"OSError: [Errno {code}] {os.strerror(code)}") == os.strerror(code)


@pytest.mark.parametrize("error", [OSError(errno.EIO, "I/O error"), ValueError("no room")])
def test_another_error_stays_what_it_is(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)) as caught, room(tmp_path):
        raise error
    assert caught.value is error
