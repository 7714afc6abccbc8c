"""A report in TOFU's own file formats, so that its tools can read our numbers.

TOFU_EVAL.json and TOFU_SUMMARY.json are open-unlearning's names and layout;
eval_log_aggregated.json is TOFU's own. Those of MUSE and SemEval are written by `muse.write_files`
and `semeval.write_files`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ngdiff.evaluation.items import ATTACKS, RATIO
from ngdiff.evaluation.report import Report
from ngdiff.store.cache import atomic_write

LOGS = {
    "retain": "eval_log.json",
    "ra": "eval_real_author_wo_options.json",
    "wf": "eval_real_world_wo_options.json",
    "forget": "eval_log_forget.json",
}  # part -> TOFU's log of it


def write_files(report: Report, folder: Path) -> list[Path]:
    """Write TOFU's three files into the folder, each whole or not at all; return their paths."""
    log, (whole, summary) = tofu_log(report), open_unlearning(report)
    return [
        write_json(folder / "TOFU_EVAL.json", whole),
        write_json(folder / "TOFU_SUMMARY.json", summary),
        write_json(folder / "eval_log_aggregated.json", log),
    ]


def write_json(path: Path, content: Any) -> Path:
    """Write JSON as the benchmarks' own code does, byte by byte, and not as our documents are."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(_plain(content), indent=4, ensure_ascii=False), "utf-8")
    return path


def open_unlearning(report: Report) -> tuple[dict[str, Any], dict[str, float]]:
    """({metric: {"agg_value", "value_by_index"}}, {metric: value}) of a TOFU report; losses of ours
    are left out.
    """
    summary = {k: v for k, v in report.metrics.items() if not k.startswith("loss_")}
    whole: dict[str, Any] = {}
    for name, value in summary.items():
        whole[name] = {"agg_value": value}
        if name in report.items:
            rows = report.items[name]
            whole[name]["value_by_index"] = {i: _without(row, "tokens") for i, row in rows.items()}
    for attack in ATTACKS:
        if f"mia_{attack}" in whole:
            sides = {part: report.items[f"mia_{attack}_{part}"] for part in ("forget", "holdout")}
            whole[f"mia_{attack}"] |= {
                **{
                    part: {"agg_value": _mean(rows), "value_by_index": rows}
                    for part, rows in sides.items()
                },
                "auc": summary[f"mia_{attack}"],
            }
    return dict(sorted(whole.items())), dict(sorted(summary.items()))


def tofu_log(report: Report) -> dict[str, dict[str, dict[int, Any]]]:
    """TOFU's eval_log_aggregated.json: log -> field -> {index: value}, as far as the report has
    them.
    """
    return {file: log for part, file in LOGS.items() if (log := _log(report, part))}


def _log(report: Report, part: str) -> dict[str, dict[int, Any]]:
    get = report.items.get
    true, wrong, said = (get(f"{part}_Q_A_{kind}") for kind in ("Prob", "PERT_Prob", "ROUGE"))
    told = get(f"{part}_Q_A_PARA_Prob") or true  # real authors and world facts: the answer itself
    if not (true and told):
        return {}
    log: dict[str, dict[int, Any]] = {
        "avg_gt_loss": {i: row["avg_loss"] for i, row in true.items()},
        "gt_loss": {i: row["avg_loss"] * row["tokens"] for i, row in true.items()},
        "num_token_gt": {i: row["tokens"] for i, row in true.items()},
        "avg_paraphrased_loss": {i: row["avg_loss"] for i, row in told.items()},
        "paraphrased_loss": {i: row["avg_loss"] * row["tokens"] for i, row in told.items()},
        "num_token_paraphrased": {i: row["tokens"] for i, row in told.items()},
    }
    if wrong:
        log["average_perturb_loss"] = {i: row["avg_loss"] for i, row in wrong.items()}
        log["perturb_loss"] = {
            i: [loss * n for loss, n in zip(row["avg_loss"], row["tokens"], strict=True)]
            for i, row in wrong.items()
        }
        log["num_token_perturb"] = {i: row["tokens"] for i, row in wrong.items()}
        log["truth_ratio"] = {i: row["score"] for i, row in report.items[RATIO[part]].items()}
    if said:
        log["generated_text"] = {
            i: [row["input"], row["generation"], row["ground_truth"]] for i, row in said.items()
        }
        log |= {
            kind: {i: row[kind] for i, row in said.items()}
            for kind in ("rouge1_recall", "rougeL_recall")
        }
    return log


def _mean(rows: dict[int, Any]) -> float | None:
    values = [row["score"] for row in rows.values() if row["score"] is not None]
    return float(np.mean(values)) if values else None


def _without(row: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in row.items() if k != key}


def _plain(value: Any) -> Any:
    """JSON's types, and Infinity as Python's JSON writes it, which the benchmarks' own code does
    and reads.
    """
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, np.floating):
        return float(value)
    return int(value) if isinstance(value, np.integer) else value
