"""Figures of one update of the theory: gradient space, static scalarization, the rate's windows.

Saved rows in, a matplotlib Figure out. Rows hold plain numbers and lists, as JSON does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Wedge

from ngdiff.figures import style
from ngdiff.figures.style import Drawn

Row = dict[str, Any]
ARROW = {"arrowstyle": "-|>", "shrinkA": 0, "shrinkB": 0, "mutation_scale": 10}


@style.house
def gradient_space(rows: Sequence[Row]) -> Drawn:
    """Gradient space, a panel a row {g_R, g_F (2,), c: [..], rules: {name: d (2,)}}.

    A panel is turned so that the bisector of g_R and −g_F points up. Green: the d with
    ⟨d, g_R⟩ ≥ 0 ≥ ⟨d, g_F⟩. Grey: the cone of static scalarization, whose d move along the dashed
    line as c goes from 0 to 1 (● meets Eq. 7, ○ does not). Other rules' d have unit length.
    """
    lines, columns = -(-len(rows) // 2), min(len(rows), 2)
    fig, axes = style.subplots(lines, columns, height=2.05 * lines, squeeze=False)
    for ax, row in zip(axes.flat, rows, strict=False):
        _space(ax, row)
    return fig.of(rows)


def _space(ax: Axes, row: Row) -> None:
    """One panel of `gradient_space`."""
    g_R, g_F = np.array(row["g_R"]), np.array(row["g_F"])
    n_R, n_F = np.linalg.norm(g_R), np.linalg.norm(g_F)
    angle, longest = math.degrees(math.acos(np.clip(g_R @ g_F / n_R / n_F, -1, 1))), max(n_R, n_F)
    turn = _upright(g_R, g_F)
    wedge = {"color": style.FIT, "lw": 0, "zorder": 0}
    ax.add_patch(Wedge((0, 0), 1.12, 90 - angle / 2, 90 + angle / 2, **wedge))
    ax.text(0, 1.17, "Eq. 7 holds", ha="center", va="bottom", fontsize=7, color=style.FITTING)
    tips = {"$g_R$": turn @ g_R / longest, "$-g_F$": -turn @ g_F / longest}
    for (text, tip), shade in zip(tips.items(), (style.RETAIN, style.FORGET), strict=True):
        ax.annotate("", tip, (0, 0), arrowprops={**ARROW, "color": shade, "lw": 1.4})
        x, y = tip + 0.07 * tip / np.linalg.norm(tip)
        ax.text(x, y, text, color=shade, fontsize=9, va="center", ha="left" if x > 0 else "right")
    right, left = tips.values()
    ax.fill(*np.array([(0, 0), left, right]).T, color="0.5", alpha=0.13, lw=0, zorder=1)
    ax.plot(*np.array([left, right]).T, color="0.5", lw=0.8, ls="--", zorder=2)
    for c in row["c"]:
        _static(ax, c, c * right + (1 - c) * left, angle)
    for name, d in row["rules"].items():
        tip, shade = turn @ np.array(d) / np.linalg.norm(d), style.colour(name)
        ax.annotate("", tip, (0, 0), arrowprops={**ARROW, "color": shade, "lw": 1.8}, zorder=4)
        look = {"color": shade, "fontsize": 8, "zorder": 6}
        ax.text(tip[0] + 0.05, tip[1] + 0.04, style.label(name), **look)
    ax.set(xlim=(-1.45, 1.45), ylim=(-0.22, 1.3), aspect="equal")
    ax.set_title(f"angle {angle:.0f}°, κ = {n_F / n_R:.3g}: {row['note']}", fontsize=8.5)
    ax.axis("off")


def _upright(g_R: np.ndarray, g_F: np.ndarray) -> np.ndarray:
    """The rotation, (2, 2), that turns the bisector of g_R and −g_F up and g_R to the right."""
    up = g_R / np.linalg.norm(g_R) - g_F / np.linalg.norm(g_F)
    turn = np.array([[up[1], -up[0]], [up[0], up[1]]]) / np.linalg.norm(up)
    return turn if (turn @ g_R)[0] > 0 else np.diag([-1.0, 1.0]) @ turn


def _static(ax: Axes, c: float, d: np.ndarray, angle: float) -> None:
    """Draw where a static c puts d: ● within `angle`, so that Eq. 7 holds, ○ outside."""
    x, y = d
    inside = abs(math.degrees(math.atan2(x, y))) <= angle / 2 + 1e-9
    shade, face = style.colour(f"GradDiff({c})"), None if inside else "white"
    ax.plot(x, y, "o", ms=5, color=shade, mfc=face, zorder=5)
    # the name does not lie over NGDiff's arrow
    side = "center" if abs(x) > 0.3 else "right" if x < 0.05 else "left"
    shift = {"center": 0, "right": -4, "left": 4}[side]
    text, look = f"c={c:g}".replace("0.", "."), {"ha": side, "va": "bottom", "fontsize": 6.5}
    ax.annotate(text, (x, y), xytext=(shift, 5), textcoords="offset points", **look)


@style.house
def interval(rows: Sequence[Row], fixed: Sequence[float] = (0.1, 0.5, 0.9)) -> Drawn:
    """The static c that meet Eq. 7: a panel a row {title, x_name, x, low, high, own}.

    All but the names are lists over x. `own`: the c that NGDiff's weights amount to. Dashed:
    fixed c.
    """
    fig, axes = style.subplots(1, len(rows), height=2.7, sharey=True, squeeze=False)
    for ax, row in zip(axes[0], rows, strict=True):
        ax.fill_between(row["x"], row["low"], row["high"], color=style.FIT, lw=0)
        ax.plot(row["x"], row["own"], **style.line("NGDiff"))
        for c in fixed:
            ax.axhline(c, color=style.colour(f"GradDiff({c})"), lw=1, ls="--")
        ax.set(xlabel=row["x_name"], xlim=(row["x"][0], row["x"][-1]), ylim=(0, 1))
        ax.set_title(row["title"])
    first, last, end = axes[0][0], axes[0][-1], rows[-1]["x"][-1]
    first.set_ylabel("c")
    look = {"transform": first.transAxes, "fontsize": 8, "color": style.FITTING}
    first.text(0.04, 0.7, "Eq. 7 holds", **look)
    ends = [(end, c, f"c = {c:g}", style.colour(f"GradDiff({c})")) for c in fixed]
    style.label_ends(last, [*ends, (end, rows[-1]["own"][-1], "NGDiff", style.colour("NGDiff"))])
    return fig.of(rows)


@style.house
def slopes(rows: Sequence[Row]) -> Drawn:
    """First-order change of R and of F per unit rate against a static c.

    A panel a row {kappa, c, dR, dF, low, high}; c, dR and dF are lists. Green: from `low` to `high`
    R does not rise and F does not fall.
    """
    fig, axes = style.subplots(1, len(rows), height=2.4, squeeze=False)
    for ax, row in zip(axes[0], rows, strict=True):
        ax.axvspan(row["low"], row["high"], color=style.FIT, lw=0)
        ax.plot(row["c"], row["dR"], color=style.RETAIN)
        ax.plot(row["c"], row["dF"], color=style.FORGET)
        ax.axhline(0, color="0.3", lw=0.8)
        ax.set(xlabel="c", xlim=(0, 1), xticks=(0, 0.5, 1), title=f"κ = {row['kappa']:.3g}")
        R, F = (1, row["dR"][-1], "R", style.RETAIN), (1, row["dF"][-1], "F", style.FORGET)
        style.label_ends(ax, [R, F])
    axes[0][0].set_ylabel("change per unit η")
    return fig.of(rows)


@style.house
def window(rows: Sequence[Row]) -> Drawn:
    """R (left) and F (right) along one update.

    rows: {family, eta [..], R [..], F [..], probe [[η, R] × 3], best, retain_window, forget_window
    (None: unbounded)}. R is the same for each family and drawn once.
    """
    fig, (left, right) = style.subplots(1, 2, height=2.7)
    first, offset = rows[0], {"textcoords": "offset points"}
    top, base = first["retain_window"], first["probe"][1][1]
    left.axvspan(0, top, color=style.FIT, lw=0)
    left.plot(first["eta"], first["R"], color=style.RETAIN)
    left.axhline(base, color="0.6", lw=0.8, ls=":")
    left.plot(*np.array(first["probe"]).T, "o", color="k", mfc="white", ms=5, zorder=5)
    low = min(first["R"])
    left.plot(first["best"], low, "*", color="k", ms=10, zorder=5)
    middle = {"ha": "center", "va": "top", "fontsize": 9}
    left.annotate("η*", (first["best"], low), xytext=(0, -4), **middle, **offset)
    left.annotate("2η*", (top, base), xytext=(3, -3), va="top", fontsize=8, **offset)
    left.annotate("three probes", first["probe"][0], xytext=(6, 4), fontsize=7.5, **offset)
    left.set(xlabel="η", ylabel="R(θ − η d)", title="R falls within its window, 0 to 2η*")
    left.margins(y=0.14)
    for row, dashes in zip(rows, ("-", "--"), strict=False):
        right.plot(row["eta"], row["F"], color=style.FORGET, ls=dashes)
        if row["forget_window"] is not None:
            right.axvspan(0, row["forget_window"], color=style.FIT, lw=0)
    right.axhline(0.0, color="0.6", lw=0.8, ls=":")
    right.set(xlabel="η", ylabel="F(θ − η d) − F(θ)")
    right.set_title("F: a window if concave, none if convex")
    right.set_xlim(right.get_xlim()[0], first["eta"][-1])
    ends = [(r["eta"][-1], r["F"][-1], r["family"] + " F", style.FORGET) for r in rows]
    style.label_ends(right, ends)
    return fig.of(rows)


@style.house
def along(rows: Sequence[Row]) -> Drawn:
    """R along one update (its minimum η*, and the window in which R does not rise).

    rows: one row {eta [..], R [..], best, R_start, R_best}.
    """
    (row,) = rows
    fig, ax = style.subplots(1, 1, height=2.8, width=4.8)
    best, low, top = row["best"], row["R_best"], max(row["R"])
    ax.axvspan(0, 2 * best, color=style.FIT, lw=0)
    ax.plot(row["eta"], row["R"], color=style.RETAIN)
    ax.plot(best, low, "*", color="k", ms=10, zorder=5)
    ax.plot(0, row["R_start"], "s", color="0.4", zorder=5)
    look = {"ha": "center", "textcoords": "offset points"}
    ax.annotate("η*", (best, low), xytext=(0, 7), fontsize=9, **look)
    said = {"fontsize": 8, "color": style.FITTING, "va": "top"}
    ax.annotate("R does not rise: 0 < η < 2η*", (best, top), xytext=(0, 0), **said, **look)
    ax.set(xlabel="rate η", ylabel="retain loss R(θ − ηd)")
    return fig.of(rows)
