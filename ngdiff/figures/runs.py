"""Figures of single runs of unlearning, step by step: losses, and the rate that AutoLR took.

Saved rows in, a matplotlib Figure out. No number here comes from a live model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.lines import Line2D

from ngdiff.figures import style
from ngdiff.figures.style import Drawn

Row = dict[str, Any]
# outcomes of AutoLR: a parabola set η, or there was none to be believed
MOVED = {"accepted": "o", "clipped_up": "^", "clipped_down": "v", "bounded": "s"}
OTHERS = {"flat": "*", "nonfinite": "P", "cut": "X"}
MARKS = MOVED | OTHERS


def by_name(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """Saved histories, a row a step, as {the row's `name`: its rows}."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["name"], []).append(row)
    return found


@style.house
def trajectories(
    histories: Mapping[str, Sequence[Row]], level: float | None = None, rows: Sequence[Row] = ()
) -> Drawn:
    """Batch cross-entropy on forget (left) and retain (right) rows against steps.

    level: the hold-out loss. rows: the rows of the runs, each under the `name` of its history
    (`of_runs`).
    """
    drawn = of_runs(histories, rows)
    titles = {"forget_ce": "forget loss: should rise", "retain_ce": "retain loss: should stay"}
    fig, axes = style.subplots(1, 2, height=2.6, sharey=True)
    for name, seen in histories.items():
        steps = [r["step"] for r in seen]
        for ax, key in zip(axes, titles, strict=True):
            ax.plot(steps, [np.nan if r[key] is None else r[key] for r in seen], **style.line(name))
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
        last = {m: [r for r in seen if r[key] is not None][-1] for m, seen in histories.items()}
        ends = [(r["step"], r[key], style.label(m), style.colour(m)) for m, r in last.items()]
        style.label_ends(ax, ends)
    return fig.of(drawn)


def of_runs(histories: Mapping[str, Sequence[Row]], rows: Sequence[Row]) -> list[Row]:
    """Return the rows of the runs whose histories are drawn, in the histories' order.

    Without rows: none. Errors: ValueError where a history has no row.
    """
    named = {row.get("name"): row for row in rows}
    if rows and (missing := [name for name in histories if name not in named]):
        raise ValueError(f"the history {missing[0]!r} has no row: give its run's row that `name`")
    return [named[name] for name in histories if name in named]


@style.house
def autolr(histories: Mapping[str, Sequence[Row]], rows: Sequence[Row] = ()) -> Drawn:
    """AutoLR's rate over the steps, a panel a run, each probe marked with its outcome.

    rows: as for `trajectories`.
    """
    drawn = of_runs(histories, rows)
    fig, axes = style.subplots(1, len(histories), height=2.6, sharey=True)
    axes, used = np.atleast_1d(axes), set()
    for ax, (name, seen) in zip(axes, histories.items(), strict=True):
        moved = [r for r in seen if r["eta"]]
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
    return fig.of(drawn)


def _shade(outcome: str) -> str:
    return style.GOOD if outcome in MOVED else style.BAD
