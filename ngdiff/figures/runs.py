"""Figures of unlearning runs: saved rows in, a matplotlib Figure out. No number here comes from a
live model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from ngdiff.figures import style

Row = dict[str, Any]
LAMP = {
    "accepted": "o",
    "clipped_up": "^",
    "clipped_down": "v",
    "bounded": "s",
}  # η moved by the parabola
OTHER = {
    "uphill": "X",
    "skewed": "d",
    "concave": "D",
    "noise": "*",
    "nonfinite": "P",
}  # a fit that did not count


def by_name(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Saved histories, a row a step, as {the row's `name`: its rows}."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["name"], []).append(row)
    return found


@style.house
def trajectories(histories: Mapping[str, Sequence[Row]], level: float | None = None) -> Figure:
    """Batch cross-entropy on forget (left) and retain (right) rows against steps; `level`: the
    hold-out loss.
    """
    fig, axes = style.subplots(1, 2, height=2.6, sharey=True)
    for name, rows in histories.items():
        steps = [r["step"] for r in rows]
        for ax, key in zip(axes, ("forget_ce", "retain_ce"), strict=True):
            ax.plot(steps, [np.nan if r[key] is None else r[key] for r in rows], **style.line(name))
    for ax, title in zip(
        axes, ("forget loss: should rise", "retain loss: should stay"), strict=True
    ):
        ax.set(xlabel="step", yscale="log", title=title)
    axes[0].set_ylabel("cross-entropy (nats per token)")
    low, high = axes[0].get_ylim()  # shared; on a log scale
    axes[0].set_ylim(low, high * (high / low) ** 0.1)  # room for the names at the ends
    if level is not None:
        axes[0].axhline(level, color="0.5", lw=0.8, ls=":")
        axes[0].annotate(
            "hold-out loss",
            (0.02, level),
            xycoords=("axes fraction", "data"),
            ha="left",
            va="bottom",
            color="0.4",
            fontsize=7,
        )
    for ax, key in zip(axes, ("forget_ce", "retain_ce"), strict=True):
        last = {
            m: [r for r in rows if r[key] is not None][-1] for m, rows in histories.items()
        }  # null: not finite
        ends = [(r["step"], r[key], style.label(m), style.colour(m)) for m, r in last.items()]
        style.label_ends(ax, ends)
    return fig


@style.house
def plane(
    rows: Sequence[Row],
    levels: Sequence[Row],
    title: str = "",
    x: tuple[str, str] = ("forget_Q_A_ROUGE", "ROUGE-L on the forget set (lower: more forgotten)"),
    y: tuple[str, str] = ("model_utility", "model utility"),
    unmatched: Sequence[Row] = (),
) -> Figure:
    """Memory (x) against utility (y), each a metric and its label: means over seeds (bars: range),
    ● tuned constant rate, ○ untuned AutoLR, × a constant rate, + AutoLR of which not every run
    reached the hold-out level.

    levels: the start and the retain-only reference of each seed of the models (`plan.levels`);
    unmatched: runs at a rate that scored higher in tuning than the tuned one without having
    arrived: ♦, or × again.
    """
    fig, ax = style.subplots(1, 1, height=3.6)

    def point(seen: Sequence[Row], **look: Any) -> tuple[float, float]:
        """Mean and range of some rows, drawn."""
        xs, ys = ([r[k] for r in seen] for k in (x[0], y[0]))
        mx, my = float(np.mean(xs)), float(np.mean(ys))
        ax.errorbar(
            mx,
            my,
            xerr=[[mx - min(xs)], [max(xs) - mx]],
            yerr=[[my - min(ys)], [max(ys) - my]],
            lw=0.8,
            **look,
        )
        return mx, my

    marks: set[str] = set()
    for method in style.ordered({r["method"] for r in rows}):
        for rule in ("constant", "autolr"):
            seen = [r for r in rows if r["method"] == method and r["stepsize"] == rule]
            if not seen:
                continue
            constant, matched = (
                rule == "constant",
                all(r.get("stopped") == "forget_level" for r in seen),
            )
            marks |= {"o" if matched else "x" if constant else "+"}
            point(
                seen,
                fmt="o" if matched else "x" if constant else "+",
                color=style.colour(method),
                zorder=3,
                mfc=style.colour(method) if constant else "white",
                ms=6 if matched else 7,
            )
        if short := [r for r in unmatched if r["method"] == method]:
            matched = all(r.get("stopped") == "forget_level" for r in short)
            marks |= {"d" if matched else "x"}
            point(short, fmt="d" if matched else "x", color=style.colour(method), ms=7, zorder=3)
        ax.plot([], [], "o", color=style.colour(method), ms=6, label=style.label(method))
    for name, mark, size in (("start", "s", 7), ("retain-only", "*", 12)):
        mx, my = point(
            [r for r in levels if r["model"] == name], fmt=mark, color="0.3", ms=size, zorder=2
        )
        where = (
            {"va": "top", "xytext": (6, -8)}
            if name == "start"
            else {"va": "bottom", "xytext": (8, 12)}
        )
        ax.annotate(name, (mx, my), textcoords="offset points", fontsize=8, color="0.3", **where)
    ax.axvline(mx, color="0.8", lw=0.8, zorder=0)  # the retain-only model's
    ax.set(xlabel=x[1], ylabel=y[1], title=title)
    ax.margins(y=0.1)
    ax.set_ylim(bottom=max(0.0, min(r[y[0]] for r in (*rows, *levels, *unmatched)) - 0.05))
    note = (
        "● tuned constant rate\n○ AutoLR, untuned\n"
        + "× constant, + AutoLR: not all arrived\n" * bool(marks & {"x", "+"})
        + "♦ a rate higher in tuning\n" * ("d" in marks)
        + "bars: range of runs"
    )
    style.legend(fig, [ax], note=note)
    return fig


@style.house
def autolr(histories: Mapping[str, Sequence[Row]]) -> Figure:
    """AutoLR's rate over the steps, a panel a run, each probe marked with its outcome."""
    fig, axes = style.subplots(1, len(histories), height=2.6, sharey=True)
    axes, used = np.atleast_1d(axes), set()
    for ax, (name, rows) in zip(axes, histories.items(), strict=True):
        steps, eta = (
            [r["step"] for r in rows if r["eta"]],
            [abs(r["eta"]) for r in rows if r["eta"]],
        )
        ax.plot(steps, eta, color="0.6", lw=1, zorder=1)
        for r in rows:
            if r["eta"] and r["stepsize"] in LAMP | OTHER:
                colour = style.GOOD if r["stepsize"] in LAMP else style.BAD
                ax.plot(r["step"], abs(r["eta"]), (LAMP | OTHER)[r["stepsize"]], color=colour, ms=5)
                used.add(r["stepsize"])
        ax.set(xlabel="step", yscale="log", title=name)
    axes[0].set_ylabel("learning rate η")
    marks = [
        plt.Line2D(
            [],
            [],
            ls="",
            marker=(LAMP | OTHER)[k],
            label=k,
            color=style.GOOD if k in LAMP else style.BAD,
        )
        for k in (LAMP | OTHER)
        if k in used
    ]
    style.legend(fig, axes, handles=marks)
    return fig


@style.house
def quality(grid: Sequence[Row], auto: Sequence[Row], value: str, title: str = "") -> Figure:
    """Final quality against the learning rate: a line a method (constant rates), AutoLR from each
    start as open marks.

    Marks are means over the rows of a start, their bars the range.
    """
    fig, ax = style.subplots(1, 1, height=3.2)
    for method in style.ordered({r["method"] for r in grid}):
        line = sorted((r["lr"], r[value] or 0.0) for r in grid if r["method"] == method)
        ax.plot(*zip(*line, strict=True), marker="o", ms=3.5, **style.line(method))
    starts = sorted({r["lr"] for r in auto})
    if starts:
        seen = [[r[value] or 0.0 for r in auto if r["lr"] == lr] for lr in starts]
        means = [float(np.mean(v)) for v in seen]
        bars = [
            [m - min(v) for m, v in zip(means, seen, strict=True)],
            [max(v) - m for m, v in zip(means, seen, strict=True)],
        ]
        ax.errorbar(
            starts,
            means,
            yerr=bars,
            fmt="--o",
            mfc="white",
            color=style.colour("ngdiff"),
            ms=6,
            lw=1,
            label="NGDiff + AutoLR from this start",
            zorder=5,
        )
    ax.set(
        xscale="log",
        xlabel="learning rate (constant), or AutoLR's start",
        ylabel=value.replace("_", " "),
        title=title,
    )
    low = min(r[value] or 0.0 for r in (*grid, *auto))
    ax.set_ylim(max(-0.03, low - 0.05), 1.02)
    style.legend(fig, [ax])
    return fig


@style.house
def differences(claims: Sequence[Row], title: str = "") -> Figure:
    """Paired differences with their intervals, one row a baseline; right of zero NGDiff + AutoLR is
    better.

    ●: the pairs in which both runs arrived at the hold-out level; ○: all pairs, where that is not
    the same.
    """
    against = {
        r["name"].removeprefix("against "): r for r in claims if r["name"].startswith("against ")
    }
    rows = [against[method] for method in style.ordered(against)][::-1]
    fig, ax = style.subplots(1, 1, height=0.8 + 0.34 * len(rows))
    for i, r in enumerate(rows):
        shade = style.colour(r["name"].removeprefix("against "))
        some = r["arrived_n"] < r["n"]
        for prefix, y, face in (
            ("arrived_", i, shade),
            *([("", i - 0.25 * (r["arrived_n"] > 0), "white")] if some else ()),
        ):
            if r[f"{prefix}n"]:
                if r[f"{prefix}low"] is not None:
                    ax.plot(
                        [r[f"{prefix}low"], r[f"{prefix}high"]],
                        [y, y],
                        color=shade,
                        lw=2 if prefix else 0.8,
                    )
                ax.plot(r[f"{prefix}mean"], y, "o", color=shade, mfc=face, ms=6 if prefix else 4)
    ax.axvline(0, color="0.3", lw=0.8)
    names = [style.label(r["name"].removeprefix("against ")) for r in rows]
    short = [
        "" if r["arrived_n"] == r["n"] else f"\n({r['arrived_n']} of {r['n']} pairs arrived)"
        for r in rows
    ]
    ax.set_yticks(
        range(len(rows)), [name + note for name, note in zip(names, short, strict=True)], fontsize=7
    )
    n, kind = max((r["n"], r["kind"]) for r in rows)
    bars = {"95 %": "95 % intervals over models", "range": f"bars: range of {n} pairs"}.get(
        kind, f"n = {n}"
    )
    note = "\n● pairs in which both arrived   ○ all pairs" * any(
        r["arrived_n"] < r["n"] for r in rows
    )
    ax.set(xlabel=f"NGDiff + AutoLR − the other, tuned ({bars}){note}", title=title)
    ax.set_ylim(-0.6, len(rows) - 0.4)
    return fig


@style.house
def rates(grid: Sequence[Row], title: str = "") -> Figure:
    """Score of each method at each constant rate, one run each; in brackets where it did not reach
    the hold-out level.
    """
    import pandas as pd
    import seaborn as sns

    cell = {
        (style.label(r["method"]), f"{r['lr']:g}"): (
            r["score"] or 0.0,
            r["stopped"] == "forget_level",
        )
        for r in sorted(grid, key=lambda r: r["lr"])
    }
    names = [style.label(m) for m in style.ordered({r["method"] for r in grid})]
    columns = list(dict.fromkeys(lr for _, lr in cell))
    score = pd.DataFrame(
        [[cell.get((m, lr), (np.nan, True))[0] for lr in columns] for m in names], names, columns
    )
    text = [[_bracketed(*cell[m, lr]) if (m, lr) in cell else "" for lr in columns] for m in names]
    fig, ax = style.subplots(
        1, 1, height=0.8 + 0.28 * len(names), width=1.6 + 0.75 * len(columns) + 1.2
    )
    sns.heatmap(
        score,
        vmin=0,
        vmax=1,
        cmap="cividis",
        annot=np.array(text),
        fmt="",
        annot_kws={"size": 8},
        linewidths=0.5,
        cbar_kws={"label": "score"},
        ax=ax,
    )
    ax.set(xlabel="constant learning rate   ( ): did not arrive in time", ylabel="", title=title)
    ax.tick_params(length=0)
    return fig


def _bracketed(score: float, reached: bool) -> str:
    return f"{score:.2f}" if reached else f"({score:.2f})"
