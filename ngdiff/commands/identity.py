"""Which model a run started from: the content of its files, not the place where they lie.

A run goes on with the same model in another folder, and not with another model in the same one.
"""

from __future__ import annotations

from pathlib import Path

from ngdiff.engine.footprint import size
from ngdiff.lm.lora import ADAPTER, base_of
from ngdiff.lm.model import CARD
from ngdiff.lm.tokenizer import FILES as TOKENIZER
from ngdiff.store.content import sha256
from ngdiff.store.progress import to_stderr

# what is loaded of a model's folder, or copied from it because it changes what the model says
WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
LARGE = 2 << 30  # bytes, whose reading is told
MODEL = (*WEIGHTS, "config.json", "generation_config.json", ADAPTER, CARD, "*.py")


def model_files(place: str, tokenizer: str | None = None) -> dict[str, str]:
    """Return the sha256 of each file of a model that decides what it says, by name.

    Of an adapter the base's files are among them, as base/NAME, and those of a tokenizer of its own
    as tokenizer/NAME. Of the hub's models it is the id, since their files may not be here yet.
    """
    found = _files(place, (*MODEL, *TOKENIZER), "")
    if (Path(place) / ADAPTER).is_file():
        found |= _files(base_of(Path(place)), (*MODEL, *TOKENIZER), "base/")
    return found if tokenizer is None else found | _files(tokenizer, TOKENIZER, "tokenizer/")


def _files(place: str, patterns: tuple[str, ...], before: str) -> dict[str, str]:
    folder = Path(place).expanduser()
    if not folder.is_dir():
        return {f"{before}id": place}
    paths = sorted({path for pattern in patterns for path in folder.glob(pattern)})
    if (bytes_ := sum(path.stat().st_size for path in paths)) > LARGE:
        to_stderr(f"{folder}: {size(bytes_)} of model files are read, to know the model again")
    digests = ((path.relative_to(folder).as_posix(), sha256(path)) for path in paths)
    return {f"{before}{name}": digest for name, digest in digests if digest is not None}


def changed(there: dict[str, str], here: dict[str, str]) -> list[str]:
    """Return the files that are not the same, in words."""
    words = [f"{name} has changed" for name in here if there.get(name, here[name]) != here[name]]
    words += [f"{name} is new" for name in here if name not in there]
    return words + [f"{name} is gone" for name in there if name not in here]
