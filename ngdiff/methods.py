"""Unlearning methods: a retain objective, a forget objective and a direction rule, freely combined.

Each recipe is a `Method` that works with every step-size rule; the same table names them for the command line and the
figures. Weights are the published ones (open-unlearning's γ·forget + α·retain): GradDiff with γ = α = 1 is
2·GradDiff(0.5); NPO takes (1, 1), SimNPO (1, 0.125).
"""

from __future__ import annotations

from dataclasses import dataclass

from ngdiff import directions as rules
from ngdiff.objectives import CE, Objective
from ngdiff.objectives import KL as KLObjective
from ngdiff.objectives import NPO as NPOObjective
from ngdiff.objectives import SimNPO as SimNPOObjective


@dataclass(frozen=True)
class Method:
    """R (minimised), F (ascended) and the rule that weighs their gradients. `name`: the label of tables and figures."""

    name: str
    direction: rules.Direction
    retain: Objective = CE()
    forget: Objective = CE()


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
}


def method(name: str) -> Method:
    """The method of that command-line name. Errors: ValueError listing the known ones."""
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}; choose one of: {', '.join(METHODS)}")
    return METHODS[name]
