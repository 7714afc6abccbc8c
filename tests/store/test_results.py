"""Content keys, atomic files, the verified cache under kills and damage, rows and stamps."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import math
import os
import platform
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from ngdiff.store import cache
from ngdiff.store import rows as results
from ngdiff.store.cache import (
    atomic_folder,
    atomic_write,
    cache_dir,
    cached,
    found,
    lock,
    probe_writable,
)
from ngdiff.store.content import content_key
from ngdiff.store.disk import FullDiskError
from ngdiff.store.rows import probe_rows, read_rows, stamp, write_rows

KEY = "0123456789abcdef"


@dataclass(frozen=True)
class Shape:
    width: int = 4
    rate: float = 0.1


@dataclass(frozen=True)
class Other:
    width: int = 4
    rate: float = 0.1


# ------------------------------------------------------------------------------------- content keys
def test_equal_content_gives_an_equal_key_in_every_process():
    parts = [Shape(), {"b": [1, 2.5, None], "a": "ü"}, (True, "x")]
    same = [Shape(4, 0.1), {"a": "ü", "b": (1, 2.5, None)}, [True, "x"]]
    assert content_key(*parts) == content_key(*same)
    # a change of the form empties every cache
    by_hand = hashlib.sha256(b'["a",{"mapping":[["b",1.5]]}]').hexdigest()
    assert content_key("a", {"b": 1.5}) == by_hand[:16]
    assert len(content_key(*parts)) == 16


@pytest.mark.parametrize(
    "other",
    [
        [Shape(5)],
        [Shape(rate=0.1 + 1e-16)],
        [Other()],
        [{"width": 4, "rate": 0.1}],
        [Shape(), None],
        [],
        [[Shape()]],
    ],
)
def test_any_change_changes_the_key(other):
    assert content_key(*other) != content_key(Shape())


@pytest.mark.parametrize(
    "pair", [(1, True), (1, "1"), (None, "null"), ([1, [2]], [[1], 2]), ({"1": 0}, {1: 0})]
)
def test_look_alikes_have_different_keys(pair):
    assert content_key(pair[0]) != content_key(pair[1])


def test_keys_refuse_what_has_no_canonical_form():
    with pytest.raises(ValueError, match="nan"):
        content_key(Shape(rate=math.nan))
    with pytest.raises(TypeError, match="function"):
        content_key({"build": test_any_change_changes_the_key})


# ------------------------------------------------------------------------------------- atomic files
def test_atomic_write_replaces_only_when_the_block_succeeds(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("first")
        assert temporary.parent == path.parent and not path.exists()
    with pytest.raises(RuntimeError), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    with pytest.raises(FileNotFoundError, match="nothing was written"), atomic_write(path):
        pass
    assert path.read_text() == "first"
    assert os.listdir(path.parent) == ["a.txt"]


def test_leftovers_of_a_killed_writer_match_no_suffix(tmp_path):
    with atomic_write(tmp_path / "rows.jsonl") as temporary:
        temporary.write_text("x")
        assert list(tmp_path.glob("*.jsonl")) == []


def test_a_folder_is_replaced_only_by_a_complete_one(tmp_path):
    folder = tmp_path / "model"
    for text in ("old", "new"):
        with atomic_folder(folder) as temporary:
            (temporary / f"{text}.txt").write_text(text)
    with pytest.raises(RuntimeError), atomic_folder(folder) as temporary:
        (temporary / "half.txt").write_text("half")
        raise RuntimeError
    assert os.listdir(folder) == ["new.txt"] and os.listdir(tmp_path) == ["model"]


def test_what_is_written_is_told_to_whoever_asks(tmp_path, monkeypatch):
    listed = tmp_path / "listed"
    monkeypatch.setenv("NGDIFF_WRITTEN", str(listed))
    with pytest.raises(RuntimeError), atomic_write(tmp_path / "failed") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    write_rows(tmp_path / "rows.jsonl", [{"a": 1}])
    with atomic_folder(tmp_path / "model") as folder:
        (folder / "weights").write_text("")
    assert listed.read_text().splitlines() == [
        str(tmp_path / name) for name in ("rows.jsonl", "model/weights")
    ]
    monkeypatch.delenv("NGDIFF_WRITTEN")
    write_rows(tmp_path / "more.jsonl", [])
    assert len(listed.read_text().splitlines()) == 2


# -------------------------------------------------------------------------------------------- cache
class Builder:
    """Counts its calls and writes two files."""

    def __init__(self):
        self.calls = 0

    def __call__(self, folder: Path) -> None:
        self.calls += 1
        (folder / "sub").mkdir()
        (folder / "weights").write_bytes(bytes(range(100)))
        (folder / "sub" / "config").write_text("{}")


def test_an_entry_is_built_once(tmp_path):
    build = Builder()
    entries = [cached(tmp_path / "new", KEY, build, "weights") for _ in range(3)]
    assert set(entries) == {tmp_path / "new" / KEY} and build.calls == 1
    assert found(tmp_path / "new", KEY) == entries[0] and found(tmp_path, KEY) is None


def _flip(entry):
    data = bytearray((entry / "weights").read_bytes())
    data[50] ^= 1
    (entry / "weights").write_bytes(bytes(data))


def _cut_manifest(entry):
    (entry / cache.MANIFEST).write_text((entry / cache.MANIFEST).read_text()[:40])


def _other_key(entry):
    manifest = json.loads((entry / cache.MANIFEST).read_text())
    (entry / cache.MANIFEST).write_text(json.dumps(manifest | {"key": "other"}))


DAMAGES = {
    "one bit": _flip,
    "cut file": lambda entry: os.truncate(entry / "weights", 10),
    "lost file": lambda entry: (entry / "sub" / "config").unlink(),
    "cut manifest": _cut_manifest,
    "lost manifest": lambda entry: (entry / cache.MANIFEST).unlink(),
    "odd manifest": lambda entry: (entry / cache.MANIFEST).write_text("[1]"),
    "stale": _other_key,
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_entry_is_named_moved_aside_and_made_again(tmp_path, caplog, damage):
    build = Builder()
    entry = cached(tmp_path, KEY, build, "weights")
    for times in (1, 2):
        damage(entry)
        assert found(tmp_path, KEY) is None
        caplog.clear()
        with caplog.at_level(logging.WARNING, "ngdiff"):
            cached(tmp_path, KEY, build, "weights")
        assert "weights is damaged" in caplog.text and ".damaged" in caplog.text
        assert build.calls == 1 + times and len(list(tmp_path.glob("*.damaged"))) == times
    assert found(tmp_path, KEY) == entry and (entry / "weights").read_bytes() == bytes(range(100))


def test_a_file_in_place_of_an_entry_is_kept_aside(tmp_path):
    (tmp_path / KEY).write_text("precious")
    cached(tmp_path, KEY, Builder(), "weights")
    assert [path.read_text() for path in tmp_path.glob("*.damaged")] == ["precious"]


def test_a_failed_build_leaves_nothing_and_may_be_tried_again(tmp_path):
    def fail(folder):
        (folder / "weights").write_text("half")
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        cached(tmp_path, KEY, fail, "weights")
    assert not [path for path in tmp_path.iterdir() if not path.name.endswith(".lock")]
    assert found(cached(tmp_path, KEY, Builder(), "weights").parent, KEY)


SCRIPT = """
import sys, time
from pathlib import Path
from ngdiff.store import cache
stage, root = sys.argv[1], Path(sys.argv[2])
def hang(*_):
    print("here", flush=True)
    time.sleep(60)
def build(folder):
    (folder / "weights").write_text("half")
    if stage == "build": hang()
if stage == "manifest": cache.sha256 = hang
if stage == "rename": cache._place = hang
cache.cached(root, "0123456789abcdef", build, "weights")
"""


@contextlib.contextmanager
def _script(code, *arguments):
    root = str(Path(cache.__file__).parents[2])
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": root},
    )
    with process:
        yield process


@pytest.mark.parametrize("stage", ["build", "manifest", "rename"])
def test_sigkill_at_any_moment_leaves_nothing_that_is_taken_for_whole(tmp_path, stage):
    with _script(SCRIPT, stage, tmp_path) as process:
        assert process.stdout.readline() == "here\n"
        process.send_signal(signal.SIGKILL)
    assert list(tmp_path.glob(f".{KEY}.*.tmp")) and found(tmp_path, KEY) is None
    entry = cached(tmp_path, KEY, Builder(), "weights")  # the dead builder's lock does not hold
    assert (entry / "weights").read_bytes() == bytes(range(100))
    assert not list(tmp_path.glob(f".{KEY}.*.tmp"))


def test_two_at_once_build_once(tmp_path, capsys):
    started, go, build = threading.Event(), threading.Event(), Builder()

    def slow(folder):
        started.set()
        assert go.wait(20)
        build(folder)

    threads = [
        threading.Thread(target=cached, args=(tmp_path, KEY, slow, "weights")) for _ in range(3)
    ]
    threads[0].start()
    assert started.wait(20)
    for thread in threads[1:]:
        thread.start()
    go.set()
    for thread in threads:
        thread.join(20)
    assert build.calls == 1 and found(tmp_path, KEY)


def test_a_lock_is_exclusive_between_processes_and_says_that_it_waits(tmp_path):
    code = (
        "import sys; from ngdiff.store.cache import lock\n"
        "with lock(sys.argv[1], 'weights'): print('mine', flush=True); sys.stdin.read()"
    )
    with lock(tmp_path / "lock", "weights"), _script(code, tmp_path / "lock") as process:
        assert "another process is making weights" in process.stdout.readline()
        process.kill()


# ---------------------------------------------------------------------------------- folders refused
def test_a_folder_that_cannot_be_written_is_refused_before_work_starts(tmp_path):
    (tmp_path / "file").write_text("")
    build = Builder()
    with pytest.raises(PermissionError, match="NGDIFF_CACHE"):
        cached(tmp_path / "file" / "cache", KEY, build, "weights")
    with pytest.raises(PermissionError, match="choose another output folder"):
        write_rows(tmp_path / "file" / "rows.jsonl", [])
    assert build.calls == 0


@pytest.mark.parametrize(
    "code, kind",
    [
        (errno.EROFS, PermissionError),
        (errno.EACCES, PermissionError),
        (errno.ENOSPC, FullDiskError),
        (errno.EIO, OSError),
    ],
)
def test_probe_tells_read_only_from_other_failures(tmp_path, monkeypatch, code, kind):
    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(OSError) as caught:
        probe_writable(tmp_path)
    assert type(caught.value) is kind and os.strerror(code) in str(caught.value)


def test_a_whole_entry_of_a_read_only_cache_is_used(tmp_path, monkeypatch):
    entry = cached(tmp_path, KEY, Builder(), "weights")

    def refuse(folder):
        raise PermissionError(folder)

    monkeypatch.setattr(cache, "probe_writable", refuse)
    assert cached(tmp_path, KEY, Builder(), "weights") == entry


def test_probe_leaves_nothing_behind(tmp_path):
    probe_writable(tmp_path / "a" / "b")
    assert os.listdir(tmp_path / "a" / "b") == []


def test_cache_folder_of_variable_checkout_and_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NGDIFF_CACHE")
    inside = tmp_path / "checkout" / "notebooks"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    project = tmp_path / "checkout" / "pyproject.toml"
    project.write_text('[project]\nname = "another"\n')
    assert cache_dir() == tmp_path / "home" / ".cache" / "ngdiff"
    project.write_text('[project]\nname = "ngdiff"\n')
    assert cache_dir() == tmp_path / "checkout" / ".cache" / "ngdiff"
    monkeypatch.setenv("NGDIFF_CACHE", "~/mine")
    assert cache_dir() == tmp_path / "home" / "mine"


# ---------------------------------------------------------------------------------- rows and stamps
ROWS = [
    {
        "name": "Łódź\n東京",
        "loss": 0.1 + 0.2,
        "steps": 3,
        "stop": True,
        "note": None,
        "by": {"a": 1e-300, "b": [1, 2]},
    },
    {
        "name": "b",
        "loss": 1e22 / 3,
        "steps": -1,
        "stop": False,
        "note": "x",
        "by": {"a": 5e-324, "b": []},
    },
]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_rows_come_back_to_the_last_bit(tmp_path, suffix):
    path = tmp_path / f"rows{suffix}"
    for rows in (ROWS, [], ROWS[:1]):
        write_rows(path, rows)
        assert read_rows(path) == rows
    assert os.listdir(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_what_is_not_finite_is_saved_as_null(tmp_path, suffix):
    rows = [{"x": math.nan, "y": [math.inf, 1.0]}, {"x": 1.5, "y": [np.float32(-math.inf), 2.0]}]
    write_rows(tmp_path / f"rows{suffix}", rows)
    assert read_rows(tmp_path / f"rows{suffix}") == [
        {"x": None, "y": [None, 1.0]},
        {"x": 1.5, "y": [None, 2.0]},
    ]


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_scalars_and_arrays_of_numpy_and_torch_become_plain(tmp_path, suffix):
    row = {
        "a": np.float64(0.1),
        "b": np.int64(3),
        "c": torch.tensor(0.5),
        "d": np.arange(2),
        "e": Path("x"),
        "f": np.bool_(True),
    }
    write_rows(tmp_path / f"rows{suffix}", [row])
    assert read_rows(tmp_path / f"rows{suffix}") == [
        {"a": 0.1, "b": 3, "c": 0.5, "d": [0, 1], "e": "x", "f": True}
    ]


def test_parquet_unites_the_columns_of_unlike_rows(tmp_path):
    write_rows(tmp_path / "rows.parquet", [{"a": 1}, {"b": "x"}])
    assert read_rows(tmp_path / "rows.parquet") == [{"a": 1, "b": None}, {"a": None, "b": "x"}]


def test_damaged_rows_are_named(tmp_path):
    for suffix, place in ((".jsonl", "line 2"), (".parquet", "rows.parquet")):
        path = tmp_path / f"rows{suffix}"
        write_rows(path, ROWS)
        os.truncate(path, path.stat().st_size - 9)
        with pytest.raises(ValueError, match=place):
            read_rows(path)
    with pytest.raises(ValueError, match=r"\.jsonl or \.parquet"):
        write_rows(tmp_path / "rows.csv", ROWS)
    with pytest.raises(ValueError, match=r"\.jsonl or \.parquet"):
        read_rows(tmp_path / "rows.csv")


def test_a_stamp_says_where_a_number_comes_from():
    made = stamp({"shape": Shape(), "rate": np.float64(0.5)}, seed=3, seconds=1.23456)
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    assert (
        made["config"] == {"shape": repr(Shape()), "rate": 0.5}
        and made["seed"] == 3
        and made["seconds"] == 1.235
    )
    assert (
        made["packages"] == results.environment()
        and made["packages"]["python"] == platform.python_version()
    )
    assert made["packages"]["torch"] in (torch.__version__, torch.__version__.split("+")[0])
    assert (
        made["threads"] == torch.get_num_threads()
        and made["device"]
        and made["date"].endswith("+00:00")
    )


def test_a_stamp_outside_a_checkout_has_no_commit(tmp_path, monkeypatch):
    results._git.cache_clear()
    monkeypatch.setattr(results, "__file__", str(tmp_path / "ngdiff" / "store" / "rows.py"))
    try:
        assert results._git() == {"commit": None, "dirty": None}
    finally:
        results._git.cache_clear()


def test_a_stamp_knows_commit_and_changed_code(tmp_path, monkeypatch):
    def git(*arguments):
        who = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", "-C", str(tmp_path), *who, *arguments],
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    code = tmp_path / "ngdiff" / "store" / "rows.py"
    code.parent.mkdir(parents=True)
    code.write_text("1")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "first")
    monkeypatch.setattr(results, "__file__", str(code))
    try:
        for text, dirty in (("1", False), ("2", True)):
            code.write_text(text)
            results._git.cache_clear()
            assert results._git() == {"commit": git("rev-parse", "HEAD").strip(), "dirty": dirty}
    finally:
        results._git.cache_clear()


def test_where_rows_can_be_saved_is_asked_before_the_work(tmp_path: Path) -> None:
    probe_rows(None)
    probe_rows(tmp_path / "new" / "a.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
    with pytest.raises(
        ValueError, match=r"saved as \.jsonl, not .*a\.parquet.*: change the suffix"
    ):
        probe_rows(tmp_path / "a.parquet")
    with pytest.raises(IsADirectoryError):
        (tmp_path / "b.jsonl").mkdir()
        probe_rows(tmp_path / "b.jsonl")
