"""The report compares what is committed with what was run, and never mixes them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ngdiff.book import report
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
    assert report.Compared("n", committed, new).status == status


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
    assert report.committed_rows(repo, "tiny", repo / "backup")["a"]["value"] == 1.0
    assert not (repo / "backup").exists()


def test_without_git_the_first_state_counts_as_committed(repo: Path) -> None:
    path = repo / "data/results/tiny/06_summary.jsonl"
    for value in (1.0, 2.0):
        write_rows(path, [{"name": "a", "value": value}])
        assert report.committed_rows(repo, "tiny", repo / "backup")["a"]["value"] == 1.0


def test_a_number_made_from_committed_rows_is_not_run(repo: Path) -> None:
    folder = "data/results/tiny"
    made = {"a": "a.jsonl", "b": ["a.jsonl", "b.jsonl"], "c": None}
    rows = [{"name": name, "value": 1.0, "source": source} for name, source in made.items()]
    write_rows(repo / folder / "summary.jsonl", rows)
    files = {f"{folder}/{name}" for name in ("summary.jsonl", "a.jsonl")}
    assert set(report.new_rows(repo, "tiny", files)) == {"a", "c"}
    assert report.new_rows(repo, "tiny", files - {f"{folder}/summary.jsonl"}) == {}


def test_the_report_is_one_file_and_tells_what_was_not_run(repo: Path) -> None:
    from matplotlib.figure import Figure

    figures = repo / "figures/tiny"
    figures.mkdir(parents=True)
    figure = Figure()
    figure.subplots().plot([1, 2])
    for name, source in (
        ("fig1_new", ""),
        ("fig2_old", ""),
        ("fig3_drawn", "06_claims.jsonl"),
        ("fig4_kept", "old.jsonl"),
    ):
        figure.savefig(
            figures / f"{name}.png", metadata={"Description": "A <line>", "Source": source}
        )
    write_rows(
        repo / "data/results/tiny/06_claims.jsonl",
        [{"claim": "η < 1", "holds": True, "seeds": [0]}],
    )
    files = {f"figures/tiny/{name}.png" for name in ("fig1_new", "fig3_drawn", "fig4_kept")}
    files |= {"data/results/tiny/06_claims.jsonl"}
    comparison = [report.Compared("a & b", row(1.0), None)]
    config = {"profile": "tiny", "seeds": None}
    page = report.write(
        repo, "tiny", [report.Ran("00_a", "done", 1.0)], files, comparison, config, 1.0
    )
    text = page.read_text("utf-8")
    assert text.count("data:image/png;base64,") == 3 and "fig1_new. A &lt;line&gt;" in text
    assert "fig3_drawn. A &lt;line&gt;" in text, "drawn from rows of this run"
    assert "fig4_kept. From committed rows, not from this run. A &lt;line&gt;" in text
    assert "fig2_old: not run" in text and "a &amp; b" in text and "η &lt; 1" in text
    assert "http" not in text.split("<h2>Stamp")[0] and max(map(len, text.splitlines())) < 1_000_000
