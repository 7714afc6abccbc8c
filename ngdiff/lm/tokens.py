"""Questions and answers as token ids: answer-only labels, padding that hides nothing.

A byte-level BPE is trained from scratch.

    ids    = [prompt … | answer … EOS]
    labels = [ −100 …  | answer … EOS]        (labels[t] is predicted from the logits at t − 1)

A chat template has an end of turn in place of EOS.

Prompt and answer are tokenised together, as a pretrained model has seen text. The answer begins at
the first token that the prompt alone does not give. So a token made of the prompt's last space and
the answer's first word belongs to the answer.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

    from ngdiff.data.benchmark import Prompt

EXTRA = 8  # tokens of a row, at most, that no letter stands for
IGNORE = -100  # the label that cross_entropy skips


@dataclass(frozen=True)
class Example:
    """One text: `input_ids` and `labels` of equal length, labels IGNORE on the prompt."""

    input_ids: list[int]
    labels: list[int]

    def __len__(self) -> int:
        return len(self.input_ids)

    def __repr__(self) -> str:
        learned = sum(label != IGNORE for label in self.labels)
        return f"<{type(self).__name__} of {len(self)} tokens, {learned} learned>"

    @property
    def prompt_ids(self) -> list[int]:
        """The ids before the first labelled one: what generation is given."""
        start = next(
            (t for t, label in enumerate(self.labels) if label != IGNORE), len(self.labels)
        )
        return self.input_ids[:start]


def end_id(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> int:
    """Return the token that ends an answer: the prompt's own, else EOS.

    Raises ValueError where the tokenizer has none.
    """
    name, end = prompt.answer_end, tokenizer.eos_token_id
    if name:
        end = tokenizer.convert_tokens_to_ids(name)
        end = None if end == tokenizer.unk_token_id and name != tokenizer.unk_token else end
    if end is None:
        what = f"no token {name!r}, which ends an answer" if name else "no EOS token"
        raise ValueError(
            f"the tokenizer has {what}: give the model's own (--tokenizer), or name its end of "
            "text as eos_token in tokenizer_config.json"
        )
    return end


def _ids(tokenizer: PreTrainedTokenizerBase, text: str, templated: bool) -> list[int]:
    """Return the tokens of a text, after the special ones that the tokenizer puts before it.

    A template's text brings these itself, and so does one that begins with BOS. An EOS that the
    tokenizer appends is left out.
    """
    bos = tokenizer.bos_token
    templated = templated or (bool(bos) and text.startswith(bos))
    ids = list(tokenizer(text, add_special_tokens=not templated, verbose=False)["input_ids"])
    if templated or not ids or ids[-1] != tokenizer.eos_token_id:
        return ids
    plain = list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
    return ids if plain and ids[-len(plain) :] == plain else ids[:-1]


@lru_cache(maxsize=8192)  # an evaluation asks the same rows of every model that shares a tokenizer
def encode(
    tokenizer: PreTrainedTokenizerBase,
    prompt: Prompt,
    question: str,
    answer: str,
    context: int | None = None,
    cut: bool = False,
) -> Example:
    """Tokens of prompt.text(question) + answer + its end; labels on the answer and its end only.

    `context`: the model's longest sequence in tokens (None: no limit). cut: a longer sequence loses
    its end, where any of the answer is left. Else it raises ValueError naming the row and both
    numbers: a row is never cut silently. So does a tokenizer without the token that ends an answer.
    """
    head, whole = prompt.text(question), prompt.templated
    ids = _ids(tokenizer, head + answer, whole)
    alone = _ids(tokenizer, head.rstrip(" "), whole)
    start = next(
        (t for t, (a, b) in enumerate(zip(ids, alone, strict=False)) if a != b),
        min(len(ids), len(alone)),
    )
    ids = [*ids, end_id(tokenizer, prompt)]
    labels = [IGNORE] * start + ids[start:]
    if cut and context is not None and start < context:
        return Example(ids[:context], labels[:context])
    fits(ids, context, question, answer)
    return Example(ids, labels)


def may_exceed(text: str, context: int | None) -> bool:
    """Return whether a text may be longer than a context; False only where it cannot be.

    A token stands for at least one byte of the text, as the tokenizer's normaliser spells it. The
    longest of the usual spellings is NFKD.
    """
    if context is None:
        return False
    if not text.isascii():
        spelt = (text, unicodedata.normalize("NFKD", text.casefold()))
        return max(len(one.encode("utf-8", "replace")) for one in spelt) + EXTRA > context
    return len(text) + EXTRA > context


def at_most(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    """Return for each text a number of tokens that its row does not exceed, its end included.

    They are tokenised together, in a fraction of the time that `encode` takes.
    """
    options: Any = {"verbose": False, "return_attention_mask": False}
    options["return_token_type_ids"] = False
    return [len(ids) + 1 for ids in tokenizer(list(texts), **options)["input_ids"]]


def fits(ids: Sequence[int], context: int | None, question: str, answer: str) -> None:
    """Raises ValueError naming the row and both numbers where the ids are more than the context."""
    if context is not None and len(ids) > context:
        raise ValueError(
            f"{named(question, answer)} is {len(ids)} tokens long, the model's context is "
            f"{context}: take a model with a longer context, or shorten or drop this row"
        )


def named(question: str, answer: str) -> str:
    """A row in a message, by what it begins with."""
    return (
        f"the row with question {question[:80]!r}"
        if question
        else f"the row with text {answer[:80]!r}"
    )


def collate(
    examples: Sequence[Example], pad_id: int, side: str = "right", width: int | None = None
) -> dict[str, Tensor]:
    """Pad to the longest row, or to at least `width`.

    input_ids, attention_mask and labels are each a LongTensor (batch, time).

    The mask comes from the lengths, never from `ids == pad`: a real token that equals the padding
    id stays visible. `side`: where the padding goes, "right" or "left" (generation).
    """
    if side not in ("left", "right"):
        raise ValueError(f"side must be 'left' or 'right', not {side!r}")
    import torch  # here, because rows become tokens without it

    time = max(width or 0, *(len(example) for example in examples))
    shape = (len(examples), time)
    ids, mask, labels = (
        torch.full(shape, pad_id),
        torch.zeros(shape, dtype=torch.long),
        torch.full(shape, IGNORE),
    )
    for b, example in enumerate(examples):
        n = len(example)
        real = slice(0, n) if side == "right" else slice(time - n, time)
        ids[b, real] = torch.tensor(example.input_ids)
        labels[b, real] = torch.tensor(example.labels)
        mask[b, real] = 1
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE of at most `vocab_size` tokens; any text round-trips.

    The tokens are 256 bytes, <pad>, <bos>, <eos> and merges.

    Deterministic in the texts and their order. Nothing is added to a text: EOS is the encoder's
    business.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    specials = ["<pad>", "<bos>", "<eos>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if vocab_size < (smallest := len(specials) + len(alphabet)):
        raise ValueError(
            f"a byte-level vocabulary needs at least {smallest} tokens: raise vocab_size from "
            f"{vocab_size}"
        )
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=specials,
        initial_alphabet=sorted(alphabet),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    names = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **names
    )
