"""How a command loads and prompts its model: three options, the same for every command."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ngdiff.data.benchmark import Prompt, form_of


@dataclass(frozen=True, kw_only=True)
class Asking:
    """Settings of a command that loads a model; its options come after the command's own.

    Errors: ValueError for a prompt without a question, when the settings are made.
    """

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

    def asked(self, form: Prompt | None = None) -> dict[str, Any]:
        """Return the keyword arguments for `ngdiff.load`; `form` is the prompt where none is
        given.
        """
        return {
            "prompt": form_of(self.prompt) or form,
            "tokenizer": self.tokenizer,
            "trust_remote_code": self.trust_remote_code,
        }
