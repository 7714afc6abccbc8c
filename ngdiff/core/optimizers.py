"""The user's optimizer as a step uses it: which one is accepted, what it moves, at what rates."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from ngdiff.core import rehearsal, sharding
from ngdiff.core.point import inner
from ngdiff.core.stepsize import StepSize


def accepted(
    model: nn.Module | Iterable[Tensor],
    optimizer: torch.optim.Optimizer | None,
    stepsize: StepSize | None,
) -> tuple[torch.optim.Optimizer, list[Tensor]]:
    """The optimizer (SGD in place of None) and the parameters it moves, tied ones once.

    Errors: ValueError where model, optimizer and step-size rule do not fit.
    """
    optimizer = bare(optimizer)
    every = model.parameters() if isinstance(model, nn.Module) else model
    given = list(dict.fromkeys(p for p in every if p.requires_grad))
    if not given:
        raise ValueError("nothing to unlearn: no parameter of the model requires a gradient")
    if optimizer is None:
        if stepsize is None:
            missing = "a step-size rule must set the rate"
            raise ValueError(f"without an optimizer {missing}: pass stepsize=")
        optimizer = torch.optim.SGD(given, lr=1.0)
    if stepsize is not None and stepsize.probes(stepsize.init()):
        if not isinstance(model, nn.Module):
            sharding.refuse(given)
        if why := rehearsal.fault(inner(optimizer)):
            instead = "use SGD or an Adam kind, or a rate known in advance (Constant)"
            raise ValueError(f"{why}, which {stepsize} relies on: {instead}")
    held = [p for p in parameters(optimizer) if p.requires_grad]
    if left := len(set(given) - set(held)):
        raise ValueError(f"the optimizer does not hold {left} of the model's trainable parameters")
    return optimizer, held


def bare(optimizer: Any) -> Any:
    """The torch optimizer inside accelerate's wrapper, or the optimizer itself.

    Errors: ValueError for a loss scaler.
    """
    if type(optimizer).__name__ != "AcceleratedOptimizer":
        return optimizer
    if optimizer.scaler is not None:
        why = "a loss scaler (float16) skips steps and scales gradients unseen"
        raise ValueError(f"{why}: use bfloat16, which needs none")
    return optimizer.optimizer


def parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """All parameters of the optimizer, each once, frozen ones too."""
    return list(dict.fromkeys(p for group in optimizer.param_groups for p in group["params"]))


class Rates:
    """The rates of an optimizer's groups, which keep their ratio to the first that has one."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer  # not its groups: loading a state makes new ones
        # a warm-up from 0 has set rates to 0 already, and keeps what they were meant to be
        now = [float(group["lr"]) for group in optimizer.param_groups]
        meant = [float(group.get("initial_lr", group["lr"])) for group in optimizer.param_groups]
        warming = any(m and not n for n, m in zip(now, meant, strict=True))
        rates = meant if warming else now
        first = next(filter(None, rates), 0.0)
        self.ratios = [rate / first if first else 1.0 for rate in rates]

    @property
    def first(self) -> float:
        """The rate of the first group that has one; 0 where none has."""
        rates = (float(group["lr"]) for group in self.optimizer.param_groups)
        return next((rate for rate in rates if rate), 0.0)

    def set(self, eta: float) -> None:
        """Set the first rate to η and the others in proportion."""
        for group, ratio in zip(self.optimizer.param_groups, self.ratios, strict=True):
            group["lr"] = eta * ratio
