"""Figures of MUSE and of SemEval-2025 Task 4: saved rows in, a matplotlib Figure out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ngdiff.figures import captions, style
from ngdiff.figures.style import Drawn

Row = dict[str, Any]
# the axes of `comparison.plane` for MUSE
MUSE = {
    "x": ("verbmem_f", "verbatim memory of the forget set (lower: more forgotten)"),
    "y": ("knowmem_r", "knowledge of the retain set"),
}
# metric -> label, colour, mark
MEMORIES = {
    "verbmem_f": ("forget, word for word", style.BAD, "o"),
    "knowmem_f": ("forget, as knowledge", "#E69F00", "s"),
    "knowmem_r": ("retain, as knowledge", style.GOOD, "^"),
}


@style.house
def requests(rows: Sequence[Row], start: Row) -> Drawn:
    """Draw what is left after forget requests: successive ones (left), growing ones (right).

    Growing ones begin from the start each time. rows: {"folds": "sust" | "scal", "k", and the
    metrics of MEMORIES}; start: the same metrics before any request.
    """
    fig, axes = style.subplots(1, 2, height=2.6, sharey=True)
    titles = {"sust": "one request after the other", "scal": "larger and larger requests"}
    for ax, (kind, title) in zip(axes, titles.items(), strict=True):
        after = sorted((r for r in rows if r["folds"] == kind), key=lambda r: r["k"])
        seen = [start | {"k": 0}, *after]
        k = [r["k"] for r in seen]
        for name, (label, colour, mark) in MEMORIES.items():
            ax.plot(k, [r[name] for r in seen], color=colour, marker=mark, ms=4, label=label)
        ax.set(xlabel="requests answered", title=title, xticks=k, ylim=(-0.02, 1.05))
    axes[0].set_ylabel("ROUGE-L F1 (all requests)")
    style.legend(fig, axes)
    return fig.of([r for r in rows if r["folds"] in titles], [start])


@style.house
def membership(rows: Sequence[Row], levels: Sequence[Row], published: Sequence[Row] = ()) -> Drawn:
    """SemEval's two demands: membership AUC (x; ½ is the aim) against the task aggregate (y).

    A point a run: filled where it reached the hold-out level, a triangle downwards where it had no
    stop. levels: the start and the retain-only model. published: the task's own points, by MIA
    score, in a panel of their own.
    """
    fig, axes = style.subplots(1, 2 if published else 1, height=3.2, squeeze=False)
    ax = axes[0][0]
    for method in style.methods(rows):
        colour = style.colour(method)
        ax.plot([], [], "o", color=colour, ms=5, label=style.label(method))
        for row in (r for r in rows if r["method"] == method):
            face = colour if row["stopped"] == "forget_level" else "white"
            mark = "v" if row.get("rule") == "fixed" else "o"
            ax.plot(row["mia_auc"], row["task_aggregate"], mark, color=colour, mfc=face, ms=5)
    for row in levels:
        at = (row["mia_auc"], row["task_aggregate"])
        ax.plot(*at, {"start": "s", "retain-only": "*"}[row["model"]], color="0.3", ms=9)
        look = {"textcoords": "offset points", "ha": "right", "fontsize": 7, "color": "0.3"}
        ax.annotate(row["model"], at, xytext=(-6, 8), **look)
    ax.axvline(0.5, color="0.8", lw=0.8, zorder=0)
    ax.set(xlabel="membership AUC (aim: ½)", ylabel="task aggregate", title=_ours(rows))
    ax.set(xlim=(-0.05, 1.05), ylim=(-0.05, 1.1))
    if published:
        _published(axes[0][1], published)
    right = "\nright: ◆ organisers'\nbaselines, ▲ entries" if published else ""
    walked = "\n▽: no stop" if any(row.get("rule") == "fixed" for row in rows) else ""
    style.legend(fig, [ax], note=f"filled: reached the\nhold-out level{walked}{right}")
    return fig.of(rows, levels, published)


def _ours(rows: Sequence[Row]) -> str:
    """Return the title of our panel: the data and the number of runs."""
    runs = captions.number(len(rows), captions.RUN)
    return ": ".join(filter(None, [", ".join(captions.data_of(rows)), runs]))


def _published(ax: Any, rows: Sequence[Row]) -> None:
    """The organisers' baselines (diamonds) and entries (triangles) of one model size."""
    for row in rows:
        mark = "^" if row["kind"] == "entry" else "D"
        at = (row["mia_final_score"], row["task_aggregate"])
        ax.plot(*at, mark, color=style.colour(row["method"]), ms=5)
    taken: list[tuple[float, float]] = []
    for row in rows:  # names of points that lie on each other stand above each other
        x, y = row["mia_final_score"], row["task_aggregate"]
        above = sum(abs(x - a) < 0.25 and abs(y - b) < 0.05 for a, b in taken)
        taken.append((x, y))
        look = {"textcoords": "offset points", "ha": "center", "fontsize": 6.5, "color": "0.3"}
        ax.annotate(style.label(row["method"]), (x, y), xytext=(0, 6 + 8 * above), **look)
    models = ", ".join(dict.fromkeys(row["model"] for row in rows))
    ax.set(xlabel="MIA score (aim: 1)", title=f"published, {models}")
    ax.set(xlim=(-0.15, 1.15), ylim=(-0.05, 1.1))
