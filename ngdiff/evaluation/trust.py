"""Whether a reference can be believed: tests of it, and a line for each test that could not be
made.

A reference is the retain-only model. It must be another model than the one measured. Its membership
AUC must be near ½. It must be of the same rows, and its items must agree with the losses beside
them. Nothing here changes a value: each function returns lines for the reader.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ngdiff.evaluation import items, metrics
from ngdiff.evaluation.items import Items, Row
from ngdiff.store.document import shown
from ngdiff.store.progress import Say

if TYPE_CHECKING:
    from ngdiff.data.benchmark import Benchmark
    from ngdiff.evaluation.report import Report

FAR = 0.1  # of an AUC from ½, where chance does not explain it either
SAME = 1e-4  # relative: two passes over one model differ by rounding alone
CLOSE = {"rel_tol": 1e-2, "abs_tol": 1e-3}  # losses that were written in bfloat16
FIELDS = ("avg_loss", "nll", "score", "prob")  # the first that an item has stands for it
RATIO = items.RATIO["forget"]
AGGREGATORS = {
    "closer_to_1_better": metrics.closer_to_1,
    "true_better": metrics.true_better,
    "mean": lambda values: float(np.mean(values)),
}
ROWS = ("mia_min_k_forget", "mia_min_k_holdout")  # TOFU's items of membership
DOCUMENTS = ("privleak_forget", "privleak_holdout")  # MUSE's
# Llama-3's template inserts the day of the run into the question
TODAY = re.compile(r"Today Date: [^\n]*")
UNTESTED = "not tested"  # in each line about a test that could not be made

Text = tuple[str, str]  # the question of a row, and its true answer


def same_model(found: Items, other: Items, name: object) -> list[str]:
    """A line where every value that both results have is the same: one model, or one file."""
    compared = 0
    for metric in found.keys() & other.keys():
        ours, theirs = (_numbers(rows) for rows in (found[metric], other[metric]))
        for i in ours.keys() & theirs.keys():
            if ours[i].shape != theirs[i].shape:
                return []
            if not np.allclose(ours[i], theirs[i], rtol=SAME, atol=1e-6, equal_nan=True):
                return []
            compared += int(np.isfinite(ours[i]).sum())
    if not compared:
        return []
    return [
        f"{name} has the same values as the measured model ({compared} compared). So it is the "
        "same model or file, and a comparison with it means nothing. Give the model that was "
        "trained on the retain rows alone"
    ]


def _numbers(rows: Mapping[Any, Any]) -> dict[Any, np.ndarray]:
    """Index -> the item's numbers, shape (answers,); items without one are left out."""
    found = {}
    for i, row in rows.items():
        field = next((f for f in FIELDS if isinstance(row, Mapping) and f in row), None)
        if field is not None:
            found[i] = np.atleast_1d(np.array(row[field], float))
    return found


def membership(auc: float | None, sizes: tuple[int, int], name: object) -> list[str]:
    """A line where the AUC of forget rows as members, against rows never seen, is far from ½.

    It is far where it differs by more than `FAR`, and by more than three standard errors. The
    standard error of an AUC of ½ is √((n + m + 1)/(12nm)) for n and m rows.
    """
    n, m = sizes
    if auc is None or math.isnan(auc) or not n * m:
        return [
            f"{name}: not tested whether it has seen the forget rows (no membership scores of "
            "forget and hold-out rows)"
        ]
    if abs(auc - 0.5) <= max(FAR, 3 * math.sqrt((n + m + 1) / (12 * n * m))):
        return []
    return [
        f"{name}: its membership AUC of forget against hold-out rows is {auc:.4g} ({n} and {m} "
        "rows). For a retain-only model it is near 0.5. Was it trained on one of the two sets?"
    ]


def consistent(found: Items, name: object, eps: float = 0.0) -> list[str]:
    """A line for each metric whose items contradict the losses beside them, with its count.

    prob = exp(−avg_loss), and forget_truth_ratio = R of the paraphrase's and wrong answers' losses.
    """
    lines = []
    for metric, rows in found.items():
        pairs = [(i, row["prob"], row["avg_loss"]) for i, row in rows.items() if _has_both(row)]
        odd = [i for i, p, loss in pairs if not agree(p, metrics.probability(loss))]
        lines += _contradicted(name, metric, odd, len(pairs), "prob is not exp(−avg_loss)")
    true, wrong = (found.get(f"forget_Q_A_{kind}_Prob", {}) for kind in ("PARA", "PERT"))
    odd, tested = [], 0
    for i, row in found.get(RATIO, {}).items():
        losses = [side.get(i, {}).get("avg_loss") for side in (true, wrong)]
        if None not in (*losses, row.get("score")):
            tested += 1
            value = metrics.truth_ratio(losses[0], losses[1], eps)
            odd += [i] * (not agree(row["score"], value))
    what = "the score is not the ratio of these losses"
    return lines + _contradicted(name, RATIO, odd, tested, what)


def _has_both(row: Any) -> bool:
    return isinstance(row, Mapping) and None not in (row.get("prob"), row.get("avg_loss"))


def agree(stated: Any, value: Any) -> bool:
    """Return whether numbers are the same up to what bfloat16 rounds; infinite ones are ignored."""
    ours, theirs = np.atleast_1d(np.array(stated, float)), np.atleast_1d(np.array(value, float))
    if ours.shape != theirs.shape:
        return False
    known = np.isfinite(ours) & np.isfinite(theirs)
    close = np.isclose(ours, theirs, rtol=CLOSE["rel_tol"], atol=CLOSE["abs_tol"])
    return bool(np.all(close | ~known))


def _contradicted(name: object, metric: str, odd: list[Any], n: int, what: str) -> list[str]:
    first = f"the first is index {odd[0]}" if odd else ""
    return [f"{name}, {metric}: in {len(odd)} of {n} items {what}; {first}"] if odd else []


def aggregator(stated: float | None, rows: Mapping[Any, Any]) -> str | None:
    """The name of the aggregator that makes the stated value of the items' scores, if one does."""
    values = items.defined(rows) if rows else np.array([])
    if stated is None or not values.size:
        return None
    made = {name: of(values) for name, of in AGGREGATORS.items()}
    return next((n for n, value in made.items() if math.isclose(value, stated, rel_tol=1e-6)), None)


def same_aggregator(ours: str | None, theirs: str | None, name: object) -> list[str]:
    """A line where the two results' truth ratios are of two aggregators, or of one unknown."""
    if ours is None or theirs is None:
        return [
            f"{name}: not tested whether its {RATIO} is averaged in the same way (no agg_value)"
        ]
    if ours == theirs:
        return []
    why = f"is averaged by {theirs}, that of the measured model by {ours}"
    return [f"{name}: its {RATIO} {why}"]


def doubts(
    found: Items,
    ref: Report | None,
    sides: tuple[str, str],
    say: Say,
    eps: float = 0.0,
    rows: Mapping[Any, Text] | None = None,
) -> list[str]:
    """Return the doubts about a reference's Report, a line each. Without a report there are none.

    sides: its items whose scores separate members from rows never seen. rows: question and answer
    of each forget row, given where the report may be of other rows. A doubt becomes a warning;
    what could not be tested goes to `say`.
    """
    if ref is None:
        return []
    name = f"the reference {ref.meta.get('model')!r}"
    auc = ref.metrics.get("mia_min_k", ref.metrics.get("mia_auc"))
    lines = same_model(found, ref.items, name)
    lines += membership(
        auc, (len(ref.items.get(sides[0], ())), len(ref.items.get(sides[1], ()))), name
    )
    lines += consistent(ref.items, name, eps)
    made = items.aggregate({k: v for k, v in ref.items.items() if k == RATIO}, eps)
    lines += [
        f"{name}: its {key} is {ref.metrics[key]!r}, its items give {value!r}"
        for key, value in made.items()
        if key in ref.metrics and not math.isclose(ref.metrics[key], value, rel_tol=1e-6)
    ]
    if rows is not None:
        theirs = dict(asked(ref.items.get("forget_Q_A_ROUGE", {})))
        try:
            lines += same_rows(rows, theirs, "this evaluation", name)
        except ValueError as error:
            lines.append(str(error))
    for line in lines:
        if UNTESTED in line:
            say(line)
        else:
            warnings.warn(line, stacklevel=3)
    return lines


def noted(
    found: Items, ref: Report | None, sides: tuple[str, str], say: Say, eps: float = 0.0
) -> dict[str, Any]:
    """Return the entries of a report's meta about its reference: its name, and the doubts."""
    return _entries(ref, doubts(found, ref, sides, say, eps))


def of_rows(
    found: Items,
    ref: Report | None,
    bench: Benchmark,
    rows: Mapping[str, Sequence[Row]],
    say: Say,
    eps: float,
) -> dict[str, Any]:
    """`noted` for TOFU's rows. A report of other rows of the split is compared text by text."""
    other = ref is not None and ref.meta.get("fingerprint") != bench.fingerprint
    forget = {i: (row["question"], row["answer"]) for i, row in enumerate(rows.get("forget", ()))}
    lines = doubts(found, ref, ROWS, say, eps, forget if other else None)
    if other:
        lines.append(
            "the reference was evaluated on other rows of this split: mia_reference is left out"
        )
        say(lines[-1])
    return _entries(ref, lines)


def _entries(ref: Report | None, lines: list[str]) -> dict[str, Any]:
    return {"reference": ref.meta.get("model") if ref else None, "doubts": lines}


def same_rows(
    rows: Mapping[Any, Text], reference: Mapping[Any, Text], path: object, other: object
) -> list[str]:
    """Return warnings where two results may not be of the same rows (index -> question, answer).

    Results of different sizes are legal, and so are samples of a split with indices of their own.
    Another split is not: no row in common; or the smaller result is the end of the larger one, as
    forget05 is of forget10. Rows whose answers agree one by one are the same under another prompt.

    Errors: ValueError naming both files, the first index that differs, and its two texts.
    """
    if not rows or not reference:
        return [f"not tested whether {path} and {other} are of the same rows (no texts to compare)"]
    ours, theirs = ({i: _bare(text) for i, text in texts.items()} for texts in (rows, reference))
    differs = next((i for i in ours if i in theirs and not _same(ours[i], theirs[i])), None)
    small, large = sorted((list(ours.values()), list(theirs.values())), key=len)
    with_answer: dict[str, list[Text]] = {}  # answer -> the rows that have it
    for text in large:
        with_answer.setdefault(text[1], []).append(text)
    apart = not any(_same(text, other) for text in small for other in with_answer.get(text[1], ()))
    if differs is None and not apart:
        return []
    first = next(iter(ours)) if differs is None else differs
    texts = f"index {first} is {shown(ours[first][0])} in {path}"
    if first in theirs:
        texts += f" and {shown(theirs[first][0])} in {other}"
    common = ours.keys() & theirs.keys()
    if common and all(ours[i][1] == theirs[i][1] for i in common):
        return [
            f"{texts}: the true answers are the same, but the prompts differ. Losses under two "
            "prompts cannot be compared. Evaluate both models with one prompt"
        ]
    last = len(small) < len(large) and all(map(_same, small, large[-len(small) :]))
    if apart or last:
        why = (
            "they share no row"
            if apart
            else f"the {len(small)} rows of one are the last of the other's {len(large)}"
        )
        raise ValueError(
            f"{path} and {other} are of different splits ({why}): {texts}. Give the reference of "
            "this split"
        )
    return [f"{texts}: the rows at this index differ. Is {other} of the same split?"]


def _same(one: Text, other: Text) -> bool:
    """One tool saves the question, another the whole prompt it stands in."""
    return one[1] == other[1] and (one[0] in other[0] or other[0] in one[0])


def _bare(text: Text) -> Text:
    question, answer = text
    return TODAY.sub("", question).strip(), answer.strip()


def asked(rows: Mapping[Any, Any]) -> Iterator[tuple[Any, Text]]:
    """Yield (index, (question, answer)) of items that hold a generation and its true answer."""
    for i, row in rows.items():
        if isinstance(row, Mapping) and "ground_truth" in row:
            yield i, (str(row.get("input", "")), str(row["ground_truth"]))
