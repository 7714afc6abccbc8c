"""The conventions by name, for the command line and for messages.

"ngdiff" is the definition, corrected. The others follow each benchmark's own code where that does
something else, because their numbers must be comparable. Each class says what differs:

    ngdiff            `definition.Convention`
    tofu              `convention_tofu.TOFU`
    open-unlearning   `convention_open_unlearning.OpenUnlearning`
    muse              `convention_muse.Muse`
    semeval           `convention_semeval.SemEval`
"""

from __future__ import annotations

from ngdiff.evaluation.convention_muse import Muse
from ngdiff.evaluation.convention_open_unlearning import OpenUnlearning
from ngdiff.evaluation.convention_semeval import SemEval
from ngdiff.evaluation.convention_tofu import TOFU
from ngdiff.evaluation.definition import Convention

__all__ = ["CONVENTIONS", "Convention", "convention", "names"]

ALL = (Convention(), TOFU(), OpenUnlearning(), Muse(), SemEval())
CONVENTIONS = {how.name: how for how in ALL}


def names(suite: str | None = None) -> tuple[str, ...]:
    """Return the names of the conventions that can evaluate a benchmark; None: of all."""
    return tuple(how.name for how in ALL if suite is None or how.evaluates(suite))


def convention(name: str | Convention, suite: str | None = None) -> Convention:
    """Return the convention of that name; a Convention is returned as it is.

    Raises ValueError, listing the known names, for an unknown name, and for a convention that
    cannot evaluate the benchmark `suite`.
    """
    how = name if isinstance(name, Convention) else CONVENTIONS.get(name)
    if how is None:
        what = f"unknown convention {name!r}"
    elif suite is None or how.evaluates(suite):
        return how
    else:
        what = f"the convention {how.name!r} is not defined for {suite}"
    raise ValueError(f"{what}: choose one of {', '.join(map(repr, names(suite)))}")
