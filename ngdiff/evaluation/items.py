"""Per-item values of TOFU's metrics, from the statistics of one forward pass; and how items become
aggregates.

Layouts are open-unlearning's `value_by_index`: probabilities {"prob", "avg_loss"} (lists over
several wrong answers; beside them "tokens", how many were labelled), everything else {"score"}.  An
undefined value is None and is left out of the mean.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ngdiff.evaluation import metrics

if TYPE_CHECKING:
    from ngdiff.evaluation.stats import Stats  # torch: scoring a file does without

Row = dict[str, Any]
Items = dict[str, dict[int, Any]]
Table = Mapping[tuple[str, str], "Stats"]

FICTION = (
    "forget",
    "retain",
)  # judged on the paraphrase; ra and wf on the answer, normalised over the options
RATIO = {
    "forget": "forget_truth_ratio",
    **{part: f"{part}_Truth_Ratio" for part in ("retain", "ra", "wf")},
}
UTILITY = (
    *("retain_Q_A_Prob", "retain_Q_A_ROUGE", "retain_Truth_Ratio"),
    *("ra_Q_A_Prob_normalised", "ra_Q_A_ROUGE", "ra_Truth_Ratio"),
    *("wf_Q_A_Prob_normalised", "wf_Q_A_ROUGE", "wf_Truth_Ratio"),
)
ATTACKS = ("loss", "zlib", "min_k", "min_k_plus_plus", "reference", "gradnorm")


def scores(values: list[float]) -> dict[int, dict[str, float | None]]:
    """index -> {"score": value}, None for an undefined value (NaN)."""
    return {
        i: {"score": None if np.isnan(value) else float(value)} for i, value in enumerate(values)
    }


def column(items: Mapping[int, Mapping[str, Any]], key: str = "score") -> np.ndarray:
    """One field of the items as a float array, shape (rows,) or (rows, answers), None as NaN."""
    return np.array([item[key] for item in items.values()], float)


def defined(items: Mapping[int, Mapping[str, Any]]) -> np.ndarray:
    """The scores that are defined, shape (≤ rows,)."""
    values = column(items)
    return values[~np.isnan(values)]


def _probability(losses: Any, tokens: Any) -> dict[str, Any]:
    return {"prob": metrics.probability(losses).tolist(), "avg_loss": losses, "tokens": tokens}


def probabilities(table: Table, part: str, rows: list[Row], eps: float) -> Items:
    """{part}_Q_A_Prob, _PARA_Prob, _PERT_Prob, _Prob_normalised and the truth ratio, as far as the
    rows allow.
    """

    def told(answers: list[str | list[str]]) -> dict[int, Any]:
        found = {}
        for i, (row, answer) in enumerate(zip(rows, answers, strict=True)):
            stats = [
                table[row["question"], one]
                for one in ([answer] if isinstance(answer, str) else answer)
            ]
            values = [metrics.mean_nll(s.logp) for s in stats], [len(s.logp) for s in stats]
            found[i] = _probability(
                *((v[0] for v in values) if isinstance(answer, str) else values)
            )
        return found

    items = {f"{part}_Q_A_Prob": told([row["answer"] for row in rows])}
    right = items[f"{part}_Q_A_Prob"]
    if part in FICTION:
        if any("paraphrased_answer" not in row for row in rows):
            return items
        right = items[f"{part}_Q_A_PARA_Prob"] = told([row["paraphrased_answer"] for row in rows])
    if any(not row.get("perturbed_answer") for row in rows):
        return items
    others = items[f"{part}_Q_A_PERT_Prob"] = told([row["perturbed_answer"] for row in rows])
    pairs = [(right[i]["avg_loss"], others[i]["avg_loss"]) for i in right]
    items[RATIO[part]] = scores([metrics.truth_ratio(t, w, eps) for t, w in pairs])
    if part == "forget":
        means = [metrics.share(t, [float(np.mean(w))], eps) for t, w in pairs]
        items["forget_truth_ratio_prob_mean"] = scores(means)
    if part not in FICTION:
        shares = [metrics.share(t, w, eps) for t, w in pairs]
        items[f"{part}_Q_A_Prob_normalised"] = {
            i: {"prob": value} for i, value in enumerate(shares)
        }
    return items


def memorisation(table: Table, rows: list[Row], floor: bool) -> Items:
    """exact_memorization and extraction_strength of the answers, final EOS dropped.

    floor: as in `metrics.extraction_strength`.
    """
    every = [table[row["question"], row["answer"]].hits for row in rows]
    # a text without any token has no score, under no convention
    strengths = [metrics.extraction_strength(h[:-1], floor and bool(h.size)) for h in every]
    return {
        "exact_memorization": scores([metrics.exact_memorization(h[:-1]) for h in every]),
        "extraction_strength": scores(strengths),
    }


def membership(table: Table, part: str, rows: list[Row], answers: list[str], empty: float) -> Items:
    """Scores of the likelihood attacks on one side; the loss and zlib keep the final EOS.

    They are named mia_<attack>_<part>. answers: the text of each row that zlib compresses. empty:
    Min-K % and Min-K %++ of an answer that is its EOS alone.
    """
    stats = [table[row["question"], row["answer"]] for row in rows]
    losses = [metrics.mean_nll(s.logp) for s in stats]
    zlib = [metrics.zlib_score(loss, text) for loss, text in zip(losses, answers, strict=True)]
    low, plus = [], []
    for s in stats:
        if len(s.logp) > 1:
            low.append(metrics.min_k(s.logp[:-1]))
            plus.append(metrics.min_k_plus_plus(s.logp[:-1], s.mean[:-1], s.var[:-1]))
        else:
            low.append(empty if len(s.logp) else np.nan)
            plus.append(low[-1])
    return {
        f"mia_loss_{part}": scores(losses),
        f"mia_zlib_{part}": scores(zlib),
        f"mia_min_k_{part}": scores(low),
        f"mia_min_k_plus_plus_{part}": scores(plus),
    }


def against(items: Items, reference: Items) -> Items:
    """mia_reference_<part>: the loss minus the retain-only model's, row by row; undefined where
    both are infinite.
    """
    found: Items = {}
    for part in ("forget", "holdout"):
        name = f"mia_loss_{part}"
        if name in items and name in reference:
            with np.errstate(invalid="ignore"):
                found[f"mia_reference_{part}"] = scores(
                    list(column(items[name]) - column(reference[name]))
                )
    return found


def _mean(key: str) -> Callable[[Mapping[int, Any]], float]:
    def aggregate(items: Mapping[int, Any]) -> float:
        values = [np.mean(np.array(item[key], float)) for item in items.values()]
        values = [value for value in values if not np.isnan(value)]  # None: an undefined value
        return float(np.mean(values)) if values else float("nan")

    return aggregate


def aggregate(items: Items, eps: float = 0.0) -> dict[str, float]:
    """name -> aggregate of every metric whose items are there; NaN where no row defines a value.

    eps: added to the denominator of the forget set's truth ratio.
    """
    values = {}
    for name, rows in items.items():
        if "_Prob" in name:
            values[name] = _mean("prob")(rows)
        elif name.endswith("_ROUGE"):
            values[name] = _mean("rougeL_recall")(rows)
        elif name == "forget_truth_ratio":
            values[name] = metrics.closer_to_1(defined(rows), eps)
        elif name.endswith("_Truth_Ratio"):
            values[name] = metrics.true_better(defined(rows))
        elif not name.startswith("mia_"):
            values[name] = _mean("score")(rows)
    for attack in ATTACKS:
        sides = [items.get(f"mia_{attack}_{part}") for part in ("forget", "holdout")]
        if all(sides):
            values[f"mia_{attack}"] = metrics.auc(*[column(side) for side in sides])
    return values
