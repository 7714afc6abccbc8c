"""Places that a command line names, looked at before anything slow is imported.

A wrong name is told at once: nothing here needs torch or transformers, and nothing is read.
"""

from __future__ import annotations

import re
from pathlib import Path

from ngdiff.store.cache import SPARE, probe_name
from ngdiff.store.progress import to_stderr

HUB_ID = re.compile(r"\w[\w.-]*(/[\w.-]+)?")  # name, or owner/name
CONFIGS = ("config.json", "adapter_config.json")  # one of them makes a folder a model's
RUN = "run.json"  # of a finished run of `ngdiff unlearn`
# what the longest temporary name beside OUT has more: of one folder inside another
NESTED = 2 * SPARE - len(".old")  # `atomic_folder`, twice


def need_model(place: str, option: str, files: tuple[str, ...] = CONFIGS) -> None:
    """Refuse a place where no model can be. What may be a hub id, and is no folder, is only told.

    option: that gave it. files: one of them must be in the folder; () for a tokenizer's. Errors:
    FileNotFoundError; ValueError for a folder without a model, and a file.
    """
    folder = Path(place).expanduser()
    if folder.is_dir():
        if files and not any((folder / name).is_file() for name in files):
            raise ValueError(
                f"{folder} holds no model: it needs config.json, model.safetensors and a tokenizer"
            )
        return
    if folder.exists():
        raise ValueError(f"{option} {place} is a file: give the folder that holds the model")
    if not HUB_ID.fullmatch(place):
        raise FileNotFoundError(
            f"{folder} does not exist: give a model folder or a hub id (owner/name)"
        )
    if "/" in place and folder.parent.is_dir():
        to_stderr(f"{option} {place}: no such folder here, so the hub is asked for it")


def need_out(folder: Path) -> None:
    """Refuse a place that cannot be the OUT of a run.

    Errors: FileExistsError for a file, and for a folder of other things; OSError for a name that
    leaves no room for a temporary one beside it.
    """
    probe_name(folder, NESTED)
    if folder.is_file():
        raise FileExistsError(f"{folder} is a file: --out takes a folder")
    if folder.is_dir() and any(folder.iterdir()) and not (folder / RUN).is_file():
        raise FileExistsError(
            f"{folder} holds files that are not a finished run: choose another folder"
        )
