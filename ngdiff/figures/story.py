"""Figures of the story of a real model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ngdiff.figures import style
from ngdiff.figures.style import Drawn
from ngdiff.methods.lookup import label

X, Y = "forget_Q_A_ROUGE", "retain_Q_A_ROUGE"
NAMES = {"base": "base model", "start": "start", "reference": "retain-only"}
# points from a mark to its name; the unlearned model and the ideal are near each other
SIDES = {"base": (0, 13), "start": (0, 13), "reference": (0, 13), "unlearned": (0, -13)}
MARKS = {"base": "s", "start": "D", "reference": "*", "unlearned": "o"}


@style.house
def plane(rows: Sequence[dict[str, Any]]) -> Drawn:
    """Retained answers (up) against answers to the forget rows (right), both ROUGE-L recall.

    rows: one for each role, "base", "start", "reference" and "unlearned". An arrow leads from the
    start to the unlearned model.
    """
    fig, ax = style.subplots(1, 1, height=3.0, width=4.2)
    at = {row["role"]: (row[X], row[Y]) for row in rows}
    for row in rows:
        role = row["role"]
        ours = role == "unlearned"
        shade = style.colour(row["method"]) if ours else "0.45"
        ax.plot(*at[role], MARKS[role], color=shade, ms=8)
        text = f"{label(row['method'])} + AutoLR" if ours else NAMES[role]
        look = {"ha": "center", "va": "center", "color": shade, "fontsize": 8}
        x = min(max(at[role][0], 0.12), 0.9)
        ax.annotate(text, (x, at[role][1]), xytext=SIDES[role], textcoords="offset points", **look)
    arrow = {"arrowstyle": "->", "color": "0.7", "shrinkA": 8, "shrinkB": 8}
    ax.annotate("", at["unlearned"], xytext=at["start"], arrowprops=arrow)
    ax.set(xlim=(-0.03, 1.06), ylim=(-0.05, 1.2), title="What the models still say")
    ax.set_xlabel("answers to forget (ROUGE-L): should fall")
    ax.set_ylabel("answers to keep (ROUGE-L)")
    return fig.of(rows)
