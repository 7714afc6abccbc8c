"""`ngdiff bench`: a case measured (`turns`), its table, its rows saved; a suite of cases, each in a
process of its own.

A case that does not fit on the device is refused with an estimate of what it needs and of the
changes that would fit.
"""

from __future__ import annotations

import contextlib
import gc
import itertools
import json as text
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ngdiff.engine import meters
from ngdiff.store.cache import probe_file, probe_writable
from ngdiff.store.rows import read_rows, stamp, write_rows
from ngdiff.store.table import Column, Table
from ngdiff.timing.turns import BASES, LARGE, MOMENTS, SIZES, Case, Row, Subject, measure


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


# ---------------------------------------------------------------------------------------- estimates
def needs(case: Case, activations: float, memory: str = "swap") -> dict[str, float]:
    """Bytes of one NGDiff step, by what they are for; activations: bytes a token of a batch
    (`per_token`).

    Gradients are as precise as weights; bfloat16 weights that are trained have 16 low bits more;
    moments are float32. The stash lies where the activations were: what it takes is what it takes
    beyond them.
    """
    hidden, layers, _, intermediate, vocabulary = SIZES[case.size]
    block = 4 * hidden**2 + 3 * hidden * intermediate + 2 * hidden
    N = layers * block + hidden + vocabulary * hidden * (2 if case.size in LARGE else 1)
    width = 4 if case.precision == "float32" else 2
    trained, frozen = (
        (case.lora * layers * (11 * hidden + 3 * intermediate), N) if case.lora else (N, 0)
    )
    gradient = trained * (4 if case.lora else width)
    used = activations * case.shape[0] * case.shape[1]
    stash = max(0.0, gradient - used) if memory == "swap" else 0.0
    weights = trained * 4 + frozen * width
    return {
        "weights": weights,
        "gradients": gradient,
        "stash": stash,
        "activations": used,
        case.optimizer: trained * MOMENTS[case.optimizer],
    }


def per_token(case: Case, device: str) -> float:
    """Bytes of activations a token, from one and from two of the layers: A₁ + (L − 1)·(A₂ − A₁)."""
    one_row = replace(case, tokens=case.shape[1])
    held = []
    for layers in (1, 2):
        on = Subject(one_row, device, layers)
        with torch.no_grad():
            on.loss(1)  # what a library takes for itself at the first forward is no activation
        held.append(meters.allocated(partial(on.loss, 1), device)[0])
    return (held[0] + (SIZES[case.size][1] - 1) * (held[1] - held[0])) / one_row.tokens


def advice(case: Case, device: str, room: float) -> str:
    """Why a case does not fit into `room` bytes, and which changes of it would."""
    smaller = list(SIZES)[: list(SIZES).index(case.size)][-1:]
    changes: list[tuple[str, Row]] = [
        *[("--checkpointing", {"checkpointing": True})] * (not case.checkpointing),
        *[("--precision bfloat16", {"precision": "bfloat16"})] * (case.precision == "float32"),
        *[("--optimizer sgd", {"optimizer": "sgd"})] * (case.optimizer != "sgd" and not case.lora),
        *[("--optimizer sgd --checkpointing", {"optimizer": "sgd", "checkpointing": True})]
        * (not case.lora),
        *[("--memory recompute --variants graddiff-two,ngdiff-recompute", {"memory": "recompute"})],
        *[("--lora 16", {"lora": 16})] * (not case.lora),
        *[(f"--size {name}", {"size": name}) for name in smaller],
    ]
    tokens = {
        c: per_token(c, device)
        for c in dict.fromkeys([case, *(replace(case, **kw) for _, kw in changes)])
    }
    parts = needs(case, tokens[case])
    sums = {
        flag: sum(needs(c := replace(case, **kw), tokens[c], c.memory).values())
        for flag, kw in changes
    }
    fit = [
        f"{flag} (about {size / 1e9:.2g} GB)" for flag, size in sums.items() if 1.1 * size < room
    ]
    what = ", ".join(f"{name} {size / 1e9:.2g}" for name, size in parts.items())
    return (
        f"{case.label} needs about {sum(parts.values()) / 1e9:.3g} GB ({what}) and the device has "
        f"{room / 1e9:.3g}; "
        "estimated to fit: "
        f"{'; '.join(fit) or 'none of these changes alone, take fewer tokens too'}"
    )


def _room(device: str) -> float | None:
    """Bytes of the device; None for a host, which may swap."""
    return float(torch.cuda.get_device_properties(0).total_memory) if device == "cuda" else None


# ------------------------------------------------------------------------------------------- tables
def step_table(json: Path | None = None, **options: Any) -> list[Row]:
    """`ngdiff bench step`: measure a `Case` of these options, print its table, and save the rows
    where `json` says (.jsonl).

    Errors: ValueError for a case that does not fit on the device, with those that would.
    """
    if json is not None and Path(json).suffix != ".jsonl":
        raise ValueError(f"rows are saved as .jsonl, not {str(json)!r}")
    case, where = Case(**options), device()
    if json is not None:
        probe_file(json)
    began, threads, room = time.perf_counter(), torch.get_num_threads(), _room(where)
    torch.set_num_threads(1)
    try:
        rows = (
            []
            if room and sum(needs(case, 0.0, "recompute").values()) > room
            else _measured(case, where)
        )
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
    """What stands after the numbers of a row, or in place of them."""
    if "seconds_median" not in r:
        return r["outcome"]
    return f"{r['skipped']} steps changed nothing" if r["skipped"] else ""


NAMES = {base: base.removeprefix("graddiff-") for base in BASES}
COLUMNS = (
    Column("variant", "", width=18),
    Column("seconds_median", "s/step", ".3f", "right"),
    Column("time_ratio_graddiff-two", "time ÷ two", ".3f", "right"),
    Column("time_ratio_graddiff-two_range", "[range]", _interval, "right"),
    Column("time_ratio_graddiff-two_upper95", "upper 95%", ".3f", "right"),
    *(Column(f"time_ratio_{b}", f"÷ {NAMES[b]}", ".3f", "right") for b in BASES[1:]),
    Column("peak_bytes", "peak MB", _megabytes, "right"),
    *(Column(f"peak_ratio_{b}", f"÷ {NAMES[b]}", ".3f", "right") for b in BASES),
    Column("reads", align="right"),
    Column("mfu", "MFU", ".3f", "right"),
    Column("notice", ""),
)


def table(rows: Sequence[Row]) -> str:
    """The rows as text, case by case: time and peak memory, each relative to GradDiff with two
    backwards, with one, and to naive; reads a step; model-FLOP utilisation."""
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
    what += [
        f"{r.get('tokens', case.tokens)} tokens a batch in rows of {case.shape[1]}",
        case.precision,
        case.optimizer,
    ]
    what += [f"LoRA r = {case.lora}"] * bool(case.lora) + ["checkpointing"] * case.checkpointing
    if "rounds" in r:
        what.append(f"{r['rounds']} rounds after {r['warmup']}")
    return f"{', '.join(what)}; {mark['device']}, {r.get('clock', 'not measured')}, {versions}"


def _note(r: Row) -> str:
    """Of the row of `ngdiff`: its extra peak beside the predicted one, and how things were
    counted.
    """
    mb = {
        key: f"{r[f'{key}_bytes'] / 1e6:.1f}"
        for key in ("peak_extra", "peak_extra_predicted", "peak_extra_simple")
    }
    G, A_F = r["gradient_bytes"] / 1e6, r["forget_activation_bytes"] / 1e6
    return (
        f"peak beyond two backwards: {mb['peak_extra']} MB, predicted "
        f"{mb['peak_extra_predicted']}; max(0, G − A_F) = "
        f"{mb['peak_extra_simple']}, G = {G:.1f}, A_F = {A_F:.1f}; kernels: {r['kernels']}; "
        f"reads: {r['reads_by']}, "
        f"less {r['reads_model']} of the model's own"
    )


# -------------------------------------------------------------------------------------------- suite
def _big(tokens: int, **options: Any) -> list[Case]:
    """The first that fits is what is wanted: 7B as it is trained, else with an optimizer that keeps
    nothing, else 1B.
    """
    sizes = (("7B", "adamw"), ("7B", "sgd"), ("1B", "adamw"))
    kinds = sizes[::2] if options.get("lora") else sizes
    return [
        Case(size, tokens, precision="bfloat16", optimizer=kind, **options) for size, kind in kinds
    ]


MODES_BESIDE = ("graddiff-two", "graddiff-one", "ngdiff", "ngdiff-recompute")
CASES = {  # by device: what the performance targets ask for, each with what to fall back to
    "cuda": [
        _big(4096),
        _big(1024),
        _big(4096, checkpointing=True, memory="recompute", variants=MODES_BESIDE),
        _big(4096, lora=16),
    ],
    "cpu": [[Case("10M", 512)], [Case("10M", 128)]],
}


def suite(json_dir: Path, minutes: float = 8.0) -> list[Row]:
    """`ngdiff bench suite`: the cases of this device, one process each, within `minutes` all told;
    one table of all.

    A case that fails is a row that says why, and the next smaller one takes its place.
    """
    folder, cases = Path(json_dir), CASES[device()]
    probe_writable(folder)
    end, rows = time.perf_counter() + 60 * minutes - 15, []
    for n, choices in enumerate(cases):
        share = (end - time.perf_counter()) / (len(cases) - n)
        stop = time.perf_counter() + share
        for case in choices:
            if time.perf_counter() + 20 > end:
                print(f"{case.label}: no time left", flush=True)
                break
            left = max(stop - time.perf_counter(), 20)
            found = _apart(
                replace(case, minutes=round((left - 10) / 60, 2)),
                folder / f"step_{case.label}.jsonl",
                min(left + share, end - time.perf_counter()),
            )
            rows += found
            print(f"{case.label}: {found[0].get('outcome') or 'measured'}", flush=True)
            if any("seconds_median" in row for row in found):
                break
    print(table(rows))
    return rows


def _apart(case: Case, path: Path, seconds: float) -> list[Row]:
    """The rows of a case measured in a process of its own, at most so many seconds, saved; or one
    row, its outcome.
    """
    began = time.perf_counter()
    given = text.dumps({**asdict(case), "json": str(path)})
    home = os.pathsep.join(
        [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    )
    command = [sys.executable, "-m", "ngdiff.timing.step", given]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=seconds,
            env=os.environ | {"PYTHONPATH": home},
        )
        last = (done.stderr.strip().splitlines() or [""])[-1]
        why = (
            ""
            if not done.returncode
            else last
            if done.returncode == 2
            else f"ended with {done.returncode}: {last}"
        )
    except subprocess.TimeoutExpired:
        why = f"out of time after {seconds:.0f} s"
    if not why:
        return read_rows(path)
    mark = stamp(asdict(case), 1, time.perf_counter() - began)
    rows = [
        {**asdict(case), "variant": "all", "outcome": why.removeprefix("ngdiff: "), "stamp": mark}
    ]
    write_rows(path, rows)
    return rows


if __name__ == "__main__":
    try:
        options = text.loads(sys.argv[1])
        step_table(**{**options, "variants": tuple(options["variants"])})
    except (ValueError, OSError) as error:
        print(f"ngdiff: {error}", file=sys.stderr)
        raise SystemExit(2) from error
