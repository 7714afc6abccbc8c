"""Foreign models: loading that says what to do when it fails, and the prompt of a tokenizer.

TOFU's prompt forms: Llama-2-chat `[INST] {q} [/INST]{a}`; a tokenizer with a chat template: system
message, user turn and generation prompt, rendered once (with a fixed date, else Llama-3's template
inserts today's); others `Question: {q}\nAnswer: {a}`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from huggingface_hub.errors import (
    GatedRepoError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from jinja2 import TemplateError
from safetensors import SafetensorError
from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging

from ngdiff.data.benchmark import Prompt
from ngdiff.store.textfile import content_of

SYSTEM = {"role": "system", "content": "You are a helpful assistant."}
DATE = "10 Apr 2025"
LLAMA_2 = Prompt(question_start="[INST] ", question_end=" [/INST]", answer_start="")
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
    """True for what can only be a folder: a Path, or text that is no `name` or `owner/name`."""
    text = str(path_or_id)
    return isinstance(path_or_id, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1


def fetch(
    loader: Callable[..., Any],
    path_or_id: str | Path,
    trust_remote_code: bool = False,
    **options: Any,
) -> Any:
    """loader(path_or_id, **options) for a folder or hub id; errors as `ngdiff.load` says."""
    folder = Path(path_or_id).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ValueError(
                f"{folder} holds no model: it needs config.json, model.safetensors and a tokenizer"
            )
    elif _is_path(path_or_id):
        raise FileNotFoundError(
            f"{folder} does not exist: give a model folder or a hub id (owner/name)"
        )
    place = str(folder if folder.is_dir() else path_or_id)
    try:
        with without_bars():
            return loader(place, trust_remote_code=trust_remote_code, **options)
    except (OSError, ValueError, SafetensorError) as error:
        words = getattr(loader, "__self__", None) is AutoTokenizer
        raise _explained(error, place, words) from error


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
    """What to do where the hub refused, does not know or could not be asked; empty otherwise."""

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


def prompt_of(tokenizer: PreTrainedTokenizerBase, name: str) -> Prompt:
    """The prompt of a foreign tokenizer.

    name: hub id or folder; it tells Llama-2-chat, whose template TOFU does not use.

    Settles the tokenizer's special tokens on the way: EOS becomes the template's end of turn, and
    the padding token one that differs from EOS where the vocabulary has one.
    """
    own = Path(name).name.lower()
    if "llama-2" in own or "llama2" in own:
        prompt = LLAMA_2
    elif tokenizer.chat_template:
        prompt = chat_prompt(tokenizer)
    else:
        prompt = Prompt()
    _settle_padding(tokenizer)
    return prompt


def render(tokenizer: PreTrainedTokenizerBase, question: str, answer: str | None = None) -> str:
    """The chat template's text: system message, user turn, then the answer's turn.

    Without an answer, what asks for one.
    """
    turns = [{"role": "user", "content": question}]
    turns += [] if answer is None else [{"role": "assistant", "content": answer}]
    options = {"tokenize": False, "add_generation_prompt": answer is None, "date_string": DATE}
    try:
        return tokenizer.apply_chat_template([SYSTEM, *turns], **options)
    except TemplateError:  # this template knows no system turn
        return tokenizer.apply_chat_template(turns, **options)


def chat_prompt(tokenizer: PreTrainedTokenizerBase) -> Prompt:
    """The chat template as fixed text around question and answer.

    EOS of the tokenizer becomes its end of turn.
    """
    question, answer = "\u2039question\u203a", "\u2039answer\u203a"
    start, end = render(tokenizer, question).split(question)
    after = render(tokenizer, question, answer).split(answer)[-1].strip()
    special = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    ends = [token for token in special if token and after.startswith(token)]
    if ends:
        tokenizer.eos_token = max(ends, key=len)
    return Prompt(question_start=start, question_end=end, answer_start="")


def _settle_padding(tokenizer: PreTrainedTokenizerBase) -> None:
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id != tokenizer.eos_token_id:
        return
    special = [str(token) for token in tokenizer.added_tokens_decoder.values() if token.special]
    spare = [t for t in special if "pad" in t.lower()] + [tokenizer.unk_token, tokenizer.bos_token]
    tokenizer.pad_token = next(
        (t for t in spare if t and t != tokenizer.eos_token), tokenizer.eos_token
    )
