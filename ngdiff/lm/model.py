"""A language model with its tokenizer and prompt, loaded from a folder or the hub, and saved."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from ngdiff import zoo
from ngdiff.core.processes import whole_state
from ngdiff.data.benchmark import BARE, Prompt
from ngdiff.lm import lora
from ngdiff.lm.chat import DATE, dated, prompt_of
from ngdiff.lm.hub import fetch, without_bars
from ngdiff.lm.lora import ADAPTER, base_of, put_on
from ngdiff.lm.tokenizer import files_of, padding, write
from ngdiff.lm.tokens import Example, encode
from ngdiff.lm.vocabulary import guard
from ngdiff.store import document
from ngdiff.store.cache import atomic_folder, probe_writable
from ngdiff.store.progress import to_stderr
from ngdiff.store.textfile import parsed, text_of

CARD = "ngdiff.json"  # beside the weights: name and prompt of the model


@dataclass(repr=False)
class LM:
    """A causal language model with its tokenizer and prompt.

    path    the folder it was loaded from or saved to, None for one that lives in memory only
    cut     a row that is longer than the context loses its end; else it is an error
    limit   another context than the model states; 0 is none
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    prompt: Prompt
    name: str
    path: Path | None = None
    cut: bool = False
    limit: int | None = None

    def copy(self, name: str | None = None, share: bool = True) -> LM:
        """Return an independent model with the same tokenizer, not yet saved anywhere. Tied weights
        stay tied. share: frozen parameters are not copied, for a model that will neither move nor
        round them.
        """
        frozen = {id(p): p for p in self.model.parameters() if share and not p.requires_grad}
        model = copy.deepcopy(self.model, frozen)
        return replace(self, model=model, name=name or self.name, path=None)

    def __repr__(self) -> str:
        place = "in memory" if self.path is None else str(self.path)
        size = sum(p.numel() for p in self.model.parameters())
        return f"<LM {self.name!r}, {type(self.model).__name__}, {size:,} parameters, {place}>"

    @property
    def adapted(self) -> bool:
        """Return whether there is a peft adapter."""
        return hasattr(self.model, "peft_config")

    def without_adapter(self) -> contextlib.AbstractContextManager[None]:
        """The base model alone, where there is an adapter."""
        return lora.off(self.model) if self.adapted else contextlib.nullcontext()

    @property
    def device(self) -> torch.device:
        return self.model.device

    @property
    def context(self) -> int | None:
        """Longest sequence in tokens, None where the model states no limit."""
        if self.limit is not None:
            return self.limit or None
        return getattr(self.model.config, "max_position_embeddings", None)

    @property
    def pad_id(self) -> int:
        """The token that pads a batch, which masks hide; the tokenizer's own may be another."""
        return padding(self.tokenizer)

    @property
    def date(self) -> str | None:
        """The day that its chat template writes in place of today, None where it writes none."""
        return f"{DATE:%d %b %Y}" if dated(self.tokenizer, self.prompt) else None

    def encode(self, question: str, answer: str) -> Example:
        """One row as tokens; ValueError where it is longer than the model's context.

        Without a question the answer is a document: it stands alone, and all of it is learned.
        """
        prompt = self.prompt if question else BARE
        return encode(self.tokenizer, prompt, question, answer, self.context, self.cut)

    def text(self, question: str, answer: str) -> str:
        """Return one row as the text that is encoded."""
        return (self.prompt if question else BARE).text(question) + answer


def load(
    path_or_id: str | Path,
    *,
    dtype: str = "float32",
    device: str | torch.device = "cpu",
    prompt: Prompt | None = None,
    tokenizer: str | None = None,
    trust_remote_code: bool = False,
) -> LM:
    """A model from a local folder or the hub: safetensors only.

    Code from its repository runs only where you trust it.

    tokenizer: the folder or hub id of its tokenizer; None: the model's own, or that of the
    repository where a published model's tokenizer is (`ngdiff.zoo`).

    A folder with a peft adapter gives its base model with the adapter on it, frozen but for the
    adapter. The prompt is the given one, else the one saved beside the weights, else
    `ngdiff.lm.chat.prompt_of` the tokenizer. The tokenizer is left as it came. Raises
    FileNotFoundError for a folder that does not exist, and ValueError for one that holds no model.
    OSError for a hub model that is gated, unknown or cannot be reached; it says what to do.
    """
    folder = Path(path_or_id).expanduser()
    base = base_of(folder) if (folder / ADAPTER).is_file() else path_or_id
    trust = {"trust_remote_code": trust_remote_code}
    model = _weights(base, getattr(torch, dtype), **trust)
    if base is not path_or_id:
        with _whole("adapter", folder):
            model = put_on(model, folder)
    own = _tokenizer(tokenizer, folder, str(base), trust_remote_code)
    name, saved = Path(path_or_id).name, None
    for place in (Path(base).expanduser(), folder):  # what an adapter's folder says counts more
        if (place / CARD).is_file():
            name, saved = _card(place / CARD)
    name = name if (folder / CARD).is_file() else Path(path_or_id).name
    hub_id = "" if Path(base).expanduser().is_dir() else str(base)
    asked = prompt or saved or prompt_of(own, hub_id)
    # tokens beyond these may never be said
    needed = [own.vocab_size - 1, own.pad_token_id, own.eos_token_id, own.bos_token_id]
    rows = model.get_input_embeddings().weight.shape[0]
    if max(i for i in needed if i is not None) >= rows:
        raise ValueError(
            f"{tokenizer or path_or_id}: the tokenizer has {len(own)} tokens, the model {rows}: "
            "give the one the model was trained with (--tokenizer)"
        )
    guard(model, own)
    lm = LM(model.to(device).eval(), own, asked, name, folder if folder.is_dir() else None)
    if lm.date:
        to_stderr(f"{name}: its chat template writes the date; {lm.date} stands for today")
    return lm


def _tokenizer(
    given: str | None, folder: Path, base: str, trust_remote_code: bool
) -> PreTrainedTokenizerBase:
    """The tokenizer that was given, else the adapter's, else the model's or the table's."""
    place: str | Path = given or base
    if not given and folder.is_dir() and files_of(str(folder)):
        place = folder
    elif not given and not Path(base).expanduser().is_dir():
        place = zoo.tokenizer_of(base)
    found = files_of(str(place))
    with _whole("tokenizer", place):
        return fetch(AutoTokenizer.from_pretrained, place, trust_remote_code, files=found)


def _weights(base: str | Path, dtype: torch.dtype, trust_remote_code: bool) -> Any:
    """The model without its tokenizer and adapter.

    Tensors of the files that it has no place for are named. Errors: ValueError where a tensor is
    missing, or has another shape than the configuration says.
    """
    with _whole("model", base), _without_table():
        model, info = fetch(
            AutoModelForCausalLM.from_pretrained,
            base,
            trust_remote_code=trust_remote_code,
            dtype=dtype,
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are named below
        )
    if other := sorted(info["mismatched_keys"]):
        name, stored, wanted = other[0]
        raise ValueError(
            f"{base}: weights and config.json do not fit: {len(other)} tensors have another shape, "
            f"such as {name}: {tuple(stored)} in the file, {tuple(wanted)} by the configuration"
        )
    if lost := sorted(info["missing_keys"]):
        raise ValueError(
            f"{base} is no whole model: {len(lost)} tensors are missing ({lost[0]}, …)"
        )
    if spare := sorted(info["unexpected_keys"]):
        to_stderr(
            f"warning: {base}: {len(spare)} tensors of the files are not used, because config.json "
            f"has no place for them (first: {spare[0]})"
        )
    ends = getattr(model.generation_config, "eos_token_id", None)
    if not all(isinstance(end, int) for end in (ends if isinstance(ends, list) else [ends or 0])):
        raise ValueError(
            f"{base}: eos_token_id of generation_config.json is {ends!r}: it takes the number of a "
            "token, or a list of numbers"
        )
    return model


@contextlib.contextmanager
def _without_table() -> Iterator[None]:
    """Load without the table that transformers prints of tensors; `_weights` says what matters."""
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)


@contextlib.contextmanager
def _whole(what: str, place: str | Path) -> Iterator[None]:
    """Turn any error of a library about a stranger's files into one that names the place.

    Those that say enough pass, and so does memory that runs out.
    """
    try:
        yield
    except (OSError, ValueError, ImportError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise ValueError(f"the {what} in {place} cannot be loaded ({why})") from error


def _card(path: Path) -> tuple[str, Prompt | None]:
    """(name, prompt) of what `save` put beside the weights. Errors: ValueError naming the file."""
    try:
        card = parsed(text_of(path))
        prompt = Prompt(**card["prompt"]) if "prompt" in card else None
        return card.get("name", path.parent.name), prompt
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{path} is damaged ({error!r}): save the model again, or remove this file"
        ) from error


def save(lm: LM, folder: str | Path, state: dict[str, torch.Tensor] | None = None) -> Path:
    """Write a Hugging Face folder that `load` and other tools read; return it.

    It holds safetensors, prompt and tokenizer, this one's files exactly as they came.

    Of a model with an adapter, the adapter alone in peft's format. Of one that is sharded over
    processes, every process must call, and the first one writes. state: what `whole_state` gave,
    where it was called before; then this process alone calls.

    The folder appears whole or not at all; one that already holds a model is replaced, one that
    holds other things is refused with FileExistsError.
    """
    folder = Path(folder).expanduser().absolute()
    probe_writable(folder.parent)
    if (
        folder.is_dir()
        and any(folder.iterdir())
        and not any((folder / n).is_file() for n in ("config.json", ADAPTER))
    ):
        raise FileExistsError(f"{folder} holds files that are no model: choose another folder")

    if state is None:
        state = whole_state(lm.model)
    if state is None:
        return folder
    with atomic_folder(folder) as temporary, without_bars():
        lm.model.save_pretrained(temporary, state_dict=state)
        write(lm.tokenizer, temporary)
        card = {"name": lm.name, "prompt": lm.prompt.content()}
        (temporary / CARD).write_text(document.text(card), "utf-8")
    lm.path = folder
    return folder
