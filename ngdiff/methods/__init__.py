"""Unlearning methods: objectives, methods as values, and the problem that a benchmark and a model
make.

`methods.ngdiff`, `methods.graddiff(0.9)`, `methods.METHODS` and the other values are those of
`methods.recipes`, `methods.Method` is that of `methods.definition`; they load on first use.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ngdiff.methods.definition import Defaults, Look, Method
    from ngdiff.methods.lookup import method
    from ngdiff.methods.recipes import *  # noqa: F403

    __all__ = ["Defaults", "Look", "Method", "method"]
HANDED_ON = ("METHODS", "Defaults", "Look", "Method", "graddiff", "method", "tagged")


def __getattr__(name: str) -> Any:
    if name.startswith("_") or find_spec(f"{__name__}.{name}"):  # a module is imported, not asked
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import ngdiff.methods.lookup as lookup
    import ngdiff.methods.recipes as recipes

    value = getattr(recipes, name, getattr(lookup, name, None))
    if name in HANDED_ON or isinstance(value, recipes.Method):
        return value
    raise AttributeError(
        f"module {__name__!r} has no attribute {name!r}; it has {', '.join(_named())} and "
        "graddiff(c); METHODS has all of them by key"
    )


def __dir__() -> list[str]:
    return sorted({*globals(), *HANDED_ON, *_named()})


def _named() -> list[str]:
    """Return the names of the package's methods, as attributes of this module."""
    import ngdiff.methods.recipes as recipes

    return [name for name, value in vars(recipes).items() if isinstance(value, recipes.Method)]
