"""Figures of single runs of unlearning, step by step: losses, and the rate that AutoLR took.

Saved rows in, a matplotlib Figure out. No number here comes from a live model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ngdiff.figures import style

Row = dict[str, Any]
# outcomes of a probe: the parabola moved η, or there was none; and a cut between two probes
MOVED = {"accepted": "o", "clipped_up": "^", "clipped_down": "v"}
IGNORED = {"flat": "*", "nonfinite": "P", "cut": "X"}
MARKS = MOVED | IGNORED


def by_name(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Saved histories, a row a step, as {the row's `name`: its rows}."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["name"], []).append(row)
    return found


@style.house
def trajectories(histories: Mapping[str, Sequence[Row]], level: float | None = None) -> Figure:
    """Batch cross-entropy on forget (left) and retain (right) rows against steps.

    level: the hold-out loss.
    """
    titles = {"forget_ce": "forget loss: should rise", "retain_ce": "retain loss: should stay"}
    fig, axes = style.subplots(1, 2, height=2.6, sharey=True)
    for name, rows in histories.items():
        steps = [r["step"] for r in rows]
        for ax, key in zip(axes, titles, strict=True):
            ax.plot(steps, [np.nan if r[key] is None else r[key] for r in rows], **style.line(name))
    for ax, title in zip(axes, titles.values(), strict=True):
        ax.set(xlabel="step", yscale="log", title=title)
    axes[0].set_ylabel("cross-entropy (nats per token)")
    low, high = axes[0].get_ylim()  # shared; on a log scale
    axes[0].set_ylim(low, high * (high / low) ** 0.1)  # room for the names at the ends
    if level is not None:
        axes[0].axhline(level, color="0.5", lw=0.8, ls=":")
        look = {"ha": "left", "va": "bottom", "color": "0.4", "fontsize": 7}
        where = ("axes fraction", "data")
        axes[0].annotate("hold-out loss", (0.02, level), xycoords=where, **look)
    for ax, key in zip(axes, titles, strict=True):
        # null: not finite
        last = {m: [r for r in rows if r[key] is not None][-1] for m, rows in histories.items()}
        ends = [(r["step"], r[key], style.label(m), style.colour(m)) for m, r in last.items()]
        style.label_ends(ax, ends)
    return fig


@style.house
def autolr(histories: Mapping[str, Sequence[Row]]) -> Figure:
    """AutoLR's rate over the steps, a panel a run, each probe marked with its outcome."""
    fig, axes = style.subplots(1, len(histories), height=2.6, sharey=True)
    axes, used = np.atleast_1d(axes), set()
    for ax, (name, rows) in zip(axes, histories.items(), strict=True):
        moved = [r for r in rows if r["eta"]]
        steps, eta = [r["step"] for r in moved], [abs(r["eta"]) for r in moved]
        ax.plot(steps, eta, color="0.6", lw=1, zorder=1)
        for r in moved:
            outcome = r["stepsize"]
            if outcome in MARKS:
                ax.plot(r["step"], abs(r["eta"]), MARKS[outcome], color=_shade(outcome), ms=5)
                used.add(outcome)
        ax.set(xlabel="step", yscale="log", title=name)
    axes[0].set_ylabel("learning rate η")
    handles = [
        Line2D([], [], ls="", marker=mark, label=outcome, color=_shade(outcome))
        for outcome, mark in MARKS.items()
        if outcome in used
    ]
    style.legend(fig, axes, handles=handles)
    return fig


def _shade(outcome: str) -> str:
    return style.GOOD if outcome in MOVED else style.BAD
