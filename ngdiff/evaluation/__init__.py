"""All metrics: those of TOFU, MUSE and SemEval, by `evaluate(lm, bench) -> Report`.

Importing the package loads neither torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ngdiff.evaluation.report import Report
    from ngdiff.evaluation.suites import evaluate

_HOME = {"evaluate": "suites", "Report": "report"}
__all__ = ["Report", "evaluate"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(
        f"module {__name__!r} has no attribute {name!r}; it offers {', '.join(__all__)}"
    )


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
