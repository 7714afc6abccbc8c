"""The long comparison in sentences, for the README, docs/results.md and the notebooks.

Each one is worked out from saved rows (`ngdiff.study.verdicts`): if the rows change, it changes.
The tables are in `ngdiff.book.evidence_tables`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ngdiff.book.saved import NOT_RUN
from ngdiff.methods.lookup import label, ordered
from ngdiff.methods.recipes import family
from ngdiff.study import evidence, verdicts
from ngdiff.study.claims import OURS
from ngdiff.study.intervals import Interval, mean, select
from ngdiff.study.rules import LABELS, run_label
from ngdiff.study.verdicts import Evidence

Row = dict[str, Any]
OURSELVES = run_label(OURS, "autolr")
TITLES = {
    "authors": "the generated authors",
    "authors-all": "the authors with every retain row",
    "news": "the generated news",
    "dossiers": "the generated dossiers",
    "tofu": "TOFU's rows",
    "lume": "LUME's rows",
}


@lru_cache(maxsize=2)
def _load(folder: Path, changed: int) -> Evidence:
    return verdicts.load(folder)


def load(root: Path) -> Evidence:
    """Return the saved evidence of a checkout."""
    folder = root / "data/results/tiny"
    newest = max((p.stat().st_mtime_ns for p in folder.glob("evidence_*")), default=0)
    return _load(folder, newest)


def listed(methods: Iterable[str]) -> str:
    """Return labels as "A, B and C", or "no method"."""
    names = [label(m) for m in ordered(methods)]
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]])) or "no method"


def _won(found: Evidence, name: str) -> dict[str, list[str]]:
    """Return "worse", "better", "open", "apart" → the methods of E1 on a data set."""
    sides: dict[str, list[str]] = {"worse": [], "better": [], "open": [], "apart": []}
    for row in verdicts.against(found, name):
        word = row["verdict"]
        side = (
            "worse"
            if word.startswith("tuned")
            else "better"
            if word.startswith(OURSELVES)
            else "apart"
            if word == "not matched"
            else "open"
        )
        sides[side].append(row["method"])
    return sides


def in_short(found: Evidence) -> str:
    """Return the README's findings, the losing ones first."""
    lines = []
    for name in _first(found):
        sides = _won(found, name)
        units = len({(r["data"], r["target_seed"]) for r in found.of("compare", name)})
        open_ = f" Undecided: {listed(sides['open'])}." if sides["open"] else ""
        apart = f" Not comparable: {listed(sides['apart'])}." if sides["apart"] else ""
        lines.append(
            f"On {TITLES[name]} ({units} {_unit(found, name)}) {OURSELVES} is worse than "
            f"{listed(sides['worse'])}, and better than {listed(sides['better'])}.{open_}{apart}"
        )
    lines += [control(found), adaptive(found), _too_far(found)]
    return "\n".join(f"- {line}" for line in lines if line)


def _first(found: Evidence) -> list[str]:
    """Return the data sets of E1 that were run, real rows first."""
    return [name for name in ("tofu", "lume", "authors") if name in found.names]


def _unit(found: Evidence, name: str) -> str:
    several = len({r["data"] for r in found.of("compare", name)}) > 1
    return "populations" if several else "models"


def _too_far(found: Evidence) -> str:
    """Say how far our method forgets without a stop, against rows that were never seen."""
    walked = select(found.of("fixed", "authors"), method=OURS, stepsize="autolr")
    starts = select(found.of("levels", "authors"), model="start")
    if not (walked and starts):
        return ""
    ended, level = (mean([r[key] for r in rows]) for rows, key in _ends(walked, starts))
    verdict = "forgets too much" if ended > 1.5 * level else "ends near the level"
    return (
        f"Without a stop {OURSELVES} {verdict}: its forget loss ends at {ended:.1f}, the hold-out "
        f"level is {level:.1f}."
    )


def _ends(walked: Sequence[Row], starts: Sequence[Row]) -> list[tuple[Sequence[Row], str]]:
    return [(walked, "loss_forget"), (starts, "loss_holdout")]


def ahead(found: Evidence, name: str) -> str:
    """Return which rivals score above NGDiff on a data set: the first sentence of its page."""
    if name not in found.names:
        return f"The long comparison on {TITLES[name]}: {NOT_RUN}."
    lines = verdicts.shown(found, name, ("score",))
    by_run = {(line["method"], line["stepsize"]): line["score"] for line in lines}
    rivals = [
        r for r in lines if r["stepsize"] == "constant" and r["method"] in _rivals(found, name)
    ]
    said = []
    for rule, what in (("autolr", OURSELVES), ("constant", "tuned NGDiff")):
        ours = by_run[OURS, rule]
        above = [r for r in rivals if r["score"] > ours]
        those = ", ".join(f"{label(r['method'])} ({r['score']:.3f})" for r in above)
        said.append(
            f"{len(above)} of {len(rivals)} tuned rivals score above {what} ({ours:.3f})"
            + (f": {those}." if above else ".")
        )
    title = TITLES[name]
    return f"In the long comparison on {title}, {said[0]} {said[1]}"


def _rivals(found: Evidence, name: str) -> set[str]:
    """Return the tuned candidates of the rivals of every page."""
    return {
        r["method"] for r in found.of("compare", name) if family(r["method"]) in evidence.RIVALS
    }


def answers(found: Evidence) -> str:
    """Return the answer of E1 on every data set, a sentence each."""
    lines = []
    for name in found.names:
        sides = _won(found, name)
        said = [
            f"On {TITLES[name]} {OURSELVES} scores **lower** than {listed(sides['worse'])}.",
            f"It scores higher than {listed(sides['better'])}.",
            f"It is undecided against {listed(sides['open'])}." if sides["open"] else "",
            f"There is no pair to compare with {listed(sides['apart'])}." if sides["apart"] else "",
        ]
        lines.append("- " + " ".join(filter(None, said)))
    return "\n".join(lines)


def control(found: Evidence) -> str:
    """Return the answer of E2 in sentences."""
    rows = verdicts.regrets(found)
    if not rows:
        return NOT_RUN
    best = rows[0]
    ours = next(r for r in rows if (r["method"], r["stepsize"]) == (OURS, "autolr"))
    tuned = next(r for r in rows if (r["method"], r["stepsize"]) == (OURS, "constant"))
    names = ", ".join(
        f"{run_label(r['method'], r['stepsize'])} {with_interval(r)}" for r in (ours, tuned)
    )
    return (
        f"Over {len(found.names)} data sets {run_label(best['method'], best['stepsize'])} has the "
        f"smallest largest regret, {with_interval(best)}. It is the smallest in "
        f"{best['best']:.0%} of the bootstrap draws. For comparison: {names}."
    )


def with_interval(row: Row) -> str:
    """Return the largest regret of a row of E2, with its interval."""
    return f"{row['largest']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def adaptive(found: Evidence) -> str:
    """Return the answer of E3 in sentences."""
    said = []
    for name in ("authors", "tofu"):
        if rows := found.of("adapt", name):
            other, gap = verdicts.adapts(rows)
            verb = {"above": "adds to", "below": "takes from"}.get(
                gap.sign, "changes nothing sure of"
            )
            said.append(
                f"On {TITLES[name]} AutoLR after its first search {verb} the score of "
                f"“{LABELS[other]}”: {spread(gap)}."
            )
    return " ".join(said)


def spread(found: Interval) -> str:
    span = "" if found.low is None else f" [{found.low:+.3f}, {found.high:+.3f}]"
    return f"{found.mean:+.3f}{span}"


def stability(found: Evidence) -> str:
    """Return the answer of E4 in sentences."""
    rows = bands(found)
    if not rows:
        return NOT_RUN
    said = []
    for optimizer in evidence.BANDS:
        mine = sorted(
            (r for r in rows if r["optimizer"] == optimizer), key=lambda r: -(r["decades"] or -1)
        )
        widest = mine[0]
        ours = next(r for r in mine if r["method"] == OURS)
        same = [r["method"] for r in mine if r["decades"] == widest["decades"]]
        said.append(
            f"Under {optimizer.upper() if optimizer == 'sgd' else 'AdamW'} {listed(same)} "
            f"{'has' if len(same) == 1 else 'have'} the widest band, {wide(widest)} decades; "
            f"NGDiff has {wide(ours)}."
        )
    return " ".join(said)


def wide(row: Row) -> str:
    return "none" if row["decades"] is None else f"{row['decades']:g}"


def bands(found: Evidence) -> list[Row]:
    rows = found.of("bands", "authors")
    return verdicts.bands(rows, found.of("levels", "authors")) if rows else []


def gains(found: Evidence) -> dict[str, dict[str, float]]:
    """Return data set → the score of tuned NGDiff minus GradDiff(0.5)'s, and minus the best c's."""
    rows, gained = verdicts.regrets(found), {}
    for name in found.names:
        regret = {r["method"]: r[name] for r in select(rows, stepsize="constant")}
        best = min(regret[method] for method in evidence.MIXTURES)
        others = {label("graddiff-0.5"): regret["graddiff-0.5"], "the best fixed c": best}
        gained[TITLES[name]] = {what: value - regret[OURS] for what, value in others.items()}
    return gained
