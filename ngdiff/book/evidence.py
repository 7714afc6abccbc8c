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
FIRST = ("tofu", "lume", "authors")  # of the README, real rows first
RULED = ("authors", "tofu")  # the data sets of E3
OPTIMIZERS = {"adamw": "AdamW", "sgd": "SGD"}
DIGITS = 3  # of a printed regret
FINE = 4  # of a printed score that others are compared with
SIDES = {f"{OURSELVES} better": "better", "not matched": "few"}


@lru_cache(maxsize=2)
def _load(folder: Path, files: tuple[tuple[str, int], ...]) -> Evidence:
    return verdicts.load(folder)


def load(root: Path) -> Evidence:
    """Return the saved evidence of a checkout."""
    folder = root / "data/results/tiny"
    seen = [*folder.glob("evidence_*"), *verdicts.protocol_of(folder).rglob("*.parquet")]
    return _load(folder, tuple(sorted((str(path), path.stat().st_mtime_ns) for path in seen)))


def listed(methods: Iterable[str]) -> str:
    """Return labels as "A, B and C"."""
    return joined([label(m) for m in ordered(methods)])


def joined(names: Sequence[str]) -> str:
    """Return names as "A, B and C"; "" of none."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def left_out(found: Evidence, part: str = "compare", names: Iterable[str] = TITLES) -> str:
    """Return a sentence with the data sets of which a part was not run; "" where all were."""
    return unrun(name for name in names if not found.of(part, name))


def unrun(names: Iterable[str]) -> str:
    """Return a sentence that names data sets as not run; "" for none."""
    titles = joined([TITLES[name] for name in names])
    return f"On {titles}: {NOT_RUN}." if titles else ""


def spread(found: Interval, form: str = "+.3f") -> str:
    """Return mean and interval as text; a range, which is no 95 % interval, says so."""
    if found.low is None or found.high is None:
        return f"{found.mean:{form}}"
    kind = "" if found.kind == "95 %" else " (range)"
    return f"{found.mean:{form}} [{found.low:{form}}, {found.high:{form}}]{kind}"


def _sides(found: Evidence, name: str) -> dict[str, list[str]]:
    """Return "worse", "better", "open", "few" → the methods of E1 on a data set.

    Only a test names a side. "open": there is a test, and it does not decide. "few": there are too
    few pairs for a test in which both runs reached the level.
    """
    sides: dict[str, list[str]] = {"worse": [], "better": [], "open": [], "few": []}
    for row in verdicts.against(found, name):
        beaten = row["verdict"].startswith("tuned ") and row["verdict"].endswith(" better")
        side = "worse" if beaten else SIDES.get(row["verdict"], "open")
        sides["few" if row["p_holm"] is None else side].append(row["method"])
    return sides


def in_short(found: Evidence) -> str:
    """Return the README's findings, the losing ones first."""
    lines = [_short(found, name) for name in FIRST if name in found.names]
    over = control(found) if len(verdicts.weighed(found)) == len(TITLES) else ""  # few say little
    lines += [over, adaptive(found), _too_far(found)]
    lines = [line for line in lines if line and line != NOT_RUN]
    return "\n".join(f"- {line}" for line in [*lines, left_out(found)] if line)


def _short(found: Evidence, name: str) -> str:
    rows, sides = found.of("compare", name), _sides(found, name)
    units = len({(r["data"], r["target_seed"]) for r in rows})
    unit = "population" if len({r["data"] for r in rows}) > 1 else "model"
    where = f"On {TITLES[name]} ({units} {unit}{'s' if units > 1 else ''})"
    if not any(sides.values()):
        return f"{where} there are no runs to compare."
    said = [*_compared(sides, "untuned " + OURSELVES, brief=True), _higher(found, name)]
    return f"{where}: " + " ".join(filter(None, said))


def _higher(found: Evidence, name: str) -> str:
    """Name the rivals with a higher mean score, whatever a test says; "" where there is none."""
    ours, above, rivals = _above(found, name, "autolr")
    whom = f"{len(above)} of {len(rivals)} tuned rivals: {listed(r['method'] for r in above)}"
    return f"But the mean score is higher for {whom}." if ours and above else ""


def _above(found: Evidence, name: str, rule: str) -> tuple[Row | None, list[Row], list[Row]]:
    """Return NGDiff under a step-size rule, the tuned rivals with a higher mean score (as it is
    printed), and all tuned rivals.
    """
    lines = verdicts.shown(found, name, ("score",))
    rivals = [line for line in select(lines, stepsize="constant") if line["method"] != OURS]
    rivals = [line for line in rivals if family(line["method"]) in evidence.RIVALS]
    ours = next(iter(select(lines, method=OURS, stepsize=rule)), None)
    least = round(ours["score"], FINE) if ours else 0.0
    return ours, [line for line in rivals if round(line["score"], FINE) > least], rivals


def _compared(sides: dict[str, list[str]], ours: str, brief: bool = False) -> list[str]:
    """Return the sides in sentences, the losing one first. brief: the undecided are counted."""
    named = (lambda methods: f"{len(methods)} more") if brief else listed
    worse, better, open_, few = (sides[side] for side in ("worse", "better", "open", "few"))
    none = f"no tuned method is better than {ours}."
    return [
        f"{ours} is worse than tuned {listed(worse)}." if worse else none,
        f"It is better than {f'tuned {listed(better)}' if better else 'none of them'}.",
        *([f"Undecided: {named(open_)}."] if open_ else []),
        *([f"Too few pairs for a test: {named(few)}."] if few else []),
    ]


def answers(found: Evidence) -> str:
    """Return the answer of E1 on every data set, a sentence each."""
    lines = []
    for name in found.names:
        sides = _sides(found, name)
        said = f"On {TITLES[name]}: " + " ".join(_compared(sides, OURSELVES))
        lines.append(said if any(sides.values()) else f"On {TITLES[name]}: no runs to compare.")
    return "\n".join(f"- {line}" for line in [*lines, left_out(found)] if line)


def ahead(found: Evidence, name: str) -> str:
    """Return which rivals score above NGDiff on a data set: the first sentence of its page."""
    said, every = [], []
    for rule, what in (("autolr", OURSELVES), ("constant", "tuned NGDiff")):
        ours, above, rivals = _above(found, name, rule)
        every += rivals
        if ours:
            those = ", ".join(f"{label(line['method'])} ({_scored(line)})" for line in above)
            score = "scores" if len(above) == 1 else "score"
            said.append(
                f"{len(above)} of {len(rivals)} tuned rivals {score} higher on average than {what} "
                f"({_scored(ours)})" + (f": {those}." if above else ".")
            )
    if not (said and every):
        return f"The long comparison on {TITLES[name]}: {NOT_RUN}."
    return f"In the long comparison on {TITLES[name]}, {' '.join(said)}"


def _scored(line: Row) -> str:
    """Return a mean score, and the share of runs that reached the level unless all did."""
    short = "" if line["reached"] == 1 else f"; {line['reached']:.0%} of runs reached the level"
    return f"{line['score']:.{FINE}f}{short}"


def control(found: Evidence) -> str:
    """Return the answer of E2 in sentences. Ways that are printed as equal are all named."""
    if not (rows := [r for r in verdicts.regrets(found) if r["best"] is not None]):
        return NOT_RUN
    least = round(rows[0]["largest"], DIGITS)
    best = [r for r in rows if round(r["largest"], DIGITS) == least]
    names = joined([run_label(r["method"], r["stepsize"]) for r in best])
    shares = joined([f"{r['best']:.0%}" for r in best])
    ours = [r for r in rows if r["method"] == OURS and r not in best]
    beside = joined([f"{run_label(r['method'], r['stepsize'])} {with_interval(r)}" for r in ours])
    said = [
        f"Over {len(verdicts.weighed(found))} of {len(TITLES)} data sets {names} "
        f"{'has' if len(best) == 1 else 'have'} the smallest largest regret, "
        f"{joined([with_interval(r) for r in best])}. (Brackets: a bootstrap over few units.)",
        f"In {shares} of the draws {'it is' if len(best) == 1 else 'they are'} the smallest"
        f"{'' if len(best) == 1 else ', in this order'}.",
        f"For comparison: {beside}." if beside else "",
    ]
    return " ".join(filter(None, said))


def with_interval(row: Row) -> str:
    """Return the largest regret of a row of E2, with its interval."""
    form = f".{DIGITS}f"
    span = "" if row["low"] is None else f" [{row['low']:{form}}, {row['high']:{form}}]"
    return f"{row['largest']:{form}}{span}"


def gains(found: Evidence) -> dict[str, dict[str, float]]:
    """Return data set → the score of tuned NGDiff minus GradDiff(0.5)'s, and minus the best c's."""
    rows, gained = verdicts.regrets(found), {}
    for name in verdicts.weighed(found):
        regret = {r["method"]: r[name] for r in select(rows, stepsize="constant")}
        best = min(regret[method] for method in evidence.MIXTURES)
        others = {label("graddiff-0.5"): regret["graddiff-0.5"], "the best fixed c": best}
        gained[TITLES[name]] = {what: value - regret[OURS] for what, value in others.items()}
    return gained


def adaptive(found: Evidence) -> str:
    """Return the answer of E3: a range of fewer than three units decides nothing."""
    said = []
    for name in RULED:
        if gap := verdicts.adapts(found.of("adapt", name)):
            other, by = gap
            sign = by.sign if by.kind == "95 %" else "undecided"
            answer = {
                "above": "AutoLR adapts after its first search",
                "below": "AutoLR loses by adapting",
            }.get(sign, "it is undecided whether AutoLR gains by adapting")
            said.append(
                f"On {TITLES[name]} {answer}: its score minus that of “{LABELS[other]}” is "
                f"{spread(by)}."
            )
    missing = left_out(found, "adapt", RULED)
    return " ".join(filter(None, [*said, missing])) if said else NOT_RUN


def stability(found: Evidence) -> str:
    """Return the answer of E4 in sentences."""
    said = []
    for optimizer, title in OPTIMIZERS.items():
        mine = select(bands(found), optimizer=optimizer)
        width = max((r["decades"] for r in mine if r["decades"] is not None), default=None)
        ours = [r for r in mine if r["method"] == OURS and r["decades"] != width]
        widest = [r for r in mine if r["decades"] == width]
        words = f"Under {title}, of the rates that were tried, "
        if not mine:
            said.append(f"Under {title}: {NOT_RUN}.")
        elif width is None:
            said.append(f"Under {title} no method has a working rate in every unit.")
        else:
            said.append(
                f"{words}{listed(r['method'] for r in widest)} "
                f"{'has' if len(widest) == 1 else 'have'} the widest band, {_decades(widest[0])}"
                + "".join(f"; {label(OURS)} has {_decades(r)}" for r in ours)
                + "."
                + (EDGE if any("≥" in wide(r) for r in ours) else "")
            )
    return " ".join(said) if bands(found) else NOT_RUN


EDGE = " (≥: the band may go on beyond the rates that were tried, so the order is open.)"


def _decades(row: Row) -> str:
    band = wide(row)
    return band if band == "none" else f"{band} decade{'' if row['decades'] == 1 else 's'}"


def wide(row: Row) -> str:
    """Return the width of a band in decades: "≥ 2" where it may go on beyond the rates."""
    if row["decades"] is None:
        return "none"
    return f"{'≥ ' if row['edge'] else ''}{row['decades']:g}"


def bands(found: Evidence) -> list[Row]:
    """Return the bands of E4, [] where it was not run."""
    return verdicts.bands(found.of("bands", "authors"), found.of("levels", "authors"))


def _too_far(found: Evidence) -> str:
    """Say how far our method forgets without a stop, against rows that were never seen."""
    starts = select(found.of("levels", "authors"), model="start")
    level = {(r["data"], r["target_seed"]): r["loss_holdout"] for r in starts}
    walked = [
        (r["loss_forget"], level.get((r["data"], r["target_seed"])))
        for r in select(found.of("fixed", "authors"), method=OURS, stepsize="autolr")
    ]
    if not walked or any(None in pair or pair[0] <= pair[1] for pair in walked):
        return ""
    ended, least = (mean(values) for values in zip(*walked, strict=True))
    return (
        f"Without a stop {OURSELVES} forgets too much: on {TITLES['authors']} its forget loss ends "
        f"at {ended:.1f}, the hold-out level is {least:.1f}."
    )
