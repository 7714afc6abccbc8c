"""The runs of the long comparison as tables: E1 with what stands beside each score, and E5.

Other tables are in `ngdiff.book.evidence_tables`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from ngdiff.book.evidence import OURSELVES, RULED, TITLES, left_out, spread
from ngdiff.book.saved import NOT_RUN
from ngdiff.methods.lookup import ordered
from ngdiff.methods.recipes import family
from ngdiff.store.table import DASH, Column, Table
from ngdiff.study import verdicts
from ngdiff.study.intervals import Interval, select
from ngdiff.study.rules import run_label
from ngdiff.study.verdicts import Evidence, whole_mean

Row = dict[str, Any]
BESIDE = {  # what stands beside the score of a run, where its benchmark has it
    "forgot": "forgotten",
    "past": "F past the level",
    "loss_retain": "retain loss",
    "retain_ce_last": "retain loss, last batch",
    "retain_Q_A_ROUGE": "retain ROUGE-L",
    "knowmem_r": "retain knowledge (ROUGE-L)",
    "retain_regurgitation": "retain ROUGE-L",
    "retain_knowledge": "retain knowledge",
    "unfair": "|AUC − ½|",
    "updates": "updates",
    "forwards": "probe forwards",
    "seconds": "seconds",
}
ENDS = {  # where a run without a stop ends
    "model_utility": "model utility",
    "loss_retain": "retain loss",
    "loss_forget": "forget loss",
    "forget_Q_A_ROUGE": "forget ROUGE-L",
    "retain_Q_A_ROUGE": "retain ROUGE-L",
    "forget_quality": "forget quality",
    "updates": "updates",
}
AUCS = ("mia_loss", "mia_auc", "mia_min_k")  # of a membership test, by benchmark


def paragraphs(*parts: str) -> str:
    """Return the parts of a block that say something, with empty lines between."""
    return "\n\n".join(filter(None, parts))


def e1_tables(found: Evidence) -> str:
    """Return a table a data set: every run's score, what stands beside it, and the bill."""
    tables = (f"**{title(name)}**\n\n{_table(found, name)}" for name in found.names)
    return paragraphs(*tables, left_out(found))


def title(name: str) -> str:
    title = TITLES[name].removeprefix("the ")
    return title[0].upper() + title[1:]


def _table(found: Evidence, name: str) -> str:
    gaps = {row["method"]: row for row in verdicts.against(found, name)}
    shown = verdicts.shown(_measured(found, name), name, ("score", *BESIDE))
    known = [key for key in BESIDE if any(line[key] is not None for line in shown)]
    known = [key for key in known if key != "retain_ce_last" or "loss_retain" not in known]
    lines = [
        _line(line, gaps.get(line["method"]) if line["stepsize"] == "constant" else None)
        for line in shown
    ]
    columns = (
        Column("run"),
        Column("rate", "learning rate"),
        Column("score", format=".3f", align="right"),
        Column("reached", "reached the level", ".0%", "right"),
        *(Column(key, BESIDE[key], ".3g", "right") for key in known),
        Column("tuning", "tuning", align="right"),
        Column("ties", "tied in tuning (retain loss)"),
        Column("all", f"{OURSELVES} minus it, all pairs [95 %]"),
        Column("gap", "pairs that both reached the level"),
        Column("p", "p, Holm", ".2g", "right"),
        Column("who", "better"),
    )
    return Table(columns, lines).markdown()


def _measured(found: Evidence, name: str) -> Evidence:
    """Return the evidence with what is derived from a data set's rows: `unfair` and `past`."""
    starts = select(found.of("levels", name), model="start")
    level = {(r["data"], r["target_seed"]): r["loss_holdout"] for r in starts}
    rows = [
        row | {"unfair": _unfair(row), "past": _past(row, level)}
        for row in found.of("compare", name)
    ]
    return Evidence({**found.parts, "compare": {**found.parts["compare"], name: rows}})


def _line(line: Row, gap: Row | None) -> Row:
    """Return a line of the table: a run, and its claim where it has one."""
    rate = f"{line['lr']:g}" if line["stepsize"] == "constant" else "untuned"
    return line | {
        "run": run_label(line["method"], line["stepsize"]),
        "rate": rate + (", an end" if gap and gap["edge"] else ""),
        "ties": _ties(gap),
        "all": "" if gap is None else _interval(gap, ""),
        "gap": _gap(gap),
        "p": None if gap is None else gap["p_holm"],
        "who": _winner(gap),
        "tuning": _bill(line),
    }


def _bill(line: Row) -> str | None:
    """Return what tuning a run took; None where the tuning runs are not there."""
    if line["stepsize"] != "constant":
        return "none"
    runs, seconds = line["tuning_runs"], line["tuning_seconds"]
    return f"{runs} runs, {seconds:.0f} s" if runs else None


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
    part = f", n = {row['both_n']}" if row["both_n"] < row["n"] else ""
    return _interval(row, "both_") + part


def _interval(row: Row, prefix: str) -> str:
    return spread(Interval(**{f.name: row[f"{prefix}{f.name}"] for f in fields(Interval)}))


def _ties(row: Row | None) -> str:
    """Return how many candidates scored the same in tuning, and their range of retain losses."""
    if row is None or row["ties"] < 2:
        return ""
    low, high = row["ties_low"], row["ties_high"]
    return f"{row['ties']}" + ("" if low is None else f" ({low:.2g} to {high:.2g})")


def _past(row: Row, level: Mapping[tuple[str, int], float]) -> float | None:
    """Return by how much the forget set's loss passed the level, None where it is not known."""
    least, ended = level.get((row["data"], row["target_seed"])), row.get("loss_forget")
    return None if least is None or ended is None else ended - least


def _winner(row: Row | None) -> str:
    if row is None:
        return ""
    if row["p_holm"] is None and row["both_n"]:
        return "too few pairs"
    word = row["verdict"].removesuffix(" better")
    return word.replace(f"tuned {family(row['method'])}", "it")


def e5_tables(found: Evidence) -> str:
    """Return the runs without a stop, a table a data set, in the order of the methods."""
    columns = (
        Column("run"),
        Column("lr", "learning rate", align="right"),
        *(Column(key, title, ".3g", "right") for key, title in ENDS.items()),
    )
    tables = []
    for name in RULED:
        if rows := found.of("fixed", name):
            known = [key for key in ENDS if any(r.get(key) is not None for r in rows)]
            groups: dict[tuple[str, str], list[Row]] = {}
            for r in rows:
                groups.setdefault((r["method"], r["stepsize"]), []).append(r)
            lines = [
                {
                    "run": run_label(method, rule),
                    "lr": f"{mine[0]['lr']:g}" if rule == "constant" else "untuned",
                    **{key: whole_mean(mine, key) for key in ENDS if key in known},
                }
                for method in ordered({m for m, _ in groups})
                for (m, rule), mine in groups.items()
                if m == method
            ]
            tables.append(f"**{title(name)}**\n\n{Table(columns, lines).markdown()}")
    return paragraphs(*tables, left_out(found, "fixed", RULED)) if tables else NOT_RUN
