"""Which notebooks a run has, what each depends on, and the order they go in."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from ngdiff.book import execute
from ngdiff.book.jobs import Job, choose, in_order, plan
from ngdiff.store.rows import write_rows
from tests.helpers.toy_checkout import HEAD, add


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


def job(name: str, *needs: str) -> Job:
    return Job(Path(f"{name}.py"), Path(f"{name}.ipynb"), {}, "k", frozenset(needs))


def test_each_job_starts_after_what_it_needs_and_the_longest_chain_goes_first() -> None:
    jobs = [job("00"), job("01"), job("02", "00"), job("03", "02")]
    jobs.append(job("09", "00", "01", "02", "03"))
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


def test_a_kernel_imports_this_very_package(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    path = execute.kernel_environment(tmp_path)["PYTHONPATH"]
    assert path == f"{Path(execute.__file__).parents[2]}:/elsewhere"
