"""A reproduction: run once, reused while valid, failures named, nothing half-done trusted."""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ngdiff.book import comparison, execute
from ngdiff.book.jobs import plan
from ngdiff.book.reproduce import Reproduction, reproduce
from ngdiff.store import paths
from ngdiff.store.disk import FullDiskError, probe_room
from ngdiff.store.rows import read_rows, write_rows
from tests.helpers.toy_checkout import WRITE, add


def test_a_reproduction_runs_once_and_reuses_until_something_changes(repo: Path) -> None:
    for name in ("00_a", "05_b", "10_c"):
        add(repo, name, WRITE.format(name=name, value=1.0), needs='"all"' if name == "10_c" else "")
    rows = repo / "data/results/tiny"
    write_rows(rows / "old_summary.jsonl", [{"name": "05_b", "value": 1.05, "tolerance": 0.1}])

    def counts() -> list[int]:
        return [int((rows / f"{name}.count").read_text()) for name in ("00_a", "05_b", "10_c")]

    said: list[str] = []
    assert reproduce(root=repo, say=said.append) == 0 and counts() == [1, 1, 1]
    text = "\n".join(said)
    assert (
        "1 of 1 reproduced numbers are within tolerance. 2 are new" in text
        and "3 of 3 notebooks" in text
    )
    # 10 always rebuilds
    said.clear()
    assert reproduce(root=repo, say=said.append) == 0 and counts() == [1, 1, 2]
    assert said[0] == "2 of 3 notebooks are still valid:\n  00_a\n  05_b"
    assert said[1].startswith("notebook 3/3, ") and "10_c done" in said[1]

    # by hand, or by checking out another commit
    (rows / "05_b_summary.jsonl").write_text("damaged")
    assert reproduce(root=repo, say=said.append) == 0 and counts() == [1, 2, 3]
    assert reproduce(root=repo, force=True, only=["05"], say=said.append) == 0 and counts()[1] == 3


def test_a_failing_notebook_is_named_and_stops_no_other(repo: Path) -> None:
    add(repo, "01_bad", "# %%\nx = 1\n\n# %%\nassert x == 2, 'x is not two'\n")
    add(repo, "02_good", WRITE.format(name="02_good", value=1))
    write_rows(
        repo / "data/results/tiny/01_summary.jsonl",
        [{"name": "lost", "value": 3.0, "tolerance": 0.0}],
    )
    said: list[str] = []
    assert reproduce(root=repo, say=said.append) == 1
    text = "\n".join(said)
    assert "01_bad failed in cell 4 of 4: AssertionError: x is not two" in text
    assert "assert x == 2" in text and "ngdiff reproduce --profile tiny --only 01" in text
    assert (
        "1 of 2 notebooks" in text and (repo / "data/results/tiny/02_good_summary.jsonl").exists()
    )
    page = (repo / "report/tiny.html").read_text()
    # the committed row is no result
    assert "FAILED" in page and "lost" in page and comparison.NOT_RUN in page
    said.clear()
    assert reproduce(root=repo, say=said.append) == 1, "a failed execution must not look valid"


def test_a_ledger_that_cannot_be_read_is_told_and_all_runs_again(repo: Path) -> None:
    add(repo, "00_a", WRITE.format(name="00_a", value=1))
    count, kept = repo / "data/results/tiny/00_a.count", repo / ".cache/executed/tiny"
    assert reproduce(root=repo, say=[].append) == 0
    (kept / "ledger.json").write_text((kept / "ledger.json").read_text()[:40])  # cut off
    said: list[str] = []
    assert reproduce(root=repo, say=said.append) == 0 and count.read_text() == "2"
    assert f"{kept / 'ledger.json'} is damaged" in said[0] and "run again" in said[0]
    (kept / "ledger.json").rename(kept / "records.json")  # its name before
    said.clear()
    assert reproduce(root=repo, say=said.append) == 0 and count.read_text() == "3"
    assert said[0] == "0 of 1 notebooks are still valid"


def test_files_belong_to_the_execution_that_wrote_them(repo: Path) -> None:
    head = "# %%\nimport pathlib, time\n\ndef wait(name):\n    end = time.monotonic() + 60\n"
    head += "    while not pathlib.Path(name).exists():\n"
    head += "        assert time.monotonic() < end\n        time.sleep(0.05)\n\n"
    touch = "# %%\npathlib.Path({!r}).touch()\n\n"
    write = WRITE.format(name="01_bad", value=1)
    add(
        repo,
        "01_bad",
        head + "wait('good')\n\n" + write + touch.format("bad") + "# %%\nassert False\n",
    )
    add(
        repo,
        "02_good",
        head
        + touch.format("good")
        + "# %%\nwait('bad')\n\n"
        + WRITE.format(name="02_good", value=1),
    )
    assert reproduce(root=repo, say=[].append) == 1
    assert not (repo / "data/results/tiny/01_bad_summary.jsonl").exists(), "it failed after it"
    ledger = json.loads((repo / ".cache/executed/tiny/ledger.json").read_text())
    assert {name: list(row["files"]) for name, row in ledger.items()} == {
        "01_bad": [],
        "02_good": ["data/results/tiny/02_good_summary.jsonl"],
    }
    assert "AssertionError" in ledger["01_bad"]["error"] and "error" not in ledger["02_good"]


def test_with_only_a_record_of_old_code_is_not_of_this_run(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(repo, "05_b", WRITE.format(name="05_b", value=1.0))
    add(repo, "10_c", WRITE.format(name="10_c", value=1.0))
    write_rows(
        repo / "data/results/tiny/old_summary.jsonl",
        [{"name": "05_b", "value": 1.0, "tolerance": 0.1}],
    )
    for only, verdict in (([], "1 of 1 reproduced"), (["10"], "\n1 were not run. 1 are new")):
        said: list[str] = []
        assert reproduce(root=repo, only=only, say=said.append) == 0
        assert verdict in "\n".join(said)
        monkeypatch.setattr(execute, "fingerprint_of", lambda text: "2")


def test_every_notebook_may_use_all_workers_which_share_the_slots(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("00_a", "06_b"):
        add(repo, name, "")
    seen: list[tuple[str, int, str]] = []

    def run(source: Path, *rest: object) -> execute.Outcome:
        seen.append((source.stem[:2], rest[-2], rest[-1]["NGDIFF_SLOTS"]))
        return execute.Outcome(0.0, 1)

    monkeypatch.setattr(execute, "run", run)
    Reproduction(repo, "tiny", [].append).all(plan(repo, "tiny"), 2, False)
    assert sorted(seen) == [(name, 2, f"{repo / '.cache/slots'}:2") for name in ("00", "06")]


def test_parameters_reach_the_kernel_of_this_interpreter(repo: Path) -> None:
    source = add(
        repo,
        "00_a",
        f"# %%\nimport sys, os\nassert sys.executable == {sys.executable!r}\n"
        "assert tuple(seeds) == (4,) and smoke and os.environ['OMP_NUM_THREADS'] == '1'\n"
        "assert os.environ['NGDIFF_JOBS'] == '3'\n",
    )
    seen: list[tuple[int, int]] = []
    given = {"seeds": [4], "smoke": True}
    out = repo / "out" / "00_a.ipynb"
    outcome = execute.run(
        source, out, given, repo / ".cache", lambda k, n: seen.append((k, n)), jobs=3
    )
    assert outcome.failure is None and seen[-1] == (3, 3)


def test_a_kernel_that_dies_is_a_failure(repo: Path) -> None:
    source = add(repo, "00_a", "# %%\nimport os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    outcome = execute.run(source, repo / "out" / "00_a.ipynb", {}, repo / ".cache")
    log = repo / "out" / "00_a.log"
    assert outcome.failure is not None and log.exists()
    assert outcome.failure.error == f"DeadKernelError: Kernel died; what it printed: {log}"


def test_the_key_is_of_the_data_in_a_folder_that_a_parameter_names(repo: Path) -> None:
    source = add(repo, "07_real", "")
    folder = repo / "tofu"
    (folder / "part").mkdir(parents=True)
    keys = set()
    for name, text in (
        ("README.md", "a"),
        ("part/x.parquet", "b"),
        ("part/x.parquet", "c"),
        ("y.jsonl", "c"),
    ):
        (folder / name).write_text(text)
        keys |= {execute.execution_key(source, {"data": str(folder)})}
    assert len(keys) == 4
    named = {execute.execution_key(source, {"data": f"muse:{folder}"})}
    (folder / "y.jsonl").write_text("d")
    named |= {execute.execution_key(source, {"data": f"muse:{folder}"})}
    (folder / "y.jsonl").write_text("c")
    assert len(named) == 2 and not named & keys
    (folder / "note.tmp").write_text("no data")
    assert execute.execution_key(source, {"data": str(folder)}) in keys
    empty = execute.execution_key(source, {"data": ""})  # no folder, not the notebooks' own
    (source.parent / "README.md").write_text("text")
    assert execute.execution_key(source, {"data": ""}) == empty


def test_labels_never_collide() -> None:
    labels = {
        paths.run_label("tiny", data, smoke)
        for data in ("", "/x", "muse:/x")
        for smoke in (False, True)
    }
    plain = {"tiny", "tiny-tofu", "tiny-muse"}
    assert labels == plain | {f"{label}-smoke" for label in plain}


def test_alone_gives_each_notebook_an_empty_cache_and_saves_cold_times(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = "# %%\nimport os, pathlib\ncache = pathlib.Path(os.environ['NGDIFF_CACHE'])\n"
    body += "assert cache.is_dir() and not any(cache.iterdir())\n(cache / 'model').touch()\n"
    for name in ("00_a", "01_b"):
        add(repo, name, body)
    assert reproduce(root=repo, alone=True, say=[].append) == 0
    rows = read_rows(repo / "data/results/tiny/times.jsonl")
    assert [r["name"] for r in rows] == ["00_a", "01_b"] and all(r["seconds"] > 0 for r in rows)
    assert not list((repo / ".cache").glob("alone-*"))
    # one page measured again
    assert reproduce(root=repo, only=["01"], alone=True, say=[].append) == 0
    again = read_rows(repo / "data/results/tiny/times.jsonl")
    assert again[0] == rows[0] and again[1] != rows[1]
    monkeypatch.setenv("NGDIFF_CACHE", str(repo / "cache"))
    (repo / "cache").mkdir()
    assert reproduce(root=repo, force=True, jobs=1, say=[].append) == 1, (
        "01 finds what 00 left in the cache they share"
    )
    assert read_rows(repo / "data/results/tiny/times.jsonl") == again, (
        "times measured alone are kept"
    )


def test_seconds_of_a_warm_or_partial_run_are_not_saved(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The README calls them those of a run from an empty cache."""
    add(repo, "00_a", "")
    times = repo / "data/results/tiny/times.jsonl"
    monkeypatch.setenv("NGDIFF_CACHE", str(repo / "cache"))
    (repo / "cache/trials/key").mkdir(parents=True)
    assert reproduce(root=repo, say=[].append) == 0 and not times.exists()  # trials are cached
    (repo / "cache/trials/key").rmdir()
    # the notebook is still valid
    assert reproduce(root=repo, say=[].append) == 0 and not times.exists()
    (repo / ".cache/executed/tiny/ledger.json").unlink()
    # not all of them
    assert reproduce(root=repo, only=["00"], say=[].append) == 0 and not times.exists()
    (repo / ".cache/executed/tiny/ledger.json").unlink()
    assert reproduce(root=repo, say=[].append) == 0 and [r["alone"] for r in read_rows(times)] == [
        False
    ]


@pytest.mark.parametrize(
    ("cell", "place"),
    [
        ("open('x', 'wb').write(bytes(150_000))", "what 00_a.py saves in its cell 3"),
        ("print('x' * 150_000)", "00_a.ipynb"),  # papermill saves it
        ("import os; os.kill(os.getpid(), 9)", ""),
    ],
)
def test_a_full_disk_is_one_line_that_names_it(
    repo: Path, monkeypatch: pytest.MonkeyPatch, cell: str, place: str
) -> None:
    """The system's limit of a file's size stands for the disk."""
    add(repo, "00_a", f"# %%\n{cell}\n")
    said: list[str] = []
    if not place:  # nothing in what the notebook leaves tells of the disk, so a trial finds it
        place, trial = "/executed/tiny", probe_room
        monkeypatch.setattr(execute, "probe_room", lambda folder: limited(10_000, trial, folder))
    with pytest.raises(FullDiskError) as caught:
        limited(100_000, reproduce, root=repo, say=said.append)
    line, why = str(caught.value), re.escape(os.strerror(errno.EFBIG))
    assert re.fullmatch(rf"no room to write \S*{place} \({why}\): free [^\n]*", line)
    assert len(said) == 1 and not (repo / "report/tiny.html").exists()
    with pytest.raises(FullDiskError, match=f"{repo}/data/results/tiny"):  # before any work
        limited(10_000, reproduce, root=repo, say=pytest.fail)


def limited(size: int, work: Callable[..., object], *given: object, **more: object) -> None:
    """Do the work where no file may be longer than `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        work(*given, **more)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
