"""The model that the user gave: which of its files OUT has too, and in which dtype its weights are.

OUT is that model less the forget rows, so whatever is not a weight comes over byte for byte. Files
of a folder that are not named here stay behind: they may be the rows themselves.
"""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import safe_open
from safetensors.torch import save_file
from transformers.utils import cached_file

from ngdiff.core.sharding import sharded
from ngdiff.engine.master import Master, join
from ngdiff.lm.lora import ADAPTER
from ngdiff.lm.model import LM
from ngdiff.store.cache import atomic_write

# patterns of names in lower case
LICENCES = ("*licen[cs]e*", "copying*", "notice*", "use_policy*")
TEXTS = ("readme*", "unlearning*.md", "citation*")
# what a repository of the hub may have beside the files that loading it fetches
PUBLISHED = ("README.md", "LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE", "USE_POLICY.md")
CONFIG, GENERATION = "config.json", "generation_config.json"
MODEL = (CONFIG, GENERATION, "*.py")
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def folder_of(place: str) -> Path | None:
    """Return the folder of a model's files: its own, or that of a hub id in the hub's cache."""
    if Path(place).is_dir():
        return Path(place)
    cached = (try_to_load_from_cache(place, name) for name in (CONFIG, ADAPTER))
    return next((Path(found).parent for found in cached if isinstance(found, str)), None)


def carry_over(place: str, out: Path, fresh_adapter: bool) -> None:
    """Give a saved model the texts and configurations of the model that it was.

    fresh_adapter: OUT is an adapter on that model, so it takes the licences alone.
    """
    if not Path(place).is_dir():
        for name in PUBLISHED:
            with contextlib.suppress(OSError):  # it has no such file, or cannot be reached
                cached_file(place, name)
    folder = folder_of(place)
    if folder is None:
        return
    (out / "README.md").unlink(missing_ok=True)  # peft's, which says nothing
    names = LICENCES if fresh_adapter else (*LICENCES, *TEXTS, *MODEL)
    for path in sorted(folder.iterdir()):
        if path.is_file() and any(fnmatch(path.name.lower(), name) for name in names):
            shutil.copyfile(path, out / path.name)
    if not fresh_adapter and not (folder / GENERATION).is_file():
        (out / GENERATION).unlink(missing_ok=True)


@torch.no_grad()
def restore_dtypes(lm: LM, place: str, optimizer: Any) -> None:
    """Put each weight of a trained model into the dtype that it has in the user's files.

    optimizer: a `Master` has the low bits of the weights that it rounded. Shards stay as they are:
    `restore_files` is for them.
    """
    dtype_of = _dtype_of(place)
    low = optimizer.low if isinstance(optimizer, Master) else {}
    for name, p in lm.model.named_parameters():
        if p.is_floating_point() and not sharded(p) and (p.requires_grad or not lm.adapted):
            exact = join(p.data, low[p]) if p in low else p.data
            p.data = exact.to(dtype_of(name, exact.dtype))


def restore_files(out: Path, place: str) -> None:
    """Do the same with the files of a saved model, where their dtypes differ."""
    dtype_of = _dtype_of(place)
    for path in _weights(out):
        with safe_open(path, framework="pt") as file:
            metadata, saved = file.metadata(), _headers(path)
            if all(dtype_of(name, dtype) == dtype for name, dtype in saved.items()):
                continue
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        for name, dtype in saved.items():
            tensors[name] = tensors[name].to(dtype_of(name, dtype))
        with atomic_write(path) as temporary:
            save_file(tensors, temporary, metadata=metadata)


def _dtype_of(place: str) -> Callable[[str, torch.dtype], torch.dtype]:
    """Return (name, its dtype now) -> its dtype in the user's files.

    A name that is not there has the dtype that most weights have.
    """
    folder = folder_of(place)
    found = dtypes(folder) if folder is not None else {}
    if not found:
        return lambda name, now: now
    usual = Counter(found.values()).most_common(1)[0][0]
    return lambda name, now: found.get(name, usual)


def dtypes(folder: Path) -> dict[str, torch.dtype]:
    """Return the dtype of each weight in a folder's safetensors; of integers none."""
    return {name: dtype for path in _weights(folder) for name, dtype in _headers(path).items()}


def _weights(folder: Path) -> list[Path]:
    adapter = (folder / ADAPTER).is_file()
    return sorted(folder.glob("adapter_model.safetensors" if adapter else "model*.safetensors"))


def _headers(path: Path) -> dict[str, torch.dtype]:
    """Return the dtypes of a file's weights without reading them."""
    with safe_open(path, framework="pt") as file:
        names = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
    return {name: DTYPES[word] for name, word in names.items() if word in DTYPES}
