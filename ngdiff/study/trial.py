"""What a trial is: the settings of one unlearning run, and the names of step-size rules and
optimizers.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from ngdiff.core.autolr import AutoLR
from ngdiff.core.stepsize import Constant, WarmupCosine, WarmupLinear
from ngdiff.profiles import profile

STEPSIZES: dict[str, Callable[[float, int], Any]] = {  # (rate, steps of the run) -> rule
    "constant": lambda lr, steps: Constant(lr),
    "linear": lambda lr, steps: WarmupLinear(lr, total=steps),
    "cosine": lambda lr, steps: WarmupCosine(lr, total=steps),
    "autolr": lambda lr, steps: AutoLR(lr),
    "autolr-paper": lambda lr, steps: AutoLR.paper(lr),
}
OPTIMIZERS = ("adamw", "sgd")


@dataclass(frozen=True)
class Trial:
    """Settings of one run.

    lr: the rate (constant) or the starting rate (AutoLR). stepsize: as in `rule_of`. seed: order of
    the rows;
    target_seed: the models'. rule: matched | fixed. data: which rows
    (`ngdiff.evaluation.spelling`; "" = generated authors).
    steps: None = the profile's. optimizer: adamw (0.9, 0.999, weight decay 0.01) | sgd (plain).
    mmlu: asked too, of SemEval.
    """

    method: str = "ngdiff"
    stepsize: str = "autolr"
    lr: float = 1e-3
    seed: int = 0
    target_seed: int = 0
    rule: str = "matched"
    profile: str = "tiny"
    split: str = ""
    data: str = ""
    steps: int | None = None
    optimizer: str = "adamw"
    mmlu: bool = False

    def __post_init__(self) -> None:
        from ngdiff.methods.recipes import method

        method(self.method)
        profile(self.profile)
        rule_of(self.stepsize, self.lr, 1)
        if self.rule not in ("matched", "fixed"):
            raise ValueError(f"unknown comparison {self.rule!r}; choose matched or fixed")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"a trial makes at least one step, got steps={self.steps}")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(
                f"unknown optimizer {self.optimizer!r}; choose one of: {', '.join(OPTIMIZERS)}"
            )

    def __str__(self) -> str:
        return (
            f"{self.method} {self.stepsize} {self.lr:g} seed {self.seed}/{self.target_seed} "
            f"{self.rule}"
        )


def rule_of(name: str, lr: float, steps: int) -> Any:
    """The step-size rule of a name in STEPSIZES, with fields of its own where they follow: "autolr
    fresh=0 search=0".
    """
    word, *fields = name.split()
    if word not in STEPSIZES:
        raise ValueError(f"unknown step-size rule {word!r}; choose one of: {', '.join(STEPSIZES)}")
    rule = STEPSIZES[word](lr, steps)
    try:
        return replace(
            rule,
            **{
                key: ast.literal_eval(value)
                for key, value in (field.split("=") for field in fields)
            },
        )
    except (TypeError, ValueError, SyntaxError) as error:
        raise ValueError(
            f"step-size rule {name!r}: {error}; write fields of {type(rule).__name__} as name=value"
        ) from error
