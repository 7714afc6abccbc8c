"""Tiny models as the field saves them: kinds of tokenizers, special tokens and chat templates.

Everything is built here, without a download. `CASES` names them; `folder(name, place)` writes one.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.helpers import micro

SPECIALS = ("<unk>", "<s>", "</s>", "<pad>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>")
CHATML = (
    "{% for m in messages %}<|user|>{{ m.role + '\n' + m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|user|>assistant\n{% endif %}"
)
LLAMA_3 = (
    "{{ bos_token }}{% if not date_string is defined %}"
    "{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "<|system|>Today Date: {{ date_string }}\n{% for m in messages %}<|user|>"
    "{{ m.role }}\n\n{{ m.content | trim }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|user|>assistant\n\n{% endif %}"
)
CLOCK = "<|system|>Today is {{ strftime_now('%B %d, %Y') }}.\n" + CHATML
PHI_3 = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% else %}{{ eos_token }}{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content + eos_token }}\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}"
)
QWEN_3 = (
    "{% for m in messages %}<|user|>{{ m.role + '\n' }}{% if m.role == 'assistant' %}<think>\n\n"
    "</think>\n\n{% endif %}{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|user|>assistant\n{% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role') }}{% endif %}"
MISTRAL = NO_SYSTEM + (
    "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
LLAMA_2 = (
    "{% for m in messages %}{% if m.role == 'system' %}{{ bos_token }}[INST] <<SYS>>\n"
    "{{ m.content }}\n<</SYS>>\n\n{% elif m.role == 'user' %}{{ m.content | trim }} [/INST]"
    "{% else %} {{ m.content | trim }} {{ eos_token }}{% endif %}{% endfor %}"
)
GEMMA = NO_SYSTEM + (
    "{{ bos_token }}{% for m in messages %}<|user|>{{ 'model' if m.role == 'assistant' else m.role "
    "}}\n{{ m.content | trim }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|user|>model\n{% endif %}"
)
R1 = (
    "{{ bos_token }}{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% if m.role == "
    "'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)
WORDS = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}" + (
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


@dataclass(frozen=True)
class Case:
    """kind: of the vocabulary. pad, eos, bos: token names, None for missing. before, after: whether
    the post-processor puts BOS before and EOS after a text.
    """

    kind: str
    template: str | None = None
    pad: str | None = None
    eos: str = "</s>"
    bos: str | None = "<s>"
    before: bool = False
    after: bool = False


CASES = {
    "plain": Case("byte-level", pad="<pad>"),
    "plain-pad-is-eos": Case("byte-level", pad="</s>", before=True),
    "plain-bos-and-eos": Case("unigram", before=True, after=True),
    "plain-wordpiece": Case("wordpiece", pad="<pad>", bos=None),
    "plain-metaspace": Case("metaspace", before=True),
    "chatml": Case("byte-level", CHATML, eos="<|end|>", bos=None),
    "chatml-bos-of-the-tokenizer": Case("byte-level", CHATML, pad="</s>", before=True),
    "chatml-wordpiece": Case("wordpiece", CHATML, pad="<pad>"),
    "llama-3": Case("byte-level", LLAMA_3, eos="<|end|>", before=True),
    "llama-3-pad-is-eos": Case("byte-level", LLAMA_3, pad="<|end|>", eos="<|end|>", before=True),
    "clock": Case("prefix-space", CLOCK, pad="<pad>", eos="<|end|>"),
    "phi-3": Case("metaspace", PHI_3, pad="</s>"),
    "zephyr": Case("metaspace", ZEPHYR, pad="</s>", before=True),
    "qwen-3": Case("byte-level", QWEN_3, pad="</s>", eos="<|end|>", bos=None),
    "mistral": Case("metaspace", MISTRAL, before=True),
    "llama-2": Case("unigram", LLAMA_2, before=True),
    "gemma": Case("unigram", GEMMA, pad="<pad>", before=True),
    "r1": Case("byte-level", R1, pad="</s>"),
    "words": Case("bytes", WORDS, pad="</s>"),
}


@cache
def _trained(kind: str) -> str:
    """Return the JSON of a trained tokenizer without special tokens around a text."""
    texts = [r[k] for r in micro.bench().full for k in ("question", "answer")]
    texts += ["Question: Answer: system user assistant model You are a helpful assistant."]
    byte = pre_tokenizers.ByteLevel.alphabet()
    options = {"special_tokens": list(SPECIALS), "show_progress": False}
    if kind == "wordpiece":
        made = Tokenizer(models.WordPiece(unk_token="<unk>"))
        made.normalizer = normalizers.Lowercase()
        made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        made.decoder = decoders.WordPiece()
        trainer = trainers.WordPieceTrainer(vocab_size=300, **options)
    elif kind == "unigram":
        made = Tokenizer(models.Unigram())
        made.pre_tokenizer = pre_tokenizers.Metaspace()
        made.decoder = decoders.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=300, unk_token="<unk>", **options)
    elif kind == "metaspace":
        made = Tokenizer(models.BPE(unk_token="<unk>"))
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
        made.decoder = decoders.Metaspace(prepend_scheme="first")
        trainer = trainers.BpeTrainer(vocab_size=300, **options)
    else:
        made = Tokenizer(models.BPE())
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=kind == "prefix-space")
        made.decoder = decoders.ByteLevel()
        size = len(SPECIALS) + len(byte) + (0 if kind == "bytes" else 60)
        trainer = trainers.BpeTrainer(vocab_size=size, initial_alphabet=sorted(byte), **options)
    made.train_from_iterator(texts, trainer)
    return made.to_str()


def tokenizer(case: Case) -> PreTrainedTokenizerFast:
    """Return the tokenizer of a case."""
    made = Tokenizer.from_str(_trained(case.kind))
    made.add_special_tokens([AddedToken(name, special=True) for name in SPECIALS])
    around = [("<s>", case.before), ("$A", True), ("</s>", case.after)]
    if case.before or case.after:
        single = " ".join(name for name, there in around if there)
        ids = [(name, made.token_to_id(name)) for name in ("<s>", "</s>")]
        made.post_processor = processors.TemplateProcessing(single=single, special_tokens=ids)
    names = {"pad_token": case.pad, "eos_token": case.eos, "bos_token": case.bos}
    own = PreTrainedTokenizerFast(tokenizer_object=made, **names)
    own.chat_template = case.template
    return own


def folder(name: str, place: Path) -> Path:
    """Write the model of a case as transformers does, with its own names in the config."""
    own = tokenizer(CASES[name])
    own.save_pretrained(place)
    text = (place / "tokenizer_config.json").read_text("utf-8")
    content = json.loads(text) | {"tokenizer_class": "PreTrainedTokenizerFast"}
    # another indent than transformers writes today: bytes that only a copy has
    (place / "tokenizer_config.json").write_text(json.dumps(content, indent=7), "utf-8")
    (place / "special_tokens_map.json").write_text(json.dumps({"eos_token": own.eos_token}))
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    ids = {"eos_token_id": own.eos_token_id, "bos_token_id": own.bos_token_id}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(own), num_hidden_layers=1, max_position_embeddings=256, **sizes, **ids
        )
        model = LlamaForCausalLM(config)
    with torch.no_grad():  # sharper than the initialisation, so that predictions differ
        model.lm_head.weight.mul_(20)
    model.save_pretrained(place)
    return place
