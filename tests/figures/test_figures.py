"""Figures: one colour a method, files of their rows alone, texts that do not meet."""

from __future__ import annotations

import itertools
import math

import matplotlib.pyplot as plt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from ngdiff import figures
from ngdiff.core import directions
from ngdiff.core.stepsize import Constant
from ngdiff.figures import comparison, landscapes, one_step, runs, style
from ngdiff.figures import suites as pictures
from ngdiff.methods.recipes import METHODS
from ngdiff.store.rows import read_rows
from ngdiff.study import tables
from ngdiff.theory import geometry, theorems
from ngdiff.theory.quadratics import Pair, pair, walk


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


# --------------------------------------------------------------------------------------------- rows
def vec(*x: float) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float64)


def described(P: Pair) -> dict:
    lists = {key: getattr(P, key).tolist() for key in ("A", "B", "r", "f", "start")}
    return {
        "name": P.family,
        "title": f"{P.family} F",
        "family": P.family,
        **lists,
        "front": P.pareto_front(20).tolist(),
    }


def gradient_space() -> Figure:
    rows = []
    for angle, kappa in ((60, 1.0), (60, 2.5), (25, 1.5), (120, 1.0)):
        t = math.radians(angle)
        g_R, g_F = vec(1, 0), kappa * vec(math.cos(t), math.sin(t))
        rules = {"NGDiff": geometry.combined(directions.NGDiff(), g_R, g_F).tolist()}
        rows.append(
            {
                "g_R": g_R.tolist(),
                "g_F": g_F.tolist(),
                "c": [0.1, 0.5, 0.9],
                "rules": rules,
                "note": "any c",
            }
        )
    return one_step.gradient_space(rows)


def interval() -> Figure:
    x = [0.0, 0.5, 0.9]
    row = {
        "x": x,
        "low": [0.0, 1 / 3, 0.47],
        "high": [1.0, 2 / 3, 0.53],
        "own": [0.5] * 3,
        "x_name": "ρ",
        "title": "closing",
    }
    return one_step.interval([row, {**row, "own": [0.5, 0.7, 0.88]}])


def slopes() -> Figure:
    row = {"c": [0.0, 1.0], "dR": [0.5, -1.0], "dF": [1.0, -0.5], "low": 1 / 3, "high": 2 / 3}
    return one_step.slopes([{**row, "kappa": kappa} for kappa in (1 / 3, 1.0, 3.0)])


def trajectories() -> Figure:
    pairs = [pair(100, 5, 2.0, 2, "concave", seed=1), pair(100, 5, 1.0, 2, "convex", seed=5)]
    rows = []
    for P, rule in itertools.product(pairs, (directions.NGDiff(), directions.GradDiff(0.5))):
        for name, stepsize in (("η = 0.1", Constant(0.1)), ("AutoLR", theorems.SAFE)):
            path, history = walk(P, rule, stepsize, 12)
            row = {"pair": P.family, "stepsize": name, "method": repr(rule), "path": path.tolist()}
            rows.append({**row, "outcome": history[-1].outcome})
    return landscapes.trajectories(rows, [described(P) for P in pairs])


def invariance() -> Figure:
    P, rows = pair(100, 5, 1.0, 2, "convex", seed=1), []
    for rule, by_R in itertools.product(
        (directions.NGDiff(), directions.GradDiff(0.5)), (1.0, 100.0)
    ):
        path, _ = walk(P.scaled(by_R, 1.0), rule, theorems.EXACT, 5)
        rows.append({"method": repr(rule), "by_R": by_R, "by_F": 1.0, "path": path.tolist()})
    return landscapes.invariance(rows, described(P))


def window() -> Figure:
    eta = [-0.2, 0.0, 0.25, 0.5, 0.7]
    R = [(e - 0.25) ** 2 for e in eta]
    row = {
        "eta": eta,
        "R": R,
        "probe": [[-0.2, R[0]], [0.0, R[1]], [0.25, R[2]]],
        "best": 0.25,
        "retain_window": 0.5,
    }
    concave = {
        **row,
        "family": "concave",
        "F": [e - 3 * e * e for e in eta],
        "forget_window": 1 / 3,
    }
    return one_step.window(
        [concave, {**row, "family": "convex", "F": [e + e * e for e in eta], "forget_window": None}]
    )


def losses() -> Figure:
    steps = [0, 10, 20]
    ends = {"NGDiff": 1.0, "GradAscent": 1.1, "GradDiff(0.5)": 1.05, "MGDA": 3.0}
    rows = [
        {"method": m, "step": steps, "retain": [0.5, 0.7, e], "forget": [0.1, 1.0, 2 * e]}
        for m, e in ends.items()
    ]
    return landscapes.losses(rows, scale="log")


ONE_STEP = (gradient_space, interval, slopes, window)
LANDSCAPES = (trajectories, invariance, losses)


def history(rate: float, n: int = 30) -> list[dict]:
    """A run whose forget loss grows at `rate`, with a probe of some outcome every ten steps."""
    outcomes = itertools.cycle(("accepted", "cut", "clipped_up"))
    return [
        {
            "step": t,
            "forget_ce": 0.05 * math.exp(rate * t),
            "retain_ce": 0.05 + 0.01 * rate * t,
            "eta": 1e-4 * (1 + t // 10),
            "stepsize": next(outcomes) if t % 10 == 0 else "held",
        }
        for t in range(n)
    ]


EVERYONE = [name for name, m in METHODS.items() if "composed" not in m.tags]


def compared(*stepsizes: str) -> list[dict]:
    return [
        {
            "method": m,
            "stepsize": rule,
            "lr": 1e-4,
            "seed": s,
            "target_seed": 0,
            "score": 0.9 - 0.03 * k + 0.01 * s,
            "forget_Q_A_ROUGE": 0.25 + 0.02 * k + 0.01 * s,
            "model_utility": 0.8 - 0.02 * k + 0.01 * s,
        }
        for k, m in enumerate(EVERYONE)
        for rule in stepsizes
        for s in range(3)
    ]


def run_trajectories() -> Figure:
    return runs.trajectories(
        {"ngdiff": history(0.1), "gradascent": history(0.14), "graddiff-0.5": history(0.13)}, 2.0
    )


def plane() -> Figure:
    levels = [
        {"model": m, "forget_Q_A_ROUGE": x, "model_utility": y}
        for m, x, y in (("start", 1, 0.78), ("retain-only", 0.37, 0.79))
    ]
    return comparison.plane(compared("constant", "autolr"), levels, "matched forgetting")


def autolr() -> Figure:
    return runs.autolr(
        {
            "safe": history(0.1),
            "own rows": history(0.1),
            "no search": history(0.1),
            "bare": history(0.1),
        }
    )


def quality() -> Figure:
    grid = [
        {**row, "lr": lr}
        for row in compared("constant")
        if row["seed"] == 0
        for lr in (1e-4, 3e-4, 1e-3)
    ]
    return comparison.quality(
        grid, [{"lr": lr, "score": 0.95} for lr in (1e-5, 1e-3, 1e-2)], "score", "against the rate"
    )


def differences() -> Figure:
    rows = [
        {
            "name": f"against {m}",
            "mean": 0.01 * k,
            "low": 0.01 * k - 0.01,
            "high": 0.01 * k + 0.01,
            "n": 15,
            "kind": "95 %",
        }
        for k, m in enumerate(METHODS)
    ]
    reached = {"simnpo": 0, "npo": 14}
    for r in rows:
        n = reached.get(r["name"].removeprefix("against "), 15)
        r |= {"both_n": n, **{f"both_{k}": r[k] if n else None for k in ("mean", "low", "high")}}
    return comparison.differences([*rows, {"name": "ascent keeps"}], "score at matched forgetting")


def rates() -> Figure:
    grid = [
        {**row, "lr": lr, "stopped": "steps" if lr < 3e-4 else "forget_level"}
        for row in compared("constant")
        if row["seed"] == 0
        for lr in (3e-5, 1e-4, 3e-4, 1e-3, 3e-3)
    ]
    return comparison.rates(grid, "tuning seed, one run a cell")


def requests() -> Figure:
    rows = [
        {
            "folds": kind,
            "k": k,
            "verbmem_f": 1 - k / 5,
            "knowmem_f": 1 - k / 8,
            "knowmem_r": 0.97 - k / 50,
        }
        for kind in ("sust", "scal")
        for k in range(1, 5)
    ]
    return pictures.requests(rows, {"verbmem_f": 1.0, "knowmem_f": 0.99, "knowmem_r": 0.98})


def membership() -> Figure:
    methods = ("gradascent", "graddiff-0.5", "kl", "npo", "ngdiff")
    rows = [
        {
            "method": m,
            "mia_auc": 0.1 + 0.2 * k,
            "task_aggregate": 0.2 * k,
            "stopped": ("steps", "forget_level")[k % 2],
        }
        for k, m in enumerate(methods)
    ]
    levels = [
        {"model": m, "mia_auc": x, "task_aggregate": y}
        for m, x, y in (("start", 1, 0), ("retain-only", 0.5, 0.94))
    ]
    published = [r for r in tables.published("semeval") if r["model"] == "olmo-7b"]
    return pictures.membership(rows, levels, published)


SUITES = (requests, membership)
RUNS = (run_trajectories, autolr)
COMPARISON = (plane, quality, differences, rates)
DRAW = (*ONE_STEP, *LANDSCAPES, *RUNS, *COMPARISON, *SUITES)
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
    } - {"by_name"}
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
    few = [{"name": "against npo", **one, **{f"both_{k}": v for k, v in one.items()}}]
    assert "n = 1" in comparison.differences(few).axes[0].get_xlabel()


def texts_in_view(fig: Figure) -> list[Text]:
    """Every text that is drawn, tick labels included.

    Texts of ticks outside the limits are left out, which matplotlib keeps.
    """
    hidden = set()
    for ax in fig.axes:
        for axis, limits in ((ax.xaxis, ax.get_xlim()), (ax.yaxis, ax.get_ylim())):
            for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
                if not (ax.axison and min(limits) <= tick.get_loc() <= max(limits)):
                    hidden |= {tick.label1, tick.label2}
    found = [
        t for t in fig.findobj(Text) if t.get_visible() and t.get_text().strip() and t not in hidden
    ]
    return [t for t in found if t.get_window_extent().width > 1]


@EACH
def test_texts_of_a_figure_lie_apart_and_within_its_width(draw) -> None:
    fig = draw()
    assert isinstance(fig, Figure) and not plt.get_fignums(), (
        "pyplot keeps no figure: a notebook shows it once"
    )
    fig.draw_without_rendering()
    texts = texts_in_view(fig)
    boxes = [(t.get_text(), t.get_window_extent()) for t in texts]
    for (one, a), (two, b) in itertools.combinations(boxes, 2):
        wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
        assert wide < 2 or high < 2, (
            f"{one!r} and {two!r} overlap by {wide:.0f} × {high:.0f} pixels"
        )
    width = fig.get_window_extent().width
    outside = [text for text, box in boxes if box.x1 > 1.02 * width or box.x0 < -0.02 * width]
    assert not outside, f"{outside} hang over the page"
    assert all(t.get_fontsize() >= 6.5 for t in texts)


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


def test_the_caption_says_profile_data_seeds_and_device_and_travels_in_the_file(tmp_path) -> None:
    stamp = {"config": {"profile": "tiny", "data": ""}, "seed": 3, "device": "a CPU"}
    assert style.caption([{"stamp": stamp}]) == (
        "Profile tiny, generated authors; seeds 3 of the order, 0 of the models; a CPU."
    )
    rows = [
        {"seed": s, "target_seed": t, "data": "tofu rows", "stamp": stamp}
        for s in (1, 0)
        for t in (2, 1)
    ]
    text = style.caption(rows)
    assert text == "Profile tiny, TOFU's rows; seeds 0, 1 of the order, 1, 2 of the models; a CPU."
    fig, _ = style.subplots(1, 1, height=2)
    pdf, png = style.save(fig, tmp_path, "fig", text)
    with Image.open(png) as image:
        assert image.info["Description"] == text
    assert text.encode() in pdf.read_bytes()


def test_a_figure_that_cannot_be_saved_leaves_nothing_behind(tmp_path) -> None:
    with pytest.raises(AttributeError):
        style.save(object(), tmp_path, "fig")
    assert not list(tmp_path.iterdir())


def test_saved_rows_come_back_stamped(tmp_path) -> None:
    (row,) = figures.saved(
        tmp_path / "rows.jsonl", [{"x": vec(1, 2), "y": math.inf}], {"notebook": "test"}, 1.5
    )
    assert row["x"] == [1.0, 2.0] and row["y"] is None, "numbers and lists, as JSON has them"
    assert row["stamp"]["config"] == {"notebook": "test"} and row["stamp"]["seconds"] == 1.5
    assert [row] == read_rows(tmp_path / "rows.jsonl")
