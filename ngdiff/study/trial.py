"""What a trial is: the settings of one unlearning run, and the names of step-size rules and
optimizers.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from ngdiff.core.autolr import AutoLR, ThreePoint
from ngdiff.core.stepsize import Constant, WarmupCosine, WarmupLinear
from ngdiff.evaluation.spelling import which
from ngdiff.profiles import Profile, is_named, label_of, profile
from ngdiff.study.rules import BoundedThreePoint, SearchOnce

if TYPE_CHECKING:  # a command's help reads the names here, and torch takes seconds
    from ngdiff.data.benchmark import Benchmark
    from ngdiff.methods.definition import Method

STEPSIZES: dict[str, Callable[[float, int], Any]] = {  # (rate, steps of the run) -> rule
    "constant": lambda lr, steps: Constant(lr),
    "linear": lambda lr, steps: WarmupLinear(lr, total=steps),
    "cosine": lambda lr, steps: WarmupCosine(lr, total=steps),
    "autolr": lambda lr, steps: AutoLR(lr),
    "three-point": lambda lr, steps: ThreePoint(lr),
    "once": lambda lr, steps: SearchOnce(lr),
    "once-half": lambda lr, steps: SearchOnce(lr, factor=0.5),
    "three-point-bounded": lambda lr, steps: BoundedThreePoint(lr),
}
OPTIMIZERS = ("adamw", "sgd")


@dataclass(frozen=True)
class Trial:
    """Settings of one run.

    method: a name of `ngdiff.methods.METHODS`, or a `Method`, a direction rule or an objective of
    your own, or "module:name", where one is (`ngdiff.methods.method`). Rules and objectives of
    your own are frozen dataclasses. stepsize: as in `rule_of`. lr: the rate (constant) or the
    starting rate (AutoLR). seed: of the order of the rows; target_seed: of the models. rule:
    matched | fixed. profile: a name, or a Profile. data: which rows, as
    `ngdiff.evaluation.spelling` says ("" = generated authors), or a Benchmark. steps: None = the
    profile's. optimizer: adamw (0.9, 0.999, weight decay 0.01) | sgd (plain). mmlu: measure
    MMLU too (SemEval).
    Errors: ValueError for a value that no run can have.
    """

    method: str | Method = "ngdiff"
    stepsize: str = "autolr"
    lr: float = 1e-3
    seed: int = 0
    target_seed: int = 0
    rule: str = "matched"
    profile: str | Profile = "tiny"
    split: str = ""
    data: str | Benchmark = ""
    steps: int | None = None
    optimizer: str = "adamw"
    mmlu: bool = False

    def __post_init__(self) -> None:
        from ngdiff.methods import lookup

        recipe = lookup.method(self.method)
        own = lookup.named(recipe.key) is None
        if own:
            _need_hash(recipe)
            lookup.remember(recipe.key, recipe.name, recipe.look)
        object.__setattr__(self, "method", recipe if own else recipe.key)
        P = profile(self.profile)
        if is_named(P):
            object.__setattr__(self, "profile", P.name)
        if self.split and not isinstance(self.data, str) and self.split != self.data.split:
            raise ValueError(
                f"the benchmark's split is {self.data.split}, not {self.split}: leave split out"
            )
        rule_of(self.stepsize, self.lr, 1)
        if self.rule not in ("matched", "fixed"):
            raise ValueError(f"unknown comparison {self.rule!r}; choose matched or fixed")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"a trial makes at least one step, got steps={self.steps}")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(
                f"unknown optimizer {self.optimizer!r}; choose one of: {', '.join(OPTIMIZERS)}"
            )

    @property
    def recipe(self) -> Method:
        """The method itself."""
        from ngdiff.methods import lookup

        return lookup.method(self.method)

    def row(self) -> dict[str, Any]:
        """Return the settings as the fields of a row. A method of your own adds its look, a
        Benchmark its name and split.
        """
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        fields |= {"method": self.recipe.key, "profile": label_of(profile(self.profile))}
        if isinstance(self.data, str):
            fields["data"] = which(self.data).label
        else:
            name = self.data.name
            fields |= {"data": name, "split": self.data.split, "benchmark": name}
        return fields | self.look

    @property
    def look(self) -> dict[str, str]:
        """Return the fields of a row that show a method of your own; none for the package's."""
        if isinstance(self.method, str):
            return {}
        look = self.method.look
        return {"label": self.method.name, "colour": look.colour, "dashes": look.dashes}

    def __str__(self) -> str:
        return (
            f"{self.recipe.key} {self.stepsize} {self.lr:g} seed {self.seed}/{self.target_seed} "
            f"{self.rule}"
        )


def _need_hash(own: Method) -> None:
    """Errors: ValueError for a rule or an objective that cannot be compared with another one."""
    for part in (own.direction, own.retain, own.forget):
        try:
            hash(part)
        except TypeError as error:
            raise ValueError(
                f"{own.name}: {type(part).__name__} is not hashable; write "
                "@dataclass(frozen=True) above its class"
            ) from error


def rule_of(name: str, lr: float, steps: int) -> Any:
    """The step-size rule of a name in STEPSIZES, with fields of its own where they follow: "autolr
    fresh=0 slack=0".
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
