"""Unlearning methods: a retain objective, a forget objective and a direction rule, freely combined.

Each recipe is a `Method` that works with every step-size rule; the same table names them for the
command line and the figures. Weights are the published ones (open-unlearning's γ·forget +
α·retain): GradDiff with γ = α = 1 is 2·GradDiff(0.5); NPO takes (1, 1), SimNPO (1, 0.125).
`DEFAULTS` holds the whole published settings beside them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ngdiff.core import directions as rules
from ngdiff.methods import baselines
from ngdiff.methods.objectives import CE, Objective
from ngdiff.methods.objectives import KL as KLObjective
from ngdiff.methods.objectives import NPO as NPOObjective
from ngdiff.methods.objectives import SimNPO as SimNPOObjective


@dataclass(frozen=True)
class Method:
    """R (minimised), F (ascended) and the rule that weighs their gradients. `name`: the label of
    tables and figures.

    trains: a regular expression that the names of the parameters to train must match somewhere;
    None trains all of them.
    """

    name: str
    direction: rules.Direction
    retain: Objective = CE()
    forget: Objective = CE()
    trains: str | None = None


GradAscent = Method("GradAscent", rules.GradAscent())
GradDiff = Method("GradDiff(0.5)", rules.GradDiff(0.5))
GradDiff09 = Method("GradDiff(0.9)", rules.GradDiff(0.9))
GradDiff01 = Method("GradDiff(0.1)", rules.GradDiff(0.1))
KL = Method("KL", rules.Sum(), retain=KLObjective())
LossNorm = Method("LossNorm", rules.LossNorm())
NPO = Method("NPO", rules.Sum(), forget=NPOObjective())
SimNPO = Method("SimNPO", rules.Sum(forget=0.125), forget=SimNPOObjective())
NGDiff = Method("NGDiff", rules.NGDiff())
NGDiffNPO = Method("NGDiff on NPO", rules.NGDiff(), forget=NPOObjective())
NGDiffKL = Method("NGDiff on KL", rules.NGDiff(), retain=KLObjective())
GradDiff09NPO = Method("GradDiff(0.9) on NPO", rules.GradDiff(0.9), forget=NPOObjective())
DPO = Method("DPO", rules.Sum(), forget=baselines.DPO())
RMU = Method("RMU", rules.Sum(), retain=baselines.RMURetain(), forget=baselines.RMU())
UNDIAL = Method(
    "UNDIAL", rules.GradAscent(), forget=baselines.UNDIAL()
)  # α = 0: its retain loss is only watched
WGA = Method("WGA", rules.Sum(), forget=baselines.WGA())
SatImp = Method("SatImp", rules.Sum(forget=0.1), forget=baselines.SatImp())
CEU = Method("CE-U", rules.GradAscent(), forget=baselines.CEU())
RetainFT = Method("Retain-only fine-tuning", rules.GradDiff(1.0))

METHODS = {
    "gradascent": GradAscent,
    "graddiff-0.9": GradDiff09,
    "graddiff-0.5": GradDiff,
    "graddiff-0.1": GradDiff01,
    "kl": KL,
    "lossnorm": LossNorm,
    "npo": NPO,
    "simnpo": SimNPO,
    "ngdiff": NGDiff,
    "ngdiff-npo": NGDiffNPO,
    "ngdiff-kl": NGDiffKL,
    "graddiff-0.9-npo": GradDiff09NPO,
    "dpo": DPO,
    "rmu": RMU,
    "undial": UNDIAL,
    "wga": WGA,
    "satimp": SatImp,
    "ceu": CEU,
    "retain-ft": RetainFT,
}


@dataclass(frozen=True)
class Defaults:
    """The published settings of a method under AdamW: loss = gamma·forget + alpha·retain, both
    minimised.

    gamma, alpha: None where the direction rule finds the weights. options: of the objectives.
    trains: published code trains only parameters of these names, which `replace(method, trains=…)`
    does here. source: whose defaults they are.
    """

    gamma: float | None
    alpha: float | None
    source: str
    lr: float = 1e-5
    epochs: int = 10
    batch: int = 32
    options: Mapping[str, Any] = field(default_factory=dict)
    trains: str | None = None


_OPEN, _PAPER = "open-unlearning", "Bu, Jin et al. 2025, in the others' budget"
DEFAULTS = {
    "gradascent": Defaults(1.0, 0.0, _OPEN),
    "graddiff-0.5": Defaults(1.0, 1.0, _OPEN),
    "kl": Defaults(1.0, 1.0, "TOFU"),
    "lossnorm": Defaults(None, None, _PAPER),
    "npo": Defaults(1.0, 1.0, _OPEN, options={"beta": 0.1}),
    "simnpo": Defaults(0.125, 1.0, _OPEN, options={"beta": 4.5, "delta": 0.0}),
    "ngdiff": Defaults(None, None, f"{_PAPER}; the rate is where AutoLR starts"),
    "dpo": Defaults(1.0, 1.0, _OPEN, options={"beta": 0.1}),
    "rmu": Defaults(
        1.0,
        1.0,
        _OPEN,
        options={"c": 2.0, "layer": 7},
        trains=r"layers\.(5|6|7)\.mlp\.down_proj\.weight",
    ),
    "undial": Defaults(1.0, 0.0, _OPEN, lr=1e-4, options={"beta": 10.0}),
    "wga": Defaults(1.0, 1.0, _OPEN, epochs=5, options={"beta": 1.0}),
    "satimp": Defaults(0.1, 1.0, _OPEN, epochs=5, options={"beta1": 5.0, "beta2": 1.0}),
    "ceu": Defaults(1.0, 0.0, _OPEN),
    "retain-ft": Defaults(0.0, 1.0, "GradDiff's, without forgetting"),
}


def method(name: str) -> Method:
    """The method of that command-line name. Errors: ValueError listing the known ones."""
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}; choose one of: {', '.join(METHODS)}")
    return METHODS[name]
