"""SemEval-2025 Task 4's metrics of a language model, and the files its evaluator writes.

Each row's `input` is continued greedily, verbatim and without a template; the whole generation is
judged (`terms`). The `nll` of a row is the mean loss of the tokens of `output`. Input and output
are joined by nothing, as in the evaluator, and this loss enters no score. The `nll` of an MIA
document is the mean loss of all its tokens but the first, which nothing predicts.

    ngdiff   batches, the model's own precision (load it in float32); the kind of a row is what its
             id says, `…qa10` is "qa"
    semeval  as the evaluator (`convention_semeval`)

Reference: Ramakrishna et al., "SemEval-2025 Task 4: Unlearning sensitive content from Large
Language Models" (2025).
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ngdiff.data.real.semeval import mia_note
from ngdiff.evaluation import metrics, sight, terms, texts, trust
from ngdiff.evaluation.convention_semeval import COLUMNS, csv_text
from ngdiff.evaluation.conventions import Convention
from ngdiff.evaluation.conventions import convention as convention_of
from ngdiff.evaluation.definition import Encoded
from ngdiff.evaluation.generate import greedy
from ngdiff.evaluation.items import Items
from ngdiff.evaluation.report import Report, check_reference, meta_of, speaker
from ngdiff.lm.tokens import IGNORE
from ngdiff.store.cache import atomic_folder
from ngdiff.store.progress import Progress, Say

if TYPE_CHECKING:
    from ngdiff.data.benchmark import Benchmark, Row
    from ngdiff.lm.model import LM

FOLDS, SIDES = ("forget", "retain"), ("member", "nonmember")
WHAT = {terms.REGURGITATION: "regurgitation", terms.KNOWLEDGE: "knowledge"}


def evaluate(
    lm: LM,
    bench: Benchmark,
    reference: LM | Report | None = None,
    convention: str | Convention = "ngdiff",
    generate: bool = True,
    mmlu: float | None = None,
    progress: bool | Say = True,
    max_new_tokens: int = 256,
) -> Report:
    """All of the task's metrics of `lm` on `bench` (`data.semeval`, `data.dossiers`).

    reference   the retain-only model, or its Report: mia_auc_reference, where the AUC stands
                without the forget set
    convention  "ngdiff" or "semeval" (the module's text), or a `Convention` of your own
    generate    False leaves out all but the MIA
    mmlu        average accuracy of the model on MMLU, in [0, 1]
    progress    True: one line a stage on stderr (silent under pytest); a callable is given the
                lines

    Metrics: {forget,retain}_[Task<n>_]{regurgitation,knowledge} are mean ROUGE-L recall and mean
    exact match; term_{forget,retain}_Task<n>_… are the twelve terms, 1 − value of what is
    forgotten; task_aggregate is their harmonic mean; mia_auc is near 1 where members are still
    known, mia_final_score = 1 − 2·|mia_auc − ½|; mmlu; aggregate is the mean of task_aggregate,
    mia_final_score and mmlu. What cannot be computed is absent. Items: a dict for each row of
    "forget", "retain", "member", "nonmember".

    Raises ValueError for an unknown convention, a benchmark without the task's ids, rows longer
    than the model's context, and a reference report of other rows or another convention. The
    model's mode and weights are restored.
    """
    how, say, begun = convention_of(convention, "semeval"), speaker(progress), time.perf_counter()
    _check(bench, reference, how)
    rows = {part: bench.rows(part) for part in (*FOLDS, *SIDES) if part in bench.configs}
    with how.weights(lm.model):
        encoded = _encoded(lm, rows, how)
        found = _losses(lm, rows, encoded, how, say)
        if generate:
            _continued(lm, encoded, found, how, max_new_tokens, say)
    values = _named(_result(found, mmlu, how), generate)
    ref = _reference(reference, rows, how, say)
    if ref is not None and "mia_auc" in values:
        values["mia_auc_reference"] = ref.metrics.get("mia_auc", math.nan)
    said = meta_of(lm, bench, how, reference, prompts=False)
    for line in said["notes"]:
        say(f"{lm.name}: {line}")
    meta = {
        "split": bench.source.get("split", bench.split),
        **trust.noted(found, ref, SIDES, say),
        "mia": mia_note(bench),
        "max_new_tokens": max_new_tokens if generate else None,
        "rows": {part: len(members) for part, members in rows.items()},
        "seconds": round(time.perf_counter() - begun, 3),
    }
    return Report.of(values, found, said | meta)


def _reference(
    reference: LM | Report | None, rows: dict[str, list[Row]], how: Convention, say: Say
) -> Report | None:
    """Return the report of the retain-only model; of a model, its losses on the MIA's documents."""
    if reference is None or isinstance(reference, Report):
        return reference
    sides = {side: rows[side] for side in SIDES if side in rows}
    if not sides:
        return Report({}, {}, {"model": reference.name})
    with how.weights(reference.model):
        documents = _encoded(reference, sides, how)
        found = _losses(reference, sides, documents, how, say)
    return Report({"mia_auc": metrics.auc(*_sides(found))}, found, {"model": reference.name})


def write(report: Report, folder: str | Path) -> Path:
    """Write the evaluator's own files, the folder whole or as it was; return it.

    forget_0.csv, retain_0.csv (id, task, input, expected_output, model_output, nll),
    mia_results/{member,nonmember}_0.csv (id, nll), and evaluation_results.jsonl: what the evaluator
    says of these files, its quirks of reading included. Raises ValueError for a report without
    generations; FileExistsError for a folder that holds other things.
    """
    folder = Path(folder)
    if any("model_output" not in row for fold in FOLDS for row in report.items[fold].values()):
        raise ValueError("this report has no generations: evaluate with generate=True")
    if (
        folder.exists()
        and not (folder / "forget_0.csv").is_file()
        and (folder.is_file() or any(folder.iterdir()))
    ):
        raise FileExistsError(
            f"{folder} is or holds another file than an evaluation's: choose another folder"
        )
    result = _result(report.items, report.metrics.get("mmlu"), convention_of("semeval"))
    with atomic_folder(folder) as temporary:
        for fold in FOLDS:
            (temporary / f"{fold}_0.csv").write_text(
                csv_text(report.items[fold], COLUMNS), "utf-8", newline=""
            )
        for side in SIDES:
            if side in report.items:
                path = temporary / "mia_results" / f"{side}_0.csv"
                path.parent.mkdir(exist_ok=True)
                path.write_text(csv_text(report.items[side], ("id", "nll")), "utf-8", newline="")
        (temporary / "evaluation_results.jsonl").write_text(json.dumps(result) + "\n", "utf-8")
    return folder


def write_files(report: Report, folder: Path) -> list[Path]:
    """Write the evaluator's folder; return its path."""
    return [write(report, folder)]


# Rows
# --------------------------------------------------------------------------------------------------


def _check(bench: Benchmark, reference: LM | Report | None, how: Convention) -> None:
    for fold in FOLDS:
        for i, row in enumerate(bench.rows(fold)):
            if not (row.get("id") and row.get("task") and row["question"]):
                raise ValueError(
                    f"{bench.name}, row {i} of {fold}: SemEval's rows have an id, a task and a "
                    "question; it has "
                    f"{', '.join(row)}"
                )
    check_reference(reference, bench, how)


def _encoded(lm: LM, rows: dict[str, list[Row]], how: Convention) -> dict[str, list[Encoded]]:
    """Return the rows of each part as tokens."""
    return {part: [_encode(lm, row, how) for row in members] for part, members in rows.items()}


def _encode(lm: LM, row: Row, how: Convention) -> Encoded:
    """Return a row as tokens, with labels after its input; of a document all have labels.

    There is no EOS but what the tokenizer adds itself; `given` is the input without it.
    """
    ids = texts.ids(lm.tokenizer, row["question"] + row["answer"])
    given = how.ids(lm, row["question"]) if row["question"] else []
    if lm.context is not None and len(ids) > lm.context:
        raise ValueError(
            f"row {row['id']}: {len(ids)} tokens, the model takes {lm.context}: take a model with "
            "a longer context"
        )
    if not row["question"] and len(ids) < 2:
        raise ValueError(
            f"document {row['id']}: a single token has no loss: leave it out of the MIA's files"
        )
    return Encoded(ids, [IGNORE] * len(given) + ids[len(given) :], given)


def _losses(
    lm: LM, rows: dict[str, list[Row]], encoded: dict[str, list[Encoded]], how: Convention, say: Say
) -> Items:
    """Return the items of each part, with `nll` in them."""
    begun = time.perf_counter()
    flat = [row for members in encoded.values() for row in members]
    losses = iter([metrics.mean_nll(logp) for logp in how.likelihood(lm.model, flat)])
    say(f"{lm.name}: likelihood of {len(flat)} texts in {time.perf_counter() - begun:.1f} s")
    return {
        part: {i: _item(row, next(losses)) for i, row in enumerate(members)}
        for part, members in rows.items()
    }


def _item(row: Row, nll: float) -> dict[str, Any]:
    loss = {"nll": None if math.isnan(nll) else nll}
    if not row["question"]:
        return {"id": row["id"]} | loss
    both = {"input": row["question"], "expected_output": row["answer"]}
    return {"id": row["id"], "task": row["task"]} | both | loss


def _continued(
    lm: LM,
    encoded: dict[str, list[Encoded]],
    found: Items,
    how: Convention,
    max_new_tokens: int,
    say: Say,
) -> None:
    """Add kind, model_output and score to the items of the folds."""
    begun = time.perf_counter()
    prompts = [row.given for fold in FOLDS for row in encoded[fold]]
    tick = Progress(f"  {lm.name}: generations", len(prompts), say, last=False)
    options = {"budget": how.budget, "tick": tick}
    generated = greedy(lm.model, prompts, how.stops(lm), max_new_tokens, **options)
    rows = [item for fold in FOLDS for item in found[fold].values()]
    for item, ids in zip(rows, generated, strict=True):
        item["model_output"] = how.reply(lm, ids)
        item["kind"] = how.kind(item["id"])
    for fold in FOLDS:
        for item, row in zip(found[fold].values(), how.judged(found[fold]), strict=True):
            item["score"] = terms.value(row)
    told = [item["expected_output"] for item in rows if item["kind"] == "sc"]
    for line in sight.unseen(told):
        say(f"{lm.name}: {line}")
    say(f"{lm.name}: {len(prompts)} generations in {time.perf_counter() - begun:.1f} s")


# Scores
# --------------------------------------------------------------------------------------------------


def _sides(found: Items) -> tuple[list[float], list[float]]:
    member, nonmember = ([item["nll"] for item in found[side].values()] for side in SIDES)
    return member, nonmember


def _result(found: Items, mmlu: float | None, how: Convention) -> dict[str, Any]:
    """The evaluator's own object, or, without generations, its MIA."""
    member, nonmember = _sides(found) if "member" in found else (None, None)
    if any("model_output" not in item for item in found["forget"].values()):
        return {} if member is None else {"mia_loss_acc": metrics.auc(member, nonmember)}
    forget, retain = (how.judged(found[fold]) for fold in FOLDS)
    return terms.score(forget, retain, member, nonmember, mmlu)


def _named(result: dict[str, Any], generate: bool) -> dict[str, float]:
    """The evaluator's object under the names of `evaluate`."""
    values, names = {}, []
    for fold in FOLDS if generate else ():
        scores = result[f"{fold}-set"]
        values |= {f"{fold}_{short}": scores[f"overall-{name}"] for name, short in WHAT.items()}
        tasks = {task: pair for task, pair in scores.items() if not task.startswith("overall-")}
        of_fold = {
            f"{fold}_{task}_{WHAT[name]}": v
            for task, pair in tasks.items()
            for name, v in pair.items()
        }
        values |= of_fold
        names += of_fold
    if generate:
        values |= {
            f"term_{name}": term
            for name, term in zip(names, result["aggregated-terms"], strict=True)
        }
        values["task_aggregate"] = result["harmonic-mean-task-aggregate"]
    if "mia_loss_acc" in result:
        values["mia_auc"] = result["mia_loss_acc"]
        values["mia_final_score"] = terms.membership(values["mia_auc"])
    if "mmlu_average" in result:
        values["mmlu"] = result["mmlu_average"]
    if result.get("aggregate-score", -1) != -1:  # the evaluator's word for a part that is missing
        values["aggregate"] = result["aggregate-score"]
    return values
