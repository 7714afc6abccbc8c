"""The comparison: what is run on equal terms, and what its rows say.

`ng.study.compare` is that of `ngdiff.study.comparison`; it loads on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ngdiff.study.comparison import compare as compare


def __getattr__(name: str) -> Any:
    if name == "compare":
        from ngdiff.study.comparison import compare

        return compare
    raise AttributeError(
        f"module {__name__!r} has no attribute {name!r}; it has compare, and modules: write "
        "import ngdiff.study.tables before the first use of one"
    )


def __dir__() -> list[str]:
    return sorted({*globals(), "compare"})
