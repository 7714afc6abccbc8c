"""SemEval-2025 Task 4's metrics of a language model, and the files its evaluator writes.

Each row's `input` is continued greedily, verbatim and without a template; the whole generation is judged (`terms`). The
`nll` of a row is the mean loss of the tokens of `output` with input and output joined by nothing, as in the evaluator, and
enters no score; that of an MIA document is the mean loss of all its tokens but the first, which has no predictor.

    ngdiff   batches, the model's own precision (load it in float32); the kind of a row is what its id says, `…qa10` is "qa"
    semeval  as the evaluator: weights in bfloat16, one row at a time, generation stopped by the generation configuration
             alone, scores of what pandas reads back from the files (an empty output is the word "nan", `…qa10` is no kind)

Reference: Ramakrishna et al., "SemEval-2025 Task 4: Unlearning sensitive content from Large Language Models" (2025).
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from ngdiff.core.probe import evaluating
from ngdiff.data.real.semeval import kind as kind_of
from ngdiff.data.real.semeval import mia_note
from ngdiff.evaluation import forward, metrics, terms
from ngdiff.evaluation.conventions import Convention
from ngdiff.evaluation.conventions import convention as convention_of
from ngdiff.evaluation.generate import declared, greedy, stop_tokens
from ngdiff.evaluation.items import Items
from ngdiff.evaluation.report import Report, Say, check_reference, speaker, ticker
from ngdiff.lm.tokens import IGNORE, Example
from ngdiff.store.cache import atomic_folder

if TYPE_CHECKING:
    from ngdiff.data.benchmark import Benchmark, Row
    from ngdiff.lm.model import LM

FOLDS, SIDES = ("forget", "retain"), ("member", "nonmember")
COLUMNS = ("id", "task", "input", "expected_output", "model_output", "nll")
WHAT = {terms.REGURGITATION: "regurgitation", terms.KNOWLEDGE: "knowledge"}


def evaluate(
    lm: LM, bench: Benchmark, reference: LM | Report | None = None, convention: str = "ngdiff", generate: bool = True,
    mmlu: float | None = None, progress: bool | Say = True, max_new_tokens: int = 256,
) -> Report:  # fmt: skip
    """All of the task's metrics of `lm` on `bench` (`data.semeval`, `data.dossiers`).

    reference   the retain-only model, or its Report: mia_auc_reference, where the AUC stands without the forget set
    convention  "ngdiff" or "semeval" (the module's text)
    generate    False leaves out all but the MIA
    mmlu        average accuracy of the model on MMLU, in [0, 1]
    progress    True: one line a stage on stderr (silent under pytest); a callable is given the lines

    Metrics: {forget,retain}_[Task<n>_]{regurgitation,knowledge} are mean ROUGE-L recall and mean exact match;
    term_{forget,retain}_Task<n>_… are the twelve terms, 1 − value of what is forgotten; task_aggregate is their harmonic
    mean; mia_auc is near 1 where members are still known, mia_final_score = 1 − 2·|mia_auc − ½|; mmlu; aggregate is the mean
    of task_aggregate, mia_final_score and mmlu. What cannot be computed is absent. Items: a dict for each row of "forget",
    "retain", "member", "nonmember".

    Raises ValueError for an unknown convention, a benchmark without the task's ids, rows longer than the model's context,
    and a reference report of other rows or another convention. The model's mode and weights are restored.
    """
    how, say, begun = convention_of(convention, "semeval"), speaker(progress), time.perf_counter()
    published = how.name == "semeval"
    _check(bench, reference, how)
    rows = {part: bench.rows(part) for part in (*FOLDS, *SIDES) if part in bench.configs}
    with rounded(lm.model) if published else contextlib.nullcontext():
        found = _losses(lm, rows, published, say)
        if generate:
            _continued(lm, rows, found, published, max_new_tokens, say)
    values = _named(_result(found, mmlu, published), generate)
    if reference is not None and "mia_auc" in values:
        if not isinstance(reference, Report):
            sides = {side: rows[side] for side in SIDES}
            with rounded(reference.model) if published else contextlib.nullcontext():
                auc = metrics.auc(*_sides(_losses(reference, sides, published, say)))
        else:
            auc = reference.metrics.get("mia_auc", math.nan)
        values["mia_auc_reference"] = auc
    name = reference.meta.get("model") if isinstance(reference, Report) else getattr(reference, "name", None)
    meta = {
        **{"model": lm.name, "benchmark": bench.name, "split": bench.source.get("split", bench.split)},
        **{"convention": how.name, "fingerprint": bench.fingerprint, "reference": name, "mia": mia_note(bench)},
        "max_new_tokens": max_new_tokens if generate else None,
        "rows": {part: len(members) for part, members in rows.items()},
        "seconds": round(time.perf_counter() - begun, 3),
    }
    return Report({name: value for name, value in values.items() if not math.isnan(value)}, found, meta)


def write(report: Report, folder: str | Path) -> Path:
    """Writes the evaluator's own files, the folder whole or as it was; returns it.

    forget_0.csv, retain_0.csv (id, task, input, expected_output, model_output, nll), mia_results/{member,nonmember}_0.csv
    (id, nll), and evaluation_results.jsonl: what the evaluator says of these files, its quirks of reading included.
    Raises ValueError for a report without generations; FileExistsError for a folder that holds other things.
    """
    folder = Path(folder)
    if any("model_output" not in row for fold in FOLDS for row in report.items[fold].values()):
        raise ValueError("this report has no generations: evaluate with generate=True")
    if folder.exists() and not (folder / "forget_0.csv").is_file() and (folder.is_file() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is or holds another file than an evaluation's: choose another folder")
    result = _result(report.items, report.metrics.get("mmlu"), published=True)
    with atomic_folder(folder) as temporary:
        for fold in FOLDS:
            (temporary / f"{fold}_0.csv").write_text(_csv(report.items[fold], COLUMNS), "utf-8", newline="")
        for side in SIDES:
            if side in report.items:
                path = temporary / "mia_results" / f"{side}_0.csv"
                path.parent.mkdir(exist_ok=True)
                path.write_text(_csv(report.items[side], ("id", "nll")), "utf-8", newline="")
        (temporary / "evaluation_results.jsonl").write_text(json.dumps(result, indent=4), "utf-8")
    return folder


@contextlib.contextmanager
def rounded(model: Any, dtype: torch.dtype = torch.bfloat16) -> Iterator[None]:
    """The parameters in `dtype`, as a model loaded so has them (buffers stay), then the very same tensors again."""
    kept = [(p, p.data) for p in model.parameters() if p.is_floating_point() and p.dtype != dtype]
    try:
        for p, own in kept:
            p.data = own.to(dtype)
        yield
    finally:
        for p, own in kept:
            p.data = own


# Rows -------------------------------------------------------------------------------------------------------------


def _check(bench: Benchmark, reference: LM | Report | None, how: Convention) -> None:
    for fold in FOLDS:
        for i, row in enumerate(bench.rows(fold)):
            if not (row.get("id") and row.get("task") and row["question"]):
                raise ValueError(
                    f"{bench.name}, row {i} of {fold}: SemEval's rows have an id, a task and a question; it has "
                    f"{', '.join(row)}"
                )
    check_reference(reference, bench, how)


def _ids(lm: LM, text: str) -> list[int]:
    return list(lm.tokenizer(text, verbose=False)["input_ids"])


def _example(lm: LM, row: Row, published: bool) -> Example:
    """The row's ids, labels after its input; of a document all are labelled. No EOS but what the tokenizer adds itself."""
    ids = _ids(lm, row["question"] + row["answer"])
    start = len(_prompt(lm, row["question"], published)) if row["question"] else 0
    if lm.context is not None and len(ids) > lm.context:
        raise ValueError(
            f"row {row['id']}: {len(ids)} tokens, the model takes {lm.context}: take a model with a longer context"
        )
    if not row["question"] and len(ids) < 2:
        raise ValueError(f"document {row['id']}: a single token has no loss: leave it out of the MIA's files")
    return Example(ids, [IGNORE] * start + ids[start:])


def _prompt(lm: LM, question: str, published: bool) -> list[int]:
    """What is continued. A tokenizer that ends each text by EOS would end the question: ours takes it off again."""
    ids = _ids(lm, question)
    return ids if published or ids[-1:] != [lm.tokenizer.eos_token_id] else ids[:-1]


def _losses(lm: LM, rows: dict[str, list[Row]], published: bool, say: Say) -> Items:
    """The items of each part, with `nll` in them."""
    begun = time.perf_counter()
    flat = [row for members in rows.values() for row in members]
    examples = [_example(lm, row, published) for row in flat]
    if published:
        stats = [_alone(lm.model, example) for example in examples]
    else:
        stats = [s.logp for s in forward.likelihood(lm.model, examples)]
    losses = iter([metrics.mean_nll(logp) for logp in stats])
    say(f"{lm.name}: likelihood of {len(examples)} texts in {time.perf_counter() - begun:.1f} s")
    return {part: {i: _item(row, next(losses)) for i, row in enumerate(members)} for part, members in rows.items()}


def _item(row: Row, nll: float) -> dict[str, Any]:
    loss = {"nll": None if math.isnan(nll) else nll}
    if not row["question"]:
        return {"id": row["id"]} | loss
    texts = {"input": row["question"], "expected_output": row["answer"]}
    return {"id": row["id"], "task": row["task"], **texts} | loss


@torch.inference_mode()
def _alone(model: Any, example: Example) -> Any:
    """Log-probabilities of the labelled tokens from one plain forward, as the evaluator's: bfloat16 shows every other way."""
    with evaluating(model):
        logits = model(input_ids=torch.tensor([example.input_ids], device=model.device)).logits[0, :-1].float()
    labels = torch.tensor(example.labels[1:], device=logits.device)
    asked = labels != IGNORE
    logp = logits[asked].log_softmax(-1).gather(1, labels[asked, None])
    return logp.squeeze(1).cpu().numpy()


def _continued(
    lm: LM, rows: dict[str, list[Row]], found: Items, published: bool, max_new_tokens: int, say: Say
) -> None:
    """Adds kind, model_output and score to the items of the folds."""
    begun = time.perf_counter()
    items = [item for fold in FOLDS for item in found[fold].values()]
    prompts = [_prompt(lm, item["input"], published) for item in items]
    stop = declared(lm.model) if published else stop_tokens(lm.model, lm.tokenizer, ())
    options = {"budget": 1 if published else 16384, "tick": ticker(say, f"{lm.name}: generations")}
    generated = greedy(lm.model, prompts, stop, max_new_tokens, **options)
    for item, ids in zip(items, generated, strict=True):
        item["model_output"] = lm.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=published
        )
        item["kind"] = terms.kind(item["id"]) if published else kind_of(item["id"])
    for fold in FOLDS:
        for item, row in zip(found[fold].values(), _judged(found[fold], published), strict=True):
            item["score"] = terms.value(row)
    say(f"{lm.name}: {len(prompts)} generations in {time.perf_counter() - begun:.1f} s")


# Scores -----------------------------------------------------------------------------------------------------------


def _csv(items: dict[int, Any], columns: Sequence[str]) -> str:
    """As the evaluator writes it, but that a field with a carriage return is quoted: bare, it is read as the end of the row."""
    frame = pd.DataFrame([[item[column] for column in columns] for item in items.values()], columns=list(columns))
    return frame.to_csv(index=False, lineterminator="\r\n")


def _judged(items: dict[int, Any], published: bool) -> list[dict[str, Any]]:
    """The rows as `terms` takes them: what pandas reads back from the file, or each under an id of its kind."""
    if published:
        return pd.read_csv(io.StringIO(_csv(items, COLUMNS))).to_dict("records")
    return [item | {"id": f"{kind_of(item['id'])}0"} for item in items.values()]


def _sides(found: Items) -> tuple[list[float], list[float]]:
    member, nonmember = ([item["nll"] for item in found[side].values()] for side in SIDES)
    return member, nonmember


def _result(found: Items, mmlu: float | None, published: bool) -> dict[str, Any]:
    """The evaluator's own object, or, without generations, its MIA."""
    member, nonmember = _sides(found) if "member" in found else (None, None)
    if any("model_output" not in item for item in found["forget"].values()):
        return {} if member is None else {"mia_loss_acc": metrics.auc(member, nonmember)}
    forget, retain = (_judged(found[fold], published) for fold in FOLDS)
    return terms.score(forget, retain, member, nonmember, mmlu)


def _named(result: dict[str, Any], generate: bool) -> dict[str, float]:
    """The evaluator's object under the names of `evaluate`."""
    values, names = {}, []
    for fold in FOLDS if generate else ():
        scores = result[f"{fold}-set"]
        values |= {f"{fold}_{short}": scores[f"overall-{name}"] for name, short in WHAT.items()}
        tasks = {task: pair for task, pair in scores.items() if not task.startswith("overall-")}
        of_fold = {f"{fold}_{task}_{WHAT[name]}": v for task, pair in tasks.items() for name, v in pair.items()}
        values |= of_fold
        names += of_fold
    if generate:
        values |= {f"term_{name}": term for name, term in zip(names, result["aggregated-terms"], strict=True)}
        values["task_aggregate"] = result["harmonic-mean-task-aggregate"]
    if "mia_loss_acc" in result:
        values["mia_auc"] = result["mia_loss_acc"]
        values["mia_final_score"] = terms.membership(values["mia_auc"])
    if "mmlu_average" in result:
        values["mmlu"] = result["mmlu_average"]
    if result.get("aggregate-score", -1) != -1:  # the evaluator's word for a part that is missing
        values["aggregate"] = result["aggregate-score"]
    return values
