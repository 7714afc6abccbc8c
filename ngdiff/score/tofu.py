"""TOFU's own per-sample log, `eval_log_aggregated.json`, scored under open-unlearning's names.

Reference: Maini et al., "TOFU: A Task of Fictitious Unlearning for LLMs" (2024), and the
benchmark's own evaluation.
"""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from ngdiff.evaluation import items, metrics, sight, trust
from ngdiff.evaluation.conventions import Convention
from ngdiff.evaluation.conventions import convention as convention_of
from ngdiff.evaluation.files import LOGS
from ngdiff.score import documents
from ngdiff.store.document import shown

NEEDED = ("avg_gt_loss", "avg_paraphrased_loss", "average_perturb_loss", "rougeL_recall")
# one value a row each
FIELDS = (
    *NEEDED,
    *("gt_loss", "num_token_gt", "generated_text", "rouge1_recall", "truth_ratio"),
    *("paraphrased_loss", "perturb_loss", "num_token_paraphrased", "num_token_perturb"),
)
SUMS = (  # mean loss, its sum, and its number of tokens
    ("avg_gt_loss", "gt_loss", "num_token_gt"),
    ("avg_paraphrased_loss", "paraphrased_loss", "num_token_paraphrased"),
    ("average_perturb_loss", "perturb_loss", "num_token_perturb"),
)
Log = dict[str, dict[str, Any]]  # field -> index -> value


def score(
    path: Path, reference: Path | None = None, convention: str | Convention = "ngdiff"
) -> tuple[dict[str, float], list[str]]:
    """Scores of a log (mean over its rows, each in [0, 1]) and warnings.

    {part}_Q_A_Prob = exp(−ℓ), {ra,wf}_Q_A_Prob_normalised = p/(p + Σ_k p_wrong,k), {part}_Q_A_ROUGE
    = ROUGE-L recall, with R = exp(ℓ_paraphrase − mean_k ℓ_wrong,k): forget_truth_ratio = min(R,
    1/R), {part}_Truth_Ratio = max(0, 1 − R); {part}_Q_A_{PARA,PERT}_Prob. In ra and wf the
    paraphrase is the answer itself. model_utility is the harmonic mean of nine; forget_quality,
    with a `reference`, the KS p-value of the two logs' R on the forget set. A log without
    eval_log_forget.json has no forget metrics; the other three are needed.

    convention: "open-unlearning" adds 1e-10 to the denominators; "tofu" is the same as "ngdiff"
    here.

    A loss that is NaN or infinite counts as +∞ (probability 0), with a warning: the model has
    collapsed.

    Errors: FileNotFoundError; ValueError naming file, log, field and index for a missing log or
    field, fields of different rows, values that are not numbers, empty lists, and a reference of
    another split.
    """
    how = convention_of(convention, "tofu")
    document, warnings = documents.read(path), []
    found: items.Items = {}
    told: list[str] = []
    for part, key in LOGS.items():
        if part != "forget" or key in document:
            log = read(document, path, key)
            found |= items_of(part, log, how.eps)
            told += [answer for _, answer in _texts(log).values()]
            warnings += _collapsed(log, f"{path}, {key}") + _uneven(log, f"{path}, {key}")
    warnings += [f"{path}: {line}" for line in sight.unseen(told)]
    values = items.aggregate(found, how.eps)
    values["model_utility"] = metrics.harmonic_mean(values[name] for name in items.UTILITY)
    if reference is not None:
        quality, more = _quality(document, path, Path(reference), how)
        values["forget_quality"] = quality
        warnings += more
    return values, warnings


def _quality(
    document: dict[str, Any], path: Path, reference: Path, how: Convention
) -> tuple[float, list[str]]:
    key = LOGS["forget"]
    log, other = read(document, path, key), read(documents.read(reference), reference, key)
    warnings = trust.same_rows(_texts(log), _texts(other), path, reference)
    ours, theirs = (items_of("forget", side, how.eps) for side in (log, other))
    warnings += trust.same_model(ours, theirs, reference)
    warnings += trust.membership(None, (0, 0), reference)
    warnings += _collapsed(other, f"{reference}, {key}") + _uneven(other, f"{reference}, {key}")
    ratio = items.RATIO["forget"]
    return metrics.ks_pvalue(*(items.defined(side[ratio]) for side in (ours, theirs))), warnings


def _uneven(log: Log, where: str) -> list[str]:
    """A warning for each mean loss that is not the sum beside it over its number of tokens."""
    lines = []
    for mean, total, tokens in SUMS:
        if not {total, tokens} <= log.keys():
            continue
        odd = [
            i
            for i, value in log[mean].items()
            if not trust.agree(value, np.divide(log[total][i], log[tokens][i]))
        ]
        if odd:
            lines.append(
                f"{where}, {mean}: in {len(odd)} of {len(log[mean])} rows it is not {total}/"
                f"{tokens}; the first is index {odd[0]}"
            )
    return lines


def _texts(log: Log) -> dict[str, trust.Text]:
    """Index -> (question, answer); logs of some tools have more after [prompt, generation, answer],
    and the oldest have no prompt.
    """
    found = {}
    for i, told in log.get("generated_text", {}).items():
        if isinstance(told, list) and len(told) >= 2:
            asked, answer = ("", told[1]) if len(told) == 2 else (told[0], told[2])
            found[i] = (str(asked), str(answer))
    return found


def read(document: dict[str, Any], path: Path, key: str) -> Log:
    """One log of the document, checked: field -> index -> value, the known fields only."""
    if key not in document:
        raise ValueError(
            f"{path} has no {key}: it holds {', '.join(map(shown, document)) or 'nothing'}"
        )
    content = documents.mapping(document[key], f"{path}, {key}")
    if missing := [field for field in NEEDED if field not in content]:
        raise ValueError(f"{path}, {key}: the field {missing[0]} is missing")
    where = f"{path}, {key}, "
    # an empty field says nothing
    told = [field for field in FIELDS if field in NEEDED or content.get(field)]
    log = {field: documents.indexed(content[field], where + field) for field in told}
    rows = log[NEEDED[0]]
    for field, values in log.items():
        if values.keys() != rows.keys():
            index = next(i for i in (*rows, *values) if (i in rows) != (i in values))
            raise ValueError(
                f"{where}{field}: {len(values)} rows, but {NEEDED[0]} has {len(rows)}; "
                f"the first that only one has is index {index}"
            )
    for field in NEEDED:
        for i, value in log[field].items():
            at = f"{where}{field}, index {i}"
            for inner in documents.array(value, at) if field == "average_perturb_loss" else [value]:
                _check(documents.number(inner, at), field, at)
    return log


def _check(value: float, field: str, at: str) -> None:
    """A recall lies in [0, 1]; a loss is ≥ 0, or not finite in a collapsed model."""
    if value < 0 or (field == "rougeL_recall" and not value <= 1):
        raise ValueError(f"{at}: {value} is no {'recall' if field == 'rougeL_recall' else 'loss'}")


def items_of(part: str, log: Log, eps: float) -> items.Items:
    """`items.probabilities` of a log.

    A text of which only the mean loss is known is one token with that loss.
    """
    names = {"answer": "avg_gt_loss", "paraphrase": "avg_paraphrased_loss"}
    table: Any = {
        (i, text): _stats(log[field][i]) for text, field in names.items() for i in log[field]
    }
    table |= {
        (i, str(k)): _stats(v)
        for i, vs in log["average_perturb_loss"].items()
        for k, v in enumerate(vs)
    }
    rows = [
        {
            "question": i,
            "answer": "answer",
            "paraphrased_answer": "paraphrase",
            "perturbed_answer": [*map(str, range(len(vs)))],
        }
        for i, vs in log["average_perturb_loss"].items()
    ]
    found = items.probabilities(table, part, rows, eps)
    if part not in items.FICTION:  # their "paraphrase" is the answer itself, in a pass of its own
        swapped = items.probabilities(
            table, part, [row | {"answer": "paraphrase"} for row in rows], eps
        )
        found[items.RATIO[part]] = swapped[items.RATIO[part]]
    recalls = log["rougeL_recall"].values()
    return found | {
        f"{part}_Q_A_ROUGE": {i: {"rougeL_recall": value} for i, value in enumerate(recalls)}
    }


def _stats(loss: float) -> Any:
    return SimpleNamespace(logp=[-loss])


def _collapsed(log: Log, where: str) -> list[str]:
    """A warning where losses are not finite."""
    odd = [
        f"{field}, index {i}"
        for field in NEEDED[:3]
        for i, value in log[field].items()
        if not all(map(math.isfinite, value if isinstance(value, list) else [value]))
    ]
    return (
        [f"{where}: {len(odd)} losses are not finite, the first in {odd[0]}: counted as infinite"]
        if odd
        else []
    )
