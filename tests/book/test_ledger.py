"""A ledger trusts an execution while its key is this run's and its files have their bytes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ngdiff.book.execute import execution_key
from ngdiff.book.ledger import Ledger


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "3",
        '{"00_a": 1}',
        '{"00_a": {"key": "k"}}',
        '{"00_a": {"key": "k", "seconds": 1, "files": 5}}',
        '{"00_a": {"key": "k", "seconds": "1", "files": {}}}',
        '{"key": "k", "parameters": {}, "error": null, "seconds": 1.0, "rows": "0"}',
    ],
)
def test_records_of_another_shape_are_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "ledger.json").write_text(text)
    ledger = Ledger(tmp_path / "ledger.json", tmp_path)
    ledger.load({"00_a": "k"})
    assert ledger.rows == {} and ledger.trusted == set() and "is damaged" in ledger.fault
    ledger.add("00_a", "k", 1.0, set())
    again = Ledger(tmp_path / "ledger.json", tmp_path)
    again.load({"00_a": "k"})
    assert again.trusted == {"00_a"} and again.fault == ""


def test_no_file_is_no_fault_and_a_file_without_a_hash_is_not_trusted(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.json", tmp_path).load({"a": "k"})
    assert (ledger.rows, ledger.trusted, ledger.fault) == ({}, set(), "")
    ledger.add("a", "k", 1.0, ["lost before its bytes were read"])
    assert ledger.load({"a": "k"}).trusted == set(), "reading again withdraws trust"


def test_a_record_of_an_unknown_notebook_is_not_trusted(repo: Path) -> None:
    ledger = Ledger(repo / "ledger.json", repo)
    for name in ("00_a", "01_gone"):
        ledger.add(name, "k", 1.0, set())
    again = Ledger(repo / "ledger.json", repo)
    again.load({"00_a": "k"})
    assert again.trusted == {"00_a"}


def test_a_record_keeps_its_hashes_when_a_failed_execution_wrote_over_its_file(repo: Path) -> None:
    (repo / "shared").write_text("good")
    ledger = Ledger(repo / "ledger.json", repo)
    ledger.add("00_a", "k", 1.0, {"shared"})
    (repo / "shared").write_text("of a failed one")
    (repo / "other").write_text("")
    ledger.add("01_b", "k", 1.0, {"other"})
    again = Ledger(repo / "ledger.json", repo)
    again.load({"00_a": "k", "01_b": "k"})
    assert again.trusted == {"01_b"}


def test_a_failed_execution_is_recorded_and_never_valid(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.json", tmp_path)
    (tmp_path / "rows").write_text("1")
    ledger.add("a", "k", 1.0, ["rows"], parameters={"lr": 0.1})
    assert ledger.trusted == {"a"} and ledger.files() == {"rows"}
    ledger.fail("a", "k", 2.0, "cell 3: no", parameters={"lr": 0.1})
    assert ledger.trusted == set() and ledger.files() == set()
    again = Ledger(tmp_path / "ledger.json", tmp_path).load({"a": "k"})
    assert again.trusted == set() and again.rows["a"]["error"] == "cell 3: no"
    assert json.loads((tmp_path / "ledger.json").read_text())["a"]["parameters"] == {"lr": 0.1}


@pytest.mark.parametrize("change", ["other key", "other bytes", "lost file", "dropped", "none"])
def test_what_makes_an_execution_run_again(tmp_path: Path, change: str) -> None:
    (tmp_path / "rows").write_text("1")
    ledger = Ledger(tmp_path / "ledger.json", tmp_path)
    ledger.add("a", "k", 1.0, ["rows"])
    if change == "other bytes":
        (tmp_path / "rows").write_text("2")
    elif change == "lost file":
        (tmp_path / "rows").unlink()
    elif change == "dropped":
        ledger.drop("a")
    keys = {"a": "other" if change == "other key" else "k"}
    again = Ledger(tmp_path / "ledger.json", tmp_path).load(keys)
    assert again.trusted == ({"a"} if change == "none" else set())


def test_a_file_that_two_write_is_valid_for_both_after_the_second(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.json", tmp_path)
    for name in ("a", "b"):
        (tmp_path / "shared").write_text(name)
        ledger.add(name, "k", 1.0, ["shared"])
    again = Ledger(tmp_path / "ledger.json", tmp_path).load({"a": "k", "b": "k"})
    assert again.trusted == {"a", "b"}


def test_prose_is_no_part_of_an_executions_key(tmp_path):
    page, other = tmp_path / "00_a.py", "# %%\nx = 1\n\n# %% [markdown]\n# # More\n# y = 2\n"
    page.write_text("# ---\n# jupyter: {}\n# ---\n\n# %% [markdown]\n# # A\n\n" + other)
    first = execution_key(page, {})
    page.write_text(page.read_text().replace("# # A", "# # B").replace("# y = 2", "# y = 3"))
    assert execution_key(page, {}) == first
    page.write_text(page.read_text().replace("x = 1", "x = 2"))
    assert execution_key(page, {}) != first
