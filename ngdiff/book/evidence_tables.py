"""The long comparison as tables, from saved rows (`ngdiff.study.verdicts`).

A table is a function of the evidence that returns markdown, "not run" without its rows.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from ngdiff.book import evidence as sentences
from ngdiff.book.evidence import (
    OPTIMIZERS,
    RULED,
    TITLES,
    bands,
    gains,
    left_out,
    spread,
    unrun,
    wide,
    with_interval,
)
from ngdiff.book.evidence_runs import e1_tables, e5_tables, paragraphs, title
from ngdiff.book.saved import NOT_RUN
from ngdiff.methods.lookup import label
from ngdiff.store.table import Column, Table
from ngdiff.study import verdicts
from ngdiff.study.intervals import mean, select
from ngdiff.study.rules import LABELS, run_label
from ngdiff.study.verdicts import Evidence

Row = dict[str, Any]
SHOWN = {
    "kappa_50": ("κ, median", ".3g"),
    "rho_50": ("ρ, median", ".2f"),
    "inside_0.5": ("inside Eq. 7: c = .5", ".0%"),
    "inside_0.9": (".9", ".0%"),
    "inside_0.99": (".99", ".0%"),
    "inside_lossnorm": ("LossNorm", ".0%"),
}


def setup(found: Evidence) -> str:
    """Return the data sets as a table: populations, models, orders, rows, the level."""
    lines = []
    for name in found.names:
        rows, levels = found.of("compare", name), found.of("levels", name)
        start = select(levels, model="start")
        lines.append(
            {
                "set": TITLES[name],
                "populations": len({r["data"] for r in rows}),
                "models": len({r["target_seed"] for r in rows}),
                "orders": len({r["seed"] for r in rows}),
                "level": mean([r["loss_holdout"] for r in start]) if start else None,
                "tuning": len(found.of("tuning", name)),
                "runs": len(rows),
            }
        )
    columns = (
        Column("set", "data set"),
        Column("populations", align="right"),
        Column("models", "models of each", align="right"),
        Column("orders", "orders of the rows", align="right"),
        Column("level", "hold-out level (nats)", ".2f", "right"),
        Column("tuning", "tuning runs", align="right"),
        Column("runs", "reported runs", align="right"),
    )
    return paragraphs(Table(columns, lines).markdown(), left_out(found))


def where(found: Evidence) -> str:
    """Return κ, ρ and the shares inside Eq. 7 of every data set, beside what weights gave."""
    lines, gained_by = [], {name: by.values() for name, by in gains(found).items()}
    for name in found.names:
        rows = [r for r in found.of("geometry", name) if r["steps"]]
        if not rows:
            continue
        middle = {key: mean([r[key] for r in rows]) for key in rows[0] if key in SHOWN}
        gained = dict(zip(("gain", "best"), gained_by.get(TITLES[name], (None, None)), strict=True))
        lines.append({"set": TITLES[name], **middle, **gained})
    columns = (
        Column("set", "data set"),
        *(Column(key, title, form, "right") for key, (title, form) in SHOWN.items()),
        Column("gain", "NGDiff − GradDiff(0.5)", "+.3f", "right"),
        Column("best", "NGDiff − best fixed c", "+.3f", "right"),
    )
    missing = left_out(found, "geometry")
    return paragraphs(Table(columns, lines).markdown(), missing) if lines else NOT_RUN


def e2_table(found: Evidence) -> str:
    """Return the regrets as a table."""
    lines = [
        row | {"run": run_label(row["method"], row["stepsize"]), "all": with_interval(row)}
        for row in verdicts.regrets(found)
    ]
    columns = (
        Column("run", "weights"),
        *(Column(name, TITLES[name], ".3f", "right") for name in verdicts.weighed(found)),
        Column("all", "largest [bootstrap over few units]"),
        Column("best", "smallest in", ".0%", "right"),
    )
    missing = unrun(name for name in TITLES if name not in verdicts.weighed(found))
    return paragraphs(Table(columns, lines).markdown(), missing) if lines else NOT_RUN


def e3_tables(found: Evidence) -> str:
    """Return a table a data set of E3: what each rule gives, from all its starts."""
    columns = (
        Column("rule", "step-size rule"),
        Column("score", "mean score", ".3f", "right"),
        Column("worst", "worst score", ".3f", "right"),
        Column("reached", "reached the level", ".0%", "right"),
        Column("updates", "updates", ".0f", "right"),
        Column("forwards", "probe forwards", ".0f", "right"),
        Column("spread", "best − worst over the starts [95 %]"),
        Column("n", "runs", align="right"),
    )
    tables = []
    for name in RULED:
        if rows := found.of("adapt", name):
            lines = [
                row
                | {
                    "rule": LABELS[row["stepsize"]],
                    "spread": row["spread"] and spread(row["spread"], ".3f"),
                }
                for row in verdicts.adapting(rows)
            ]
            starts = ", ".join(f"{lr:g}" for lr in sorted({r["lr"] for r in rows}))
            tables.append(
                f"**{title(name)}**, starts {starts}\n\n{Table(columns, lines).markdown()}"
            )
    return paragraphs(*tables, left_out(found, "adapt", RULED)) if tables else NOT_RUN


def e4_table(found: Evidence) -> str:
    """Return the bands as a table."""
    lines = [
        row | {"width": wide(row), "optimizer": OPTIMIZERS[row["optimizer"]]}
        for row in bands(found)
    ]
    columns = (
        Column("method", format=label),
        Column("optimizer"),
        Column("width", "working band, decades", align="right"),
        Column("nan", "runs that end in NaN", ".0%", "right"),
        Column(
            "blown",
            f"NaN, or retain loss above {verdicts.BLOWN:g} times the start's",
            ".0%",
            "right",
        ),
        Column("n", "runs", align="right"),
    )
    return Table(columns, lines).markdown() if lines else NOT_RUN


def said(block: Callable[[Evidence], str]) -> Callable[[Path], str]:
    """Return a block of a page: a function of the checkout's root."""

    def filled(root: Path) -> str:
        found = sentences.load(root)
        return (block(found) if found.names else "") or NOT_RUN

    return filled


PAGES = ("authors", "tofu", "news", "dossiers", "lume")  # the data sets of notebooks 06 to 09


def _ahead(name: str, root: Path) -> str:
    return sentences.ahead(sentences.load(root), name)


def _figure(name: str, text: str, root: Path) -> str:
    """Return a figure of page 10, where it has been drawn."""
    path = f"figures/tiny/{name}.png"
    return f"![{text}](../{path})" if (root / path).is_file() else NOT_RUN


BLOCKS: dict[str, Callable[[Path], str]] = {
    "short": said(sentences.in_short),
    "setup": said(setup),
    "e1": said(sentences.answers),
    "e1-tables": said(e1_tables),
    "e2": said(sentences.control),
    "e2-table": said(e2_table),
    "e3": said(sentences.adaptive),
    "e3-tables": said(e3_tables),
    "e4": said(sentences.stability),
    "e4-table": said(e4_table),
    "e5-tables": said(e5_tables),
    "where": said(where),
    "where-figure": partial(_figure, "fig10_where", "κ, ρ, Eq. 7 and gains by data set"),
    "bands-figure": partial(_figure, "fig10_bands", "which rates work"),
    **{f"ahead-{name}": partial(_ahead, name) for name in PAGES},
}
