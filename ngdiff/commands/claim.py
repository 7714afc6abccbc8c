"""Whether `ngdiff unlearn` may write OUT, and what is left of an earlier run there.

OUT/             a finished run: run.json says of which settings, and which files it wrote
.OUT.unfinished/ an interrupted one: its checkpoint, and start.json with its settings

Nothing is removed that this command did not write.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ngdiff.commands.identity import changed
from ngdiff.commands.job import Job
from ngdiff.commands.places import RUN, need_out
from ngdiff.core.checkpoint import saved_steps
from ngdiff.store.cache import lock, probe_writable
from ngdiff.store.content import sha256
from ngdiff.store.textfile import parsed

CHECKPOINT, START, LOCK = "checkpoint.safetensors", "start.json", "lock"
SHOWN = 3  # files or settings that a message names
MARK = r"\.[0-9a-f]{32}(\.old)?\.tmp"  # how a temporary name ends (`ngdiff.store.cache`)


@dataclass(frozen=True)
class Wanted:
    """A run as it is asked for: the settings that decide its result, and its model's files
    (`ngdiff.commands.identity.model_files`).
    """

    settings: dict[str, Any]
    files: dict[str, str] = field(repr=False)

    def differences(self, there: dict[str, Any]) -> str:
        """Return in words what a saved run has otherwise; "" where it is the same run.

        there: its run.json or start.json.
        """
        saved = there.get("settings", {})
        words = [
            f"{key}: {saved.get(key)} there, {value} here"
            for key, value in self.settings.items()
            if key != "model" and saved.get(key) != value
        ]
        if saved.get("model") != self.settings["model"]:
            words += changed(there.get("model_files", {}), self.files) or ["another model"]
        more = len(words) - SHOWN
        return "; ".join(words[:SHOWN]) + (f"; and {more} more" if more > 0 else "")


def claim_folder(job: Job, wanted: Wanted, force: bool, held: ExitStack) -> bool:
    """Make sure that OUT may be written, and that no other process writes it; drop what is to be
    dropped. Return True where OUT holds this very run, finished: then nothing was changed.
    """
    done = _finished(job.folder, wanted, force) and not job.work.exists()
    if done and read(job.folder / RUN).get("after") is not None:
        return True  # else it is measured now, which one process may do
    probe_writable(job.folder.parent)
    job.work.mkdir(exist_ok=True)
    held.enter_context(lock(job.work / LOCK, str(job.out)))
    held.callback(_clear, job)
    _clear(job, keep=True)
    if _finished(job.folder, wanted, force):  # by the process waited for, or one that was killed
        if not wanted.differences(read(job.work / START)):
            (job.work / CHECKPOINT).unlink(missing_ok=True)
        return True
    if not (job.work / CHECKPOINT).exists():
        return False
    if other := wanted.differences(read(job.work / START)):
        if not force:
            raise FileExistsError(
                f"{job.out} has an interrupted run with other settings ({other}): give the "
                "same model and settings to resume it, or discard it with --force"
            )
        (job.work / CHECKPOINT).unlink()
    return False


def _clear(job: Job, keep: bool = False) -> None:
    """Remove what a killed write left, and (unless `keep`) all of an unfinished run that has no
    checkpoint to go on from.
    """
    left = re.compile(rf"\.{{1,2}}{re.escape(job.folder.name)}({MARK})+")  # of `atomic_folder`
    half = [path for path in job.folder.parent.iterdir() if left.fullmatch(path.name)]
    half += _half(job.work, (CHECKPOINT, START))
    half += _half(job.folder, (RUN, *read(job.folder / RUN).get("files", {})))
    for path in half:
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if not keep and not (job.work / CHECKPOINT).exists():
        for name in (START, LOCK):
            (job.work / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it holds files of the user
            job.work.rmdir()


def _half(folder: Path, names: Iterable[str]) -> list[Path]:
    """Return what a killed write of these files left in a folder."""
    own = re.compile(rf"\.({'|'.join(map(re.escape, names))}){MARK}")
    return [path for path in folder.glob(".*.tmp") if own.fullmatch(path.name)]


def _finished(folder: Path, wanted: Wanted, force: bool) -> bool:
    """Return whether OUT holds the wanted run, and `force` does not ask for it anew.

    Errors: FileExistsError where OUT may not be replaced.
    """
    need_out(folder)
    if not (folder / RUN).is_file():
        return False
    row = read(folder / RUN)
    foreign, lost = strangers(folder, row)
    if force and foreign:
        raise FileExistsError(
            f"{folder} holds files that this command did not write, or that were changed since "
            f"({_some(foreign)}): move them away, --force would remove them"
        )
    if force:
        return False
    if other := wanted.differences(row):
        raise FileExistsError(
            f"{folder} holds a finished run with other settings ({other}): choose another folder, "
            "or make it again with --force"
        )
    if lost:
        raise FileExistsError(
            f"{folder} holds this run, finished, but files are gone or changed ({_some(lost)}): "
            "choose another folder, or make it again with --force"
        )
    return True


def strangers(folder: Path, row: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the files of OUT that the run did not write as they are, and those of its own that
    are not as they were.

    row: run.json, whose `files` are their sha256; null for one that may have any content.
    """
    own: dict[str, str | None] = row.get("files", {})
    paths = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if not p.is_dir()}
    for half in _half(folder, (RUN, *own)):
        del paths[half.name]
    now = {name: sha256(path) if own.get(name) else None for name, path in paths.items()}
    foreign = [n for n in sorted(now) if n != RUN and (n not in own or now[n] != own[n])]
    return foreign, [name for name, digest in own.items() if digest and now.get(name) != digest]


def _some(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def kept(job: Job) -> str:
    """Return what is left of a run that Ctrl-C ended, and how to go on."""
    if (job.work / CHECKPOINT).exists():
        left = (
            f"the checkpoint of step {saved_steps(job.work / CHECKPOINT)} is kept in {job.work}. "
            "To go on from there"
        )
    elif (job.folder / RUN).is_file() and read(job.folder / RUN).get("after") is None:
        left = f"the model is in {job.out}, not measured yet. To measure it"
    else:
        left = f"no checkpoint was saved yet (--save-every {job.save_every}). To start anew"
    command = shlex.join(["ngdiff", *sys.argv[1:]])
    return f"interrupted: {left}, give the same command again: {command}"


def read(path: Path) -> dict[str, Any]:
    """The JSON object of a file; empty where there is none, or a damaged one."""
    try:
        return dict(parsed(path.read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return {}
