"""What every variant of the step acts on: one Llama, one optimizer, a retain and a forget batch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from ngdiff.core.point import inner
from ngdiff.engine.engine import Engine
from ngdiff.timing.case import SHARED, SIZES, Case

LR = 1e-6  # so small that no variant's step changes what another's time depends on
MAKE: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "adamw": partial(torch.optim.AdamW, lr=LR, weight_decay=0.01, fused=True),
    "sgd": partial(torch.optim.SGD, lr=LR, fused=True),
}


def config(case: Case, layers: int = 0) -> LlamaConfig:
    """Return the shape of its Llama; layers: fewer of them than its size has."""
    hidden, depth, heads, intermediate, vocabulary = SIZES[case.size]
    return LlamaConfig(
        hidden_size=hidden,
        num_hidden_layers=layers or depth,
        num_attention_heads=heads,
        num_key_value_heads=SHARED.get(case.size, heads),
        vocab_size=vocabulary,
        intermediate_size=intermediate,
        max_position_embeddings=case.shape[1],
        tie_word_embeddings=not case.large,
    )


def llama(case: Case, device: str, layers: int = 0) -> nn.Module:
    """Return a randomly initialised Llama of about that many parameters.

    It is made where it will be and in the precision it will have. With lora it is frozen under an
    adapter like `ngdiff.lm.lora`'s.
    """
    kept = torch.get_default_dtype()
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(0)
        torch.set_default_dtype(getattr(torch, case.precision))
        try:
            model: Any = LlamaForCausalLM(config(case, layers))
        finally:
            torch.set_default_dtype(kept)
        if case.lora:
            from peft import LoraConfig, get_peft_model

            adapter = LoraConfig(
                r=case.lora,
                lora_alpha=2 * case.lora,
                target_modules="all-linear",
                task_type="CAUSAL_LM",
            )
            model = get_peft_model(model, adapter)
    return model


class Subject:
    """One model, one optimizer, a retain and a forget batch: all variants take turns on them."""

    def __init__(self, case: Case, device: str, layers: int = 0) -> None:
        self.case, self.device = case, device
        self.engine = Engine(device, case.precision, checkpointing=case.checkpointing)
        model, low = self.engine.prepare(llama(case, device, layers).eval())
        self.model: Any = model
        self.params: list[Any] = [p for p in model.parameters() if p.requires_grad]
        self.optimizer = self.engine.optimizer(self.params, low, MAKE[case.optimizer])
        self.low = list(low.values())
        self.tied = not case.large
        make = torch.Generator().manual_seed(1)
        vocabulary = SIZES[case.size][-1]
        self.ids = [
            torch.randint(0, vocabulary, case.shape, generator=make).to(device) for _ in "RF"
        ]

    def loss(self, which: int, autocast: bool = False) -> torch.Tensor:
        """Return the mean cross-entropy of a batch. autocast: products in bfloat16."""
        ids = self.ids[which]  # (rows, time)
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=autocast):
            logits = self.model(ids, use_cache=False).logits
        return nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1).float(), ids[:, 1:].flatten()
        )

    def update(self) -> None:
        self.optimizer.step()
        self.clear()  # in the time of the variant that made the gradients

    def clear(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)

    def held(self) -> int:
        """Return the bytes that stay from step to step: weights, their low bits, optimizer state.

        On CUDA they are all that is allocated.
        """
        if self.device == "cuda":
            return torch.cuda.memory_allocated()
        states = inner(self.optimizer).state.values()
        moments = [t for s in states for t in s.values() if isinstance(t, torch.Tensor)]
        return sum(t.nbytes for t in [*self.model.parameters(), *self.low, *moments])
