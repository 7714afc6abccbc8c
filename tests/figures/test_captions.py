"""Captions, titles and n are those of the rows that a figure shows."""

from __future__ import annotations

import re

import pytest
from PIL import Image

from ngdiff.figures import captions, comparison, style
from tests.helpers import drawings
from tests.helpers.drawings import DRAW, RUN, STAMP, compared

EACH = pytest.mark.parametrize("draw", DRAW, ids=lambda draw: draw.__name__)


def test_the_caption_says_profile_data_counts_seeds_and_device_and_travels_in_the_file(
    tmp_path,
) -> None:
    rows = [
        {"seed": s, "target_seed": t, "data": "tofu rows", "stopped": "steps", "stamp": STAMP}
        for s in (1, 0)
        for t in (2, 1)
    ]
    fig, _ = style.subplots(1, 1, height=2)
    text = fig.of(rows).caption
    assert text == (
        "Profile tiny, TOFU's rows; 4 runs; seeds 0, 1 of the order, 1, 2 of the models; a CPU."
    )
    pdf, png = style.save(fig, tmp_path, "fig")
    with Image.open(png) as image:
        assert image.info["Description"] == text
    assert text.encode() in pdf.read_bytes()


def test_a_caption_leaves_out_what_no_row_holds() -> None:
    (seedless,) = [{"model": "start", "stamp": STAMP}]
    assert captions.caption([seedless]) == "Profile tiny, generated authors; 1 model; a CPU."
    assert captions.caption([]) == ""
    theory = [{"made": "By hand", "stamp": STAMP}, {"path": [], "stamp": STAMP}]
    assert captions.caption([*theory, theory[0]]) == "By hand.", "no data set is named"


def test_other_data_are_never_called_tofus() -> None:
    for data, name in (("news", "generated news"), ("dossiers-3", "generated dossiers")):
        said = captions.caption([RUN | {"data": data}]) + captions.title([RUN | {"data": data}])
        assert said.count(name) == 2 and "TOFU" not in said and "authors" not in said


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([RUN], "generated authors: 1 run, 1 order of the rows"),
        ([RUN, RUN | {"seed": 1}], "generated authors: 2 runs, 2 orders of the rows"),
        (
            [RUN, RUN | {"target_seed": 1}],
            "generated authors: 2 runs, 1 order of the rows, 2 models",
        ),
    ],
)
def test_a_title_counts_its_rows(rows, text) -> None:
    assert captions.title(rows) == text


@EACH
def test_a_figure_holds_the_rows_that_it_shows_and_its_caption_counts_them(draw) -> None:
    fig = draw()
    assert fig.rows and fig.caption == captions.caption(fig.rows)
    for noun in (captions.RUN, captions.MODEL, captions.COMPARISON, captions.PUBLISHED):
        n = sum(captions.kind(row) == noun for row in fig.rows)
        assert (captions.number(n, noun) in fig.caption) == (n > 0), fig.caption


def test_a_figure_of_fewer_rows_says_so() -> None:
    whole, levels = compared("constant", "autolr"), drawings.plane().rows[-2:]
    part = [row for row in whole if row["method"] != "npo" and row["seed"] < 2]
    for rows in (whole, part):
        fig = comparison.plane(rows, levels)
        (title,) = [ax.get_title() for ax in fig.axes]
        orders = len({row["seed"] for row in rows})
        assert title == f"generated authors: {len(rows)} runs, {orders} orders of the rows"
        assert [row for row in fig.rows if captions.kind(row) == captions.RUN] == rows
        named = {text.get_text() for text in fig.legends[0].get_texts()}
        assert named == {style.label(row["method"]) for row in rows}


def test_titles_count_what_their_own_panel_holds() -> None:
    def titles(draw) -> str:
        return "\n".join(ax.get_title() for ax in draw().axes)

    rows = drawings.quality().rows
    auto = sum("method" not in row for row in rows)
    n = len(rows) - auto
    assert titles(drawings.quality).endswith(f"{n} runs at constant rates, {auto} with AutoLR")
    n = len(drawings.rates().rows)
    assert f"{n} tuning runs, 1 order of the rows" in titles(drawings.rates)
    assert "15 pairs of runs a method" in titles(drawings.differences)
    ours, theirs = titles(drawings.membership).split("\n")
    assert ours == "generated dossiers: 5 runs" and theirs == "published, olmo-7b"


def test_two_runs_in_one_cell_of_a_heat_map_are_refused() -> None:
    rows = [row for row in compared("constant") if row["seed"] == 0]
    with pytest.raises(ValueError, match=f"{len(rows) + 1} runs in {len(rows)} cells"):
        comparison.rates([*rows, rows[0]])


def test_a_history_without_its_run_is_refused() -> None:
    from ngdiff.figures import runs

    with pytest.raises(ValueError, match=re.escape("the history 'b' has no row")):
        runs.of_runs({"a": [], "b": []}, [RUN | {"name": "a"}])
    assert runs.of_runs({"a": []}, []) == []
