"""The comparison of what is committed with what was run never mixes the two."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ngdiff.book import comparison
from ngdiff.store.rows import write_rows


def row(value: object, tolerance: float | None = 0.1) -> dict:
    return {"name": "n", "value": value, "tolerance": tolerance}


@pytest.mark.parametrize(
    ("committed", "new", "status"),
    [
        (row(1.0), row(1.05), "ok"),
        (row(1.0), row(1.2), "differs"),
        (row(1.0), None, "not run"),
        (None, row(1.0), "new"),
        (row(1.0, None), row(1.0, None), "not compared"),
        (row(None), row(None), "ok"),
        (row(None), row(1.0), "differs"),
        (row(float("nan")), row(1.0), "differs"),
        (row("holds"), row("holds"), "ok"),
        (row(True), row(False), "differs"),
        (row(1.0, 0.1), row(1.5, 9.0), "differs"),  # a run cannot widen the committed tolerance
    ],
)
def test_compared(committed: dict | None, new: dict | None, status: str) -> None:
    assert comparison.Compared("n", committed, new).status == status


def git(root: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@t", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *identity, *arguments], cwd=root, check=True, capture_output=True)


def test_committed_rows_are_gits_not_the_working_trees(repo: Path) -> None:
    path = repo / "data/results/tiny/06_summary.jsonl"
    write_rows(path, [{"name": "a", "value": 1.0}])
    git(repo, "init")
    git(repo, "add", ".")
    git(repo, "commit", "-m", "rows")
    write_rows(path, [{"name": "a", "value": 2.0}])
    assert comparison.committed_rows(repo, "tiny", repo / "backup")["a"]["value"] == 1.0
    assert not (repo / "backup").exists()


def test_without_git_the_first_state_counts_as_committed(repo: Path) -> None:
    path = repo / "data/results/tiny/06_summary.jsonl"
    for value in (1.0, 2.0):
        write_rows(path, [{"name": "a", "value": value}])
        assert comparison.committed_rows(repo, "tiny", repo / "backup")["a"]["value"] == 1.0


def test_a_number_made_from_committed_rows_is_not_run(repo: Path) -> None:
    folder = "data/results/tiny"
    made = {"a": "a.jsonl", "b": ["a.jsonl", "b.jsonl"], "c": None}
    rows = [{"name": name, "value": 1.0, "source": source} for name, source in made.items()]
    write_rows(repo / folder / "summary.jsonl", rows)
    files = {f"{folder}/{name}" for name in ("summary.jsonl", "a.jsonl")}
    assert set(comparison.new_rows(repo, "tiny", files)) == {"a", "c"}
    assert comparison.new_rows(repo, "tiny", files - {f"{folder}/summary.jsonl"}) == {}


def test_the_terminal_shows_the_verdict_and_the_numbers_outside_tolerance_only() -> None:
    compared = [
        comparison.Compared("good", row(1.0), row(1.05)),
        comparison.Compared("bad", row(1.0) | {"unit": "nats"}, row(1.23456)),
        comparison.Compared("lost", row(2.0), None),
    ]
    said = "1 of 2 reproduced numbers are within tolerance. 1 more were not run."
    assert comparison.as_text(compared).splitlines() == [
        said,
        "",
        "number      committed  new    tolerance  ok",
        "bad [nats]  1          1.235  0.1        differs",
    ]
    assert comparison.as_text(compared[::2]).splitlines() == [
        "1 of 1 reproduced numbers are within tolerance. 1 more were not run."
    ]
    assert comparison.table(compared).cells()[2] == ["lost", "2", "not run", "0.1", "not run"]


def test_numbers_of_the_long_comparison_are_counted_apart() -> None:
    long = row(1.0) | {"source": "evidence_compare_tofu.parquet"}
    both = row(1.0) | {"source": ["matched.parquet", "evidence_levels_tofu.parquet"]}
    page = row(1.0) | {"source": "matched.parquet"}
    compared = [comparison.Compared("n", old, None) for old in (long, both, page)]
    assert [item.of_evidence for item in compared] == [True, True, False]
    assert comparison.Compared("n", None, long).of_evidence, "a new number has its own source"
    assert comparison.verdict(compared) == (
        "2 belong to the long comparison (ngdiff evidence) and were not run. 1 more were not run."
    )
    assert "long comparison" not in comparison.verdict(compared[2:])
    ran = [comparison.Compared("n", long, long)]
    assert comparison.verdict(ran) == "1 of 1 reproduced numbers are within tolerance."
