"""Figures: one colour a method, files of their rows alone, texts that do not meet."""

from __future__ import annotations

import itertools
import math

import matplotlib.pyplot as plt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb

from ngdiff import figures
from ngdiff.core import directions
from ngdiff.figures import comparison, landscapes, one_step, runs, story, style
from ngdiff.figures import suites as pictures
from ngdiff.methods.recipes import METHODS
from ngdiff.store.rows import read_rows
from tests.helpers import drawings, texts
from tests.helpers.drawings import (
    COMPARISON,
    DRAW,
    LANDSCAPES,
    ONE_STEP,
    RUNS,
    SUITES,
    differences,
    interval,
    trajectories,
    vec,
)


# -------------------------------------------------------------------------------------------- style
def luminance(colour: str) -> float:
    return sum(
        weight * x for weight, x in zip((0.2126, 0.7152, 0.0722), to_rgb(colour), strict=True)
    )


def test_every_method_has_its_look_and_ngdiff_is_the_darkest() -> None:
    looks = [m.look for m in METHODS.values()]
    assert len(set(looks)) == len(looks)
    assert min(METHODS, key=lambda name: luminance(style.colour(name))) == "ngdiff"


def test_a_saved_row_of_a_users_method_brings_its_look() -> None:
    rows = [{"method": "theirs", "label": "Theirs", "colour": "#123456", "dashes": "--"}]
    assert style.methods([*rows, {"method": "ngdiff"}]) == ["ngdiff", "theirs"]
    look = style.line("theirs")
    assert (look["label"], look["color"], look["ls"]) == ("Theirs", "#123456", "--")


@pytest.mark.parametrize("name", METHODS)
def test_a_method_is_found_by_each_of_its_names(name) -> None:
    label = style.label(name)
    assert style.colour(label) == style.colour(name) and style.label(label) == label
    assert style.line(label) == style.line(name)


def test_a_rule_is_found_by_its_repr() -> None:
    for rule in (
        directions.NGDiff(),
        directions.GradAscent(),
        directions.PCGrad(),
        directions.MGDA(),
    ):
        assert style.label(repr(rule)) == type(rule).__name__ and style.colour(
            repr(rule)
        ) != style.colour("unknown")
    assert style.label(repr(directions.GradDiff(0.5))) == "GradDiff(0.5)"
    assert style.colour(repr(directions.GradDiff(0.5))) == style.colour("graddiff-0.5")


def test_the_order_is_the_same_everywhere_with_strangers_last() -> None:
    assert style.ordered(["zeta", "NPO", "MGDA()", "NGDiff", "alpha"]) == [
        "NGDiff",
        "NPO",
        "MGDA()",
        "alpha",
        "zeta",
    ]


@given(st.lists(st.floats(0, 100), min_size=1, max_size=12), st.floats(0.1, 20))
def test_spread_keeps_order_and_distance_and_moves_no_more_than_it_must(heights, gap) -> None:
    heights = sorted(heights)
    moved = style.spread(heights, gap)
    assert all(b - a >= gap - 1e-9 for a, b in itertools.pairwise(moved))
    assert math.isclose(sum(moved), sum(heights), abs_tol=1e-6), "clusters keep their mean"
    if all(b - a >= gap for a, b in itertools.pairwise(heights)):
        assert moved == pytest.approx(heights)


# -------------------------------------------------------------------------------------- figures
EACH = pytest.mark.parametrize("draw", DRAW, ids=lambda draw: draw.__name__)


@pytest.mark.parametrize(
    ("module", "drawn"),
    [
        (one_step, ONE_STEP),
        (landscapes, LANDSCAPES),
        (runs, RUNS),
        (comparison, COMPARISON),
        (pictures, SUITES),
    ],
    ids=["one step", "landscapes", "runs", "comparison", "suites"],
)
def test_each_figure_is_drawn_here(module, drawn) -> None:
    public = {
        name
        for name, f in vars(module).items()
        if callable(f) and getattr(f, "__module__", "") == module.__name__
    } - {"by_name", "of_runs"}
    assert {name for name in public if not name.startswith("_")} == {
        f.__name__.removeprefix("run_") for f in drawn
    }


def test_the_differences_say_which_pairs_reached_the_level_and_what_the_bars_are() -> None:
    (ax,) = differences().axes
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels[-1] == "NGDiff" and [text for text in labels if "reached" in text] == [
        "SimNPO\n(0 of 15 pairs reached the level)",
        "NPO\n(14 of 15 pairs reached the level)",
    ]
    assert "95 % intervals" in ax.get_xlabel()
    one = {"mean": 0.1, "low": None, "high": None, "n": 1, "kind": ""}
    few = [
        {
            "name": "against npo",
            "stamp": drawings.STAMP,
            **one,
            **{f"both_{k}": v for k, v in one.items()},
        }
    ]
    assert "n = 1" in comparison.differences(few).axes[0].get_xlabel()


@EACH
def test_texts_of_a_figure_lie_apart_and_on_the_page(draw) -> None:
    fig = draw()
    assert isinstance(fig, style.Drawn) and not plt.get_fignums(), (
        "pyplot keeps no figure: a notebook shows it once"
    )
    assert not texts.faults(fig)


def test_a_fault_of_a_text_is_found() -> None:
    fig, ax = style.subplots(1, 1, height=2)
    ax.text(0.5, 0.5, "one")
    assert not texts.faults(fig)
    ax.text(0.51, 0.5, "two")
    fig.text(0.2, -0.2, "below the page")
    ax.text(0.2, 0.9, "small", fontsize=4)
    found = "\n".join(texts.faults(fig))
    for fault in ("'one' and 'two' overlap", "'below the page' leaves", "'small' is too small"):
        assert fault in found


@pytest.mark.parametrize("draw", (interval, trajectories), ids=lambda draw: draw.__name__)
def test_equal_rows_give_equal_files_and_no_dates(draw, tmp_path) -> None:
    one, two = style.save(draw(), tmp_path / "a", "fig"), style.save(draw(), tmp_path / "b", "fig")
    assert [p.name for p in one] == ["fig.pdf", "fig.png"] and sorted(
        (tmp_path / "a").iterdir()
    ) == sorted(one)
    for p, q in zip(one, two, strict=True):
        assert p.read_bytes() == q.read_bytes()
        assert b"CreationDate" not in p.read_bytes() and b"/ModDate" not in p.read_bytes()
    assert (
        one[0].read_bytes().startswith(b"%PDF") and b"/Subtype /Image" not in one[0].read_bytes()
    ), "vectors"
    assert plt.imread(one[1]).shape[1] <= 1.05 * style.WIDTH * 150


def test_a_figure_that_cannot_be_saved_leaves_nothing_behind(tmp_path) -> None:
    broken = drawings.along()
    broken.savefig = None
    with pytest.raises(TypeError):
        style.save(broken, tmp_path, "fig")
    assert not list(tmp_path.iterdir())


def test_saved_rows_come_back_stamped(tmp_path) -> None:
    (row,) = figures.saved(
        tmp_path / "rows.jsonl", [{"x": vec(1, 2), "y": math.inf}], {"notebook": "test"}, 1.5
    )
    assert row["x"] == [1.0, 2.0] and row["y"] is None, "numbers and lists, as JSON has them"
    assert row["stamp"]["config"] == {"notebook": "test"} and row["stamp"]["seconds"] == 1.5
    assert [row] == read_rows(tmp_path / "rows.jsonl") and "made" not in row
    (row,) = figures.saved(tmp_path / "rows.jsonl", [{}], {}, 1.5, "By hand")
    assert row["made"] == "By hand"


# -------------------------------------------------------------------------------------------- story
@pytest.mark.parametrize("kept", [0.4, 0.7, 1.0])
@pytest.mark.parametrize("said", [0.02, 0.3])
def test_the_plane_of_a_story_names_every_model(kept, said):
    at = {"base": (0.1, 0.1), "start": (1.0, 1.0), "reference": (0.3, 1.0)}
    at["unlearned"] = (said, kept)
    rows = [
        {"role": role, "method": "ngdiff", story.X: x, story.Y: y, "seed": 0}
        for role, (x, y) in at.items()
    ]
    fig = story.plane(rows)
    words = [text.get_text() for text in texts.in_view(fig)]
    assert {"base model", "start", "retain-only", "NGDiff + AutoLR"} <= {*words}
    assert fig.rows == tuple(rows) and not texts.faults(fig)
