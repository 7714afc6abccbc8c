"""Foreign models: loading that says what to do when it fails."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from safetensors import SafetensorError
from transformers.utils import logging

from ngdiff.store.textfile import content_of

# what a folder is asked for, and what it needs
MODEL = ("model", "it needs config.json, model.safetensors and a tokenizer")
TOKENIZER = ("tokenizer", "give the place of one (--tokenizer)")
CODE = (
    "it cannot be loaded without code of its own: read that code, "
    "then allow it with trust_remote_code=True (--trust-remote-code)"
)
PICKLED = (
    "it has no safetensors weights, and pickled ones are not loaded: "
    "convert it once, on a machine you can lose"
)


@contextlib.contextmanager
def without_bars() -> Iterator[None]:
    """Load and save without the progress bars of transformers, then put the user's setting back."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _causes(error: BaseException | None) -> list[BaseException]:
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found


def _is_path(path_or_id: str | Path) -> bool:
    """Return whether a place can only be a folder: a Path, or text that is no `name` or
    `owner/name`.
    """
    text = str(path_or_id)
    return isinstance(path_or_id, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1


def fetch(
    loader: Callable[..., Any],
    path_or_id: str | Path,
    trust_remote_code: bool = False,
    files: Sequence[Path] | None = None,
    **options: Any,
) -> Any:
    """loader(path_or_id, **options) for a folder or hub id; errors as `ngdiff.load` says.

    files: of a tokenizer, those that a folder has of it; None: a model is loaded.
    """
    folder = Path(path_or_id).expanduser()
    if folder.is_dir():
        what, advice = MODEL if files is None else TOKENIZER
        if not ((folder / "config.json").is_file() if files is None else files):
            raise ValueError(f"{folder} holds no {what}: {advice}")
    elif _is_path(path_or_id):
        raise FileNotFoundError(
            f"{folder} does not exist: give a model folder or a hub id (owner/name)"
        )
    place = str(folder if folder.is_dir() else path_or_id)
    try:
        with without_bars():
            return loader(place, trust_remote_code=trust_remote_code, **options)
    except (OSError, ValueError, SafetensorError) as error:
        raise _explained(error, place, files is not None) from error


def _explained(error: Exception, place: str, words: bool = False) -> Exception:
    """The same failure with what to do about it. words: it was the tokenizer's."""
    text, hub = str(error).strip(), _of_the_hub(_causes(error), place)
    code = CODE if "trust_remote_code" in text else ""
    if hub or not Path(place).is_dir():
        other = PICKLED if "safetensors" in text else text
        return OSError(f"cannot load {place}: {hub or code or other}")
    if code:
        return ValueError(f"the model in {place}: {code}")
    for path in sorted(Path(place).iterdir()):
        if path.is_file() and not path.stat().st_size > 1024:
            content_of(path)  # ValueError for a pointer of git-lfs, which is the real cause
    first = text.splitlines()[0]
    if words:
        return ValueError(
            f"the tokenizer in {place} cannot be loaded ({first}): give the folder or hub id of "
            "the one the model was trained with (--tokenizer)"
        )
    whole = isinstance(error, SafetensorError) or "safetensors" in text
    advice = ": weights must be whole safetensors files" if whole else ""
    return ValueError(f"the model in {place} cannot be loaded ({first}){advice}")


def _of_the_hub(causes: list[BaseException], place: str) -> str:
    """Return what to do where the hub refused, has no such model or could not be reached; empty
    otherwise.
    """

    def any_is(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    if any_is(GatedRepoError):
        return (
            f"it is gated: accept its licence at https://huggingface.co/{place}, "
            "then run `hf auth login`"
        )
    if any_is(RepositoryNotFoundError):
        return (
            "the hub has no such model, or it is private: check the name (owner/name), "
            "or run `hf auth login`"
        )
    if any_is(LocalEntryNotFoundError, OfflineModeIsEnabled, ConnectionError):
        return (
            "the hub cannot be reached: where there is a network "
            f"run `hf download {place}`, or give a local folder"
        )
    return ""
