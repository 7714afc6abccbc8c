"""The long comparison as blocks of the README and of docs/results.md: sentences and tables.

Each one is worked out from saved rows (`ngdiff.study.verdicts`): if the rows change, it changes. A
block is a function of the checkout's root that returns markdown, "not run" without its rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from ngdiff.book.saved import NOT_RUN
from ngdiff.methods.lookup import label, ordered
from ngdiff.methods.recipes import family
from ngdiff.store.table import DASH, Column, Table
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
BESIDE = {  # what stands beside the score of a run, where its benchmark has it
    "loss_retain": "retain loss",
    "retain_Q_A_ROUGE": "retain ROUGE-L",
    "knowmem_r": "retain knowledge",
    "unfair": "|AUC − ½|",
    "updates": "updates",
    "forwards": "probe forwards",
    "seconds": "seconds",
}
AUCS = ("mia_loss", "mia_auc", "privleak_auc")  # of a membership test, by benchmark


@lru_cache(maxsize=2)
def _load(folder: Path, changed: int) -> Evidence:
    return verdicts.load(folder)


def load(root: Path) -> Evidence:
    """Return the saved evidence of a checkout."""
    folder = root / "data/results/tiny"
    newest = max((p.stat().st_mtime_ns for p in folder.glob("evidence_*")), default=0)
    return _load(folder, newest)


def _said(block: Callable[[Evidence], str]) -> Callable[[Path], str]:
    def filled(root: Path) -> str:
        found = load(root)
        return block(found) if found.names else NOT_RUN

    return filled


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


# ------------------------------------------------------------------------------------ in short
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


# ------------------------------------------------------------------------------------------ E1
def setup(found: Evidence) -> str:
    """Return the data sets as a table: populations, models, orders, rows, the level."""
    lines = []
    for name in found.names:
        rows, levels = found.of("compare", name), found.of("levels", name)
        start = select(levels, model="start")
        lines.append(
            {
                "set": TITLES[name],
                "populations": len({r["data"] for r in rows}),
                "models": len({r["target_seed"] for r in rows}),
                "orders": len({r["seed"] for r in rows}),
                "level": mean([r["loss_holdout"] for r in start]) if start else None,
                "tuning": len(found.of("tuning", name)),
                "runs": len(rows),
            }
        )
    columns = (
        Column("set", "data set"),
        Column("populations", align="right"),
        Column("models", "models of each", align="right"),
        Column("orders", "orders of the rows", align="right"),
        Column("level", "hold-out level (nats)", ".2f", "right"),
        Column("tuning", "tuning runs", align="right"),
        Column("runs", "reported runs", align="right"),
    )
    return Table(columns, lines).markdown()


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


def e1_tables(found: Evidence) -> str:
    """Return a table a data set: every run's score, what stands beside it, and the bill."""
    return "\n\n".join(f"**{_title(name)}**\n\n{_table(found, name)}" for name in found.names)


def _title(name: str) -> str:
    title = TITLES[name].removeprefix("the ")
    return title[0].upper() + title[1:]


def _table(found: Evidence, name: str) -> str:
    gaps = {row["method"]: row for row in verdicts.against(found, name)}
    rows = [
        row | {"unfair": _unfair(row)} if "unfair" not in row else row
        for row in found.of("compare", name)
    ]
    parts = {**found.parts, "compare": {**found.parts["compare"], name: rows}}
    shown = verdicts.shown(Evidence(parts), name, ("score", *BESIDE))
    known = [key for key in BESIDE if any(line[key] is not None for line in shown)]
    lines = []
    for line in shown:
        gap = gaps.get(line["method"]) if line["stepsize"] == "constant" else None
        edge = ", an end" if gap and gap["edge"] else ""
        constant = line["stepsize"] == "constant"
        lines.append(
            line
            | {
                "run": run_label(line["method"], line["stepsize"]),
                "rate": f"{line['lr']:g}{edge}" if constant else "untuned",
                "gap": _gap(gap),
                "p": None if gap is None else gap["p_holm"],
                "who": _winner(gap),
                "tuning": f"{line['tuning_runs']} runs, {line['tuning_seconds']:.0f} s"
                if line["tuning_runs"]
                else "none",
            }
        )
    columns = (
        Column("run"),
        Column("rate", "learning rate"),
        Column("score", format=".3f", align="right"),
        Column("reached", "reached the level", ".0%", "right"),
        *(Column(key, BESIDE[key], ".3g", "right") for key in known),
        Column("tuning", "tuning", align="right"),
        Column("gap", f"{OURSELVES} minus it [95 %]"),
        Column("p", "p, Holm", ".2g", "right"),
        Column("who", "better"),
    )
    return Table(columns, lines).markdown()


def _unfair(row: Row) -> float | None:
    """Return |AUC − ½| of the membership test of a run, None where it has none."""
    auc = next((row[key] for key in AUCS if row.get(key) is not None), None)
    return None if auc is None else abs(auc - 0.5)


def _gap(row: Row | None) -> str:
    """Return mean and interval of a claim on pairs that both reached the level."""
    if row is None:
        return ""
    if not row["both_n"]:
        return DASH
    low, high = row["both_low"], row["both_high"]
    span = "" if low is None else f" [{low:+.3f}, {high:+.3f}]"
    part = f", n = {row['both_n']}" if row["both_n"] < row["n"] else ""
    return f"{row['both_mean']:+.3f}{span}{part}"


def _winner(row: Row | None) -> str:
    if row is None:
        return ""
    word = row["verdict"].removesuffix(" better")
    return "it" if word.startswith("tuned") else word


# ------------------------------------------------------------------------------------------ E2
def control(found: Evidence) -> str:
    """Return the answer of E2 in sentences."""
    rows = verdicts.regrets(found)
    if not rows:
        return NOT_RUN
    best = rows[0]
    ours = next(r for r in rows if (r["method"], r["stepsize"]) == (OURS, "autolr"))
    tuned = next(r for r in rows if (r["method"], r["stepsize"]) == (OURS, "constant"))
    names = ", ".join(
        f"{run_label(r['method'], r['stepsize'])} {_regret(r)}" for r in (ours, tuned)
    )
    return (
        f"Over {len(found.names)} data sets {run_label(best['method'], best['stepsize'])} has the "
        f"smallest largest regret, {_regret(best)}; it is smallest in {best['best']:.0%} of the "
        f"bootstrap draws. Beside it: {names}."
    )


def _regret(row: Row) -> str:
    return f"{row['largest']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def e2_table(found: Evidence) -> str:
    """Return the regrets as a table."""
    lines = [
        row | {"run": run_label(row["method"], row["stepsize"]), "all": _regret(row)}
        for row in verdicts.regrets(found)
    ]
    columns = (
        Column("run", "weights"),
        *(Column(name, TITLES[name], ".3f", "right") for name in found.names),
        Column("all", "largest [95 %]"),
        Column("best", "smallest in", ".0%", "right"),
    )
    return Table(columns, lines).markdown() if lines else NOT_RUN


# ------------------------------------------------------------------------------------------ E3
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
                f"“{LABELS[other]}”: {_interval(gap)}."
            )
    return " ".join(said)


def _interval(found: Interval) -> str:
    span = "" if found.low is None else f" [{found.low:+.3f}, {found.high:+.3f}]"
    return f"{found.mean:+.3f}{span}"


def e3_tables(found: Evidence) -> str:
    """Return a table a data set of E3: what each rule gives, from all its starts."""
    columns = (
        Column("rule", "step-size rule"),
        Column("score", "mean score", ".3f", "right"),
        Column("worst", "worst score", ".3f", "right"),
        Column("reached", "reached the level", ".0%", "right"),
        Column("updates", "updates", ".0f", "right"),
        Column("forwards", "probe forwards", ".0f", "right"),
        Column("spread", "best − worst over the starts [95 %]"),
        Column("n", "runs", align="right"),
    )
    tables = []
    for name in ("authors", "tofu"):
        if rows := found.of("adapt", name):
            lines = [
                row | {"rule": LABELS[row["stepsize"]], "spread": _interval(row["spread"])}
                for row in verdicts.adapting(rows)
            ]
            starts = ", ".join(f"{lr:g}" for lr in sorted({r["lr"] for r in rows}))
            tables.append(
                f"**{_title(name)}**, starts {starts}\n\n{Table(columns, lines).markdown()}"
            )
    return "\n\n".join(tables) or NOT_RUN


# ------------------------------------------------------------------------------------------ E4
def stability(found: Evidence) -> str:
    """Return the answer of E4 in sentences."""
    rows = _bands(found)
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
            f"{'has' if len(same) == 1 else 'have'} the widest band, {_decades(widest)} decades; "
            f"NGDiff has {_decades(ours)}."
        )
    return " ".join(said)


def _decades(row: Row) -> str:
    return "none" if row["decades"] is None else f"{row['decades']:g}"


def _bands(found: Evidence) -> list[Row]:
    rows = found.of("bands", "authors")
    return verdicts.bands(rows, found.of("levels", "authors")) if rows else []


def e4_table(found: Evidence) -> str:
    """Return the bands as a table."""
    lines = [
        row
        | {"width": _decades(row), "optimizer": {"adamw": "AdamW", "sgd": "SGD"}[row["optimizer"]]}
        for row in _bands(found)
    ]
    columns = (
        Column("method", format=label),
        Column("optimizer"),
        Column("width", "working band, decades", align="right"),
        Column("nan", "runs that end in NaN", ".0%", "right"),
        Column("blown", "retain loss above 5 times the start's", ".0%", "right"),
        Column("n", "runs", align="right"),
    )
    return Table(columns, lines).markdown() if lines else NOT_RUN


# ------------------------------------------------------------------------------------------ E5
def e5_tables(found: Evidence) -> str:
    """Return the runs without a stop, a table a data set, in the order of the methods."""
    columns = (
        Column("run"),
        Column("lr", "learning rate", align="right"),
        *(
            Column(key, title, ".3g", "right")
            for key, title in {
                "model_utility": "model utility",
                "loss_retain": "retain loss",
                "loss_forget": "forget loss",
                "forget_Q_A_ROUGE": "forget ROUGE-L",
                "retain_Q_A_ROUGE": "retain ROUGE-L",
                "forget_quality": "forget quality",
                "updates": "updates",
            }.items()
        ),
    )
    tables = []
    for name in ("authors", "tofu"):
        if rows := found.of("fixed", name):
            groups: dict[tuple[str, str], list[Row]] = {}
            for r in rows:
                groups.setdefault((r["method"], r["stepsize"]), []).append(r)
            lines = [
                {
                    "run": run_label(method, rule),
                    "lr": f"{mine[0]['lr']:g}" if rule == "constant" else "untuned",
                    **{c.key: _mean(mine, c.key) for c in columns[2:]},
                }
                for method in ordered({m for m, _ in groups})
                for (m, rule), mine in groups.items()
                if m == method
            ]
            tables.append(f"**{_title(name)}**\n\n{Table(columns, lines).markdown()}")
    return "\n\n".join(tables) or NOT_RUN


def _mean(rows: Sequence[Row], key: str) -> float | None:
    known = [r[key] for r in rows if r.get(key) is not None and r[key] == r[key]]
    return mean(known) if known else None


# -------------------------------------------------------------------------------- where it helps
def where(found: Evidence) -> str:
    """Return κ, ρ and the shares inside Eq. 7 of every data set, beside what weights gave."""
    lines = []
    for name in found.names:
        rows = [r for r in found.of("geometry", name) if r["steps"]]
        if not rows:
            continue
        middle = {key: mean([r[key] for r in rows]) for key in rows[0] if key in SHOWN}
        gained = dict(zip(("gain", "best"), gains(found)[TITLES[name]].values(), strict=True))
        lines.append({"set": TITLES[name], **middle, **gained})
    columns = (
        Column("set", "data set"),
        *(Column(key, title, form, "right") for key, (title, form) in SHOWN.items()),
        Column("gain", "NGDiff − GradDiff(0.5)", "+.3f", "right"),
        Column("best", "NGDiff − best fixed c", "+.3f", "right"),
    )
    return Table(columns, lines).markdown() if lines else NOT_RUN


def gains(found: Evidence) -> dict[str, dict[str, float]]:
    """Return data set → the score of tuned NGDiff minus that of GradDiff(0.5), and of the best c."""
    rows, gained = verdicts.regrets(found), {}
    for name in found.names:
        regret = {r["method"]: r[name] for r in select(rows, stepsize="constant")}
        best = min(regret[method] for method in evidence.MIXTURES)
        others = {label("graddiff-0.5"): regret["graddiff-0.5"], "the best fixed c": best}
        gained[TITLES[name]] = {what: value - regret[OURS] for what, value in others.items()}
    return gained


def _ahead(name: str, root: Path) -> str:
    return ahead(load(root), name)


SHOWN = {
    "kappa_50": ("κ, median", ".3g"),
    "rho_50": ("ρ, median", ".2f"),
    "inside_0.5": ("inside Eq. 7: c = .5", ".0%"),
    "inside_0.9": (".9", ".0%"),
    "inside_0.99": (".99", ".0%"),
    "inside_lossnorm": ("LossNorm", ".0%"),
}
BLOCKS: dict[str, Callable[[Path], str]] = {
    "short": _said(in_short),
    "setup": _said(setup),
    "e1": _said(answers),
    "e1-tables": _said(e1_tables),
    "e2": _said(control),
    "e2-table": _said(e2_table),
    "e3": _said(adaptive),
    "e3-tables": _said(e3_tables),
    "e4": _said(stability),
    "e4-table": _said(e4_table),
    "e5-tables": _said(e5_tables),
    "where": _said(where),
    **{f"ahead-{name}": partial(_ahead, name) for name in TITLES},
}
