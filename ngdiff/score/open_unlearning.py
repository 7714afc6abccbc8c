"""open-unlearning's result file, `TOFU_EVAL.json`: every aggregate again, from the per-item values.

{name: {"agg_value": number, "value_by_index": {index: {…}}}}; an attack is {"forget":
{"value_by_index"}, "holdout": {"value_by_index"}, "auc", "agg_value"}. `TOFU_SUMMARY.json`, {name:
number}, is read too: it is passed on.

Reference: open-unlearning (locuslab), src/evals/metrics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ngdiff.evaluation import items, metrics, sight, trust
from ngdiff.evaluation.conventions import convention as convention_of
from ngdiff.score import documents
from ngdiff.store.document import shown

HOW = convention_of("open-unlearning")
TOLERANCE = 1e-6  # relative: what the file says of itself against its own items
RATIO = items.RATIO["forget"]


def score(path: Path, reference: Path | None = None) -> tuple[dict[str, float], list[str]]:
    """Scores under the file's names, and warnings where its own aggregates say something else.

    They are compared to 1e-6, relative.

    Means over items: "prob", "rougeL_recall" (MUSE's verbmem and knowmem: "rougeL_f1"), "score"
    (null left out);
    forget_truth_ratio: min(R, 1/(R + 1e-10)), the other truth ratios max(0, 1 − R); an attack: its
    AUC. model_utility: the harmonic mean of the nine where they are there. With a `reference`, the
    retain-only model's file: forget_quality from both files' forget_truth_ratio items, privleak
    from both mia_min_k. What has no items is passed on as the file says it: without a `reference`
    that holds for forget_quality and privleak.

    Errors: FileNotFoundError; ValueError naming file, metric and index for entries of another form,
    values that are not numbers, no items, a reference without forget_truth_ratio or of another
    split.
    """
    document = documents.read(path)
    found, stated = _read(document, path)
    values = stated | _aggregate(found)
    if all(name in values for name in items.UTILITY):
        values["model_utility"] = metrics.harmonic_mean(values[name] for name in items.UTILITY)
    warnings: list[str] = []
    # what the reference decides: the file may have been made with another one, or none
    more: dict[str, float] = {}
    if reference is not None:
        more, warnings = _against(values, found, (document, stated), path, Path(reference))
        values |= more
    elif "mia_min_k" in values and "privleak" not in values:
        values["privleak"] = metrics.privleak(values["mia_min_k"], eps=HOW.eps)
        warnings.append("privleak: without a reference AUC_ret is ½")
    made = {name: value for name, value in values.items() if name not in more}
    warnings += _other_aggregates(stated, made, path)
    warnings += trust.consistent(found, path, HOW.eps)
    warnings += _uneven(document, path)
    told = [answer for rows in found.values() for _, (_, answer) in trust.asked(rows)]
    warnings += [f"{path}: {line}" for line in sight.unseen(told)]
    if left := [name for name in document if name not in values and not _empty(document[name])]:
        warnings.append(f"{path}: {', '.join(left)} left out: neither an agg_value nor items")
    return values, warnings


def _other_aggregates(stated: dict[str, float], made: dict[str, float], path: Path) -> list[str]:
    """A warning for each aggregate that a file states otherwise than its items give it."""
    return [
        f"{path}, {name}: its agg_value is {stated[name]!r}, its items give {value!r}"
        for name, value in made.items()
        if name in stated and not math.isclose(stated[name], value, rel_tol=TOLERANCE)
    ]


def _empty(entry: Any) -> bool:
    """Return whether an entry says by a null that there is no value.

    forget_quality does so without a reference.
    """
    return entry is None or (isinstance(entry, dict) and "agg_value" in entry)


def _aggregate(found: items.Items) -> dict[str, float]:
    values = items.aggregate(found, HOW.eps)
    for name, rows in found.items():
        if _field(name) == "rougeL_f1":
            column = items.column(rows, "rougeL_f1")
            values[name] = float(np.mean(column[~np.isnan(column)]))
    return values


def _against(
    values: dict[str, float],
    found: items.Items,
    given: tuple[dict[str, Any], dict[str, float]],
    path: Path,
    reference: Path,
) -> tuple[dict[str, float], list[str]]:
    """forget_quality and privleak, as far as `path` has their items.

    given: the document of `path`, and what it states.
    """
    document, told = given
    other = documents.read(reference)
    theirs, stated = _read(other, reference)
    more: dict[str, float] = {}
    warnings = trust.same_rows(_texts(document), _texts(other), path, reference)
    warnings += _doubts(found, theirs, (told, stated), reference)
    if RATIO in found:
        if RATIO not in theirs:
            raise ValueError(f"{reference} has no items of {RATIO}: forget_quality compares them")
        more["forget_quality"] = metrics.ks_pvalue(
            items.defined(found[RATIO]), items.defined(theirs[RATIO])
        )
    if "mia_min_k" in values:
        auc = (stated | _aggregate(theirs)).get("mia_min_k")
        if auc is None:
            auc = 0.5
            warnings.append(f"{reference} has no mia_min_k: privleak is taken with AUC_ret = ½")
        more["privleak"] = metrics.privleak(values["mia_min_k"], auc, HOW.eps)
        n, m = (len(theirs.get(f"mia_min_k_{side}", ())) for side in ("forget", "holdout"))
        warnings += trust.membership(auc, (n, m), reference)
    if not more:
        raise ValueError(
            f"{path} has neither {RATIO} nor mia_min_k: there is nothing to compare with "
            f"{reference}"
        )
    return more, warnings


def _doubts(
    found: items.Items,
    theirs: items.Items,
    stated: tuple[dict[str, float], dict[str, float]],
    reference: Path,
) -> list[str]:
    """Return doubts about a reference, from its items and from what the two files state."""
    lines = trust.same_model(found, theirs, reference)
    lines += trust.consistent(theirs, reference, HOW.eps)
    if RATIO in found and RATIO in theirs:
        made = [
            trust.aggregator(told.get(RATIO), rows[RATIO])
            for told, rows in zip(stated, (found, theirs), strict=True)
        ]
        lines += trust.same_aggregator(made[0], made[1], reference)
    return lines + _other_aggregates(stated[1], _aggregate(theirs), reference)


def _texts(document: dict[str, Any]) -> dict[str, trust.Text]:
    """index -> (question, answer) of the forget rows, where the file holds their generations."""
    entry = document.get("forget_Q_A_ROUGE")
    rows = entry.get("value_by_index") if isinstance(entry, dict) else None
    return dict(trust.asked(rows or {}))


def _field(name: str) -> str:
    """Return which field of an item is averaged."""
    if "_Prob" in name:
        return "prob"
    if name.endswith("_ROUGE"):
        return "rougeL_f1" if "verbmem" in name or "knowmem" in name else "rougeL_recall"
    return "score"


def _read(document: dict[str, Any], path: Path) -> tuple[items.Items, dict[str, float]]:
    """The items of the document, and what it states as aggregates.

    An attack's items are called mia_<attack>_<side>.
    """
    found: items.Items = {}
    stated: dict[str, float] = {}
    for name, entry in document.items():
        where = f"{path}, {name}"
        if not isinstance(entry, dict):
            entry = {"agg_value": entry}
        if entry.get("agg_value") is not None:
            stated[name] = documents.number(entry["agg_value"], f"{where}, agg_value")
        sides = {
            name: entry,
            **{f"{name}_{side}": entry.get(side) for side in ("forget", "holdout")},
        }
        if any(entry.get(side) is not None for side in ("forget", "holdout")):
            for side in ("forget", "holdout"):
                if not isinstance(entry.get(side), dict):
                    raise ValueError(
                        f"{where}: {side} is {shown(entry.get(side))}, but an object is needed"
                    )
        for target, part in sides.items():
            if isinstance(part, dict) and part.get("value_by_index") is not None:
                rows = documents.mapping(part["value_by_index"], f"{where}, value_by_index")
                if checked := _items(rows, _field(name), where, name in stated):
                    found[target] = checked
    if not found and not stated:
        raise ValueError(
            f"{path} holds no metric: {{name: {{agg_value, value_by_index}}}} is needed"
        )
    return found, stated


def _uneven(document: dict[str, Any], path: Path) -> list[str]:
    """A warning for each metric with other rows than the first of its set.

    That is legal, but seldom meant.
    """
    warnings = []
    kinds = ("Prob", "PARA_Prob", "PERT_Prob", "Prob_normalised", "ROUGE")
    for part, ratio in items.RATIO.items():
        entries = {
            name: document.get(name) for name in (*(f"{part}_Q_A_{kind}" for kind in kinds), ratio)
        }
        told = {
            n: e["value_by_index"]
            for n, e in entries.items()
            if isinstance(e, dict) and e.get("value_by_index")
        }
        first = next(iter(told), "")
        for name, rows in told.items():
            if rows.keys() != told[first].keys():
                index = next(i for i in (*told[first], *rows) if (i in rows) != (i in told[first]))
                warnings.append(
                    f"{path}, {name}: {len(rows)} rows, but {first} has {len(told[first])}; "
                    f"the first that only one has is index {index}"
                )
    return warnings


def _items(rows: Mapping[str, Any], field: str, where: str, optional: bool) -> dict[int, Any]:
    """The rows with the field; null rows are left out, as in open-unlearning.

    {} where no row has it and that is no loss.
    """
    rows = {i: row for i, row in rows.items() if row is not None}
    if optional and not any(isinstance(row, dict) and field in row for row in rows.values()):
        return {}  # a metric of another kind: its aggregate is passed on
    for i, row in rows.items():
        at = f"{where}, index {i}"
        if not isinstance(row, dict) or field not in row:
            raise ValueError(f"{at}: {shown(row)} has no {field!r}")
        value = row[field]
        if value is not None:  # null: undefined, left out
            for inner in (
                documents.array(value, at)
                if isinstance(value, list) and field == "prob"
                else [value]
            ):
                share = documents.number(inner, at)
                if field != "score" and not (math.isnan(share) or 0 <= share <= 1):
                    raise ValueError(f"{at}: {field} is {share}, which does not lie in [0, 1]")
    return rows  # type: ignore[return-value]
