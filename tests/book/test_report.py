"""The report is one file, and says of what is not of this run that it is not."""

from __future__ import annotations

from pathlib import Path

from ngdiff.book import report
from ngdiff.book.comparison import Compared
from ngdiff.store.rows import write_rows


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
    comparison = [Compared("a & b", {"value": 1.0, "tolerance": 0.1}, None)]
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
