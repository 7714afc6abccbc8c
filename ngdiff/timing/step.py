"""`ngdiff bench step`: a case measured (`turns`), its table, its rows saved.

A case that does not fit on the device is refused with an estimate of what it needs and of the
changes that would fit (`room`).
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import json as text
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from ngdiff.store.orphans import end_with
from ngdiff.store.rows import probe_rows, stamp, write_rows
from ngdiff.store.table import Column, Table
from ngdiff.timing.case import AUTOCAST, BASES, Case
from ngdiff.timing.room import advice, capacity, needs
from ngdiff.timing.turns import Row, measure


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


# ------------------------------------------------------------------------------------------- tables
def step_table(case: Case, json: Path | None = None) -> list[Row]:
    """Measure a case, print its table, and save the rows where `json` says (.jsonl).

    Errors: ValueError for a case that does not fit on the device, with those that would.
    """
    probe_rows(json)
    where = device()
    began, threads, room = time.perf_counter(), torch.get_num_threads(), capacity(where)
    torch.set_num_threads(1)
    try:
        hopeless = room and needs(case, 0.0, "recompute").peak() > room
        rows = [] if hopeless else _measured(case, where)
        if not rows:
            raise ValueError(advice(case, where, room or 0.0))
    finally:
        torch.set_num_threads(threads)
    mark = stamp(asdict(case), 1, time.perf_counter() - began)
    rows = [row | {"stamp": mark} for row in rows]
    print(table(rows))
    if json is not None:
        write_rows(Path(json), rows)
        print(f"rows saved in {json}")
    return rows


def _measured(case: Case, device: str) -> list[Row]:
    """The rows; none where memory ran out. By the return, what filled it is free again."""
    rows: list[Row] = []
    with contextlib.suppress(torch.OutOfMemoryError):
        rows = measure(case, device)
    if not rows:
        gc.collect()
        torch.cuda.empty_cache()
    return rows


def _megabytes(count: float) -> str:
    return f"{count / 1e6:.1f}"


def _interval(ends: Sequence[float]) -> str:
    return "[{:.3f}, {:.3f}]".format(*ends)


def _notice(r: Row) -> str:
    """Return what stands after the numbers of a row, or in place of them."""
    if "seconds_median" not in r:
        return r["outcome"]
    return f"{r['skipped']} steps changed nothing" if r["skipped"] else ""


NAMES = {base: base.removeprefix("graddiff-") for base in (*BASES, *AUTOCAST)}
COLUMNS = (
    Column("variant", "", width=18),
    Column("seconds_median", "s/step", ".3f", "right"),
    Column("time_ratio_graddiff-two", "time ÷ two", ".3f", "right"),
    Column("time_ratio_graddiff-two_range", "[range]", _interval, "right"),
    Column("time_ratio_graddiff-two_upper95", "upper 95%", ".3f", "right"),
    *(Column(f"time_ratio_{b}", f"÷ {NAMES[b]}", ".3f", "right") for b in NAMES if b != BASES[0]),
    Column("peak_bytes", "peak MB", _megabytes, "right"),
    *(Column(f"peak_ratio_{b}", f"÷ {NAMES[b]}", ".3f", "right") for b in BASES),
    Column("reads", align="right"),
    Column("mfu", "MFU", ".3f", "right"),
    Column("notice", ""),
)


def table(rows: Sequence[Row]) -> str:
    """Return the rows as text, case by case.

    Time and peak memory stand relative to GradDiff with two backwards, with one, and to naive.
    Then come reads a step and the utilisation of the device, in FLOPs of the model.
    """
    noticed = [row | {"notice": _notice(row)} for row in rows]
    heads, *lines = Table(COLUMNS, noticed, missing="-").lines()
    shown, left = [heads], iter(lines)
    for _, group in itertools.groupby(rows, key=lambda r: r["stamp"]["config"]):
        mine = list(group)
        shown += [_head(mine[0]), *(next(left) for _ in mine)]
        shown += [_note(r) for r in mine if "peak_extra_predicted_bytes" in r]
    return "\n".join(shown)


def _head(r: Row) -> str:
    case, mark = Case(**{**r["stamp"]["config"], "variants": ()}), r["stamp"]
    versions = ", ".join(f"{name} {mark['packages'][name]}" for name in ("torch", "transformers"))
    what = [f"{r['parameters'] / 1e6:.1f}M parameters"] if "parameters" in r else [case.size]
    what += [f"{r.get('tokens', case.tokens)} tokens a batch in rows of {case.shape[1]}"]
    what += [case.precision, case.optimizer]
    what += [f"LoRA r = {case.lora}"] * bool(case.lora) + ["checkpointing"] * case.checkpointing
    if "rounds" in r:
        what.append(f"{r['rounds']} rounds after {r['warmup']}")
    return f"{', '.join(what)}; {mark['device']}, {r.get('clock', 'not measured')}, {versions}"


def _note(r: Row) -> str:
    """Return the extra peak of `ngdiff` beside the predicted one, and how things were counted."""
    keys = ("peak_extra", "peak_extra_predicted", "peak_extra_simple", "gradient")
    extra, predicted, simple, G = (_megabytes(r[f"{key}_bytes"]) for key in keys)
    A_F = _megabytes(r["forget_activation_bytes"])
    return (
        f"peak beyond two backwards: {extra} MB, predicted {predicted}; "
        f"max(0, G − A_F) = {simple}, G = {G}, A_F = {A_F}; kernels: {r['kernels']}; "
        f"reads: {r['reads_by']}, less {r['reads_model']} of the model's own"
    )


if __name__ == "__main__":
    try:
        options = text.loads(sys.argv[1])
        end_with(options.pop("parent"))
        path = Path(options.pop("json"))
        step_table(Case(**options | {"variants": tuple(options["variants"])}), path)
    except (ValueError, OSError) as error:
        print(f"ngdiff: {error}", file=sys.stderr)
        raise SystemExit(2) from error
