"""ngdiff: normalised gradient difference, a learning rate that sets itself, and a place to measure both.

    import ngdiff as ng
    step = ng.UnlearningStep(model, optimizer, direction=ng.NGDiff(), stepsize=ng.AutoLR())

The public names load on first use (PEP 562), so `import ngdiff` costs milliseconds and no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ngdiff import data, figures, methods
    from ngdiff.core.autolr import AutoLR
    from ngdiff.core.directions import MGDA, GradAscent, GradDiff, LossNorm, NGDiff, PCGrad
    from ngdiff.core.info import ForgetLevel, RetainBound
    from ngdiff.core.loop import UnlearningStep, unlearn
    from ngdiff.core.stepsize import Constant, WarmupCosine, WarmupLinear
    from ngdiff.engine.engine import Engine
    from ngdiff.engine.master import Master
    from ngdiff.evaluation import evaluate
    from ngdiff.lm import lora
    from ngdiff.lm import pair as models
    from ngdiff.methods import objectives
    from ngdiff.profiles import profile
    from ngdiff.store import rows as results
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
    "NGDiff",
    "PCGrad",
    "RetainBound",
    "UnlearningStep",
    "WarmupCosine",
    "WarmupLinear",
    "data",
    "evaluate",
    "figures",
    "lora",
    "methods",
    "models",
    "objectives",
    "profile",
    "quadratics",
    "results",
    "unlearn",
]
_HOME = {
    **dict.fromkeys(("unlearn", "UnlearningStep"), "ngdiff.core.loop"),
    **dict.fromkeys(("NGDiff", "GradAscent", "GradDiff", "LossNorm", "PCGrad", "MGDA"), "ngdiff.core.directions"),
    **dict.fromkeys(("Constant", "WarmupLinear", "WarmupCosine"), "ngdiff.core.stepsize"),
    "AutoLR": "ngdiff.core.autolr",
    **dict.fromkeys(("ForgetLevel", "RetainBound"), "ngdiff.core.info"),
    **{
        "evaluate": "ngdiff.evaluation",
        "profile": "ngdiff.profiles",
        "Engine": "ngdiff.engine.engine",
        "Master": "ngdiff.engine.master",
    },
}  # public name -> the module that defines it
_MODULES = {
    **{"data": "ngdiff.data", "figures": "ngdiff.figures", "lora": "ngdiff.lm.lora", "methods": "ngdiff.methods"},
    **{"models": "ngdiff.lm.pair", "objectives": "ngdiff.methods.objectives", "quadratics": "ngdiff.theory.quadratics"},
    "results": "ngdiff.store.rows",
}  # public name -> the module it is


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'ngdiff' has no attribute {name!r}; public names: {', '.join(__all__)}")
    module = importlib.import_module(_HOME[name] if name in _HOME else _MODULES[name])
    value = getattr(module, name) if name in _HOME else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
