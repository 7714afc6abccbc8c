"""Figures of the long comparison: where weights that adapt should help, and which rates work."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes

from ngdiff.figures import style
from ngdiff.figures.style import Drawn
from ngdiff.study import verdicts

Row = dict[str, Any]
WEIGHTS = {
    "inside_0.5": "c = .5",
    "inside_0.9": ".9",
    "inside_0.99": ".99",
    "inside_lossnorm": "Loss-\nNorm",
}
MARKS = "○■"  # of what NGDiff is compared with
APART = 0.14  # of these two marks from the middle of their line


@style.house
def where(rows: Sequence[Row], gains: Mapping[str, Mapping[str, float]]) -> Drawn:
    """κ, ρ, the share of steps inside Eq. 7, and what NGDiff gained: a line a data set.

    ● is the median over the steps of a run, the bar goes from the 10 % to the 90 % quantile, each
    the mean over runs. A cell is the darker, the fewer steps lie inside.

    rows: of `ngdiff.study.geometry`, with the data set's name under "set". gains: data set → what
    the score of tuned NGDiff was compared with → the difference.
    """
    known = [r for r in rows if r["steps"]]
    names = list(dict.fromkeys(r["set"] for r in known))
    by_set = [[r for r in known if r["set"] == name] for name in names]
    size = {"height": 1.3 + 0.36 * len(names), "width": 7.2}
    fig, axes = style.subplots(1, 4, **size, width_ratios=(1, 1, 1.4, 1.2))
    for ax, key in zip(axes[:2], ("kappa", "rho"), strict=True):
        for i, mine in enumerate(by_set):
            low, middle, high = (_mean(mine, f"{key}_{q}") for q in (10, 50, 90))
            ax.plot([low, high], [-i, -i], color="0.6", lw=2, solid_capstyle="round")
            ax.plot(middle, -i, "o", color="black", ms=5)
    axes[0].set(xscale="log", title="κ = ‖g_F‖/‖g_R‖", xlabel="1: equal norms")
    axes[1].set(title="ρ = cos(g_R, g_F)", xlabel="above 0: conflict")
    for ax, neutral in zip(axes[[0, 1, 3]], (1, 0, 0), strict=True):
        ax.axvline(neutral, color="0.3", lw=0.8, zorder=0)
    _shares(axes[2], by_set)
    _gains(axes[3], [gains.get(name, {}) for name in names])
    for ax in axes:
        labels = [name.removeprefix("the ") for name in names] if ax is axes[0] else []
        ax.set_yticks([-i for i in range(len(names))], labels)
        ax.set_ylim(0.5 - max(len(names), 1), 0.5)
        ax.tick_params(axis="y", length=0)
    return fig.of(known)


def _shares(ax: Axes, by_set: Sequence[Sequence[Row]]) -> None:
    """Draw the shares of steps inside Eq. 7, a column a weight, darker where they are smaller."""
    for k, key in enumerate(WEIGHTS):
        for i, mine in enumerate(by_set):
            share = _mean(mine, key)
            ax.fill_between(
                (k - 0.47, k + 0.47), -i - 0.44, -i + 0.44, color=str(0.45 + 0.53 * share), lw=0
            )
            ax.text(k, -i, f"{share:.0%}", ha="center", va="center", fontsize=7)
    ax.set(xlim=(-0.5, len(WEIGHTS) - 0.5), title="steps inside Eq. 7")
    ax.set_xticks(range(len(WEIGHTS)), list(WEIGHTS.values()), fontsize=7)
    ax.tick_params(length=0)
    ax.grid(False)


def _gains(ax: Axes, gains: Sequence[Mapping[str, float]]) -> None:
    """Draw what tuned NGDiff gained on each data set, a mark for each method it is compared with.

    Right of zero NGDiff scores higher.
    """
    versus = list(dict.fromkeys(what for gained in gains for what in gained))
    for i, gained in enumerate(gains):
        for what, value in gained.items():
            k = versus.index(what)
            look = {"marker": "os"[k], "mfc": ("white", "black")[k], "mec": "black", "ms": 5}
            ax.plot(value, -i + APART - 2 * APART * k, ls="", **look)
    marks = [f"{mark} {what}" for mark, what in zip(MARKS, versus, strict=False)]
    ax.set(title="score of NGDiff minus", xlabel="\n".join(marks) or "not run")
    ax.margins(x=0.15)


def _mean(rows: Sequence[Row], key: str) -> float:
    return sum(r[key] for r in rows) / len(rows)


@style.house
def bands(rows: Sequence[Row], levels: Sequence[Row]) -> Drawn:
    """Which constant rates work, a line a method, a panel an optimizer.

    ● works in every run (`ngdiff.study.verdicts.works`). ◐ in some. ○ in none. × some run ended in
    NaN, or with a retain loss that is too high (`too_much` there). A line joins neighbours that
    work in every run.
    rows: of E4. levels: the metrics of the starts. A run of an unknown start gets × for NaN only.
    """
    optimizers = list(dict.fromkeys(r["optimizer"] for r in rows))
    methods = style.methods(rows)[::-1]
    size = {"height": 0.9 + 0.32 * len(methods), "width": 7.0}
    fig, axes = style.subplots(1, len(optimizers), **size, squeeze=False)
    for ax, optimizer in zip(axes[0], optimizers, strict=True):
        for i, method in enumerate(methods):
            mine = [r for r in rows if (r["method"], r["optimizer"]) == (method, optimizer)]
            _band(ax, i, mine, levels)
        ax.set(xscale="log", xlabel="learning rate", title={"sgd": "SGD"}.get(optimizer, "AdamW"))
        names = [style.label(m) for m in methods] if ax is axes[0][0] else []
        ax.set_yticks(range(len(methods)), names)
        ax.set_ylim(-0.6, len(methods) - 0.4)
        ax.tick_params(axis="y", length=0)
    high = f"NaN, or retain loss above {verdicts.BLOWN:g} times the start's"
    note = f"● works   ◐ in some runs   ○ does not   × {high}"
    fig.supxlabel(note, fontsize=8)
    return fig.of(rows)


def _band(ax: Axes, y: float, rows: Sequence[Row], levels: Sequence[Row]) -> None:
    """Draw the rates of a method as marks at the height y, and lines between those that work."""
    rates = sorted({r["lr"] for r in rows})
    by_rate = [[r for r in rows if r["lr"] == lr] for lr in rates]
    most = verdicts.too_much(levels)
    works = [[verdicts.works(r) for r in runs] for runs in by_rate]
    shade = style.colour(rows[0]["method"]) if rows else ""
    for (one, two), both in zip(
        itertools.pairwise(rates), itertools.pairwise(map(all, works)), strict=True
    ):
        if all(both):
            ax.plot([one, two], [y, y], "-", color=shade, lw=4, solid_capstyle="round")
    for lr, runs, fine in zip(rates, by_rate, works, strict=True):
        fill = {"fillstyle": "full" if all(fine) else "left" if any(fine) else "none"}
        size = {"ms": 6} if any(fine) else {"ms": 4, "mew": 0.8}
        ax.plot(lr, y, "o", color=shade, markerfacecoloralt="white", **size, **fill)
        if any(verdicts.blown(r, most.get((r["data"], r["target_seed"]))) for r in runs):
            ax.plot(lr, y, "x", color="black", ms=6, mew=1)
