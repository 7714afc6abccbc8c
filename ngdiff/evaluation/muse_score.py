"""MUSE's numbers from texts and scores alone, and its files: no model, no tokenizer, no torch.

A file of results is {"verbmem" | "knowmem_f" | "knowmem_r": [{"response", "gt"}, …], "privleak":
{"forget": [score, …], "holdout": […], "retain": […]}}, each part optional, the scores one Min-40 %
score a document (higher = less likely a member). MUSE has no such file: it is ours, written by
`write`.

    verbmem_f, knowmem_f, knowmem_r   mean over rows of the ROUGE-L F1 of response and gt, in [0, 1]
                                      (MUSE's script: · 100)
    mia_min_k                         AUC of forget as members against holdout; mia_min_k_retain:
                                      against retain
    privleak                          (A − A_ret)/A_ret · 100 with A = 1 − AUC, per cent

Reference: Shi et al., "MUSE: Machine Unlearning Six-Way Evaluation for Language Models" (2024), and
its code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ngdiff.evaluation import metrics
from ngdiff.evaluation.conventions import Convention
from ngdiff.evaluation.conventions import convention as convention_of
from ngdiff.evaluation.files import write_json
from ngdiff.evaluation.report import INFINITE, Report, plain
from ngdiff.store.rows import write_document

if TYPE_CHECKING:
    from ngdiff.data.benchmark import Benchmark

TEXTS = {
    "verbmem": "verbmem_f",
    "knowmem_f": "knowmem_f",
    "knowmem_r": "knowmem_r",
}  # list of the file -> metric
SIDES = ("forget", "holdout", "retain")
NAMES = {  # ours -> open-unlearning's
    "verbmem_f": "forget_verbmem_ROUGE",
    "knowmem_f": "forget_knowmem_ROUGE",
    "knowmem_r": "retain_knowmem_ROUGE",
    **{
        name: name
        for name in ("privleak", "mia_min_k", "exact_memorization", "extraction_strength")
    },
}


def score(
    document: Mapping[str, Any],
    reference: Mapping[str, Any] | None = None,
    convention: str | Convention = "ngdiff",
) -> dict[str, float]:
    """The metrics of a file of results, as far as its parts go; an undefined one is absent.

    reference: the retain-only model's file, for A_ret (½ without one). convention:
    "open-unlearning" stems words and adds 1e-10 to the denominator of privleak; "muse" is the
    default in both.

    Raises ValueError that names the list and the index, for anything of another shape. ValueError
    also for a file without any part, and for a reference without privleak scores or with other
    numbers of documents.
    """
    how = convention_of(convention, "muse")
    _check(document, "the file")
    auc_retain = 0.5
    if reference is not None and "privleak" in document:
        _check(reference, "the reference")
        _check_same(document, reference)
        auc_retain = membership(reference["privleak"])["mia_min_k"]
    values = {
        metric: mean([rouge_f1(row["response"], row["gt"], how) for row in document[name]])
        for name, metric in TEXTS.items()
        if name in document
    }
    if "privleak" in document:
        values |= membership(document["privleak"], auc_retain, how.eps)
    return {name: value for name, value in values.items() if not math.isnan(value)}


def rouge_f1(response: str, gt: str, how: Convention) -> float:
    """ROUGE-L F1, with stemmed words where the convention says so."""
    return metrics.rouge(response, gt, stemmer=how.stemmer)["rougeL_f1"]


def mean(values: Sequence[float | None]) -> float:
    """Return the mean of the defined values; NaN where there are none."""
    defined = [value for value in values if value is not None]
    return math.fsum(defined) / len(defined) if defined else math.nan


def membership(
    sides: Mapping[str, Sequence[Any]], auc_retain: float = 0.5, eps: float = 0.0
) -> dict[str, float]:
    """mia_min_k, privleak and mia_min_k_retain of the scores of each side; NaN where undefined."""
    scores = {side: [number(value) for value in values] for side, values in sides.items()}
    auc = metrics.auc(scores["forget"], scores["holdout"])
    values = {"mia_min_k": auc, "privleak": metrics.privleak(auc, auc_retain, eps)}
    if "retain" in scores:
        values["mia_min_k_retain"] = metrics.auc(scores["forget"], scores["retain"])
    return values


def auc_retain(ref: Report | None, bench: Benchmark, how: Convention) -> tuple[float, str]:
    """Return the AUC of the retain-only model, and the line that says where it is from."""
    published = how.a_ret(bench)
    if ref is not None and "mia_min_k" in ref.metrics:
        auc, origin = ref.metrics["mia_min_k"], f"of the reference {ref.meta.get('model')}"
    elif published is not None:
        auc, origin = (
            1 - published,
            f"published for MUSE's retrained model of {bench.source['corpus']}",
        )
    else:
        auc, origin = 0.5, "because no retrained model was given (--reference)"
    return auc, f"privleak: A_ret = {1 - auc:.4g}, {origin}"


def number(value: Any) -> float:
    """A score as a float: None is undefined (NaN), {"infinite": ±1} stands for what JSON cannot
    say.
    """
    if isinstance(value, Mapping):
        return float(value[INFINITE]) * math.inf
    return math.nan if value is None else float(value)


# Files
# --------------------------------------------------------------------------------------------------


def document(report: Report) -> dict[str, Any]:
    """The file of results of a report: score(document(report)) gives its metrics."""
    found: dict[str, Any] = {
        name: [
            {"response": row["response"], "gt": row["gt"]} for row in report.items[name].values()
        ]
        for name in TEXTS
        if name in report.items
    }
    sides = {side: report.items.get(f"privleak_{side}") for side in SIDES}
    if sides["forget"] and sides["holdout"]:
        found["privleak"] = {
            side: [plain(row["score"]) for row in rows.values()]
            for side, rows in sides.items()
            if rows
        }
    return found


def write(report: Report, path: str | Path) -> Path:
    """Write `document(report)` as JSON: the file is whole or is not there."""
    write_document(Path(path), document(report))
    return Path(path)


def open_unlearning(report: Report) -> dict[str, dict[str, Any]]:
    """The report in open-unlearning's MUSE_EVAL.json: name -> {"agg_value", "value_by_index"};
    `input` without the shots.
    """
    found: dict[str, dict[str, Any]] = {}
    for ours, theirs in NAMES.items():
        if ours in report.metrics:
            rows = report.items.get("verbmem" if ours == "verbmem_f" else ours, {})
            by_index = {i: _theirs(row) for i, row in rows.items()}
            found[theirs] = {"agg_value": report.metrics[ours]} | (
                {"value_by_index": by_index} if by_index else {}
            )
    if "mia_min_k" in found:
        found["mia_min_k"]["auc"] = report.metrics["mia_min_k"]
        for side in ("forget", "holdout"):
            rows = report.items[f"privleak_{side}"]
            average = mean([row["score"] for row in rows.values()])
            found["mia_min_k"][side] = {"agg_value": average, "value_by_index": dict(rows)}
    return found


def write_files(report: Report, folder: Path) -> list[Path]:
    """Write MUSE.json, which `ngdiff score muse` reads, and open-unlearning's two files."""
    theirs = open_unlearning(report)
    summary = {name: found["agg_value"] for name, found in theirs.items()}
    return [
        write(report, folder / "MUSE.json"),
        write_json(folder / "MUSE_EVAL.json", theirs),
        write_json(folder / "MUSE_SUMMARY.json", summary),
    ]


def _theirs(row: dict[str, Any]) -> dict[str, Any]:
    if "score" in row:
        return dict(row)
    scores = {key: row[key] for key in ("rouge1_recall", "rougeL_f1", "rougeL_recall")}
    asked = row["question"] if "question" in row else row["prompt"]
    return scores | {"input": asked, "ground_truth": row["gt"], "generation": row["response"]}


# Shape
# --------------------------------------------------------------------------------------------------


def _check(document: Any, what: str) -> None:
    known = (*TEXTS, "privleak")
    if not isinstance(document, Mapping):
        raise ValueError(
            f"{what} is no object but {type(document).__name__}; its keys are {', '.join(known)}"
        )
    if wrong := [key for key in document if key not in known]:
        raise ValueError(f"{what} has {wrong[0]!r}; its keys are {', '.join(known)}")
    if not document:
        raise ValueError(f"{what} is empty: it needs at least one of {', '.join(known)}")
    for name in TEXTS:
        if name in document:
            _check_list(document[name], name)
            for i, row in enumerate(document[name]):
                for key in ("response", "gt"):
                    if not isinstance(row, Mapping) or not isinstance(row.get(key), str):
                        raise ValueError(
                            f"{name}, row {i}: no text under {key!r}; a row is {{response, gt}}"
                        )
    if "privleak" in document:
        _check_scores(document["privleak"])


def _check_scores(sides: Any) -> None:
    if not isinstance(sides, Mapping) or not {"forget", "holdout"} <= set(sides):
        raise ValueError("privleak needs the lists forget and holdout (and may have retain)")
    for side, values in sides.items():
        if side not in SIDES:
            raise ValueError(f"privleak has {side!r}; its lists are {', '.join(SIDES)}")
        _check_list(values, f"privleak {side}")
        for i, value in enumerate(values):
            infinite = (
                isinstance(value, Mapping)
                and set(value) == {INFINITE}
                and value[INFINITE] in (1, -1)
            )
            if isinstance(value, bool) or not (
                value is None or infinite or isinstance(value, (int, float))
            ):
                raise ValueError(
                    f"privleak {side}, row {i}: {value!r} is no number; a score is one number a "
                    "document"
                )


def _check_list(values: Any, name: str) -> None:
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        what = "empty" if isinstance(values, Sequence) else f"no list but {type(values).__name__}"
        raise ValueError(f"{name} is {what}: leave it out, or fill it in")


def _check_same(document: Mapping[str, Any], reference: Mapping[str, Any]) -> None:
    if "privleak" not in reference:
        raise ValueError("the reference has no privleak scores: A_ret cannot be taken from it")
    for side in ("forget", "holdout"):
        n, m = len(document["privleak"][side]), len(reference["privleak"][side])
        if n != m:
            raise ValueError(
                f"privleak {side}: {n} scores, but {m} in the reference: they are of different "
                "documents"
            )
