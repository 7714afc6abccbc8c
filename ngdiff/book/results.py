"""The larger grid as blocks of the README and of docs/results.md: tables and paragraphs from rows.

A block is a function of the checkout's root that returns markdown, "not run" without its rows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ngdiff.methods.lookup import label, ordered
from ngdiff.store.rows import read_rows
from ngdiff.store.table import DASH, Column, Table
from ngdiff.study import plan as plans
from ngdiff.study import protocol, sentences
from ngdiff.study.claims import OURS
from ngdiff.study.intervals import select
from ngdiff.study.sentences import AGAINST, Grid, average, share

Row = dict[str, Any]
NOT_RUN = "not run"
SWING = "swing of "  # how the names of claims about a spread begin


def saved(path: Path) -> list[Row]:
    """Return the rows of a file, [] where there is none."""
    return read_rows(path) if path.exists() else []


def grid(root: Path) -> Grid | None:
    """Return the saved rows of the larger grid, None unless all of them are there."""
    folder = root / "data/results/tiny"
    names = ("matched.parquet", "starts.parquet", "fixed.parquet", "claims.jsonl", "levels.jsonl")
    matched, starts, *others = (saved(folder / f"grid_{name}") for name in names)
    tuning = protocol.saved(plans.plan("grid", ()).tuning(profile="tiny")) if matched else []
    found = (matched, tuning, starts, *others)
    return Grid(*found) if all(found) else None


def _said(paragraph: Callable[[Grid], str]) -> Callable[[Path], str]:
    """Return the block of a paragraph of `ngdiff.study.sentences`."""

    def block(root: Path) -> str:
        rows = grid(root)
        return NOT_RUN if rows is None else paragraph(rows)

    return block


def _in_short(rows: Grid) -> str:
    points = "\n".join(f"- {line}" for line in sentences.in_short(rows))
    changed = "We chose the verdict rule after seeing the results."
    return f"{points}\n\n{changed} {sentences.first_rule(rows)}"


# ------------------------------------------------------------------------------------------- tables
def claims(root: Path) -> str:
    """Return the grid's main table: each method, and its difference to NGDiff + AutoLR."""
    folder = root / "data/results/tiny"
    rows, claimed = saved(folder / "grid_matched.parquet"), saved(folder / "grid_claims.jsonl")
    if not (rows and claimed):
        return NOT_RUN
    gaps = {r["name"].removeprefix(AGAINST): r for r in claimed if r["name"].startswith(AGAINST)}

    def line(method: str, rule: str) -> Row:
        gap = gaps.get(method) if rule == "constant" else None
        return _method(select(rows, method=method, stepsize=rule), gap)

    methods = ordered({r["method"] for r in rows})
    lines = [line(OURS, "autolr")]
    lines += [line(m, "constant") for m in methods]
    lines += [line(m, "autolr") for m in methods if m != OURS]
    pairs = len({(r["target_seed"], r["seed"]) for r in rows})
    columns = (
        Column("method", format=label),
        Column("rate", "learning rate"),
        Column("score", format=".3f", align="right"),
        Column("model_utility", "model utility", ".3f", "right"),
        Column("forget_Q_A_ROUGE", "forget ROUGE-L", ".3f", "right"),
        Column("updates", "updates, mean", format=".0f", align="right"),
        Column("reached", "runs that reached the level", ".0%", "right"),
        Column("every", f"difference, all {pairs} pairs"),
        Column("both", "difference, pairs that both reached the level"),
        Column("verdict", "who is better on these pairs"),
    )
    return Table(columns, lines).markdown()


def _method(mine: list[Row], gap: Row | None) -> Row:
    """Return a line of `claims`: a method's runs under one rule, and its claim if it has one."""
    method, constant = mine[0]["method"], mine[0]["stepsize"] == "constant"
    edge = ", end of the grid" if gap and gap["edge"] else ""
    means = {k: average(mine, k) for k in ("score", "model_utility", "forget_Q_A_ROUGE", "updates")}
    both = _gap(gap, "both_") if gap else ""
    both += f", n = {gap['both_n']}" if gap and 0 < gap["both_n"] < gap["n"] else ""
    return {
        "method": method,
        "rate": f"{mine[0]['lr']:g}{edge}" if constant else "AutoLR, untuned",
        **means,
        "reached": share(mine),
        "every": _gap(gap, "") if gap else "",
        "both": both,
        "verdict": _winner(gap["verdict"], method) if gap else "",
    }


def _winner(verdict: str, method: str) -> str:
    """Return a verdict of `ngdiff.study.claims` with the method's label in it."""
    return verdict.replace(f"tuned {method}", f"tuned {label(method)}").removesuffix(" better")


def _gap(row: Row, prefix: str) -> str:
    """Return mean and interval of a claim, or a dash where there is none."""
    middle, low, high = (row[f"{prefix}{key}"] for key in ("mean", "low", "high"))
    if middle is None:
        return DASH
    return f"{middle:+.3f}" + ("" if low is None else f" [{low:+.3f}, {high:+.3f}]")


def swings(root: Path) -> str:
    """Return the grid's other claims: what a score moves by, and what ascent keeps."""
    lines = []
    for r in saved(root / "data/results/tiny/grid_claims.jsonl"):
        if r["name"].startswith(AGAINST):
            continue
        middle = DASH if r["mean"] is None else f"{r['mean']:.3f}"
        spread = f" [{r['low']:.3f}, {r['high']:.3f}]" if r["low"] is not None else ""
        spread += ", range" if r["kind"] == "range" else ""
        lines.append(r | {"name": _subject(r["name"]), "mean": middle + spread})
    columns = (
        Column("name", "runs of"),
        Column("what", "what is measured"),
        Column("mean", "value [95 % interval]"),
        Column("n", "number of runs", align="right"),
    )
    return Table(columns, lines).markdown() if lines else NOT_RUN


def _subject(claim: str) -> str:
    """Return the runs that a claim is about, in words for a table."""
    if claim.startswith(SWING):
        method, *over = claim.removeprefix(SWING).split(" with ")
        return ", ".join(["GradDiff" if over else label(method), *(f"over {c}" for c in over)])
    return claim.replace("ascent keeps", "GradAscent").replace("AutoLR over", "NGDiff + AutoLR,")


def stopless(root: Path) -> str:
    """Return the runs without a stop as a table, the highest score first."""
    fixed = saved(root / "data/results/tiny/grid_fixed.parquet")
    keys = ("score", "model_utility", "loss_retain", "loss_forget")
    lines = [
        {"run": name, **{key: average(rows, key) for key in keys}}
        for name, rows in sentences.runs_without_a_stop(fixed).items()
    ]
    columns = (
        Column("run"),
        Column("score", format=".3f", align="right"),
        Column("model_utility", "model utility", ".3f", "right"),
        Column("loss_retain", "retain loss", ".2f", "right"),
        Column("loss_forget", "forget loss", ".2f", "right"),
    )
    return Table(columns, lines).markdown() if lines else NOT_RUN


BLOCKS: dict[str, Callable[[Path], str]] = {
    "short": _said(_in_short),
    "setup": _said(sentences.setup),
    "verdicts": _said(sentences.verdicts),
    "first-rule": _said(sentences.first_rule),
    "claims": claims,
    "autolr": _said(sentences.autolr),
    "rates": _said(sentences.rates),
    "speed": _said(sentences.speed),
    "ascent": _said(sentences.ascent),
    "stopless": stopless,
    "swings": swings,
}
