"""`ngdiff bench suite`: the cases that the performance targets ask of a device.

Each is measured in a process of its own.
"""

from __future__ import annotations

import json as text
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from ngdiff.store.cache import probe_writable
from ngdiff.store.rows import read_rows, stamp, write_rows
from ngdiff.timing.case import Case
from ngdiff.timing.step import device, table
from ngdiff.timing.turns import Row


def _big(tokens: int, **options: Any) -> list[Case]:
    """Return the cases of which the first that fits is what is wanted.

    That is 7B as it is trained, else with an optimizer that keeps nothing, else 1B.
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
    """Run `ngdiff bench suite`: the cases of this device within `minutes`, and one table of all.

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
    """Measure a case in a process of its own, save its rows and return them.

    Where it fails, or takes more than `seconds`, there is one row, its outcome.
    """
    began = time.perf_counter()
    given = text.dumps({**asdict(case), "json": str(path), "parent": os.getpid()})
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
        why = _ended(done.returncode, done.stderr)
    except subprocess.TimeoutExpired:
        why = f"out of time after {seconds:.0f} s"
    if not why:
        return read_rows(path)
    mark = stamp(asdict(case), 1, time.perf_counter() - began)
    rows = [{**asdict(case), "variant": "all", "outcome": why, "stamp": mark}]
    write_rows(path, rows)
    return rows


def _ended(code: int, stderr: str) -> str:
    """Return why a process failed, by its last line; "" where it did not."""
    last = (stderr.strip().splitlines() or [""])[-1]
    if code == 2 and last:  # a refusal, in words for a reader
        return last.removeprefix("ngdiff: ")
    return f"ended with {code}: {last}" if code else ""
