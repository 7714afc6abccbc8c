"""TOFU's own verdict on some runs, and what they paid for it, from their rows alone.

TOFU calls a model unlearned where forget quality, the p-value of a Kolmogorov–Smirnov test between
its truth ratios and the retain-only model's, is above .05. The price is what the retain questions
are answered with: ROUGE-L recall on the retain rows, before and after.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from ngdiff.store.table import Column, Table
from ngdiff.study import tables

Row = dict[str, Any]
PASS = 0.05  # of TOFU's forget quality
PRICE = "retain_Q_A_ROUGE"
COLUMNS = (
    Column("run", "", width=26),
    Column("passed", f"p > {PASS:g}", align="right"),
    Column("p", "p, mean", ".2g", "right"),
    Column("before", "retain ROUGE before", ".3f", "right"),
    Column(PRICE, "after", ".3f", "right"),
    Column("full", "forgot = 1", align="right"),
)


def passes(row: Row) -> bool:
    """Return whether TOFU's test finds no difference from the retain-only model."""
    return (row["forget_quality"] or 0.0) > PASS


def verdict(rows: Iterable[Row], levels: Sequence[Row]) -> Table:
    """Return a table with a line a method and rate: how many runs pass, and retain ROUGE.

    forgot = 1: how many runs have the highest `forgot` there is, which is cut off at 1. levels: of
    the models; the start's ROUGE is the mean over them.
    """
    starts = [row[PRICE] for row in levels if row["model"] == "start"]
    seen = [
        row | {"passed": float(passes(row)), "full": float(row["forgot"] >= 1), "p": _p(row)}
        for row in rows
    ]
    lines = tables.means(seen, ("passed", "full", "p", PRICE))
    shown = [
        line
        | {name: f"{line[name] * line['n']:.0f} of {line['n']}" for name in ("passed", "full")}
        | {"run": tables.run_name(line), "before": sum(starts) / len(starts)}
        for line in lines
    ]
    return Table(COLUMNS, shown)


def summary(rows: Iterable[Row]) -> str:
    """Return in one sentence how many of some runs pass, and how many have `forgot` at 1."""
    rows = list(rows)
    good, full = sum(map(passes, rows)), sum(row["forgot"] >= 1 for row in rows)
    return (
        f"TOFU's own verdict, forget quality p > {PASS:g}: {good} of {len(rows)} runs pass. "
        f"`forgot` is cut off at 1, and {full} of {len(rows)} runs have it there."
    )


def _p(row: Row) -> float:
    return row["forget_quality"] or 0.0
