"""Unlearning methods: objectives, what the recipes are called, and a benchmark with a model as the
loop's problem.

`methods.NGDiff`, `methods.Method` and `methods.method` are those of `methods.recipes`; they load on
first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ngdiff.methods.recipes import *  # noqa: F403


def __getattr__(name: str) -> Any:
    if name[0].isupper() or name == "method":  # others are modules
        from ngdiff.methods import recipes

        return getattr(recipes, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
