"""What was timed, as blocks of docs/cost.md: tables and sentences from `ngdiff bench`'s rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from ngdiff.book.saved import NOT_RUN, saved
from ngdiff.store.rows import read_rows
from ngdiff.store.table import Column, Table

Row = dict[str, Any]


def _steps(root: Path) -> list[Row]:
    """Return the saved rows of `ngdiff bench step`, of all cases."""
    files = sorted((root / "data/results/bench").glob("step_*.jsonl"))
    return [row for path in files for row in read_rows(path)]


def bench(root: Path) -> str:
    """Return the table of `ngdiff bench step`, a line a variant of each case.

    A column that no row has is left out; what one row lacks is a dash.
    """
    rows = _steps(root)
    rows.sort(key=lambda r: (r["stamp"]["device"], _digits(r["size"]), _recipe(r), r["tokens"]))
    if not rows:
        return NOT_RUN

    notes = dict.fromkeys(
        f"{r['parameters'] / 1e6:.1f}M parameters, {r['dtype']}, {r['rounds']} rounds, "
        f"{r['stamp']['device']}."
        for r in rows
        if "rounds" in r
    )
    return Table(_STEPS, [_step(r) for r in rows]).shown().markdown() + "\n\n" + " ".join(notes)


def bench_short(root: Path) -> str:
    """Return what a step of NGDiff costs at a constant rate: the range over the cases."""
    rows = [r for r in _steps(root) if r["variant"] == "ngdiff" and TWO in r]
    if not rows:
        return NOT_RUN
    time, peak = ([r[key] for r in rows] for key in (TWO, "peak_ratio_graddiff-two"))
    return (
        f"With a constant rate a step of NGDiff takes {min(time):.2f} to {max(time):.2f} times as "
        f"long as gradient difference with two backward passes. Its peak memory is {min(peak):.2f} "
        f"to {max(peak):.2f} times as large."
    )


TWO = "time_ratio_graddiff-two"
_OTHERS = ("graddiff-one", "naive")
_STEPS = (
    Column("model"),
    Column("tokens", align="right"),
    Column("step"),
    Column("time", "time ÷ graddiff-two (upper 95 %)", align="right"),
    *(Column(f"time_ratio_{k}", f"time ÷ {k}", ".3f", "right") for k in _OTHERS),
    Column("peak_ratio_graddiff-two", "peak ÷ graddiff-two", ".3f", "right"),
    *(Column(f"peak_ratio_{k}", f"peak ÷ {k}", ".3f", "right") for k in _OTHERS),
    Column("extra", "peak − graddiff-two, MB (predicted)", align="right"),
    Column("reads", "host reads", align="right"),
    Column("mfu", "MFU", ".0%", "right"),
)


def _step(r: Row) -> Row:
    """Return a line of `bench`: the row, with the cells that need several of its values."""
    found = dict(r)
    if "precision" in r:
        found["model"] = f"{r['size']} {_recipe(r)}"
    found["step"] = f"{r['variant']}: {r['outcome']}" if "outcome" in r else r["variant"]
    if (ratio := r.get("time_ratio_graddiff-two")) is not None:
        upper = r.get("time_ratio_graddiff-two_upper95")
        found["time"] = f"{ratio:.3f}" + (f" (≤ {upper:.3f})" if upper else "")
    if r.get("peak_extra_predicted_bytes") is not None:
        extra, predicted = (r[f"peak_extra{key}_bytes"] / 1e6 for key in ("", "_predicted"))
        found["extra"] = f"{extra:.1f} ({predicted:.1f})"
    return found


def probes(root: Path) -> str:
    """Return what `ngdiff bench probes` says, a point a line."""
    from ngdiff.timing.probes import summary

    rows = saved(root / "data/results/bench/probes_tiny.jsonl")
    if not rows:
        return NOT_RUN
    points = [f"{len(rows)} probes on the tiny target, {_device(rows)}", *summary(rows).split("; ")]
    return "\n".join(f"- {point}" for point in points)


def evaluation(root: Path) -> str:
    """Return `ngdiff bench evaluate` as a table: the median seconds of each part."""
    rows = saved(root / "data/results/bench/evaluate.jsonl")
    if not rows:
        return NOT_RUN
    parts = {r["part"]: r["parameters"] for r in rows}
    lines = [
        {
            "part": part,
            "parameters": f"{size / 1e6:.1f}M",
            "seconds": median(r["seconds"] for r in rows if r["part"] == part),
        }
        for part, size in parts.items()
    ]
    columns = (
        Column("part"),
        Column("parameters", align="right"),
        Column("seconds", "seconds, median", ".1f", "right"),
    )
    data = rows[0]["stamp"]["config"]["data"]
    return f"{Table(columns, lines).markdown()}\n\nRows: {data}. Machine: {_device(rows)}."


def designs(root: Path) -> str:
    """Return `ngdiff bench rates` as a table: a line a design of the learning-rate rule."""
    from ngdiff.timing.rates import SUMMARY, summary

    rows = saved(root / "data/results/bench/rates.parquet")
    return Table(SUMMARY, summary(rows)).markdown() if rows else NOT_RUN


def designs_problems(root: Path) -> str:
    """Return the same rows of the default alone: a line a problem and optimizer."""
    from ngdiff.timing.rates import PROBLEM, by_problem

    rows = saved(root / "data/results/bench/rates.parquet")
    return Table(PROBLEM, by_problem(rows)).markdown() if rows else NOT_RUN


def causes(root: Path) -> str:
    """Return `ngdiff bench ratio` as a table: κ and ρ with one factor changed at a time."""
    from ngdiff.timing.causes import COLUMNS

    rows = saved(root / "data/results/bench/ratio.jsonl")
    return Table(COLUMNS, rows).markdown() if rows else NOT_RUN


def _device(rows: list[Row]) -> str:
    """Return where these rows were measured."""
    return rows[0]["stamp"]["device"]


def _digits(size: str) -> float:
    """Return how many parameters the name of a size stands for: 10M, 7B."""
    return float(size[:-1]) * {"M": 1e6, "B": 1e9}[size[-1]]


def _recipe(r: Row) -> str:
    """Return how a benchmark's model is trained, "" where the row does not say so."""
    if "precision" not in r:
        return ""
    how = [r["precision"], f"LoRA {r['lora']}" if r["lora"] else r["optimizer"]]
    return ", ".join([*how, *["checkpointing"][: r["checkpointing"]]])


BLOCKS: dict[str, Callable[[Path], str]] = {
    "bench": bench,
    "bench-short": bench_short,
    "probes": probes,
    "evaluation": evaluation,
    "causes": causes,
    "designs": designs,
    "designs-problems": designs_problems,
}
