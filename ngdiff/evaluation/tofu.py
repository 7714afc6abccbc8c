"""TOFU's metrics of a language model, under open-unlearning's names.

Every likelihood metric reads one table, (question, answer) -> token statistics, filled by one teacher-forced pass;
the same text is computed once.  Generation answers each question once.

    forget, EM, ES, MIA members   forgetXX_perturbed          MIA non-members   holdoutXX
    model utility                 retain_perturbed, real_authors_perturbed (ra), world_facts_perturbed (wf)

References: Maini et al., "TOFU: A Task of Fictitious Unlearning for LLMs" (2024); open-unlearning (locuslab).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from ngdiff.evaluation import forward, items, metrics, texts
from ngdiff.evaluation.conventions import Convention
from ngdiff.evaluation.conventions import convention as convention_of
from ngdiff.evaluation.generate import greedy
from ngdiff.evaluation.items import UTILITY, Items, Row, Table
from ngdiff.evaluation.report import Report, Say, check_reference, meta_of, speaker, ticker

if TYPE_CHECKING:
    from ngdiff.data.benchmark import Benchmark
    from ngdiff.lm.model import LM

Rows = dict[str, list[Row]]

# part of the metric names -> the benchmark's rows, the first that exist (own data may come without wrong answers)
PARTS = {
    "forget": ("forget_perturbed", "forget"),
    "holdout": ("holdout",),
    "retain": ("retain_perturbed", "retain"),
    "ra": ("real_authors_perturbed",),
    "wf": ("world_facts_perturbed",),
}


def evaluate(
    lm: LM,
    bench: Benchmark,
    reference: LM | Report | None = None,
    convention: str = "ngdiff",
    generate: bool = True,
    gradnorm: bool = True,
    progress: bool | Say = True,
    max_new_tokens: int = 200,
) -> Report:
    """All TOFU metrics of `lm` on `bench`.

    reference   the retain-only model, or its Report (then it is not evaluated again).  forget_quality and mia_reference
                need it; privleak's AUC_ret is ½ without one, and meta["auc_retain"] says so
    convention  "ngdiff", or for numbers comparable with their tables "tofu", "open-unlearning" (see `conventions`)
    generate    False leaves out ROUGE and with it model_utility
    gradnorm    False leaves out mia_gradnorm, which takes a backward for each row
    progress    True: one line a stage on stderr (silent under pytest); a callable is given the lines

    Beside the benchmark's names: loss_{forget,retain,holdout}, the NLL over all of a set's tokens, nats per token.
    A collapsed model (NaN logits) has infinite losses; its probabilities, ROUGE and utility are 0.

    Raises ValueError for an unknown convention, a reference report of another convention or split, and rows longer than the
    model's context.  The model's mode is restored; its gradients are not touched.
    """
    how = convention_of(convention, "tofu")
    say, begun = speaker(progress), time.perf_counter()
    check_reference(reference, bench, how, ("split", bench.split))  # of one split, a part of the rows will do
    ref = reference if isinstance(reference, Report) or reference is None else _brief(reference, bench, how, say)
    rows, configs = _rows(bench, PARTS)
    found, values = _likelihood(lm, rows, how, say)
    if generate:
        found |= _rouge(lm, rows, how, max_new_tokens, say)
    if gradnorm:
        found |= _gradnorm(lm, rows, how, say)
    if ref and ref.meta.get("fingerprint") == bench.fingerprint:
        found |= items.against(found, ref.items)
    auc_retain = ref.metrics.get("mia_min_k", 0.5) if ref else 0.5
    values |= items.aggregate(found, how)
    values |= _compared(values, found, ref, auc_retain, how.eps)
    meta = meta_of(lm, bench, how) | {
        **{"max_new_tokens": max_new_tokens if generate else None, "configs": configs},
        **{"reference": ref.meta.get("model") if ref else None, "auc_retain": auc_retain},
        **{"rows": {part: len(members) for part, members in rows.items()}},
        **{"left_out": _left_out(rows, values, generate)},
        "seconds": round(time.perf_counter() - begun, 3),
    }
    for line in meta["left_out"]:
        say(f"{lm.name}: {line}")
    return Report({name: value for name, value in values.items() if not math.isnan(value)}, found, meta)


def _left_out(rows: Rows, values: dict[str, float], generate: bool) -> list[str]:
    """What the benchmark's rows, not the options, leave undefined."""
    lines = [] if "holdout" in rows else ["no hold-out rows, so no mia_… and no privleak"]
    missing = [name for name in UTILITY if name not in values and (generate or not name.endswith("_ROUGE"))]
    return lines + ([f"no model_utility: the rows of {', '.join(missing)} are not there"] if missing else [])


def _compared(
    values: dict[str, float], found: Items, ref: Report | None, auc_retain: float, eps: float
) -> dict[str, float]:
    """model_utility, forget_quality and privleak, each where its parts are there."""
    more = {}
    if all(name in values for name in UTILITY):
        more["model_utility"] = metrics.harmonic_mean(values[name] for name in UTILITY)
    ratios = "forget_truth_ratio"
    if ref and ratios in found and ratios in ref.items:
        more["forget_quality"] = metrics.ks_pvalue(items.defined(found[ratios]), items.defined(ref.items[ratios]))
    if "mia_min_k" in values:
        more["privleak"] = metrics.privleak(values["mia_min_k"], auc_retain, eps)
    return more


def _rows(bench: Benchmark, parts: Iterable[str]) -> tuple[Rows, dict[str, str]]:
    """part -> rows, and part -> the benchmark's name for them; a part that the benchmark lacks is left out."""
    rows: Rows = {}
    names: dict[str, str] = {}
    for part in parts:
        for name in PARTS[part]:
            try:
                members = getattr(bench, name)
            except KeyError:  # no such config
                continue
            if members and part not in rows:
                rows[part], names[part] = members, name
    return rows, names


def _brief(lm: LM, bench: Benchmark, how: Convention, say: Say) -> Report:
    """Of a reference model only what is compared: the likelihoods of forget and holdout rows."""
    rows, _ = _rows(bench, ("forget", "holdout"))
    found, values = _likelihood(lm, rows, how, say)
    return Report(values | items.aggregate(found, how), found, meta_of(lm, bench, how))


def _likelihood(lm: LM, rows: Rows, how: Convention, say: Say) -> tuple[Items, dict[str, float]]:
    """The items of every likelihood metric, and the losses per token."""
    table = _table(lm, rows, how, say)
    found: Items = {}
    for part in rows:
        if part != "holdout":
            found |= items.probabilities(table, part, rows[part], how.eps)
        if part in ("forget", "holdout"):
            answers = [texts.answer(lm, row["question"], row["answer"], how) for row in rows[part]]
            found |= items.membership(table, part, rows[part], answers, how)
    if "forget" in rows:
        found |= items.memorisation(table, rows["forget"], how)
    losses = {}
    for part in ("forget", "retain", "holdout"):
        if part in rows:
            tokens = [logp for row in rows[part] for logp in table[row["question"], row["answer"]].logp]
            losses[f"loss_{part}"] = metrics.mean_nll(tokens)
    return found, losses


def _table(lm: LM, rows: Rows, how: Convention, say: Say) -> Table:
    """The teacher-forced statistics of each text that a metric needs; moments where min-k++ needs them."""
    begun = time.perf_counter()
    wanted: dict[tuple[str, str], bool] = {}
    for part, members in rows.items():
        for row in members:
            key = (row["question"], row["answer"])
            wanted[key] = wanted.get(key, False) or part in ("forget", "holdout")
            if part == "holdout":
                continue
            for answer in (row.get("paraphrased_answer"), *row.get("perturbed_answer", ())):
                if answer is not None:
                    wanted.setdefault((row["question"], answer), False)
    examples = [texts.encode(lm, question, answer, how) for question, answer in wanted]
    tick = ticker(say, f"{lm.name}: texts")
    stats = forward.likelihood(lm.model, examples, list(wanted.values()), blind=texts.blind(lm, how), tick=tick)
    say(f"{lm.name}: likelihood of {len(examples)} texts in {time.perf_counter() - begun:.1f} s")
    return dict(zip(wanted, stats, strict=True))


def _rouge(lm: LM, rows: Rows, how: Convention, max_new_tokens: int, say: Say) -> Items:
    """{part}_Q_A_ROUGE: the greedy answer to each question against the true one."""
    begun = time.perf_counter()
    asked = [(part, i, row) for part in rows if part != "holdout" for i, row in enumerate(rows[part])]
    prompts = [texts.prompt_ids(lm, row["question"], row["answer"], how) for _, _, row in asked]
    stop = texts.stops(lm, [texts.encode(lm, row["question"], row["answer"], how) for _, _, row in asked], how)
    options = {"blind": texts.blind(lm, how), "longest": how.longest, "tick": ticker(say, f"{lm.name}: generations")}
    generated = greedy(lm.model, prompts, stop, max_new_tokens, **options)
    found: Items = {f"{part}_Q_A_ROUGE": {} for part in rows if part != "holdout"}
    for (part, i, row), ids in zip(asked, generated, strict=True):
        generation, truth = texts.decode(lm, ids, how), texts.truth(lm, row["question"], row["answer"], how)
        texts_of = {"input": row["question"], "ground_truth": truth, "generation": generation}
        found[f"{part}_Q_A_ROUGE"][i] = metrics.rouge(generation, truth) | texts_of
    say(f"{lm.name}: {len(prompts)} generations in {time.perf_counter() - begun:.1f} s")
    return found


def _gradnorm(lm: LM, rows: Rows, how: Convention, say: Say) -> Items:
    """mia_gradnorm_<part>, one backward a row."""
    begun = time.perf_counter()
    found: Items = {}
    for part in ("forget", "holdout"):
        if part in rows:
            examples = [texts.encode(lm, row["question"], row["answer"], how) for row in rows[part]]
            found[f"mia_gradnorm_{part}"] = items.scores(
                forward.gradient_norms(lm.model, examples, texts.blind(lm, how))
            )
    say(f"{lm.name}: gradient norms in {time.perf_counter() - begun:.1f} s")
    return found
