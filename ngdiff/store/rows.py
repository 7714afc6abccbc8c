"""Rows and stamps: how numbers are saved.

A table or figure is a function of saved rows, and a saved row carries the stamp of the run that
made it.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ngdiff.store import document
from ngdiff.store.cache import atomic_write, probe_file

# what numbers and figures depend on
PACKAGES = (
    "ngdiff",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "datasets",
    "accelerate",
    "peft",
    "numpy",
    "scipy",
    "scikit-learn",
    "pandas",
    "pyarrow",
    "rouge-score",
    "matplotlib",
    "seaborn",
    "papermill",
)


# ------------------------------------------------------------------------------------------- stamps
@functools.cache
def _git() -> dict[str, Any]:
    """Commit of the checkout this package runs from, and whether its code differs from it.

    None outside a checkout.
    """
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != root:
            return {"commit": None, "dirty": None}
        changes = git("status", "--porcelain", "--", "ngdiff", "notebooks/*.py")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changes)}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


def _device() -> dict[str, Any]:
    torch = sys.modules.get("torch")  # a run without torch is not made to import it for its stamp
    threads = torch.get_num_threads() if torch else None
    if torch and torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    else:
        info = Path("/proc/cpuinfo")
        match = re.search(r"model name\s*:\s*(.+)", info.read_text()) if info.exists() else None
        name = match.group(1) if match else platform.processor() or platform.machine()
    return {"device": name, "cpus": os.cpu_count(), "threads": threads}


def environment() -> dict[str, str]:
    """Versions of Python and of the installed PACKAGES, and the machine, by their names."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def stamp(config: Mapping[str, Any], seed: int | None, seconds: float) -> dict[str, Any]:
    """Return where a number comes from: configuration, seed, commit, versions, device, seconds.

    The date is UTC, the seconds are of the wall clock.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    run = {"config": document.plain(config), "seed": seed, "seconds": round(seconds, 3)}
    system = {"system": platform.platform(), "packages": environment()}
    return {**run, "date": now, **_git(), **system, **_device()}


# --------------------------------------------------------------------------------------------- rows
def write_document(path: Path, value: Any) -> None:
    """Save one JSON document (`ngdiff.store.document`): the file is whole or as it was."""
    with atomic_write(path) as temporary:
        temporary.write_text(document.text(value), "utf-8")


def probe_rows(path: Path | None) -> None:
    """Make sure that rows can be saved in this .jsonl, before any work starts; None: nowhere."""
    if path is None:
        return
    if Path(path).suffix != ".jsonl":
        raise ValueError(f"rows are saved as .jsonl, not {str(path)!r}: change the suffix")
    probe_file(path)


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Save rows atomically, as .jsonl (a line a row) or .parquet.

    A jsonl has floats to the last bit; in a parquet a missing key is null. NaN and infinities
    become null in both formats, read back as None: JSON has neither.
    """
    path = Path(path)
    if path.suffix == ".jsonl":
        with atomic_write(path) as temporary:
            temporary.write_text("".join(map(document.line, rows)), "utf-8")
    elif path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        plain = [document.plain(row) for row in rows]
        names = list(dict.fromkeys(name for row in plain for name in row))
        table = pyarrow.table({name: [row.get(name) for row in plain] for name in names})
        with atomic_write(path) as temporary:
            pyarrow.parquet.write_table(table, temporary)
    else:
        raise ValueError(
            f"rows are saved as .jsonl or .parquet, not {path.name!r}: change the suffix"
        )


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows that `write_rows` saved; ValueError naming the file and line where it is damaged."""
    path = Path(path)
    if path.suffix == ".parquet":
        import pyarrow
        import pyarrow.parquet

        try:
            return pyarrow.parquet.read_table(path).to_pylist()
        except pyarrow.ArrowInvalid as error:
            raise ValueError(
                f"{path} is not a whole parquet file ({error}): make it again"
            ) from error
    if path.suffix != ".jsonl":
        raise ValueError(
            f"rows are read from .jsonl or .parquet, not {path.name!r}: give a file of rows"
        )
    rows = []
    with open(path, encoding="utf-8") as handle:
        for number, line in enumerate(handle, start=1):
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(
                    f"{path}, line {number}: not a row ({error.msg}): make the file again"
                ) from error
    return rows
