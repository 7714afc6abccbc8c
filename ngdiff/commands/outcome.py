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
    "unchanged": 8,
}
KNOWN = 0.5  # mean ROUGE-L recall of rows that a model knows, without hold-out rows to compare with
MEASURABLE = 0.05  # mean ROUGE-L recall of which a share can be kept


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


def known(before: Measured) -> bool:
    """Return whether the start knows the forget rows.

    With hold-out rows: it knows them better than those. The loss must be lower, and more answers
    said verbatim or the ROUGE-L recall higher, each by more than two standard errors.
    Without: it says an answer verbatim, or the recall is at least KNOWN.
    """
    forget = before["forget"]
    if "holdout" not in before:
        return bool(forget["verbatim"]) or number(forget["rouge"]) >= KNOWN
    holdout = before["holdout"]
    pooled = (forget["verbatim"] + holdout["verbatim"]) / (forget["rows"] + holdout["rows"])
    return _above(holdout, forget, "row_loss") and (
        _above(forget, holdout, "rouge")
        or share(forget) - share(holdout) > 2 * share_error(pooled, forget, holdout)
    )


def _above(one: Mapping[str, Any], other: Mapping[str, Any], name: str) -> bool:
    """Return whether a mean over one sample's rows is above the other's, not by chance alone."""
    gap = number(one[name]) - number(other[name])
    return gap > 2 * error(one, other, name)


def error(one: Mapping[str, Any], other: Mapping[str, Any], name: str) -> float:
    """Return the standard error of the difference of two samples' means.

    A sample of one row has the other one's deviation. Where both have one row only, it is a
    quarter of the larger mean.
    """
    deviations = [number(sample[f"{name}_sd"]) for sample in (one, other)]
    measured = [d for d in deviations if math.isfinite(d)]
    if not measured:
        return max(number(one[name]), number(other[name])) / 4
    squares = (
        (d if math.isfinite(d) else measured[0]) ** 2 / sample["rows"]
        for d, sample in zip(deviations, (one, other), strict=True)
    )
    return math.sqrt(sum(squares))


def share_error(value: float, one: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Return the standard error of the difference of two samples' shares, both `value` in truth."""
    return math.sqrt(value * (1 - value) * (1 / one["rows"] + 1 / other["rows"]))


def kept(before: Measured, after: Measured) -> float:
    """Return the share of the retain sample's score that is kept.

    The score is the mean ROUGE-L recall. Where the start says half of the answers verbatim, the
    number of these counts too, and the smaller share is returned. A start that says next to
    nothing of them is measured by its loss: the ratio of exp(-loss).
    """
    old, new = before["retain"], after["retain"]
    shares = []
    if number(old["rouge"]) >= MEASURABLE:
        shares.append(number(new["rouge"]) / number(old["rouge"]))
    if share(old) >= 0.5:
        shares.append(share(new) / share(old))
    if shares:
        return min(shares)
    return math.exp(-max(number(new["loss"]) - number(old["loss"]), 0.0))


def allowed(before: Measured, after: Measured, bounds: Bounds) -> tuple[float, float]:
    """Return the largest share said verbatim and the largest ROUGE-L recall of forgotten rows.

    share   the bound; or the hold-out rows' share before the run, and two standard errors
    recall  as if the bound's share of the rows were as before, and the others had fallen to half
            of that, or to the hold-out rows' recall; and two standard errors
    """
    forget = after["forget"]
    most, recall = bounds.forget, number(before["forget"]["rouge"])
    fallen, chance = recall / 2, 0.0
    if "holdout" in before:
        unseen = before["holdout"]
        by_chance = share(unseen)
        most = max(most, min(1.0, by_chance + 2 * share_error(by_chance, forget, unseen)))
        fallen, chance = max(fallen, number(unseen["rouge"])), 2 * error(forget, unseen, "rouge")
    return most, bounds.forget * recall + (1 - bounds.forget) * fallen + chance


def judge(
    stopped: str,
    level: float | None,
    before: Measured,
    after: Measured,
    bounds: Bounds,
    updates: int,
) -> Verdict:
    """Return the verdict on a run that ended as `stopped` says (`Run.stopped`).

    level: the forget loss at which it should stop, None for no stop. updates: how many were made.
    """
    forget, old = after["forget"], before["forget"]
    share_limit, recall_limit = allowed(before, after, bounds)
    left, recall = kept(before, after), number(forget["rouge"])
    said = f"{forget['verbatim']} of {forget['rows']} forget answers are said verbatim"
    recalls = f"their ROUGE-L recall is {recall:.3f} after {number(old['rouge']):.3f}"
    retained = f"{left:.0%} of the retain sample's score is kept"
    if stopped == "nonfinite":
        return Verdict("broken", "a loss or gradient was not finite")
    if level is not None and stopped != "forget_level":
        return Verdict("level not reached", f"{said}, {retained}")
    if not updates:
        return Verdict("unchanged", f"the run ended before any update; {said}")
    if share(forget) > share_limit:
        return Verdict("still said", f"{said}, more than {share_limit:.0%}")
    if not known(before):
        return Verdict("not known", f"the model did not know the forget rows before; {recalls}")
    if not recall <= recall_limit:
        return Verdict("still said", f"{said}, and {recalls}, more than {recall_limit:.3f}")
    if not left >= bounds.retain:
        return Verdict("retain lost", f"{retained}, less than {bounds.retain:.0%}")
    return Verdict("forgotten", f"{said}, {recalls}, {retained}")
