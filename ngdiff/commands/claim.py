"""Whether `ngdiff unlearn` may write OUT, and what is left of an earlier run there.

OUT/             a finished run: run.json says of which settings
.OUT.unfinished/ an interrupted one: its checkpoint, and start.json with its settings
"""

from __future__ import annotations

import re
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ngdiff.commands.job import Job
from ngdiff.store.cache import lock, probe_writable
from ngdiff.store.textfile import parsed

CHECKPOINT, START, RUN = "checkpoint.safetensors", "start.json", "run.json"


def claim_folder(job: Job, settings: dict[str, Any], force: bool, held: ExitStack) -> None:
    """Make sure that OUT may be written, and that no other process writes it; drop what is to be
    dropped.
    """
    _refuse(job.folder, settings, force)
    probe_writable(job.folder.parent)
    job.work.mkdir(exist_ok=True)
    held.enter_context(lock(job.work / "lock", str(job.out)))
    held.callback(_clear, job)
    _clear(job, keep=True)
    _refuse(job.folder, settings, force)  # the process waited for may have finished it
    if not (job.work / CHECKPOINT).exists():
        return
    if other := _differences(read(job.work / START).get("settings", {}), settings):
        if not force:
            raise FileExistsError(
                f"{job.out} has an interrupted run with other settings ({other}): give the "
                "same settings to resume it, or discard it with --force"
            )
        (job.work / CHECKPOINT).unlink()


def _clear(job: Job, keep: bool = False) -> None:
    """Remove what a killed write left, and (unless `keep`) all of an unfinished run that has no
    checkpoint to go on from.
    """
    left = re.compile(
        rf"\.{{1,2}}{re.escape(job.folder.name)}(\.[0-9a-f]{{32}}(\.old)?\.tmp)+"
    )  # of `atomic_folder`
    for path in [
        *job.work.glob(".*.tmp"),
        *(p for p in job.folder.parent.iterdir() if left.fullmatch(p.name)),
    ]:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if not keep and not (job.work / CHECKPOINT).exists():
        shutil.rmtree(job.work, ignore_errors=True)


def _refuse(folder: Path, settings: dict[str, Any], force: bool) -> None:
    if folder.is_file():
        raise FileExistsError(f"{folder} is a file: --out takes a folder")
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / RUN).is_file():
        raise FileExistsError(
            f"{folder} holds files that are not a finished run: choose another folder"
        )
    if not force:
        other = _differences(read(folder / RUN).get("settings", {}), settings)
        what = (
            f"a finished run with other settings ({other})"
            if other
            else "a finished run with the same settings"
        )
        raise FileExistsError(
            f"{folder} holds {what}: choose another folder, or make it again with --force"
        )


def read(path: Path) -> dict[str, Any]:
    """The JSON object of a file; empty where there is none, or a damaged one."""
    try:
        return dict(parsed(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _differences(there: dict[str, Any], here: dict[str, Any]) -> str:
    """Return the differences in words; empty where the two agree."""
    return ", ".join(
        f"{key}: {there.get(key)} there, {value} here"
        for key, value in here.items()
        if there.get(key) != value
    )
