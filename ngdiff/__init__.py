"""ngdiff: normalised gradient difference, a learning rate that sets itself, and a place to measure
both.

    import ngdiff as ng
    step = ng.UnlearningStep(model, optimizer, direction=ng.NGDiff(), stepsize=ng.AutoLR())

The public names load on first use (PEP 562), so `import ngdiff` costs milliseconds and no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ngdiff import data, figures, methods, score, study
    from ngdiff.core.autolr import AutoLR
    from ngdiff.core.directions import MGDA, GradAscent, GradDiff, LossNorm, NGDiff, PCGrad, Sum
    from ngdiff.core.info import ForgetLevel, RetainBound, SetLevel
    from ngdiff.core.loop import UnlearningStep, unlearn
    from ngdiff.core.stepsize import Constant, WarmupCosine, WarmupLinear
    from ngdiff.engine.engine import Engine
    from ngdiff.engine.master import Master
    from ngdiff.evaluation.suites import evaluate
    from ngdiff.lm import lora
    from ngdiff.lm.model import load, save
    from ngdiff.lm.pair import pair, reference, target
    from ngdiff.methods import objectives
    from ngdiff.methods.definition import Method
    from ngdiff.methods.problem import problem
    from ngdiff.profiles import profile
    from ngdiff.theory import quadratics

__version__ = "0.1.0"
__all__ = [
    "MGDA",
    "AutoLR",
    "Constant",
    "Engine",
    "ForgetLevel",
    "GradAscent",
    "GradDiff",
    "LossNorm",
    "Master",
    "Method",
    "NGDiff",
    "PCGrad",
    "RetainBound",
    "SetLevel",
    "Sum",
    "UnlearningStep",
    "WarmupCosine",
    "WarmupLinear",
    "data",
    "evaluate",
    "figures",
    "load",
    "lora",
    "methods",
    "objectives",
    "pair",
    "problem",
    "profile",
    "quadratics",
    "reference",
    "save",
    "score",
    "study",
    "target",
    "unlearn",
]
# public name -> the module that defines it; the other names of __all__ are modules
_HOME = {
    **dict.fromkeys(("unlearn", "UnlearningStep"), "core.loop"),
    **dict.fromkeys(
        ("NGDiff", "GradAscent", "GradDiff", "LossNorm", "PCGrad", "MGDA", "Sum"), "core.directions"
    ),
    **dict.fromkeys(("Constant", "WarmupLinear", "WarmupCosine"), "core.stepsize"),
    **{
        "AutoLR": "core.autolr",
        **dict.fromkeys(("ForgetLevel", "RetainBound", "SetLevel"), "core.info"),
    },
    **{"Engine": "engine.engine", "Master": "engine.master", "profile": "profiles"},
    **{
        **dict.fromkeys(("load", "save"), "lm.model"),
        **dict.fromkeys(("target", "reference", "pair"), "lm.pair"),
    },
    **{
        "Method": "methods.definition",
        "problem": "methods.problem",
        "evaluate": "evaluation.suites",
    },
}  # public name -> the module that defines it; the other names of __all__ are modules
_MODULES = {
    "lora": "lm.lora",
    "objectives": "methods.objectives",
    "quadratics": "theory.quadratics",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(
            f"module 'ngdiff' has no attribute {name!r}; public names: {', '.join(__all__)}"
        )
    module = importlib.import_module(f"ngdiff.{_HOME.get(name) or _MODULES.get(name, name)}")
    value = getattr(module, name) if name in _HOME else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
