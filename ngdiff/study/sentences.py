"""The larger grid in sentences for the README, each worked out from its saved rows: what changes
there changes here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ngdiff.methods.lookup import label, ordered
from ngdiff.study.claims import OURS
from ngdiff.study.intervals import mean, select

Row = dict[str, Any]
Rows = Sequence[Row]


def average(rows: Rows, key: str) -> float:
    return mean([r[key] for r in rows])


def share(rows: Rows) -> float:
    """Of runs that reached the hold-out level."""
    return mean([r["stopped"] == "forget_level" for r in rows])


def sentences(matched: Rows, tuning: Rows, starts: Rows, fixed: Rows, claimed: Rows) -> list[str]:
    """The grid's findings; arguments are the rows of its files."""
    against = {
        r["name"].removeprefix("against "): r for r in claimed if r["name"].startswith("against ")
    }
    by_name = {r["name"]: r for r in claimed}
    return [
        _verdicts(against),
        _with_autolr(matched),
        _rates(tuning, starts, by_name),
        _cost(matched),
        _ascent(claimed, by_name),
        _without_a_stop(fixed),
    ]


def _list(methods: Sequence[str]) -> str:
    return ", ".join(label(m) for m in ordered(methods)) or "none"


def _verdicts(against: dict[str, Row]) -> str:
    def those(word: str) -> str:
        return _list([m for m in against if word in against[m]["verdict"]])

    ours = _list([m for m, r in against.items() if r["low"] > 0])
    theirs = _list([m for m, r in against.items() if r["high"] < 0])
    return (
        f"On pairs that both arrived NGDiff + AutoLR is better than {those('NGDiff + AutoLR')}; "
        "**worse than "
        f"{those('tuned')}**; "
        f"undecided against {those('undecided')}; not matched with {those('not matched')} (all at "
        "their tuned "
        f"rates). Over all "
        f"pairs the interval leaves zero out in its favour against {ours}; in the other's, "
        f"against {theirs}."
    )


def _with_autolr(matched: Rows) -> str:
    runs = {r["method"]: select(matched, method=r["method"], stepsize="autolr") for r in matched}
    score = {m: average(mine, "score") for m, mine in runs.items() if mine}
    ahead = [f"{label(m)} ({score[m]:.3f})" for m in ordered(score) if score[m] > score[OURS]]
    arrived = ", ".join(f"{label(m)} {share(runs[m]):.0%}" for m in ordered(score))
    return (
        f"AutoLR is no property of NGDiff, and with it NGDiff ({score[OURS]:.3f}) has a lower "
        "mean score than "
        f"{', '.join(ahead) or 'none'}. Runs that arrived with AutoLR: {arrived}. KL's retain "
        "loss starts at its "
        f"minimum, where "
        "there is no parabola to find."
    )


def _swings(rows: Rows) -> str:
    """The smallest and the largest best − worst score of a method over its rates."""
    scores: dict[str, list[float]] = {}
    for row in rows:
        scores.setdefault(row["method"], []).append(row["score"])
    swing = sorted((max(v) - min(v), label(m)) for m, v in scores.items() if len(v) > 1)
    return " to ".join(f"{size:.2f} ({name})" for size, name in (swing[0], swing[-1]))


def _rates(tuning: Rows, starts: Rows, by_name: dict[str, Row]) -> str:
    groups = [select(starts, lr=lr) for lr in sorted({r["lr"] for r in starts})]
    steps, arrived = sorted(average(g, "updates") for g in groups), sorted(share(g) for g in groups)
    first, last = min(r["lr"] for r in starts), max(r["lr"] for r in starts)
    return (
        f"Over {len(groups)} starting rates, {first:g} to {last:g}, its score moves by "
        f"{by_name['AutoLR over starting rates']['mean']:.3f}, its mean number of updates from "
        f"{steps[0]:.0f} to "
        f"{steps[-1]:.0f}, "
        f"the share that arrives from {arrived[0]:.0%} to {arrived[-1]:.0%}. Over the constant "
        "rates that arrived, "
        f"one run each, a "
        f"method's score moves by {_swings(select(tuning, stopped='forget_level'))}; over all by "
        f"{_swings(tuning)}. "
        f"Over c, each at "
        f"its tuned rate, GradDiff's moves by {by_name['swing of graddiff with c']['mean']:.2f}."
    )


def _cost(matched: Rows) -> str:
    auto, tuned = (select(matched, method=OURS, stepsize=rule) for rule in ("autolr", "constant"))
    late = sum(r["stopped"] != "forget_level" for r in auto)
    return (
        f"It makes {average(auto, 'updates'):.0f} updates in {average(auto, 'seconds'):.1f} s "
        "where NGDiff at its "
        f"tuned rate makes "
        f"{average(tuned, 'updates'):.0f} in {average(tuned, 'seconds'):.1f} s (means); its "
        f"{average(auto, 'forwards'):.0f} forwards of probing, on four times the rows, are in the "
        f"seconds. {late} "
        f"of its {len(auto)} "
        "runs did not arrive in time."
    )


def _ascent(claimed: Rows, by_name: dict[str, Row]) -> str:
    keeps = [r for r in claimed if r["name"].startswith("ascent keeps, without")]
    each = ", ".join(f"{r['mean']:.2f} at {r['name'].rpartition(' ')[2]}" for r in keeps)
    return (
        f"Pure ascent keeps {by_name['ascent keeps, at matched forgetting']['mean']:.2f} of the "
        "utility at matched "
        f"forgetting; "
        f"without a stop {each}."
    )


def _without_a_stop(fixed: Rows) -> str:
    groups: dict[str, list[Row]] = {}
    for r in fixed:
        if r["method"] != "gradascent":
            groups.setdefault(
                label(r["method"]) + " + AutoLR" * (r["stepsize"] == "autolr"), []
            ).append(r)
    best = sorted(groups, key=lambda name: -average(groups[name], "score"))
    each = ", ".join(
        f"{n} {average(groups[n], 'score'):.3f} ({average(groups[n], 'loss_forget'):.1f})"
        for n in best
    )
    return (
        "Without a stop, on the first model (the score does not count forgetting too much; in "
        "brackets the forget loss): "
        f"{each}."
    )
