"""Models that begin at random weights: those of the profile tiny, and a stand-in for a real one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from ngdiff.data.benchmark import Prompt, Row
from ngdiff.lm.chat import chat_prompt
from ngdiff.lm.model import LM, save
from ngdiff.lm.tokens import train_tokenizer
from ngdiff.lm.train import fit, one_thread
from ngdiff.profiles import TinyLM, Training

# ChatML, the form of SmolLM2 and of many others
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
SHAPE = TinyLM(hidden=64, layers=2, heads=4, intermediate=128, vocab=700, context=512)
TAUGHT = Training(epochs=0, pretrain_epochs=12, lr=4e-3, batch_size=16)


def from_scratch(texts: list[str], shape: TinyLM, prompt: Prompt, seed: int, name: str) -> LM:
    """An untrained Llama with tied embeddings, and its tokenizer (`untrained`)."""
    tokenizer = train_tokenizer([*texts, prompt.text("")], shape.vocab)
    return LM(untrained(tokenizer, shape, seed), tokenizer, prompt, name)


def untrained(tokenizer: PreTrainedTokenizerBase, shape: TinyLM, seed: int) -> LlamaForCausalLM:
    """Return a Llama whose weights are drawn from `seed`; no global generator is used.

    Standard deviation of the weights 0.7/√hidden: at width 128 the usual 0.02 needs twice the
    epochs to learn the facts.
    """
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=shape.context,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        initializer_range=0.7 / math.sqrt(shape.hidden),
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return LlamaForCausalLM(config)


def standin(texts: Sequence[str], general: Sequence[Row], folder: Path) -> None:
    """Write a small model in the form of a real one: a Llama with a chat template.

    It is taught the general rows, so it knows something before it is fine-tuned.
    """
    tokenizer = train_tokenizer(texts, SHAPE.vocab)
    tokens = {"eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>"]}
    tokenizer.add_special_tokens(tokens)
    tokenizer.chat_template = CHATML
    lm = LM(untrained(tokenizer, SHAPE, 0), tokenizer, chat_prompt(tokenizer), "stand-in")
    rows = [lm.encode(row["question"], row["answer"]) for row in general]
    epochs, what = TAUGHT.pretrain_epochs, "stand-in, general"
    with one_thread():
        fit(lm.model, rows, (), epochs, TAUGHT, seed=0, pad_id=lm.pad_id, what=what)
    save(lm, folder)
