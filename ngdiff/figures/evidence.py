"""Figures of the long comparison: where weights that adapt should help, and which rates work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ngdiff.figures import style

Row = dict[str, Any]
FIXED = {"inside_0.5": "c = .5", "inside_0.9": ".9", "inside_0.99": ".99", "inside_lossnorm": "LN"}


@style.house
def where(rows: Sequence[Row], gains: Mapping[str, Mapping[str, float]]) -> Figure:
    """κ, ρ, the share of steps inside Eq. 7, and what NGDiff gained: a line a data set.

    rows: of `ngdiff.study.geometry`, with the data set's name under "set". gains: data set → what
    the score of tuned NGDiff was compared with → the difference.
    """
    names = list(dict.fromkeys(r["set"] for r in rows))
    fig, axes = style.subplots(1, 4, height=0.9 + 0.36 * len(names), width=7.2)
    for ax, key in zip(axes[:2], ("kappa", "rho"), strict=True):
        for i, name in enumerate(names):
            mine = [r for r in rows if r["set"] == name and r["steps"]]
            low, middle, high = (_mean([r[f"{key}_{q}"] for r in mine]) for q in (10, 50, 90))
            ax.plot([low, high], [-i, -i], color="0.6", lw=2, solid_capstyle="round")
            ax.plot(middle, -i, "o", color="black", ms=5)
    axes[0].set(xscale="log", xlabel="κ along the run")
    axes[0].axvline(1, color="0.8", lw=0.8, zorder=0)
    axes[1].set(xlabel="ρ along the run")
    axes[1].axvline(0, color="0.8", lw=0.8, zorder=0)
    _shares(axes[2], rows, names)
    for i, name in enumerate(names):
        for k, value in enumerate(gains.get(name, {}).values()):
            axes[3].plot(value, -i + 0.14 - 0.28 * k, "os"[k], ms=5, color="black", mfc="wk"[k])
    axes[3].axvline(0, color="0.3", lw=0.8)
    versus = list(next(iter(gains.values()), {}))
    axes[3].set(xlabel="score of NGDiff minus\n" + "\n".join(map(_marked, "○■", versus)))
    for ax in axes:
        ax.set_yticks([-i for i in range(len(names))], names if ax is axes[0] else [])
        ax.set_ylim(-len(names) + 0.5, 0.5)
    return fig


def _marked(mark: str, text: str) -> str:
    return f"{mark} {text}"


def _shares(ax: Axes, rows: Sequence[Row], names: Sequence[str]) -> None:
    """Print the shares of steps inside Eq. 7, a column a weight, darker where it is smaller."""
    for k, key in enumerate(FIXED):
        for i, name in enumerate(names):
            share = _mean([r[key] for r in rows if r["set"] == name and r["steps"]])
            ax.text(k, -i, f"{share:.0%}", ha="center", va="center", fontsize=7)
    ax.set(xlim=(-0.6, len(FIXED) - 0.4), xlabel="steps inside Eq. 7")
    ax.set_xticks(range(len(FIXED)), list(FIXED.values()), fontsize=7)
    ax.tick_params(length=0)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


@style.house
def bands(rows: Sequence[Row], level: Mapping[tuple[str, int], float], keep: float) -> Figure:
    """Which constant rates work, a line a method, a panel an optimizer.

    ● works in every unit: the run reached the hold-out level and kept the share `keep` of the
    utility. ◐ in some. ○ in none. × some run ended in NaN, or with a retain loss above `level`.
    rows: of E4. level: (population, seed of the models) → a retain loss that is too much.
    """
    optimizers = list(dict.fromkeys(r["optimizer"] for r in rows))
    methods = style.methods(rows)[::-1]
    size = {"height": 0.9 + 0.32 * len(methods), "width": 7.0}
    fig, axes = style.subplots(1, len(optimizers), **size)
    for ax, optimizer in zip(axes, optimizers, strict=True):
        for i, method in enumerate(methods):
            mine = [r for r in rows if (r["method"], r["optimizer"]) == (method, optimizer)]
            for lr in sorted({r["lr"] for r in mine}):
                runs = [r for r in mine if r["lr"] == lr]
                works = [r["stopped"] == "forget_level" and r["kept"] >= keep for r in runs]
                blown = any(not _calm(r, level[r["data"], r["target_seed"]]) for r in runs)
                shade = style.colour(method)
                fill = {"fillstyle": "full" if all(works) else "left" if any(works) else "none"}
                look = {"color": shade, "ms": 6, "markerfacecoloralt": "white", **fill}
                ax.plot(lr, i, "o", **look)
                if blown:
                    ax.plot(lr, i, "x", color="black", ms=3.5, mew=0.8)
        ax.set(xscale="log", xlabel="learning rate", title={"sgd": "SGD"}.get(optimizer, "AdamW"))
        names = [style.label(m) for m in methods] if ax is axes[0] else []
        ax.set_yticks(range(len(methods)), names)
        ax.set_ylim(-0.6, len(methods) - 0.4)
    note = "● works   ◐ in some runs   ○ does not   × retain loss blown up"
    fig.text(0.5, -0.04, note, ha="center", fontsize=8)
    return fig


def _calm(row: Row, most: float) -> bool:
    loss = row["loss_retain"]
    return loss is not None and loss <= most
