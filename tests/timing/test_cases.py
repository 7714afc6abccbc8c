"""The suite: cases in processes of their own, and what becomes of those that fail."""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import replace
from types import SimpleNamespace

from ngdiff.store.rows import read_rows
from ngdiff.timing import cases
from ngdiff.timing.case import Case
from ngdiff.timing.variants import EVERY
from tests.helpers.timed import TWO


def test_the_suite_runs_cases_apart_and_a_failed_one_is_a_row(monkeypatch, tmp_path, capsys):
    small = Case("1M", 16, pairs=1, variants=TWO)
    unknown = replace(small, size="micro")  # which the other process does not know
    monkeypatch.setitem(cases.CASES, "cpu", [[unknown, small, replace(small, tokens=32)]])
    rows = cases.suite(tmp_path, minutes=2)
    # the third was not needed
    assert sorted(os.listdir(tmp_path)) == ["step_1M_16.jsonl", "step_micro_16.jsonl"]
    assert "unknown size 'micro'" in rows[0]["outcome"]
    assert [row["variant"] for row in rows[1:]] == list(TWO)
    assert read_rows(tmp_path / "step_1M_16.jsonl") == rows[1:] and rows[1]["rounds"] == EVERY
    printed = capsys.readouterr().out
    assert re.search(r"^all[ -]+unknown size 'micro'", printed, re.M)
    assert printed.count("÷ naive") == 2  # one table


def only_here(monkeypatch, run):
    """Replace `subprocess.run` for the cases alone: a row's stamp asks git by the real one."""
    names = {"run": run, "TimeoutExpired": subprocess.TimeoutExpired}
    monkeypatch.setattr(cases, "subprocess", SimpleNamespace(**names))


def test_a_case_out_of_time_is_a_row(monkeypatch, tmp_path):
    def late(command, timeout, **_):
        raise subprocess.TimeoutExpired(command, timeout)

    only_here(monkeypatch, late)
    (row,) = cases._apart(Case("micro", 16), tmp_path / "step_x.jsonl", 3.0)
    assert row["outcome"] == "out of time after 3 s"
    assert read_rows(tmp_path / "step_x.jsonl")[0]["size"] == "micro"


def test_a_killed_case_says_how_it_ended(monkeypatch, tmp_path):
    done = subprocess.CompletedProcess([], -9, "", "last words\n")
    only_here(monkeypatch, lambda command, **_: done)
    (row,) = cases._apart(Case("micro", 16), tmp_path / "x.jsonl", 3.0)
    assert row["outcome"] == "ended with -9: last words"
    assert cases._ended(2, "round 1/9\nngdiff: too large\n") == "too large"
    assert cases._ended(2, "") == "ended with 2: " and cases._ended(0, "a warning") == ""


def test_the_suites_of_each_device_cover_the_targets():
    assert [choices[0].label for choices in cases.CASES["cpu"]] == ["10M_512", "10M_128"]
    full, short, twice, adapter = cases.CASES["cuda"]
    assert {case.precision for choices in cases.CASES["cuda"] for case in choices} == {"bfloat16"}
    assert [case.label for case in full] == [
        "7B_4096_bfloat16",
        "7B_4096_sgd_bfloat16",
        "1B_4096_bfloat16",
    ]
    assert (
        short[0].tokens == 1024 and twice[0].checkpointing and "ngdiff-recompute" in twice[0].names
    )
    assert [(case.size, case.lora) for case in adapter] == [("7B", 16), ("1B", 16)]
