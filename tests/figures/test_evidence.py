"""Figures of the long comparison: marks lie where their rows say, and texts lie apart."""

from __future__ import annotations

import itertools

import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from ngdiff.book.evidence import TITLES
from ngdiff.figures import evidence as drawn
from ngdiff.figures import style
from ngdiff.study import evidence, verdicts
from tests.helpers import long_rows
from tests.helpers.long_rows import POPULATIONS, run

KAPPA = {"tofu": 25.0, "lume": 4.0, "news": 0.5}
LEVELS = long_rows.levels()
VERSUS = ("GradDiff(0.5)", "the best fixed c")


def where(names=tuple(KAPPA), gains=None) -> Figure:
    rows = [
        r | {"set": TITLES[name]}
        for name in names
        for r in long_rows.geometry(KAPPA.get(name, 3.0), 0.3)
    ]
    some = {v: 0.1 - 0.15 * k for k, v in enumerate(VERSUS)}
    gains = {TITLES[name]: some for name in names} if gains is None else gains
    return drawn.where(rows, gains)


def bands(works=None) -> Figure:
    works = works or {(m, o): range(2, 5) for m in evidence.BANDED for o in evidence.BANDS}
    return drawn.bands(long_rows.bands(works), LEVELS)


def marks(ax: Axes, kind: str) -> dict[float, list[tuple[float, str]]]:
    """Height → (x, fill) of the marks of a kind."""
    found: dict[float, list[tuple[float, str]]] = {}
    for line in ax.lines:
        if line.get_marker() == kind:
            ((x, y),) = line.get_xydata()
            found.setdefault(round(float(y), 6), []).append((float(x), line.get_fillstyle()))
    return {y: sorted(xs) for y, xs in found.items()}


# -------------------------------------------------------------------------------------------- where
def test_a_line_a_data_set_shows_the_quantiles_of_its_rows() -> None:
    fig = where()
    for ax, middle in zip(fig.axes, (list(KAPPA.values()), [0.3] * 3), strict=False):
        dots = marks(ax, "o")
        assert [dots[-i][0][0] for i in range(3)] == middle
        bars = [line.get_xydata() for line in ax.lines if line.get_color() == "0.6"]
        assert [bar[0, 1] for bar in bars] == [bar[1, 1] for bar in bars] == [0, -1, -2]
        ends = [tuple(bar[:, 0]) for bar in bars]
        assert ends == [(pytest.approx(x / 2), pytest.approx(2 * x)) for x in middle]
    names = [label.get_text() for label in fig.axes[0].get_yticklabels()]
    assert names == ["TOFU's rows", "LUME's rows", "generated news"]
    assert list(fig.axes[0].get_yticks()) == [0, -1, -2]


def test_runs_of_one_data_set_are_averaged_and_those_without_steps_left_out() -> None:
    one, lost = long_rows.geometry(10.0, 0.2, fixed=0.5)
    rows = [r | {"set": "a"} for r in (one, one | {"kappa_50": 30.0, "inside_0.9": 0.0}, lost)]
    fig = drawn.where([*rows, lost | {"set": "b"}], {})
    assert marks(fig.axes[0], "o") == {0.0: [(20.0, "full")]}
    assert [t.get_text() for t in fig.axes[2].texts] == ["50%", "25%", "50%", "50%"]
    assert fig.axes[3].get_xlabel() == "not run"


def test_cells_are_darker_where_fewer_steps_lie_inside() -> None:
    rows = [long_rows.geometry(fixed=share)[0] | {"set": str(share)} for share in (0.0, 0.4, 1.0)]
    ax = drawn.where(rows, {}).axes[2]
    light = {}
    for cell in ax.collections:
        light.setdefault(round(cell.get_paths()[0].get_extents().y0), set()).add(
            to_rgb(cell.get_facecolor()[0])[0]
        )
    shades = [light[y] for y in sorted(light, reverse=True)]  # the first data set is on top
    assert all(len(shade) == 1 for shade in shades)
    assert [min(s) for s in shades] == sorted({min(s) for s in shades}), "lighter from 0 to 1"
    assert {t.get_text() for t in ax.texts} == {"0%", "40%", "100%"}


def test_gains_have_a_mark_for_each_comparison() -> None:
    gains = {TITLES["tofu"]: dict(zip(VERSUS, (0.2, -0.1), strict=True))}
    gains[TITLES["news"]] = {VERSUS[1]: 0.05}
    ax = where(gains=gains).axes[3]
    assert marks(ax, "o") == {drawn.APART: [(0.2, "full")]}
    squares = {-drawn.APART: [(-0.1, "full")], -2 - drawn.APART: [(0.05, "full")]}
    assert marks(ax, "s") == squares, "nothing of LUME's rows, which have no gain"
    assert ax.get_xlabel() == "○ GradDiff(0.5)\n■ the best fixed c"
    faces = {line.get_marker(): line.get_markerfacecolor() for line in ax.lines}
    assert (faces["o"], faces["s"]) == ("white", "black")


# -------------------------------------------------------------------------------------------- bands
def test_every_rate_has_its_mark() -> None:
    """A rate works in both units, in one, or in none."""
    rows = long_rows.bands({("ngdiff", "sgd"): range(2, 5), ("lossnorm", "sgd"): ()})
    for r in rows:
        if r["method"] == "ngdiff" and r["data"] == POPULATIONS[0]:
            r["kept"] = 0.0 if r["lr"] == evidence.BANDS["sgd"][4] else r["kept"]
    (ax,) = drawn.bands(rows, LEVELS).axes
    labels = dict(zip(ax.get_yticks(), (t.get_text() for t in ax.get_yticklabels()), strict=True))
    by_name = {labels[y]: xs for y, xs in marks(ax, "o").items()}
    fills = ["none", "none", "full", "full", "left", *["none"] * 4]
    assert by_name["NGDiff"] == list(zip(evidence.BANDS["sgd"], fills, strict=True))
    assert [fill for _, fill in by_name["LossNorm"]] == ["none"] * 9
    joined = [line.get_xdata() for line in ax.lines if line.get_linewidth() == 4]
    assert [tuple(xs) for xs in joined] == [evidence.BANDS["sgd"][2:4]]
    assert ax.get_title() == "SGD"


@pytest.mark.parametrize(
    ("end", "crossed"),
    [
        ({}, False),
        ({"loss_retain": 0.51}, True),  # five times the start's is .5
        ({"loss_retain": None}, True),
        ({"loss_retain": float("nan")}, True),
        ({"loss_retain": 9.0, "data": "of no start"}, False),
        ({"loss_retain": None, "data": "of no start"}, True),
        ({"stopped": "steps"}, False),
    ],
)
def test_a_cross_is_nan_or_a_high_retain_loss(end, crossed) -> None:
    rows = [run("ngdiff", lr=lr) for lr in (1e-3, 1e-2)]
    (ax,) = drawn.bands([rows[0], rows[1] | end], LEVELS).axes
    assert marks(ax, "x") == ({0.0: [(0.01, "full")]} if crossed else {})


def test_a_panel_has_its_optimizer_and_methods_in_the_order_of_every_table() -> None:
    fig = bands()
    assert [ax.get_title() for ax in fig.axes] == ["AdamW", "SGD"]
    assert f"× NaN, or retain loss above {verdicts.BLOWN:g} times the start's" in (
        fig._supxlabel.get_text()
    )
    names = [t.get_text() for t in fig.axes[0].get_yticklabels()][::-1]
    assert names == [style.label(m) for m in style.ordered(evidence.BANDED)]
    assert not any(t.get_text() for t in fig.axes[1].get_yticklabels())


# -------------------------------------------------------------------------------------------- texts
def in_view(fig: Figure) -> list:
    """Every text that is drawn, but tick labels outside the limits, which matplotlib keeps."""
    fig.draw_without_rendering()
    texts = [*fig.texts, fig._supxlabel]
    for ax in fig.axes:
        texts += [*ax.texts, ax.title, ax.xaxis.label, ax.yaxis.label]
        for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
            ticks = axis.get_major_ticks()
            texts += [t.label1 for t in ticks if min(limits) <= t.get_loc() <= max(limits)]
    unique = {id(t): t for t in texts if t is not None and t.get_text().strip()}
    return list(unique.values())


@pytest.mark.parametrize(
    "draw",
    [where, lambda: where(tuple(TITLES)), lambda: where(("tofu",)), bands],
    ids=["three sets", "all sets", "one set", "bands"],
)
def test_texts_lie_apart_and_within_the_page(draw) -> None:
    fig = draw()
    boxes = [(t.get_text(), t.get_window_extent()) for t in in_view(fig)]
    assert len(boxes) > 8
    for (one, a), (two, b) in itertools.combinations(boxes, 2):
        wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert wide < 2 or high < 2, f"{one!r} and {two!r} overlap by {wide:.0f} × {high:.0f}"
    width = fig.get_window_extent().width
    assert all(-0.02 * width <= box.x0 and box.x1 <= 1.02 * width for _, box in boxes)
    assert all(t.get_fontsize() >= 6.5 for t in in_view(fig))
