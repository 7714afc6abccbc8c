"""A reproduction: run once, reused while valid, failures named, nothing half-done taken for
done.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ngdiff.book import execute, report
from ngdiff.book.ledger import Records
from ngdiff.book.reproduce import Job, Reproduction, choose, in_order, plan, reproduce
from ngdiff.store import paths
from ngdiff.store.rows import read_rows, write_rows
from tests.helpers.toy_checkout import HEAD, WRITE, add


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
    assert reproduce(root=repo, say=said.append) == 0 and counts() == [1, 1, 2]
    assert "still valid" in "\n".join(said)

    # by hand, or by checking out another commit
    (rows / "05_b_summary.jsonl").write_text("damaged")
    assert reproduce(root=repo, say=said.append) == 0 and counts() == [1, 2, 3]
    assert reproduce(root=repo, force=True, only=["05"], say=said.append) == 0 and counts()[1] == 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        '{"00_a": 1}',
        '{"00_a": {"key": "k"}}',
        '{"00_a": {"key": 1, "seconds": 1, "files": 5}}',
    ],
)
def test_records_of_another_shape_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "records.json").write_text(text)
    records = Records(tmp_path / "records.json", tmp_path)
    records.load({"00_a": "k"})
    assert records.rows == {} and records.trusted == set()
    records.add("00_a", "k", 1.0, set())
    again = Records(tmp_path / "records.json", tmp_path)
    again.load({"00_a": "k"})
    assert again.trusted == {"00_a"}


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
    assert "FAILED" in page and "lost" in page and report.NOT_RUN in page
    said.clear()
    assert reproduce(root=repo, say=said.append) == 1, "a failed execution must not look valid"


def test_files_belong_to_the_execution_that_wrote_them(repo: Path) -> None:
    head = "# %%\nimport pathlib, time\n\ndef wait(name):\n    end = time.monotonic() + 60\n"
    head += (
        "    while not pathlib.Path(name).exists():\n        assert time.monotonic() < end\n  "
        "      time.sleep(0.05)\n\n"
    )
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
    assert (repo / "data/results/tiny/01_bad_summary.jsonl").exists()
    records = json.loads((repo / ".cache/executed/tiny/records.json").read_text())
    assert {name: list(row["files"]) for name, row in records.items()} == {
        "02_good": ["data/results/tiny/02_good_summary.jsonl"]
    }


def test_with_only_a_record_of_old_code_is_not_of_this_run(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add(repo, "05_b", WRITE.format(name="05_b", value=1.0))
    add(repo, "10_c", WRITE.format(name="10_c", value=1.0))
    write_rows(
        repo / "data/results/tiny/old_summary.jsonl",
        [{"name": "05_b", "value": 1.0, "tolerance": 0.1}],
    )
    for only, verdict in (
        ([], "1 of 1 reproduced"),
        (["10"], "0 of 0 reproduced numbers are within tolerance. 1 more"),
    ):
        said: list[str] = []
        assert reproduce(root=repo, only=only, say=said.append) == 0
        assert verdict in "\n".join(said)
        monkeypatch.setattr(execute, "fingerprint_of", lambda text: "2")


def test_a_record_of_an_unknown_notebook_is_not_trusted(repo: Path) -> None:
    records = Records(repo / "records.json", repo)
    for name in ("00_a", "01_gone"):
        records.add(name, "k", 1.0, set())
    again = Records(repo / "records.json", repo)
    again.load({"00_a": "k"})
    assert again.trusted == {"00_a"}


def test_a_record_keeps_its_hashes_when_a_failed_execution_wrote_over_its_file(repo: Path) -> None:
    (repo / "shared").write_text("good")
    records = Records(repo / "records.json", repo)
    records.add("00_a", "k", 1.0, {"shared"})
    (repo / "shared").write_text("of a failed one")
    (repo / "other").write_text("")
    records.add("01_b", "k", 1.0, {"other"})
    again = Records(repo / "records.json", repo)
    again.load({"00_a": "k", "01_b": "k"})
    assert again.trusted == {"01_b"}


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


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def wait_for(condition: Callable[[], bool], seconds: float = 60.0) -> None:
    start = time.monotonic()
    while not condition():
        assert time.monotonic() - start < seconds, "waited too long"
        time.sleep(0.1)


def test_a_killed_reproduction_leaves_nothing_that_looks_done(repo: Path) -> None:
    body = (
        "# %%\nimport os, pathlib, time\nhere = pathlib.Path('..')\n"
        "(here / 'pid.tmp').write_text(str(os.getpid()))\n(here / 'pid.tmp').rename(here / 'pid')\n"
        "while not (here / 'go').exists():\n    time.sleep(0.1)\n\n"
    )
    add(repo, "00_a", body + WRITE.format(name="00_a", value=1))
    package = str(Path(__file__).resolve().parents[2])
    code = (
        f"import sys; sys.path.insert(0, {package!r}); from ngdiff.book.reproduce import "
        "reproduce; reproduce()"
    )
    killed = subprocess.Popen([sys.executable, "-c", code], cwd=repo, stdout=subprocess.DEVNULL)
    wait_for((repo / "pid").exists)
    killed.kill()
    killed.wait()
    kernel = int((repo / "pid").read_text())
    wait_for(lambda: gone(kernel))  # the kernel does not live on to write over the next run
    assert not (repo / "report/tiny.html").exists()
    (repo / "go").touch()
    said: list[str] = []
    assert reproduce(root=repo, say=said.append) == 0
    assert "done" in said[0] and (repo / "data/results/tiny/00_a.count").read_text() == "1"


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
    assert outcome.failure is not None and "exit code" in outcome.failure.error


def test_plan_gives_only_declared_parameters(repo: Path) -> None:
    add(repo, "00_a", "")
    add(repo, "07_real", "").write_text(HEAD.replace("smoke = False", 'data = ""'))
    jobs = {job.name: job.parameters for job in plan(repo, "tiny", smoke=True)}
    assert jobs["00_a"] == {"profile": "tiny", "refresh": False, "smoke": True}
    assert jobs["07_real"] == {"profile": "tiny", "refresh": False}
    (job,) = plan(repo, "tiny", data="/tofu")
    assert (
        job.name == "07_real"
        and job.parameters["data"] == "/tofu"
        and job.out.parent.name == "tiny-tofu"
    )
    with pytest.raises(ValueError, match="00_a, 07_real"):
        choose(plan(repo, "tiny"), ["99"])


def test_real_rows_of_a_benchmark_run_the_notebooks_that_read_them(repo: Path) -> None:
    for name, rows in (("07_a", ""), ("08_b", "muse")):
        source = add(repo, name, "")
        text = HEAD.replace("smoke = False", 'data = ""')
        header = f"# ---\n# jupyter:\n#   ngdiff:\n#     rows: {rows}\n# ---\n\n" if rows else ""
        source.write_text(header + text)

    def chosen(data: str, *only: str) -> list[str]:
        return [job.name for job in choose(plan(repo, "tiny", data), only, paths.kind(data))]

    assert chosen("") == chosen("/tofu") == chosen("semeval:hub") == ["07_a", "08_b"]
    assert chosen("muse:hub") == ["08_b"] and chosen("muse:hub", "07") == ["07_a"]


def test_the_key_is_of_sources_and_parameters(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = add(repo, "00_a", "")
    (key,) = [job.key for job in plan(repo, "tiny")]
    assert key == plan(repo, "tiny", seeds=[0, 1, 2])[0].key  # the seeds it has anyway
    assert key != plan(repo, "tiny", seeds=[0])[0].key
    assert key != plan(repo, "tiny", refresh=True)[0].key  # the long grids write other rows
    with monkeypatch.context() as patch:
        patch.setattr(execute, "fingerprint_of", lambda text: "2")
        assert key != plan(repo, "tiny")[0].key
    source.write_text(source.read_text() + "# %%\n1\n")
    assert key != plan(repo, "tiny")[0].key


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


# --------------------------------------------------------------------------------------- scheduling
def job(name: str, *needs: str) -> Job:
    return Job(Path(f"{name}.py"), Path(f"{name}.ipynb"), {}, "k", frozenset(needs))


def test_each_job_starts_after_what_it_needs_and_the_longest_chain_goes_first() -> None:
    jobs = [
        job("00"),
        job("01"),
        job("02", "00"),
        job("03", "02"),
        job("09", "00", "01", "02", "03"),
    ]
    seen: list[str] = []
    in_order(lambda j: seen.append(j.name), jobs, {"01": 2.5, "02": 1, "03": 1}, workers=1)
    assert seen == ["00", "01", "02", "03", "09"]
    seen.clear()
    in_order(lambda j: seen.append(j.name), jobs, {"01": 9.0}, workers=1)
    assert seen == ["01", "00", "02", "03", "09"]


def test_two_workers_are_never_idle_while_a_job_may_start() -> None:
    barrier, jobs = threading.Barrier(2, timeout=20), [job("00"), job("01"), job("02"), job("03")]
    # each waits for another at the same time
    in_order(lambda j: barrier.wait() and None, jobs, {}, workers=2)


def test_a_need_that_is_not_chosen_is_taken_as_met_and_an_error_starts_no_more() -> None:
    seen: list[str] = []
    in_order(lambda j: seen.append(j.name), [job("03", "00")], {}, workers=2)
    assert seen == ["03"]

    def fail(j: Job) -> None:
        seen.append(j.name)
        raise OSError("full disk")

    with pytest.raises(OSError, match="full disk"):
        in_order(fail, [job("00"), job("01", "00")], {}, workers=1)
    assert seen == ["03", "00"]


def test_a_circle_of_needs_is_an_error_before_anything_runs() -> None:
    with pytest.raises(ValueError, match="need each other in a circle: 00 -> 01 -> 00"):
        in_order(lambda j: pytest.fail("ran"), [job("00", "01"), job("01", "00")], {}, workers=1)


def test_needs_come_from_the_headers(repo: Path) -> None:
    add(repo, "00_a", "")
    add(repo, "03_b", "", needs='"00"')
    add(repo, "10_c", "", needs='"all"')
    jobs = {j.name: j for j in plan(repo, "tiny")}
    assert jobs["03_b"].needs == {"00_a"} and not jobs["03_b"].always
    assert jobs["10_c"].needs == {"00_a", "03_b"} and jobs["10_c"].always


def test_the_committed_rates_are_part_of_the_key(repo: Path) -> None:
    add(repo, "00_a", "")
    keys = {plan(repo, "tiny")[0].key}
    write_rows(repo / "data/protocol/tiny/authors.parquet", [{"lr": 1e-3}])
    keys |= {plan(repo, "tiny")[0].key}
    write_rows(repo / "data/protocol/tiny/authors.parquet", [{"lr": 1e-4}])
    assert len(keys | {plan(repo, "tiny")[0].key}) == 3


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
    (repo / ".cache/executed/tiny/records.json").unlink()
    # not all of them
    assert reproduce(root=repo, only=["00"], say=[].append) == 0 and not times.exists()
    (repo / ".cache/executed/tiny/records.json").unlink()
    assert reproduce(root=repo, say=[].append) == 0 and [r["alone"] for r in read_rows(times)] == [
        False
    ]
