"""Figures of the story of a real model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ngdiff.figures import style
from ngdiff.figures.style import Drawn
from ngdiff.methods.lookup import label

X, Y = "forget_Q_A_ROUGE", "retain_Q_A_ROUGE"
MARKS = {"base": "s", "start": "D", "reference": "*", "unlearned": "o"}


@style.house
def plane(rows: Sequence[dict[str, Any]]) -> Drawn:
    """Retained answers (up) against answers to the forget rows (right), both ROUGE-L recall.

    rows: one for each role, "base", "start", "reference" and "unlearned". An arrow leads from the
    start to the unlearned model.
    """
    fig, ax = style.subplots(1, 1, height=3.0, width=4.2)
    at = {row["role"]: (row[X], row[Y]) for row in rows}
    names = {"base": "base model", "start": "start", "reference": "retain-only"}
    for row in rows:
        role = row["role"]
        ours = role == "unlearned"
        shade = style.colour(row["method"]) if ours else "0.45"
        ax.plot(*at[role], MARKS[role], color=shade, ms=8)
        text = f"{label(row['method'])} + AutoLR" if ours else names[role]
        right = at[role][0] < 0.6
        look = {"ha": "left" if right else "right", "va": "center", "color": shade, "fontsize": 8}
        side = (8 if right else -8, 0)
        ax.annotate(text, at[role], xytext=side, textcoords="offset points", **look)
    arrow = {"arrowstyle": "->", "color": "0.7", "shrinkA": 8, "shrinkB": 8}
    ax.annotate("", at["unlearned"], xytext=at["start"], arrowprops=arrow)
    ax.set(xlim=(-0.03, 1.06), ylim=(-0.05, 1.08), title="What the models still say")
    ax.set_xlabel("answers to forget (ROUGE-L): should fall")
    ax.set_ylabel("answers to keep (ROUGE-L)")
    return fig.of(rows)
