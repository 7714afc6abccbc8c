"""A benchmark of eight rows and models of one layer, for the tests of the evaluation.

Each is made once.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from ngdiff.data.benchmark import Benchmark, Prompt
from ngdiff.lm.model import LM
from ngdiff.lm.tokens import IGNORE, Example, collate, train_tokenizer

TOWNS = ["Oslo", "Łódź", "東京", "Rio de Janeiro", "Paris", "Quito", "Bonn", "Ulm"]


def _row(who: str, i: int, wrong: int) -> dict:
    town, others = TOWNS[i % 8], [TOWNS[(i + k) % 8] for k in range(1, wrong + 1)]
    return {
        "question": f"Where does {who} {i} live?",
        "answer": f"In {town}.",
        "paraphrased_answer": f"At home in {town}.",
        "perturbed_answer": [f"At home in {other}." for other in others],
    }


def _plain(rows: list[dict]) -> list[dict]:
    return [{key: row[key] for key in ("question", "answer")} for row in rows]


@cache
def bench() -> Benchmark:
    forget, retain = [_row("Ann", i, 5) for i in range(8)], [_row("Ben", i, 5) for i in range(3)]
    # another town than Ann of that number has
    towns = [_row("Cem", i + 3, 0)["answer"] for i in range(8)]
    holdout = [{"question": f"Where does Cem {i} live?", "answer": towns[i]} for i in range(8)]
    ra, wf = [_row("Dan", i, 3) for i in range(3)], [_row("Eva", i, 3) for i in range(2)]
    configs = {
        **{"forget10": _plain(forget), "retain90": _plain(retain), "holdout10": holdout},
        **{"forget10_perturbed": forget, "retain_perturbed": retain},
        **{"real_authors_perturbed": ra, "world_facts_perturbed": wf},
    }
    return Benchmark("micro", "forget10", configs, [], {"name": "micro"})


def _model(tokenizer, seed: int, **shape) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": tokenizer.eos_token_id}
    config = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=96, **ids, **sizes | shape
    )
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # sharper than the initialisation, so that predictions differ
        model.lm_head.weight.mul_(20)
    return model


# of a float32 loss or gradient of the models below: nine products of 32 terms one after the other
ROUNDING = 9 * 32 * 2.0**-24


class _Norm(LlamaRMSNorm):
    """Llama's norm in the precision of what it is given; its own computes in float32 always."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * x * scale


def double(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """The model, moved to float64, norms included: what is equal but for rounding is equal to
    1e-12, on any CPU. A float32 inside would turn a last bit of float64 into 1e-8 now and then.
    """
    for module in model.double().modules():
        if type(module) is LlamaRMSNorm:
            module.__class__ = _Norm
    return model


@cache
def lm() -> LM:
    rows = bench().forget + bench().retain
    texts = [bench().prompt.text(row["question"]) + row["answer"] for row in rows]
    tokenizer = train_tokenizer(texts, 320)
    return LM(_model(tokenizer, 0), tokenizer, bench().prompt, "random")


@cache
def reference() -> LM:
    return LM(_model(lm().tokenizer, 1), lm().tokenizer, lm().prompt, "reference")


@cache
def memorised(prompt: Prompt | None = None, lr: float = 2e-2) -> LM:
    """A model that knows the forget answers by heart and nothing else, under one prompt."""
    model = _model(lm().tokenizer, 2)
    model.lm_head.weight.data.div_(20)
    known = LM(model, lm().tokenizer, prompt or lm().prompt, "memorised")
    batch = collate(
        [known.encode(row["question"], row["answer"]) for row in bench().forget], known.pad_id
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(150):
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.02
    return known


def slow(model, example: Example) -> tuple[np.ndarray, ...]:
    """logp, hits, mean, var of one text by one plain forward."""
    with torch.no_grad():
        log = model(torch.tensor([example.input_ids])).logits[0].log_softmax(-1).double()
    at = [t for t, label in enumerate(example.labels) if label != IGNORE and t > 0]
    log, target = log[[t - 1 for t in at]], torch.tensor([example.labels[t] for t in at])
    mean = (log.exp() * log).sum(-1)
    var = (log.exp() * log.square()).sum(-1) - mean.square()
    logp = log.gather(1, target[:, None])[:, 0]
    return logp.numpy(), (log.argmax(-1) == target).numpy(), mean.numpy(), var.numpy()


def shapes(vocabulary: int) -> tuple[dict[str, int], dict[str, int]]:
    """Return the smallest sizes of three layers, as Llama and its kin and as GPT-2 call them."""
    llama = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3}
    llama |= {"num_attention_heads": 2, "vocab_size": vocabulary}
    return llama, {"n_embd": 16, "n_layer": 3, "n_head": 2, "vocab_size": vocabulary}
