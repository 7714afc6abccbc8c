"""The verdict on a run of `ngdiff unlearn`, from what was said before and after it.

Each verdict has its own exit status. Errors and refusals have 2, as in every command.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ngdiff.commands.sample import Measured

STATUS = {
    "forgotten": 0,
    "broken": 1,
    "level not reached": 3,
    "still said": 4,
    "retain lost": 5,
    "not known": 6,
    "not measured": 7,
}


@dataclass(frozen=True)
class Verdict:
    """A word, and the numbers behind it in a sentence."""

    word: str
    text: str

    @property
    def status(self) -> int:
        """Return the exit status of the command."""
        return STATUS[self.word]


@dataclass(frozen=True)
class Bounds:
    """forget: largest share of the forget sample that may still be said verbatim.
    retain: smallest share of the retain sample's score that must be kept.
    """

    forget: float = 0.1
    retain: float = 0.9


def number(value: Any) -> float:
    """Return a saved number; null, which stands for one that is not finite, is NaN."""
    return math.nan if value is None else float(value)


def share(one: Mapping[str, Any]) -> float:
    """Return the share of a sample that is said verbatim."""
    return one["verbatim"] / one["rows"]


def kept(before: Measured, after: Measured) -> float:
    """Return the share of the retain sample's score that is kept; 1 where the start had none.

    The score is the mean ROUGE-L recall. Where the start says half of the answers verbatim, the
    number of these counts too, and the smaller share is returned.
    """
    old, new = before["retain"], after["retain"]
    shares = []
    if number(old["rouge"]) > 0:
        shares.append(number(new["rouge"]) / number(old["rouge"]))
    if share(old) >= 0.5:
        shares.append(share(new) / share(old))
    return min(shares, default=1.0)


def judge(
    stopped: str,
    level: float | None,
    before: Measured,
    after: Measured,
    bounds: Bounds,
    doubted: bool = False,
) -> Verdict:
    """Return the verdict on a run that ended as `stopped` says (`Run.stopped`).

    level: the forget loss at which it should stop, None for no stop. doubted: the start did not
    know the forget rows (`ngdiff.commands.doubt`).
    """
    forget = after["forget"]
    allowed = max(bounds.forget, share(before["holdout"]) if "holdout" in before else 0.0)
    left = kept(before, after)
    said = f"{forget['verbatim']} of {forget['rows']} forget answers are said verbatim"
    retained = f"{left:.0%} of the retain sample's score is kept"
    if stopped == "nonfinite":
        return Verdict("broken", "a loss or gradient was not finite")
    if level is not None and stopped != "forget_level":
        return Verdict("level not reached", f"{said}, {retained}")
    if share(forget) > allowed:
        return Verdict("still said", f"{said}, more than {allowed:.0%}")
    if doubted:
        return Verdict(
            "not known", "under this prompt the model did not know the forget rows before"
        )
    if not left >= bounds.retain:
        return Verdict("retain lost", f"{retained}, less than {bounds.retain:.0%}")
    return Verdict("forgotten", f"{said}, {retained}")
