"""Texts that hold a token for which a model has no row of its embedding."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Known:
    """A hook before the embedding: ValueError for a token that is beyond its rows."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, rows: int) -> None:
        self.tokenizer, self.rows = tokenizer, rows

    def __call__(self, module: Any, args: tuple[Any, ...]) -> None:
        ids = args[0] if args else None
        if isinstance(ids, Tensor) and ids.numel() and int(ids.max()) >= self.rows:
            token = int(ids.max())
            text = self.tokenizer.convert_ids_to_tokens(token)
            raise ValueError(
                f"a text holds the token {text!r} ({token}), "
                f"and the model knows {self.rows} tokens: take the text out, or give the tokenizer "
                "that the model was trained with (--tokenizer)"
            )


def beyond(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """Return the tokens that a tokenizer has, and for which a model has no row of its embedding."""
    embedding: Any = model.get_input_embeddings()
    rows = embedding.weight.shape[0]
    return [str(token) for i, token in tokenizer.added_tokens_decoder.items() if i >= rows]


def guard(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Watch a model's embedding, where the tokenizer has tokens beyond its rows."""
    embedding: Any = model.get_input_embeddings()
    rows = embedding.weight.shape[0]
    if len(tokenizer) > rows:
        embedding.register_forward_pre_hook(Known(tokenizer, rows))
