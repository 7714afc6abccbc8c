"""A float32 model's matrix products on a CPU, by oneDNN.

`torch.nn.functional.linear` gives them to MKL, which takes AVX2 on a CPU that is not Intel's. On
AMD's Zen 5, oneDNN's AVX-512 is 2.3 times as fast. Both sum in float32, in another order at most.
A few tokens stay with MKL, whose calls cost less.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

FEW = 32  # tokens: with fewer, a call costs more than its product


@contextmanager
def quick(model: Any, weights: bool = True) -> Iterator[None]:
    """Compute the plain linear layers of a float32 model on an AVX-512 CPU by oneDNN meanwhile.

    What was computed inside may be differentiated outside, once. weights: False where no gradient
    reaches the weights and biases of these layers; that of their inputs alone is then computed.
    A model with gradient checkpointing is left as it is: it repeats its forward later, outside.
    """
    modules = list(model.modules()) if _there() else []
    again = any(getattr(module, "gradient_checkpointing", False) for module in modules)
    layers = [] if again else [layer for layer in modules if _plain(layer)]
    for layer in layers:
        layer.forward = partial(_forward, layer, weights)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def for_inputs(module: nn.Module) -> bool:
    """Return whether a `quick` around this computes the gradients of a module's inputs alone."""
    held = (vars(part).get("forward") for part in module.modules())
    return any(isinstance(f, partial) and f.func is _forward and not f.args[1] for f in held)


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return x Wᵀ + b, (…, outputs), of x (…, inputs) and W (outputs, inputs); by oneDNN."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


def _there() -> bool:
    """Return whether this build of torch has oneDNN's products, and the CPU AVX-512."""
    there = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return there and torch.backends.cpu.get_cpu_capability() == "AVX512"


def _plain(layer: nn.Module) -> bool:
    """Return whether a layer is a `Linear` in float32 on a CPU whose forward is its class's."""
    if type(layer) is not nn.Linear or "forward" in vars(layer):
        return False
    if type(layer.weight) is not nn.Parameter:  # a shard, or made of other tensors
        return False
    return layer.weight.device.type == "cpu" and layer.weight.dtype == torch.float32


def _forward(layer: nn.Linear, weights: bool, input: Tensor) -> Tensor:
    x = input  # called by this name too
    autocast = torch.is_autocast_enabled("cpu")
    if x.dtype != torch.float32 or autocast or x.numel() < FEW * x.shape[-1]:
        return nn.functional.linear(x, layer.weight, layer.bias)
    if torch.is_grad_enabled():
        parts: list[Tensor | None] = [layer.weight, layer.bias]
        if not weights:
            parts = [part if part is None else part.detach() for part in parts]
        rows = _Linear.apply(x.reshape(-1, x.shape[-1]), *parts)
        return rows.view(*x.shape[:-1], -1)  # a view made here may be changed in place
    return product(x, layer.weight, layer.bias)


class _Linear(torch.autograd.Function):
    """`product` with its gradients: grad W for x, gradᵀ x for W, and Σ grad for b."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x if weight.requires_grad else None, weight)
        return product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (x, weight), (for_x, for_weight, for_bias) = ctx.saved_tensors, ctx.needs_input_grad
        return (
            product(grad, weight.t()) if for_x else None,
            product(grad.t(), x.t()) if for_weight else None,
            grad.sum(0) if for_bias else None,
        )
