"""The model that the user gave: which of its files OUT has too, and in which dtype its weights are.

OUT is that model less the forget rows, so whatever is not a weight comes over byte for byte. Files
of a folder that are not named here stay behind: they may be the rows themselves.
"""

from __future__ import annotations

import shutil
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import safe_open

from ngdiff.engine.master import Master, join
from ngdiff.lm.lora import ADAPTER
from ngdiff.lm.model import LM

# patterns of names in lower case
LICENCES = ("*licen[cs]e*", "copying*", "notice*", "use_policy*")
TEXTS = ("readme*", "unlearning*.md", "citation*")
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

    optimizer: a `Master` has the low bits of the weights that it rounded.
    """
    folder = folder_of(place)
    found = dtypes(folder) if folder is not None else {}
    if not found:
        return
    usual = Counter(found.values()).most_common(1)[0][0]
    low = optimizer.low if isinstance(optimizer, Master) else {}
    for name, p in lm.model.named_parameters():
        if p.is_floating_point() and (p.requires_grad or not lm.adapted):
            exact = join(p.data, low[p]) if p in low else p.data
            p.data = exact.to(found.get(name, usual))
    for name, x in lm.model.named_buffers():
        if name in found:
            x.data = x.data.to(found[name])


def dtypes(folder: Path) -> dict[str, torch.dtype]:
    """Return the dtype of each weight in a folder's safetensors; of integers none."""
    adapter = (folder / ADAPTER).is_file()
    files = folder.glob("adapter_model.safetensors" if adapter else "model*.safetensors")
    found = {}
    for path in files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                found[name] = DTYPES.get(file.get_slice(name).get_dtype())
    return {name: dtype for name, dtype in found.items() if dtype is not None}
