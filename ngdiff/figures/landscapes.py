"""Figures of whole runs on pairs of quadratics: paths over level sets, and losses by step.

Saved rows in, a matplotlib Figure out. Rows hold plain numbers and lists, as JSON does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from ngdiff.figures import style
from ngdiff.figures.style import Drawn

Row = dict[str, Any]
ABOVE = {"loc": "outside upper center", "fontsize": 8, "frameon": False}  # a legend in one line


def _loss(H: Sequence, centre: Sequence, x: np.ndarray) -> np.ndarray:
    """½(x − centre)'H(x − centre), x (..., 2)."""
    away = x - np.array(centre)
    return 0.5 * np.einsum("...i,ij,...j->...", away, np.array(H), away)


def _contours(ax: Axes, row: Row, box: tuple[float, float, float, float], levels: int = 7) -> None:
    """Thin level sets of R (solid) and of F (dotted) in the box (x0, x1, y0, y1)."""
    x0, x1, y0, y1 = box
    grid = np.stack(np.meshgrid(np.linspace(x0, x1, 121), np.linspace(y0, y1, 121)), axis=-1)
    for H, centre, shade, ls in (
        (row["A"], row["r"], style.RETAIN, "solid"),
        (row["B"], row["f"], style.FORGET, "dotted"),
    ):
        z = np.sqrt(_loss(H, centre, grid))
        look = {"colors": shade, "linewidths": 0.6, "linestyles": ls, "alpha": 0.45}
        ax.contour(grid[..., 0], grid[..., 1], z, levels, **look)


def _box(points: np.ndarray, margin: float = 0.12) -> tuple[float, float, float, float]:
    """A square box around points (m, 2)."""
    low, high = points.min(0), points.max(0)
    half, centre = (0.5 + margin) * (high - low).max(), 0.5 * (low + high)
    return (centre[0] - half, centre[0] + half, centre[1] - half, centre[1] + half)


@style.house
def trajectories(rows: Sequence[Row], pairs: Sequence[Row]) -> Drawn:
    """Paths in the plane: a line of panels per pair, a column per step-size rule.

    rows: {pair, stepsize, method, path (T + 1, 2), outcome}; pairs: {name, title, A, B, r, f,
    start, front}. Grey: the Pareto front; ● ended aligned, × not ended.
    """
    rules = list(dict.fromkeys(r["stepsize"] for r in rows))
    height = 0.35 + 2.15 * len(pairs)
    fig, axes = style.subplots(len(pairs), len(rules), height=height, squeeze=False)
    for line, pair in zip(axes, pairs, strict=True):
        mine = [r for r in rows if r["pair"] == pair["name"]]
        own = [r["path"] for r in mine if style.label(r["method"]) == "NGDiff"]
        box = _box(np.vstack([_corners(pair), *own]))
        for ax, rule in zip(line, rules, strict=True):
            _contours(ax, pair, box)
            if pair["front"]:
                look = {"color": "0.72", "lw": 4, "solid_capstyle": "round", "zorder": 1}
                ax.plot(*np.array(pair["front"]).T, **look)
            for row in mine:
                if row["stepsize"] == rule:
                    _path(ax, row)
            _landmarks(ax, pair, box)
            ax.set_title(f"{pair['title']}, {rule}" if ax is line[0] else rule, fontsize=8.5)
    handles = [Line2D([], [], **style.line(m)) for m in style.methods(rows)]
    for mark, text in (("o", "ended: aligned"), ("x", "not ended")):
        handles.append(Line2D([], [], ls="", marker=mark, color="0.5", ms=6, label=text))
    fig.legend(handles=handles, ncols=len(handles), **ABOVE)
    return fig.of(rows, pairs)


def _corners(pair: Row) -> np.ndarray:
    """θ₀, r and (where F has a maximum there) f."""
    points = [pair["start"], pair["r"]]
    return np.array([*points, pair["f"]] if pair["family"] == "concave" else points)


def _path(ax: Axes, row: Row) -> None:
    path, look = np.array(row["path"]), style.line(row["method"])
    ax.plot(*path.T, lw=1.3, marker=".", ms=2.5, **look)
    mark = "o" if row["outcome"] == "aligned" else "x"
    ax.plot(*path[-1], mark, color=look["color"], ms=6, zorder=6, clip_on=True)


def _landmarks(ax: Axes, pair: Row, box: tuple[float, float, float, float]) -> None:
    """θ₀ and the centres r, f where they are in view; a square panel without ticks."""
    places = (
        ("start", "θ₀", "k", "s"),
        ("r", "min R", style.RETAIN, "*"),
        ("f", "max F", style.FORGET, "*"),
    )
    for key, text, shade, mark in places:
        x, y = pair[key]
        if not (box[0] < x < box[1] and box[2] < y < box[3]):
            continue
        text = "min F" if key == "f" and pair["family"] == "convex" else text
        ax.plot(x, y, mark, color=shade, ms=4 if mark == "s" else 8, zorder=5)
        look = {"textcoords": "offset points", "va": "top", "fontsize": 7, "color": shade}
        ax.annotate(text, (x, y), xytext=(5, -4), **look)
    ax.set(xlim=box[:2], ylim=box[2:], aspect="equal", xticks=[], yticks=[])
    ax.grid(False)


@style.house
def invariance(rows: Sequence[Row], pair: Row) -> Drawn:
    """Paths from one start when the losses are rescaled, a panel a method.

    rows: {method, stepsize, by_R, by_F, path}.
    """
    methods = style.methods(rows)
    fig, axes = style.subplots(1, len(methods), height=2.9, squeeze=False)
    shades, marks = ("0.0", "0.35", "0.6"), ("o", "s", "^")
    for ax, method in zip(axes[0], methods, strict=True):
        mine = [r for r in rows if r["method"] == method]
        box = _box(np.vstack([*(r["path"] for r in mine), [pair["start"], pair["r"]]]), 0.2)
        _contours(ax, pair, box)
        for row, shade, mark, size in zip(mine, shades, marks, (9, 6, 3), strict=False):
            text = f"({row['by_R']:g}·R, {row['by_F']:g}·F)"
            look = {"color": shade, "marker": mark, "ms": size, "mfc": "white", "mew": 0.9}
            ax.plot(*np.array(row["path"]).T, lw=1, label=text, **look)
        _landmarks(ax, pair, box)
        rules = ", ".join(dict.fromkeys(r["stepsize"] for r in mine))
        ax.set_title(f"{style.label(method)}, {rules}", fontsize=9)
    handles, texts = axes[0][0].get_legend_handles_labels()
    fig.legend(handles, texts, ncols=len(texts), **ABOVE)
    return fig.of(rows, [pair])


@style.house
def losses(rows: Sequence[Row], scale: str = "linear") -> Drawn:
    """R (left) and F (right) against steps, a line a method.

    rows: {method, step, retain, forget}, the last three lists.
    """
    fig, axes = style.subplots(1, 2, height=2.6)
    titles = {"retain": "retain loss R: keep low", "forget": "forget loss F: raise"}
    for ax, (key, title) in zip(axes, titles.items(), strict=True):
        ends = []
        for row in rows:
            method = row["method"]
            ax.plot(row["step"], row[key], **style.line(method))
            end = (row["step"][-1], row[key][-1])
            ends.append((*end, style.label(method), style.colour(method)))
        ax.set(xlabel="step", yscale=scale, title=title)
        ax.set_xlim(0, max(row["step"][-1] for row in rows))
        style.label_ends(ax, ends, size=7.5)
    return fig.of(rows)
