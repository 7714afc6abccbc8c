"""How a command loads and prompts its model: three options, the same for every command."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ngdiff.commands.places import need_model
from ngdiff.data.benchmark import Prompt, form_of


@dataclass(frozen=True, kw_only=True)
class Asking:
    """Settings of a command that loads a model; its options come after the command's own.

    Errors, when the settings are made and before anything is imported that takes time: ValueError
    for a prompt without a question, FileNotFoundError for a model or tokenizer that is not there.
    """

    model: str = field(
        kw_only=False, metadata={"help": "Folder of a model or of a peft adapter, or a hub id."}
    )

    prompt: str = field(
        default="",
        metadata={"help": "Such as 'Question: {question}\\nAnswer: '; default: the model's own."},
    )
    tokenizer: str | None = field(
        default=None, metadata={"help": "Folder or hub id of the tokenizer, if not the model's."}
    )
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Run Python code of the model's repository."}
    )

    def __post_init__(self) -> None:
        form_of(self.prompt)
        need_model(self.model, "--model")
        if self.tokenizer is not None:
            need_model(self.tokenizer, "--tokenizer", ())

    def asked(self, form: Prompt | None = None) -> dict[str, Any]:
        """Return the keyword arguments for `ngdiff.load`; `form` is the prompt where none is
        given.
        """
        return {
            "prompt": form_of(self.prompt) or form,
            "tokenizer": self.tokenizer,
            "trust_remote_code": self.trust_remote_code,
        }
