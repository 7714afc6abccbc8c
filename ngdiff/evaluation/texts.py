"""Texts as tokens, tokens as text, and where a generation stops: what conventions are made of."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ngdiff.lm.tokens import Example


def ids(tokenizer: Any, text: str) -> list[int]:
    """Return the tokens of a text, with the special ones that the tokenizer adds."""
    return list(tokenizer(text, verbose=False)["input_ids"])


def text(tokenizer: Any, ids: list[int]) -> str:
    """Return the text of tokens, without the special ones."""
    return tokenizer.decode(ids, skip_special_tokens=True)


def declared(model: Any) -> set[int]:
    """Return the tokens at which the model's generation configuration stops."""
    ends = getattr(getattr(model, "generation_config", None), "eos_token_id", None)
    ends = ends if isinstance(ends, (list, tuple)) else [ends]
    return {int(token) for token in ends if token is not None}


def stop_tokens(model: Any, tokenizer: Any, examples: Iterable[Example]) -> set[int]:
    """Return the tokens that end an answer.

    They are the EOS of the tokenizer and of the generation configuration, and each last label.
    """
    last = (example.labels[-1] for example in examples if example.labels)
    ends = {tokenizer.eos_token_id, *last}
    return declared(model) | {int(token) for token in ends if token is not None and token >= 0}
