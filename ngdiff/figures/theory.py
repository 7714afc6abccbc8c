"""Figures of the theory: saved rows in, a matplotlib Figure out. Rows hold plain numbers and lists,
as JSON does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Wedge

from ngdiff.figures import style

Row = dict[str, Any]
RETAIN, FORGET, FIT = (
    "#0072B2",
    "#D55E00",
    "#DCEBDD",
)  # colours of R, of F, and of where Eq. 7 holds
FITTING = "#3C7A42"  # text on FIT
ARROW = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "mutation_scale": 10}


# ----------------------------------------------------------------------------------- gradient space
@style.house
def gradient_space(rows: Sequence[Row]) -> Figure:
    """Gradient space, a panel a row {g_R, g_F (2,), c: [..], rules: {name: d (2,)}}, turned so that
    the bisector of g_R and −g_F points up. Green: the d with ⟨d, g_R⟩ ≥ 0 ≥ ⟨d, g_F⟩. Grey: the
    cone of static scalarization, whose d move along the dashed line as c goes from 0 to 1 (● meets
    Eq. 7, ○ does not); other rules' d have unit length."""
    fig, axes = style.subplots(
        -(-len(rows) // 2), min(len(rows), 2), height=2.05 * -(-len(rows) // 2), squeeze=False
    )
    for ax, row in zip(axes.flat, rows, strict=False):
        _space(ax, row)
    return fig


def _space(ax: Axes, row: Row) -> None:
    g_R, g_F = np.array(row["g_R"]), np.array(row["g_F"])
    n_R, n_F = np.linalg.norm(g_R), np.linalg.norm(g_F)
    angle, longest = math.degrees(math.acos(np.clip(g_R @ g_F / n_R / n_F, -1, 1))), max(n_R, n_F)
    up = g_R / n_R - g_F / n_F
    turn = np.array([[up[1], -up[0]], [up[0], up[1]]]) / np.linalg.norm(up)
    turn = turn if (turn @ g_R)[0] > 0 else np.diag([-1.0, 1.0]) @ turn  # g_R to the right
    ax.add_patch(Wedge((0, 0), 1.12, 90 - angle / 2, 90 + angle / 2, color=FIT, lw=0, zorder=0))
    ax.text(0, 1.17, "Eq. 7 holds", ha="center", va="bottom", fontsize=7, color=FITTING)
    tips = {"$g_R$": turn @ g_R / longest, "$-g_F$": -turn @ g_F / longest}
    for (text, tip), shade in zip(tips.items(), (RETAIN, FORGET), strict=True):
        ax.annotate("", tip, (0, 0), arrowprops={**ARROW, "color": shade, "lw": 1.4})
        x, y = tip + 0.07 * tip / np.linalg.norm(tip)
        ax.text(x, y, text, color=shade, fontsize=9, va="center", ha="left" if x > 0 else "right")
    right, left = tips.values()
    ax.fill(*np.array([(0, 0), left, right]).T, color="0.5", alpha=0.13, lw=0, zorder=1)
    ax.plot(*np.array([left, right]).T, color="0.5", lw=0.8, ls="--", zorder=2)
    for c in row["c"]:
        x, y = c * right + (1 - c) * left
        inside = abs(math.degrees(math.atan2(x, y))) <= angle / 2 + 1e-9
        ax.plot(
            x,
            y,
            "o",
            ms=5,
            color=style.colour(f"GradDiff({c})"),
            mfc=None if inside else "white",
            zorder=5,
        )
        side = (
            "center" if abs(x) > 0.3 else "right" if x < 0.05 else "left"
        )  # not over NGDiff's arrow
        shift = {"center": 0, "right": -4, "left": 4}[side]
        text, look = f"c={c:g}".replace("0.", "."), {"ha": side, "va": "bottom", "fontsize": 6.5}
        ax.annotate(text, (x, y), xytext=(shift, 5), textcoords="offset points", **look)
    for name, d in row["rules"].items():
        tip = turn @ np.array(d) / np.linalg.norm(d)
        ax.annotate(
            "", tip, (0, 0), arrowprops={**ARROW, "color": style.colour(name), "lw": 1.8}, zorder=4
        )
        ax.text(
            tip[0] + 0.05,
            tip[1] + 0.04,
            style.label(name),
            color=style.colour(name),
            fontsize=8,
            zorder=6,
        )
    ax.set(xlim=(-1.45, 1.45), ylim=(-0.22, 1.3), aspect="equal")
    ax.set_title(f"angle {angle:.0f}°, κ = {n_F / n_R:.3g}: {row['note']}", fontsize=8.5)
    ax.axis("off")


@style.house
def interval(rows: Sequence[Row], fixed: Sequence[float] = (0.1, 0.5, 0.9)) -> Figure:
    """The static c that meet Eq. 7: a panel a row {title, x_name, x, low, high, own}, all but the
    names lists over x. `own`: the c that NGDiff's weights amount to. Dashed: fixed c."""
    fig, axes = style.subplots(1, len(rows), height=2.7, sharey=True, squeeze=False)
    for ax, row in zip(axes[0], rows, strict=True):
        ax.fill_between(row["x"], row["low"], row["high"], color=FIT, lw=0)
        ax.plot(row["x"], row["own"], **style.line("NGDiff"))
        for c in fixed:
            ax.axhline(c, color=style.colour(f"GradDiff({c})"), lw=1, ls="--")
        ax.set(
            xlabel=row["x_name"], xlim=(row["x"][0], row["x"][-1]), ylim=(0, 1), title=row["title"]
        )
    axes[0][0].set_ylabel("c")
    axes[0][0].text(
        0.04, 0.7, "Eq. 7 holds", transform=axes[0][0].transAxes, fontsize=8, color=FITTING
    )
    end, last = rows[-1]["x"][-1], axes[0][-1]
    ends = [(end, c, f"c = {c:g}", style.colour(f"GradDiff({c})")) for c in fixed]
    style.label_ends(last, [*ends, (end, rows[-1]["own"][-1], "NGDiff", style.colour("NGDiff"))])
    return fig


@style.house
def slopes(rows: Sequence[Row]) -> Figure:
    """First-order change of R and of F per unit rate against a static c; a panel a row {kappa, c,
    dR, dF, low, high}, c, dR, dF lists. Green: from `low` to `high` R does not rise and F does not
    fall."""
    fig, axes = style.subplots(1, len(rows), height=2.4, squeeze=False)
    for ax, row in zip(axes[0], rows, strict=True):
        ax.axvspan(row["low"], row["high"], color=FIT, lw=0)
        ax.plot(row["c"], row["dR"], color=RETAIN)
        ax.plot(row["c"], row["dF"], color=FORGET)
        ax.axhline(0, color="0.3", lw=0.8)
        ax.set(xlabel="c", xlim=(0, 1), xticks=(0, 0.5, 1), title=f"κ = {row['kappa']:.3g}")
        style.label_ends(ax, [(1, row["dR"][-1], "R", RETAIN), (1, row["dF"][-1], "F", FORGET)])
    axes[0][0].set_ylabel("change per unit η")
    return fig


# --------------------------------------------------------------------------------------- landscapes
def _loss(H: Sequence, centre: Sequence, x: np.ndarray) -> np.ndarray:
    """½(x − centre)'H(x − centre), x (..., 2)."""
    away = x - np.array(centre)
    return 0.5 * np.einsum("...i,ij,...j->...", away, np.array(H), away)


def _contours(ax: Axes, row: Row, box: tuple[float, float, float, float], levels: int = 7) -> None:
    """Thin level sets of R (solid) and of F (dotted) in the box (x0, x1, y0, y1)."""
    x0, x1, y0, y1 = box
    grid = np.stack(np.meshgrid(np.linspace(x0, x1, 121), np.linspace(y0, y1, 121)), axis=-1)
    for H, centre, shade, ls in (
        (row["A"], row["r"], RETAIN, "solid"),
        (row["B"], row["f"], FORGET, "dotted"),
    ):
        z = np.sqrt(_loss(H, centre, grid))
        ax.contour(
            grid[..., 0],
            grid[..., 1],
            z,
            levels,
            colors=shade,
            linewidths=0.6,
            linestyles=ls,
            alpha=0.45,
        )


def _box(points: np.ndarray, margin: float = 0.12) -> tuple[float, float, float, float]:
    """A square box around points (m, 2)."""
    low, high = points.min(0), points.max(0)
    half, centre = (0.5 + margin) * (high - low).max(), 0.5 * (low + high)
    return (centre[0] - half, centre[0] + half, centre[1] - half, centre[1] + half)


@style.house
def trajectories(rows: Sequence[Row], pairs: Sequence[Row]) -> Figure:
    """Paths in the plane: a line of panels per pair {name, title, A, B, r, f, start, front}, a
    column per step-size rule; rows {pair, stepsize, method, path (T + 1, 2), outcome}. Grey: the
    Pareto front; ● ended aligned, × not ended."""
    rules = list(dict.fromkeys(r["stepsize"] for r in rows))
    fig, axes = style.subplots(
        len(pairs), len(rules), height=0.35 + 2.15 * len(pairs), squeeze=False
    )
    for line, pair in zip(axes, pairs, strict=True):
        mine = [r for r in rows if r["pair"] == pair["name"]]
        box = _box(
            np.vstack(
                [_corners(pair), *[r["path"] for r in mine if style.label(r["method"]) == "NGDiff"]]
            )
        )
        for ax, rule in zip(line, rules, strict=True):
            _contours(ax, pair, box)
            if pair["front"]:
                ax.plot(
                    *np.array(pair["front"]).T, color="0.72", lw=4, solid_capstyle="round", zorder=1
                )
            for row in mine:
                if row["stepsize"] == rule:
                    _path(ax, row)
            _landmarks(ax, pair, box)
            ax.set_title(f"{pair['title']}, {rule}" if ax is line[0] else rule, fontsize=8.5)
    shown = {r["method"] for r in rows}
    marks = [("o", "ended: aligned"), ("x", "not ended")]
    handles = [Line2D([], [], **style.line(m)) for m in style.ordered(shown)]
    handles += [
        Line2D([], [], ls="", marker=mark, color="0.5", ms=6, label=text) for mark, text in marks
    ]
    fig.legend(
        handles=handles, loc="outside upper center", ncols=len(handles), fontsize=8, frameon=False
    )
    return fig


def _corners(pair: Row) -> np.ndarray:
    """θ₀, r and (where F has a maximum there) f."""
    return np.array(
        [pair["start"], pair["r"], *([pair["f"]] if pair["family"] == "concave" else [])]
    )


def _path(ax: Axes, row: Row) -> None:
    path, look = np.array(row["path"]), style.line(row["method"])
    ax.plot(*path.T, lw=1.3, marker=".", ms=2.5, **look)
    ax.plot(
        *path[-1],
        "o" if row["outcome"] == "aligned" else "x",
        color=look["color"],
        ms=6,
        zorder=6,
        clip_on=True,
    )


def _landmarks(ax: Axes, pair: Row, box: tuple[float, float, float, float]) -> None:
    """θ₀ and the centres r, f where they are in view; a square panel without ticks."""
    places = (("start", "θ₀", "k", "s"), ("r", "min R", RETAIN, "*"), ("f", "max F", FORGET, "*"))
    for key, text, shade, mark in places:
        x, y = pair[key]
        if not (box[0] < x < box[1] and box[2] < y < box[3]):
            continue
        text = "min F" if key == "f" and pair["family"] == "convex" else text
        ax.plot(x, y, mark, color=shade, ms=4 if mark == "s" else 8, zorder=5)
        ax.annotate(
            text,
            (x, y),
            xytext=(5, -4),
            textcoords="offset points",
            va="top",
            fontsize=7,
            color=shade,
        )
    ax.set(xlim=box[:2], ylim=box[2:], aspect="equal", xticks=[], yticks=[])
    ax.grid(False)


@style.house
def invariance(rows: Sequence[Row], pair: Row) -> Figure:
    """Paths from one start when the losses are rescaled; a panel a method; rows {method, by_R,
    by_F, path}.
    """
    methods = style.ordered({r["method"] for r in rows})
    fig, axes = style.subplots(1, len(methods), height=2.9, squeeze=False)
    shades, marks = ("0.0", "0.35", "0.6"), ("o", "s", "^")
    for ax, method in zip(axes[0], methods, strict=True):
        mine = [r for r in rows if r["method"] == method]
        box = _box(
            np.vstack([np.array(r["path"]) for r in mine] + [np.array([pair["start"], pair["r"]])]),
            0.2,
        )
        _contours(ax, pair, box)
        for row, shade, mark, size in zip(mine, shades, marks, (9, 6, 3), strict=False):
            text = f"({row['by_R']:g}·R, {row['by_F']:g}·F)"
            ax.plot(
                *np.array(row["path"]).T,
                color=shade,
                marker=mark,
                ms=size,
                mfc="white",
                mew=0.9,
                lw=1,
                label=text,
            )
        _landmarks(ax, pair, box)
        ax.set_title(style.label(method) + " with AutoLR", fontsize=9)
    handles, texts = axes[0][0].get_legend_handles_labels()
    fig.legend(
        handles, texts, loc="outside upper center", ncols=len(texts), fontsize=8, frameon=False
    )
    return fig


# ----------------------------------------------------------------------------------- one step, runs
@style.house
def window(rows: Sequence[Row]) -> Figure:
    """R (left) and F (right) along one update; rows {family, eta [..], R [..], F [..], probe [[η,
    R] × 3], best, retain_window, forget_window (None: unbounded)}; R is the same for each family
    and drawn once."""
    fig, (left, right) = style.subplots(1, 2, height=2.7)
    first = rows[0]
    top, base = first["retain_window"], first["probe"][1][1]
    left.axvspan(0, top, color=FIT, lw=0)
    left.plot(first["eta"], first["R"], color=RETAIN)
    left.axhline(base, color="0.6", lw=0.8, ls=":")
    left.plot(*np.array(first["probe"]).T, "o", color="k", mfc="white", ms=5, zorder=5)
    low = min(first["R"])
    left.plot(first["best"], low, "*", color="k", ms=10, zorder=5)
    left.annotate(
        "η*",
        (first["best"], low),
        xytext=(0, -4),
        textcoords="offset points",
        ha="center",
        va="top",
        fontsize=9,
    )
    left.annotate(
        "2η*", (top, base), xytext=(3, -3), textcoords="offset points", va="top", fontsize=8
    )
    left.annotate(
        "three probes", first["probe"][0], xytext=(6, 4), textcoords="offset points", fontsize=7.5
    )
    left.set(xlabel="η", ylabel="R(θ − η d)", title="R falls within its window, 0 to 2η*")
    left.margins(y=0.14)
    for row, dashes in zip(rows, ("-", "--"), strict=False):
        right.plot(row["eta"], row["F"], color=FORGET, ls=dashes)
        if row["forget_window"] is not None:
            right.axvspan(0, row["forget_window"], color=FIT, lw=0)
    right.axhline(0.0, color="0.6", lw=0.8, ls=":")
    right.set(
        xlabel="η", ylabel="F(θ − η d) − F(θ)", title="F: a window if concave, none if convex"
    )
    right.set_xlim(right.get_xlim()[0], first["eta"][-1])
    style.label_ends(right, [(r["eta"][-1], r["F"][-1], r["family"] + " F", FORGET) for r in rows])
    return fig


@style.house
def losses(rows: Sequence[Row], scale: str = "linear") -> Figure:
    """R (left) and F (right) against steps, a line a method: rows {method, step, retain, forget},
    the last three lists.
    """
    fig, axes = style.subplots(1, 2, height=2.6)
    for ax, key, title in zip(
        axes, ("retain", "forget"), ("retain loss R: keep low", "forget loss F: raise"), strict=True
    ):
        ends = []
        for row in rows:
            ax.plot(row["step"], row[key], **style.line(row["method"]))
            ends.append(
                (
                    row["step"][-1],
                    row[key][-1],
                    style.label(row["method"]),
                    style.colour(row["method"]),
                )
            )
        ax.set(xlabel="step", yscale=scale, title=title)
        ax.set_xlim(0, max(row["step"][-1] for row in rows))
        style.label_ends(ax, ends, size=7.5)
    return fig
