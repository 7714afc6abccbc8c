"""Figures of the comparison: the runs of each method, and the differences between methods.

Saved rows in, a matplotlib Figure out. No number here comes from a live model.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from ngdiff.figures import captions, style
from ngdiff.figures.style import Drawn

Row = dict[str, Any]
Axis = tuple[str, str]  # a metric and its label


@style.house
def plane(
    rows: Sequence[Row],
    levels: Sequence[Row],
    x: Axis = ("forget_Q_A_ROUGE", "ROUGE-L on the forget set (lower: more forgotten)"),
    y: Axis = ("model_utility", "model utility"),
    unmatched: Sequence[Row] = (),
) -> Drawn:
    """Memory (x) against utility (y): means over seeds, bars their range.

    ● is a tuned constant rate, ○ AutoLR and △ the bare rule, both untuned. × is a constant rate and
    + another rule of which not every run reached the hold-out level.

    x, y: a metric and its label. levels: the start and the retain-only reference of each seed of
    the models (`plan.levels`). unmatched: runs at a rate that scored higher in tuning than the
    tuned one, but did not reach the level: ♦, or × again.
    """
    fig, ax = style.subplots(1, 1, height=3.6)
    keys, marks = (x[0], y[0]), set()
    for method in style.methods(rows):
        shade = style.colour(method)
        look = {"color": shade, "zorder": 3}
        for rule, sign in {"constant": "o", "autolr": "o", "three-point": "^"}.items():
            seen = [r for r in rows if r["method"] == method and r["stepsize"] == rule]
            if seen:
                reached, face = _reached(seen), shade if rule == "constant" else "white"
                mark = sign if reached else "x" if rule == "constant" else "+"
                marks.add(mark)
                _mean(ax, seen, keys, fmt=mark, mfc=face, ms=6 if reached else 7, **look)
        if short := [r for r in unmatched if r["method"] == method]:
            mark = "d" if _reached(short) else "x"
            marks.add(mark)
            _mean(ax, short, keys, fmt=mark, ms=7, **look)
        ax.plot([], [], "o", color=shade, ms=6, label=style.label(method))
    _levels(ax, levels, keys)
    ax.set(xlabel=x[1], ylabel=y[1], title=captions.title([*rows, *unmatched]))
    ax.margins(y=0.1)
    ax.set_ylim(bottom=max(0.0, min(r[y[0]] for r in (*rows, *levels, *unmatched)) - 0.05))
    style.legend(fig, [ax], note=_explained(marks))
    return fig.of(rows, unmatched, levels)


def _reached(rows: Sequence[Row]) -> bool:
    """Return True where each run reached the hold-out level."""
    return all(r.get("stopped") == "forget_level" for r in rows)


def _mean(ax: Axes, rows: Sequence[Row], keys: tuple[str, str], **look: Any) -> tuple[float, float]:
    """The mean of two metrics over some rows, drawn with their range as bars."""
    xs, ys = ([r[key] for r in rows] for key in keys)
    x, y = float(np.mean(xs)), float(np.mean(ys))
    bars = {"xerr": [[x - min(xs)], [max(xs) - x]], "yerr": [[y - min(ys)], [max(ys) - y]]}
    ax.errorbar(x, y, **bars, lw=0.8, **look)
    return x, y


def _levels(ax: Axes, levels: Sequence[Row], keys: tuple[str, str]) -> None:
    """The start and the retain-only model by name; a line through what the latter remembers."""
    below, above = {"va": "top", "xytext": (6, -8)}, {"va": "bottom", "xytext": (8, 12)}
    for name, mark, size, where in (("start", "s", 7, below), ("retain-only", "*", 12, above)):
        seen = [r for r in levels if r["model"] == name]
        point = _mean(ax, seen, keys, fmt=mark, color="0.3", ms=size, zorder=2)
        look = {"textcoords": "offset points", "fontsize": 8, "color": "0.3"}
        ax.annotate(name, point, **look, **where)
    ax.axvline(point[0], color="0.8", lw=0.8, zorder=0)


def _explained(marks: set[str]) -> str:
    """Return what the marks that `plane` drew mean, a line each."""
    lines = ["● tuned constant rate", "○ AutoLR, untuned"]
    if "^" in marks:
        lines.append("△ bare rule, untuned")
    if marks & {"x", "+"}:
        lines.append("× constant, + other rule:\n   some run missed the level")
    if "d" in marks:
        lines.append("♦ other rate, higher\n   score in tuning")
    return "\n".join([*lines, "bars: range of runs"])


@style.house
def quality(grid: Sequence[Row], auto: Sequence[Row], value: str) -> Drawn:
    """Final quality against the learning rate: a line a method (constant rates).

    AutoLR from each start is an open mark: the mean over the rows of a start, its bar the range.
    """
    fig, ax = style.subplots(1, 1, height=3.2)
    for method in style.methods(grid):
        line = sorted((r["lr"], r[value] or 0.0) for r in grid if r["method"] == method)
        ax.plot(*zip(*line, strict=True), marker="o", ms=3.5, **style.line(method))
    starts = sorted({r["lr"] for r in auto})
    if starts:
        seen = [[r[value] or 0.0 for r in auto if r["lr"] == lr] for lr in starts]
        means = [float(np.mean(v)) for v in seen]
        down = [mean - min(v) for mean, v in zip(means, seen, strict=True)]
        up = [max(v) - mean for mean, v in zip(means, seen, strict=True)]
        look = {"color": style.colour("ngdiff"), "mfc": "white", "ms": 6, "lw": 1, "zorder": 5}
        text = "NGDiff + AutoLR, by starting rate"
        ax.errorbar(starts, means, yerr=[down, up], fmt="--o", label=text, **look)
    ax.set(xscale="log", xlabel="constant learning rate, or AutoLR's starting rate")
    ax.set(ylabel=value.replace("_", " "))
    tried = f"{len(grid)} runs at constant rates, {len(auto)} with AutoLR"
    ax.set_title("\n".join(filter(None, [", ".join(captions.data_of([*grid, *auto])), tried])))
    low = min(r[value] or 0.0 for r in (*grid, *auto))
    ax.set_ylim(max(-0.03, low - 0.05), 1.02)
    style.legend(fig, [ax])
    return fig.of(grid, auto)


@style.house
def differences(claims: Sequence[Row]) -> Drawn:
    """Paired differences with their intervals, one row a baseline.

    Right of zero NGDiff + AutoLR is better. ●: the pairs in which both runs reached the hold-out
    level. ○: all pairs, where that is not the same.
    """
    said = [(r["name"].removeprefix("against "), r) for r in claims]
    against = {method: r for method, r in said if method != r["name"]}
    methods = style.ordered(against)[::-1]
    rows = [against[method] for method in methods]
    fig, ax = style.subplots(1, 1, height=0.8 + 0.34 * len(rows))
    names = []
    for i, (method, r) in enumerate(zip(methods, rows, strict=True)):
        name, shade = style.label(method), style.colour(method)
        _interval(ax, r, "both_", i, color=shade, mfc=shade, ms=6, lw=2)
        if r["both_n"] < r["n"]:
            name += f"\n({r['both_n']} of {r['n']} pairs reached the level)"
            below = i - 0.25 * (r["both_n"] > 0)
            _interval(ax, r, "", below, color=shade, mfc="white", ms=4, lw=0.8)
        names.append(name)
    ax.axvline(0, color="0.3", lw=0.8)
    ax.set_yticks(range(len(rows)), names, fontsize=7)
    ax.set(xlabel=_compared(rows), title=_paired(rows))
    ax.set_ylim(-0.6, len(rows) - 0.4)
    return fig.of(rows[::-1])


def _interval(ax: Axes, row: Row, prefix: str, y: float, lw: float, **look: Any) -> None:
    """Mean and interval of the pairs that `prefix` names, where there are any."""
    if not row[f"{prefix}n"]:
        return
    ends = [row[f"{prefix}low"], row[f"{prefix}high"]]
    if ends[0] is not None:
        ax.plot(ends, [y, y], color=look["color"], lw=lw)
    ax.plot(row[f"{prefix}mean"], y, "o", **look)


def _compared(rows: Sequence[Row]) -> str:
    """Return what is subtracted from what, what the bars are and, where they differ, the marks."""
    n, kind = max((r["n"], r["kind"]) for r in rows)
    known = {"95 %": "95 % intervals over units", "range": f"bars: range of {n} pairs"}
    text = f"score: NGDiff + AutoLR − the tuned method ({known.get(kind, f'n = {n}')})"
    if any(r["both_n"] < r["n"] for r in rows):
        text += "\n● pairs that both reached the level   ○ all pairs"
    return text


def _paired(rows: Sequence[Row]) -> str:
    """Return a title: the data, and how many pairs of runs each difference is a mean of."""
    pairs = sorted({r["n"] for r in rows})
    many = " to ".join(map(str, dict.fromkeys((pairs[0], pairs[-1]))))
    text = f"{many} {'pair' if pairs == [1] else 'pairs'} of runs a method"
    return ": ".join(filter(None, [", ".join(captions.data_of(rows)), text]))


@style.house
def rates(grid: Sequence[Row]) -> Drawn:
    """Score of each method at each constant rate, one run each.

    In brackets where the run did not reach the hold-out level. Errors: ValueError for two runs in
    one cell, of which the figure could show only one.
    """
    import pandas as pd
    import seaborn as sns

    cell = {
        (style.label(r["method"]), f"{r['lr']:g}"): (r["score"] or 0.0, _reached([r]))
        for r in sorted(grid, key=lambda r: r["lr"])
    }
    if len(cell) < len(grid):
        raise ValueError(
            f"{len(grid)} runs in {len(cell)} cells: give one run for each method and rate"
        )
    names = [style.label(m) for m in style.methods(grid)]
    columns = list(dict.fromkeys(lr for _, lr in cell))
    values = [[cell.get((m, lr), (np.nan, True))[0] for lr in columns] for m in names]
    text = [[_bracketed(*cell[m, lr]) if (m, lr) in cell else "" for lr in columns] for m in names]
    height, width = 0.8 + 0.28 * len(names), 1.6 + 0.75 * len(columns) + 1.2
    fig, ax = style.subplots(1, 1, height=height, width=width)
    numbers = {"annot": np.array(text), "fmt": "", "annot_kws": {"size": 8}}
    look = {"vmin": 0, "vmax": 1, "cmap": "cividis", "linewidths": 0.5}
    scores = pd.DataFrame(values, names, columns)
    sns.heatmap(scores, cbar_kws={"label": "score"}, ax=ax, **numbers, **look)
    ax.set(
        xlabel="constant learning rate   ( ): did not reach the level in time",
        ylabel="",
        title=captions.title(grid, "tuning run"),
    )
    ax.tick_params(length=0)
    return fig.of(grid)


def _bracketed(score: float, reached: bool) -> str:
    return f"{score:.2f}" if reached else f"({score:.2f})"
