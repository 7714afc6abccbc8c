"""One look for each method, everywhere: that of its value (`ngdiff.methods.recipes`); saving as
vector pdf and png.

Colours are Okabe & Ito's colour-blind safe set and shades of it; NGDiff is the darkest. A method is
named as on the command line ("graddiff-0.5") or as in a legend ("GradDiff(0.5)"): both find the
same colour.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ngdiff.figures.captions import caption
from ngdiff.methods import lookup
from ngdiff.methods.lookup import label, ordered
from ngdiff.methods.recipes import ngdiff
from ngdiff.store.cache import atomic_write

SHEET = Path(__file__).resolve().with_name("ngdiff.mplstyle")
WIDTH = 6.5  # inches, a text column
# decorates a function that draws: titles take their size when they are set
house = plt.style.context(SHEET)
GOOD, BAD = "#0072B2", "#D55E00"
RETAIN, FORGET = GOOD, BAD  # R and F
FIT, FITTING = "#DCEBDD", "#3C7A42"  # where Eq. 7 holds, and a text on it


def methods(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return the methods of some rows, in the order of every table.

    A method of a user is drawn as its rows say.
    """
    found = {row["method"]: row for row in rows}
    for key, row in found.items():
        if row.get("colour"):
            lookup.remember(key, row["label"], lookup.Look(row["colour"], row["dashes"]))
    return ordered(found)


def colour(method: str) -> str:
    """Return the method's colour; grey for an unknown method."""
    return lookup.look(method).colour


def line(method: str) -> dict[str, Any]:
    """Return keywords of `plot` for the method: colour, dashes, label, and NGDiff on top."""
    look = lookup.look(method)
    ours = lookup.known(method) == ngdiff
    return {
        "color": look.colour,
        "ls": look.dashes,
        "label": label(method),
        "zorder": 4 if ours else 3,
    }


class Drawn(Figure):
    """A figure and the saved rows that it shows, from which its caption is computed."""

    rows: tuple[Mapping[str, Any], ...] = ()

    def of(self, *rows: Iterable[Mapping[str, Any]]) -> Drawn:
        """Return this figure, which now holds the rows that were drawn in it."""
        self.rows = tuple(row for some in rows for row in some)
        return self

    @property
    def caption(self) -> str:
        return caption(self.rows)


def subplots(
    rows: int, columns: int, height: float, width: float = WIDTH, **options: Any
) -> tuple[Drawn, Any]:
    """Return `plt.subplots` in the house style; the figure takes the rows that it shows.

    The figure is not kept by pyplot, so a notebook shows it once.
    """
    size: dict[str, Any] = {"figsize": (width, height), "FigureClass": Drawn}
    with plt.style.context(SHEET):
        fig, axes = plt.subplots(rows, columns, **size, **options)
    plt.close(fig)
    return fig, axes


def legend(
    fig: Figure, axes: Sequence[Axes], handles: Sequence[Any] | None = None, note: str = ""
) -> None:
    """One legend for the whole figure, to the right of it, each label once; `note` is its title.

    The figure grows where the legend is higher.
    """
    if handles is None:
        found = {
            text: handle
            for ax in axes
            for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)
        }
        texts = ordered(found)
        handles = [found[text] for text in texts]
    else:
        texts = [handle.get_label() for handle in handles]
    if texts:
        box = fig.legend(
            handles,
            texts,
            loc="outside right upper",
            title=note or None,
            title_fontsize=7,
            frameon=False,
            fontsize=8,
            alignment="left",
        )
        height = box.get_window_extent().height / fig.dpi
        fig.set_figheight(max(fig.get_figheight(), height + 0.1))


def label_ends(
    ax: Axes, ends: Sequence[tuple[float, float, str, str]], size: float = 8, pad: float = 4
) -> None:
    """Write (x, y, text, colour) to the right of line ends, moved apart where two would touch.

    Call it when the limits of `ax` are final.
    """
    ax.figure.draw_without_rendering()  # lays the axes out
    ends = sorted(ends, key=lambda end: end[1])
    heights = [ax.transData.transform((x, y))[1] * 72 / ax.figure.dpi for x, y, _, _ in ends]
    for (x, y, text, shade), old, new in zip(
        ends, heights, spread(heights, 1.15 * size), strict=True
    ):
        ax.annotate(
            text,
            (x, y),
            xytext=(pad, new - old),
            textcoords="offset points",
            color=shade,
            fontsize=size,
            va="center",
            ha="left",
            annotation_clip=False,
        )


def spread(heights: Sequence[float], gap: float) -> list[float]:
    """Rising heights moved as little as needed to be `gap` apart.

    Touching neighbours share their mean.
    """
    groups: list[list[float]] = []
    for height in heights:
        groups.append([height])
        while (
            len(groups) > 1
            and _mean(groups[-1]) - _mean(groups[-2])
            < gap * (len(groups[-1]) + len(groups[-2])) / 2
        ):
            groups[-2:] = [groups[-2] + groups[-1]]
    return [
        _mean(group) + gap * (k - (len(group) - 1) / 2)
        for group in groups
        for k in range(len(group))
    ]


def _mean(x: Sequence[float]) -> float:
    return sum(x) / len(x)


def save(fig: Drawn, folder: Path | str, name: str, sources: Iterable[str] = ()) -> list[Path]:
    """Write <folder>/<name>.pdf and .png, atomically and without dates: equal figures, equal bytes.

    The caption that a report prints below the figure is that of its rows. sources: the files of
    rows it was drawn from, where the same notebook has not just written them. Both travel inside
    the files.
    """
    text, used, saved = fig.caption or None, " ".join(sources) or None, []
    for kind, metadata in (
        ("pdf", {"CreationDate": None, "ModDate": None, "Subject": text}),
        ("png", {"Software": None, "Description": text, "Source": used}),
    ):
        path = Path(folder) / f"{name}.{kind}"
        with plt.style.context(SHEET), atomic_write(path) as temporary:
            fig.savefig(temporary, format=kind, metadata=metadata)
        saved.append(path)
    return saved
