"""Low-rank adapters through peft: the base model stays frozen.

With the adapter off it is the start of unlearning.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import torch
from torch import nn

from ngdiff.core.probe import evaluating
from ngdiff.core.stepsize import EPS
from ngdiff.store.textfile import parsed, text_of

ADAPTER = "adapter_config.json"  # the file that makes a folder one of peft's


class Adaptable(Protocol):
    """What `adapt` needs of an `LM`: a dataclass with these fields."""

    __dataclass_fields__: ClassVar[dict[str, Any]]
    model: Any
    path: Any

    @property
    def adapted(self) -> bool: ...


TOKENS = 64  # that tell whether an adapter is fresh

L = TypeVar("L", bound=Adaptable)


def adapt(
    lm: L,
    r: int = 16,
    *,
    alpha: float = 32,
    dropout: float = 0.0,
    targets: str | Sequence[str] = "all-linear",
    seed: int = 0,
) -> L:
    """The model with a fresh LoRA adapter, W + (alpha/r)·B·A, B = 0: it answers as before.

    The base is shared, not copied, and frozen.

    targets: module names as peft takes them, or "all-linear" (all but the output layer). Saved by
    `ngdiff.save` in peft's own format. Errors: ValueError for a model that has an adapter already,
    or names that match no module.
    """
    from peft import LoraConfig, get_peft_model

    if lm.adapted:
        raise ValueError(
            "the model has an adapter already: merge it (merge_and_unload) before adding another"
        )
    names = targets if isinstance(targets, str) else list(targets)
    config = LoraConfig(
        r=r, lora_alpha=alpha, lora_dropout=dropout, target_modules=names, task_type="CAUSAL_LM"
    )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return replace(lm, model=get_peft_model(lm.model, config), path=None)


@contextlib.contextmanager
def off(model: nn.Module) -> Iterator[None]:
    """The base model alone.

    peft's own `disable_adapter` also freezes the adapter meanwhile, and FSDP2 settles at its first
    forward in which precision gradients come: it must not see it frozen.
    """
    layers: list[Any] = [m for m in model.modules() if hasattr(m, "_disable_adapters")]
    before = [m._disable_adapters for m in layers]
    try:
        for m in layers:
            m._disable_adapters = True
        yield
    finally:
        for m, was in zip(layers, before, strict=True):
            m._disable_adapters = was


@torch.no_grad()
def fresh(model: nn.Module) -> bool:
    """Return whether the adapter changes nothing: the model answers with it as without it.

    It is tested on the model itself, with tokens from all over its vocabulary. So it holds for any
    of peft's adapters that can be switched off: LoRA, IA³, LoHa, OFT, DoRA, copies of modules.
    Answers may differ by float32 rounding, as DoRA's do. An adapter that cannot be switched off
    (prompt tuning) is never fresh.
    """
    if not any(hasattr(m, "_disable_adapters") for m in model.modules()):
        return False
    config: Any = model.config
    room = min(TOKENS, getattr(config, "max_position_embeddings", None) or TOKENS)
    device = next(model.parameters()).device
    ids = torch.linspace(0, config.vocab_size - 1, room, device=device).long()[None]
    with evaluating(model):
        on = model(ids).logits.float()
        with off(model):
            apart = (model(ids).logits.float() - on).abs().max()
    return bool(apart <= 64 * EPS * on.abs().max())


def base_of(folder: Path) -> str:
    """The model that a saved adapter belongs to.

    Errors: ValueError where the folder does not name one.
    """
    try:
        base = parsed(text_of(folder / ADAPTER)).get("base_model_name_or_path")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{folder / ADAPTER} is damaged ({error}): get it again") from error
    if not base or not isinstance(base, str):
        raise ValueError(
            f"{folder / ADAPTER} names no base model: add its folder or hub id as "
            "base_model_name_or_path"
        )
    return base


def put_on(model: nn.Module, folder: Path) -> nn.Module:
    """The saved adapter on its base model, ready to be trained on.

    Errors: ValueError for a damaged one.
    """
    from peft import PeftModel

    if not (folder / "adapter_model.safetensors").is_file():
        raise ValueError(f"{folder} holds no whole adapter: adapter_model.safetensors is missing")
    return PeftModel.from_pretrained(model, folder, is_trainable=True)


def train_only(model: torch.nn.Module, trains: str) -> None:
    """Leave those trainable whose name matches. Errors: ValueError where none does."""
    moving = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    kept = {name for name, _ in moving if re.search(trains, name)}
    if not kept:
        raise ValueError(
            f"no trainable parameter matches {trains!r}: they are {moving[0][0]}, …, "
            f"{moving[-1][0]}"
        )
    for name, p in moving:
        p.requires_grad_(name in kept)
