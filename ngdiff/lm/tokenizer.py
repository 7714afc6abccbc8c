"""A tokenizer as a file: which one it is, and writing it back exactly as it came."""

from __future__ import annotations

import hashlib
import json
import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

from huggingface_hub import try_to_load_from_cache
from transformers import AutoTokenizer, PreTrainedTokenizerBase

FILES = (
    *("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "chat_template.*"),
    *("additional_chat_templates/*", "vocab.*", "merges.txt", "*.model", "*.tiktoken"),
    *("tekken.json", "tokenization_*.py"),
)
CONFIG, OLD_CLASS = "tokenizer_config.json", "PreTrainedTokenizerFast"


def identity(tokenizer: PreTrainedTokenizerBase) -> str:
    """Return 16 hex digits that identify how a tokenizer encodes texts.

    They come from its vocabulary, its rules, BOS and EOS: not from its name, its padding token or
    the spelling of its files.
    """
    return _identity(tokenizer, (len(tokenizer), tokenizer.bos_token, tokenizer.eos_token))


@lru_cache(maxsize=16)  # half a second of a large vocabulary; key: what may change in one
def _identity(tokenizer: PreTrainedTokenizerBase, key: tuple[Any, ...]) -> str:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        rules: dict[str, Any] = {"class": type(tokenizer).__name__, "vocab": tokenizer.get_vocab()}
    else:
        rules = json.loads(backend.to_str())
        rules = {k: v for k, v in rules.items() if k not in ("padding", "truncation")}
    text = json.dumps([rules, tokenizer.bos_token, tokenizer.eos_token], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def padding(tokenizer: PreTrainedTokenizerBase) -> int:
    """Return a token to pad batches with: one that is not EOS where the vocabulary has one.

    The tokenizer's own padding is only read: a published convention may need it as it came.
    """
    own, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    if own is not None and own != end:
        return own
    special = {str(t): i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    spare = [i for name, i in special.items() if "pad" in name.lower()]
    spare += [tokenizer.unk_token_id, tokenizer.bos_token_id]
    return next((i for i in spare if i not in (None, end)), end or 0)


def files_of(place: str) -> list[Path]:
    """Return a tokenizer's files: those of a folder, or of a hub id's cache; [] where none are."""
    folder: Path | None = Path(place).expanduser() if place else None
    if folder is not None and not folder.is_dir():
        cached = [try_to_load_from_cache(place, name) for name in (CONFIG, "tokenizer.json")]
        folder = next((Path(found).parent for found in cached if isinstance(found, str)), None)
    return [] if folder is None else sorted({p for name in FILES for p in folder.glob(name)})


def write(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer into a model's folder, so that loading it there gives the same one.

    The files that it came from are copied byte for byte. Where they are gone, or say something
    else by now, it is written anew.
    """
    copied = _copied(tokenizer, folder)
    if copied and _same(tokenizer, folder):
        return
    for path in copied:
        path.unlink()
    tokenizer.save_pretrained(folder)
    text = (folder / CONFIG).read_text("utf-8")
    if '"TokenizersBackend"' in text:  # releases before 5 know this class by another name
        (folder / CONFIG).write_text(text.replace("TokenizersBackend", OLD_CLASS), "utf-8")
        if not _same(tokenizer, folder):
            (folder / CONFIG).write_text(text, "utf-8")


def _copied(tokenizer: PreTrainedTokenizerBase, folder: Path) -> list[Path]:
    """Copy the files that a tokenizer came from; return the copies."""
    found = files_of(tokenizer.name_or_path)
    root = next((path.parent for path in found if path.name in (CONFIG, "tokenizer.json")), None)
    copies = []
    for path in found if root else ():
        copies.append(folder / path.relative_to(root))
        copies[-1].parent.mkdir(exist_ok=True)
        shutil.copyfile(path, copies[-1])
    return copies


def _same(tokenizer: PreTrainedTokenizerBase, folder: Path) -> bool:
    """Return whether the files in a folder give this tokenizer, special tokens and template too."""
    code = type(tokenizer).__module__.startswith("transformers_modules")  # it was trusted before
    try:
        other = AutoTokenizer.from_pretrained(folder, trust_remote_code=code, local_files_only=True)
    except (OSError, ValueError, KeyError):
        return False

    def all_of(one: PreTrainedTokenizerBase) -> tuple[Any, ...]:
        tokens = {name: str(token) for name, token in one.special_tokens_map.items()}
        return identity(one), type(one).__name__, tokens, one.chat_template, one.padding_side

    return all_of(other) == all_of(tokenizer)
