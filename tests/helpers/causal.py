"""Tiny random models of the causal classes of transformers, and the plain way to ask them."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from ngdiff.lm.tokens import IGNORE, Example

VOCABULARY = 96
# the smallest sizes, under the names that configurations give them; each takes what it knows
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "lru_width", "attention_hidden_size"), 32),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 4),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "n_inner", "encoder_ffn_dim"), 48),
    **dict.fromkeys(("decoder_ffn_dim", "d_inner"), 48),
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), 128),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("moe_num_experts", "mamba_num_heads", "mamba_n_heads"), 4),
    **dict.fromkeys(("num_experts_per_tok", "moe_k", "num_key_value_heads", "mamba_expand"), 2),
    **dict.fromkeys(("linear_num_key_heads", "linear_num_value_heads", "expand"), 2),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 16),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank", "mamba_head_dim", "mamba_d_head"), 16),
    **dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "head_dim"), 8),
    **dict.fromkeys(("linear_key_head_dim", "linear_value_head_dim", "rotary_dim"), 8),
    **dict.fromkeys(("state_size", "mamba_d_state", "chunk_size", "mamba_chunk_size"), 8),
    **dict.fromkeys(("n_group", "topk_group", "n_groups", "mamba_n_groups"), 1),
    **{"first_k_dense_replace": 1, "conv_kernel": 4, "time_step_rank": 4, "embedding_size": 32},
    **{"vocab_size": VOCABULARY, "sliding_window": 16, "attention_window": 16, "is_decoder": True},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
}


@cache
def model(name: str) -> Any:
    """A model of that `model_type`, whose weights are three times as large as they are drawn."""
    whole = AutoConfig.for_model(name)
    config = whole.get_text_config()
    kind = type(config)
    known = {*config.to_dict(), *kind.attribute_map}
    sizes = {key: value for key, value in SIZES.items() if key in known}
    if "qk_rope_head_dim" in sizes:  # latent attention: head_dim is what it rotates
        sizes |= {"num_key_value_heads": 4}
        sizes.pop("head_dim", None)
    elif getattr(config, "head_dim", None) is None:
        sizes.pop("head_dim", None)
    if {"layer_types", "layers_block_type"} & known:  # a hybrid needs one layer of each kind
        sizes["num_hidden_layers"] = 4
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = AutoModelForCausalLM.from_config(kind(**sizes)).eval()
    with torch.no_grad():
        for p in made.parameters():
            if p.dim() > 1 and p.is_floating_point():
                p.mul_(3)
    return made


def texts() -> list[Example]:
    """Three prompts with three answers each, and a document."""
    make = torch.Generator().manual_seed(3)

    def ids(n: int) -> list[int]:
        return torch.randint(3, VOCABULARY, (n,), generator=make).tolist()

    found = []
    for n in (5, 9, 14):
        prompt, same = ids(n), ids(3)
        answers = [ids(3), [*same, *ids(3)], [*same, *ids(8)]]
        found += [Example([*prompt, *a], [IGNORE] * n + a) for a in answers]
    document = ids(21)
    return [*found, Example(document, document)]


@torch.no_grad()
def logits(model: Any, ids: list[int]) -> torch.Tensor:
    return model(input_ids=torch.tensor([ids]), use_cache=False).logits[0].float()


def greedy(model: Any, prompt: list[int], many: int) -> list[int]:
    """The likeliest token after the whole text, again and again."""
    text = list(prompt)
    for _ in range(many):
        text.append(int(logits(model, text)[-1].argmax()))
    return text[len(prompt) :]
