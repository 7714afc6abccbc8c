"""The model that the user gave: which of its files OUT has too, and in which dtype its weights are.

OUT is that model less the forget rows, so whatever is not a weight comes over byte for byte. Files
of a folder that are not named here stay behind: they may be the rows themselves.
"""

from __future__ import annotations

import contextlib
import shutil
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import safe_open
from torch import Tensor
from transformers.core_model_loading import revert_weight_conversion
from transformers.dynamic_module_utils import get_relative_import_files
from transformers.utils import cached_file

from ngdiff.commands.claim import read
from ngdiff.commands.job import Job
from ngdiff.engine.halves import join
from ngdiff.engine.master import Master
from ngdiff.lm.lora import ADAPTER
from ngdiff.lm.model import LM, load
from ngdiff.store.progress import to_stderr
from ngdiff.store.rows import write_document

# patterns of names in lower case, of files whose suffix is one of SUFFIXES
LICENCES = ("*licen[cs]e*", "copying*", "notice*", "use_policy*")
TEXTS = ("readme*", "unlearning*", "citation*")
SUFFIXES = ("", ".md", ".txt", ".rst", ".html", ".cff")
# what a repository of the hub may have beside the files that loading it fetches
PUBLISHED = ("README.md", "LICENSE", "LICENSE.md", "LICENSE.txt", "NOTICE", "USE_POLICY.md")
CONFIG, GENERATION, TOKENIZER = "config.json", "generation_config.json", "tokenizer_config.json"
DESCRIBING = ("model_type", "quantization_config")  # of the config: which weights it is for
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def loaded(job: Job, place: str) -> LM:
    """Load a model on the host. With an adapter the frozen weights have the job's precision.
    Without one the weights are exact.
    """
    adapted = job.lora is not None or (Path(place) / ADAPTER).is_file()
    return load(place, dtype=job.precision if adapted else "float32", **job.asked())


# --------------------------------------------------------------------------------------- the texts
def fetched(place: str) -> Path | None:
    """Return the folder of a model's files; None where it is not known.

    Of a hub id it is the snapshot that was loaded, in the hub's cache. Its texts are fetched too.
    """
    if Path(place).is_dir():
        return Path(place)
    cached = (try_to_load_from_cache(place, name) for name in (CONFIG, ADAPTER))
    folder = next((Path(found).parent for found in cached if isinstance(found, str)), None)
    if folder is not None:
        for name in PUBLISHED:
            with contextlib.suppress(OSError):  # it has no such file, or cannot be reached
                cached_file(place, name, revision=folder.name)
    return folder


def carry_over(folder: Path | None, out: Path, fresh_adapter: bool) -> None:
    """Give a saved model the texts and configurations of the model that it was.

    folder: of that model. fresh_adapter: OUT is an adapter on it, so it takes the licences alone.
    """
    (out / "README.md").unlink(missing_ok=True)  # peft's, which says nothing
    if folder is None:
        return
    patterns = LICENCES if fresh_adapter else (*LICENCES, *TEXTS)
    names = {path.name for path in folder.iterdir() if path.is_file() and _is_text(path, patterns)}
    if not fresh_adapter:
        names |= {*_code(folder), GENERATION, *_config(folder, out)}
        if not (folder / GENERATION).is_file():
            (out / GENERATION).unlink(missing_ok=True)
    for name in sorted(names):
        if (folder / name).is_file():
            try:
                shutil.copyfile(folder / name, out / name)
            except OSError as error:  # the weights are worth more than this file
                to_stderr(f"{folder / name} is not copied: {error}")


def _is_text(path: Path, patterns: tuple[str, ...]) -> bool:
    name = path.name.lower()
    return path.suffix.lower() in SUFFIXES and any(fnmatch(name, one) for one in patterns)


def _code(folder: Path) -> set[str]:
    """Return the names of the code that the model needs: those of its auto_map, and what these
    import.
    """
    found: set[str] = set()
    for config in (CONFIG, TOKENIZER):
        named = read(folder / config).get("auto_map") or {}
        # name -> module.Class, or a pair of these; code of another repository has --
        for value in named.values() if isinstance(named, dict) else [named]:
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str) and "--" not in text:
                    path = folder / f"{text.split('.')[0]}.py"
                    found.add(path.name)
                    with contextlib.suppress(OSError):  # a file that is not there
                        found |= {Path(one).name for one in get_relative_import_files(path)}
    return found


def _config(folder: Path, out: Path) -> list[str]:
    """Return config.json's name where it describes the saved weights.

    Otherwise the saved config stays, with the weights' dtype: a part of a larger model was saved,
    or a quantised one whole.
    """
    given, saved = read(folder / CONFIG), read(out / CONFIG)
    other = [key for key in DESCRIBING if given.get(key) != saved.get(key)]
    if not given or not saved or not other:
        return [CONFIG] if given and saved else []
    write_document(out / CONFIG, saved | {"dtype": str(_usual(_stored(out))).split(".")[-1]})
    to_stderr(f"{CONFIG} is the saved model's: {', '.join(other)} of the given one differs")
    return []


# -------------------------------------------------------------------------------------- the weights
@dataclass(frozen=True)
class _Stored:
    """Where a weight is saved, and how."""

    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]


@torch.no_grad()
def as_given(
    state: dict[str, Tensor], lm: LM, folder: Path | None, optimizer: Any
) -> dict[str, Tensor]:
    """Return the weights on the host, each in the dtype that it has in the user's files.

    A name that is not there gets the dtype that most weights have. One that was never trained is
    read from there, since bfloat16 may have rounded it: all but a weight of which the files have
    the parts alone. Tied weights stay tied.

    state: its tensors are taken out one by one. folder: of the user's model; None: dtypes stay.
    optimizer: a `Master` has the low bits of the weights that it rounded.
    """
    low = optimizer.low if isinstance(optimizer, Master) else {}
    params = dict(lm.model.named_parameters(remove_duplicate=False))
    stored = {} if folder is None else _stored(folder)
    usual, weights, done = _usual(stored), {}, {}
    for name in list(state):
        x, p = state.pop(name).cpu(), params.get(name)
        if p is None or p not in done:
            names = _names(lm, name, x)
            here = stored.get(names[0])
            if p in low:
                x = join(x, low[p].cpu())
            frozen = p is not None and not p.requires_grad
            if here is not None and frozen and names[1:] == [] and here.shape == tuple(x.shape):
                with safe_open(here.path, framework="pt") as file:
                    x = file.get_tensor(names[0])
            elif x.is_floating_point() and stored:
                x = x.to(usual if here is None else here.dtype)
            if p is not None:
                done[p] = x
        weights[name] = x if p is None else done[p]
    return weights


def _names(lm: LM, name: str, x: Tensor) -> list[str]:
    """Return the names that a weight has in the files; several where these have its parts."""
    if lm.adapted:
        return [name.replace(".default", "")]
    try:
        return list(revert_weight_conversion(lm.model, {name: x.to("meta")}))
    except Exception:  # a part of one that the files have as a whole
        return [name]


def dtypes(folder: Path) -> dict[str, torch.dtype]:
    """Return the dtype of each weight in a folder's safetensors; of integers none."""
    return {name: one.dtype for name, one in _stored(folder).items()}


def _usual(stored: dict[str, _Stored]) -> torch.dtype:
    """Return the dtype that most numbers have; float32 where there are none."""
    sizes: Counter[torch.dtype] = Counter({torch.float32: 0})
    for one in stored.values():
        sizes[one.dtype] += torch.Size(one.shape).numel()
    return sizes.most_common(1)[0][0]


def _stored(folder: Path) -> dict[str, _Stored]:
    """Return the weights of a folder's safetensors, of their headers alone."""
    adapter = (folder / ADAPTER).is_file()
    pattern, found = "adapter_model.safetensors" if adapter else "model*.safetensors", {}
    for path in sorted(folder.glob(pattern)):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                one = file.get_slice(name)
                if (word := one.get_dtype()) in DTYPES:
                    found[name] = _Stored(path, DTYPES[word], tuple(one.get_shape()))
    return found
