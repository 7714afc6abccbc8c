"""Every figure and table of the pages, rebuilt from the committed rows."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from ngdiff.book import build, gallery
from ngdiff.figures import captions
from ngdiff.figures.style import Drawn
from ngdiff.store.rows import read_rows, write_rows
from ngdiff.study import tables
from tests.helpers import texts
from tests.helpers.drawings import history

ROOT = Path(__file__).resolve().parents[2]
SAVED = gallery.Saved(ROOT / "data" / "results" / "tiny")


def test_every_figure_of_a_page_is_here_once() -> None:
    names = [name for name, _ in gallery.FIGURES]
    assert [name for name, n in Counter(names).items() if n > 1] == []
    saved = set()
    for source in build.sources(ROOT / "notebooks"):
        if build.header(source).profile:  # its rows are of another folder
            continue
        code = (c.source for c in build.notebook(source).cells if c.cell_type == "code")
        saved |= set(re.findall(r'"(fig\d+_\w+)"', "\n".join(code)))
    assert saved == {name for name in names if not name.startswith("fig10")}


@pytest.fixture(scope="module")
def drawn() -> dict[str, Drawn | str]:
    return dict(gallery.figures(SAVED))


@pytest.mark.parametrize("name", [name for name, _ in gallery.FIGURES])
def test_a_figure_of_committed_rows_has_readable_texts_and_the_caption_of_its_rows(
    drawn, name: str
) -> None:
    fig, file = drawn[name], ROOT / "figures" / "tiny" / f"{name}.png"
    if isinstance(fig, str):  # a part of the long comparison that was not run
        assert name.startswith("fig10") and not file.exists(), fig
        return
    assert texts.faults(fig) == [] and fig.caption == captions.caption(fig.rows)
    with Image.open(file) as image:
        assert image.info["Description"] == fig.caption, "the committed figure shows other rows"


def test_what_was_not_run_is_named_and_nothing_stands_in_for_it(tmp_path: Path) -> None:
    empty = gallery.Saved(tmp_path)
    missing = dict(gallery.figures(empty))
    assert missing["fig0_start_here"] == "start.jsonl"
    assert missing["fig7_tofu"] == "tofu_matched.parquet"
    drawn = {name for name, fig in missing.items() if not isinstance(fig, str)}
    assert drawn == {f"fig{n}_rates" for n in (6, 7, 8, 9)}, "the tuning rows are of the protocol"
    for page in gallery.TABLES:
        assert gallery.table(page, empty) == f"not run: {page}matched.parquet"


def test_both_figures_of_rates_are_there(tmp_path: Path) -> None:
    """AutoLR's rate over the steps, and the score against the rate: once one key for two."""
    assert {"fig3_autolr", "fig6_learning_rate"} <= {name for name, _ in gallery.FIGURES}
    rows = read_rows(SAVED.folder / "learning_rate.jsonl")
    write_rows(tmp_path / "learning_rate.jsonl", [{**rows[0], "name": "default"}])
    steps = [{"name": "default", **step} for step in history(0.1)]
    write_rows(tmp_path / "learning_rate_history.parquet", steps)
    fig = dict(gallery.figures(gallery.Saved(tmp_path)))["fig3_autolr"]
    assert [ax.get_title() for ax in fig.axes] == ["default"] and "; 1 run;" in fig.caption


@pytest.mark.parametrize("page", gallery.TABLES)
def test_a_table_is_rebuilt_with_a_line_for_every_method(page: str) -> None:
    text = gallery.table(page, SAVED)
    heads, *lines = text.splitlines()
    assert all(head in heads for head in gallery.TABLES[page].values())
    for row in read_rows(SAVED.folder / f"{page}matched.parquet"):
        assert any(line.startswith(tables.run_name(row)) for line in lines), row["method"]


def test_no_page_says_that_it_reproduces_what_nobody_here_has_seen() -> None:
    for source in build.sources(ROOT / "notebooks"):
        text = source.read_text("utf-8")
        assert not re.search(r"\*Reproduces\*|redrawn from|[Rr]eproduces? the paper", text), source
