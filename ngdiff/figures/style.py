"""One colour, one name and one place in the order for each method, everywhere; saving as vector pdf and png.

Colours are Okabe & Ito's colour-blind safe set and shades of it; NGDiff is the darkest. A method is named as on the
command line ("graddiff-0.5") or as in a legend ("GradDiff(0.5)"): both find the same colour.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ngdiff.cache import atomic_write

SHEET = Path(__file__).resolve().parent.parent / "ngdiff.mplstyle"
WIDTH = 6.5  # inches, a text column
GOOD, BAD = "#0072B2", "#D55E00"
# command-line name -> (legend name, colour, dashes), in the order of every table and legend
METHODS: dict[str, tuple[str, str, Any]] = {
    "ngdiff": ("NGDiff", "#000000", "-"),
    "ngdiff-npo": ("NGDiff on NPO", "#444444", "--"),
    "ngdiff-kl": ("NGDiff on KL", "#777777", ":"),
    "gradascent": ("GradAscent", "#D55E00", "-"),
    "graddiff-0.1": ("GradDiff(0.1)", "#F0C300", "-"),
    "graddiff-0.5": ("GradDiff(0.5)", "#E69F00", "-"),
    "graddiff-0.9": ("GradDiff(0.9)", "#B06A00", "-"),
    "graddiff-0.9-npo": ("GradDiff(0.9) on NPO", "#B06A00", "--"),
    "kl": ("KL", "#56B4E9", "-"),
    "lossnorm": ("LossNorm", "#009E73", "-"),
    "npo": ("NPO", "#0072B2", "-"),
    "simnpo": ("SimNPO", "#CC79A7", "-"),
    "pcgrad": ("PCGrad", "#882255", "-"),
    "mgda": ("MGDA", "#44AA99", "-"),
}
_BY_LABEL = {label: name for name, (label, _, _) in METHODS.items()}


def _name(method: str) -> str:
    return method if method in METHODS else _BY_LABEL.get(method, method)


def colour(method: str) -> str:
    """The method's colour; grey for a method that has none."""
    return METHODS.get(_name(method), ("", "#999999", "-"))[1]


def label(method: str) -> str:
    """The method's name in legends and tables."""
    return METHODS.get(_name(method), (method, "", ""))[0]


def line(method: str) -> dict[str, Any]:
    """Keywords of `plot` for the method: colour, dashes, label, and NGDiff on top."""
    _, shade, dashes = METHODS.get(_name(method), (method, "#999999", "-"))
    return {"color": shade, "ls": dashes, "label": label(method), "zorder": 4 if _name(method) == "ngdiff" else 3}


def ordered(methods: Iterable[str]) -> list[str]:
    """Methods in the order of every table; unknown ones last, by name."""
    place = {name: i for i, name in enumerate(METHODS)}
    return sorted(methods, key=lambda m: (place.get(_name(m), len(place)), m))


def subplots(rows: int, columns: int, height: float, width: float = WIDTH, **options: Any) -> tuple[Figure, Any]:
    """`plt.subplots` in the house style; the figure is not kept by pyplot, so a notebook shows it once."""
    with plt.style.context(SHEET):
        fig, axes = plt.subplots(rows, columns, figsize=(width, height), **options)
    plt.close(fig)
    return fig, axes


def legend(fig: Figure, axes: Sequence[Axes], handles: Sequence[Any] | None = None, note: str = "") -> None:
    """One legend for the whole figure, to the right of it, each label once; `note` is its title."""
    if handles is None:
        found = {text: handle for ax in axes for handle, text in zip(*ax.get_legend_handles_labels(), strict=True)}
        texts = ordered(found)
        handles = [found[text] for text in texts]
    else:
        texts = [handle.get_label() for handle in handles]
    if texts:
        fig.legend(handles, texts, loc="outside right upper", title=note or None, title_fontsize=7, frameon=False,
                   fontsize=8, alignment="left")  # fmt: skip


def save(fig: Figure, folder: Path | str, name: str) -> list[Path]:
    """Writes <folder>/<name>.pdf and .png atomically, without dates, so that equal figures have equal bytes."""
    saved = []
    for kind, metadata in (("pdf", {"CreationDate": None, "ModDate": None}), ("png", {"Software": None})):
        path = Path(folder) / f"{name}.{kind}"
        with plt.style.context(SHEET), atomic_write(path) as temporary:
            fig.savefig(temporary, format=kind, metadata=metadata)
        saved.append(path)
    return saved
