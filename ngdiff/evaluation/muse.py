"""MUSE's metrics of a language model: verbatim and knowledge memorisation, privacy leakage, and the
loss on each set.

    verbmem   the prompt is continued by 128 tokens, greedily; ROUGE-L F1 against the first 128
              tokens of the true continuation
    knowmem   "Question: {q}\\nAnswer: {a}\\n\\n" of each in-context pair, then "Question:
              {q}\\nAnswer: ", 32 tokens, cut at the next question; ROUGE-L F1, on questions about
              what is forgotten and about what is retained
    privleak  Min-40 % score of each document: −mean of the lowest 40 % log-probabilities of its
              tokens but the first

Values are fractions (MUSE's script multiplies ROUGE by 100). The class of a
convention says what it changes (`conventions`).

Reference: Shi et al., "MUSE: Machine Unlearning Six-Way Evaluation for Language Models" (2024), and
its code.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ngdiff.evaluation import forward, items, metrics, muse_score, muse_texts, sight, trust
from ngdiff.evaluation.conventions import Convention
from ngdiff.evaluation.conventions import convention as convention_of
from ngdiff.evaluation.definition import Encoded
from ngdiff.evaluation.generate import greedy
from ngdiff.evaluation.items import Items
from ngdiff.evaluation.muse_score import document, mean, open_unlearning, score, write, write_files
from ngdiff.evaluation.report import Report, check_reference, meta_of, speaker
from ngdiff.lm.model import BARE
from ngdiff.lm.tokens import Example, encode
from ngdiff.store.content import content_key
from ngdiff.store.progress import Progress, Say

if TYPE_CHECKING:
    from ngdiff.data.benchmark import Benchmark
    from ngdiff.lm.model import LM

__all__ = ["document", "evaluate", "open_unlearning", "score", "write", "write_files"]


def evaluate(
    lm: LM,
    bench: Benchmark,
    reference: LM | Report | None = None,
    convention: str | Convention = "ngdiff",
    generate: bool = True,
    progress: bool | Say = True,
    max_new_tokens: int = 128,
    documents: int | None = 500,
    budget: int | None = None,
) -> Report:
    """MUSE's metrics of `lm` on `bench`, as far as the benchmark has their parts.

    reference       the retain-only model, or its Report, for privleak's A_ret. Without one it is
                    the published one of MUSE's own documents, else ½: meta["notes"] says which
    convention      "ngdiff", "muse" or "open-unlearning", or a `Convention` of your own
    generate        False leaves out verbmem and knowmem
    progress        True: one line a stage on stderr (silent under pytest); a callable is given the
                    lines
    max_new_tokens  of a continuation, and how many tokens of the true one count; an answer has at
                    most 32 of them
    documents       how many documents of a set the losses are taken over, the first ones (None:
                    all)
    budget          tokens in one forward, padding included (None: by device)

    Metrics: verbmem_f, knowmem_f, knowmem_r; mia_min_k (AUC, forget against holdout),
    mia_min_k_retain (against retain), privleak (per cent); exact_memorization and
    extraction_strength of the true continuations; loss_{forget,retain,holdout}, nats per token of
    the documents. Items: {"prompt" | "question", "gt", "response", "rougeL_f1"} a row, {"score"} a
    document.

    Of a text longer than the context, a document to be scored keeps its first tokens and a prompt
    its last ones. meta["cut"] counts both. A document whose loss is taken is scored in pieces.
    Raises ValueError for an unknown convention, and for a reference report of another convention or
    on other documents.
    """
    how = convention_of(convention, "muse")
    say, begun = speaker(progress), time.perf_counter()
    ref = _reference(reference, bench, how, say, budget)
    auc_retain, note = muse_score.auc_retain(ref, bench, how)
    cut: dict[str, int] = {}
    found = _membership(lm, bench, how, say, budget, cut)
    values = _leak(found, auc_retain, how) | _losses(lm, bench, documents, say, budget)
    n, rows = max_new_tokens, bench.configs.get("verbmem", ())
    continuations = [how.continuation(lm, r["question"], r["answer"], n) for r in rows]
    found |= _memorisation(lm, continuations, how, budget)
    if generate:
        found |= _generations(lm, bench, how, continuations, max_new_tokens, say, budget, cut)
    left_out = _left_out(found, generate)
    said = meta_of(lm, bench, how, ref, prompts=False, notes=[note])
    for line in [*said["notes"], *_shortened(cut), *left_out]:
        say(f"{lm.name}: {line}")
    meta = {
        "max_new_tokens": max_new_tokens if generate else None,
        "privleak_rows": reference_rows(bench)[1],
        **trust.noted(found, ref, trust.DOCUMENTS, say, how.eps),
        "auc_retain": auc_retain,
        "rows": {name: len(rows) for name, rows in bench.configs.items()},
        "losses_over": documents,
        "cut": cut,
        "left_out": left_out,
        "seconds": round(time.perf_counter() - begun, 3),
    }
    return Report.of(values | _averages(found), found, said | meta)


def _averages(found: Items) -> dict[str, float]:
    """Return the mean of each metric that has an item a text; NaN where there is none."""
    memorised = {
        name: mean([row["score"] for row in found.get(name, {}).values()])
        for name in ("exact_memorization", "extraction_strength")
    }
    return memorised | {
        metric: mean([row["rougeL_f1"] for row in found.get(name, {}).values()])
        for name, metric in muse_score.TEXTS.items()
    }


def _left_out(found: Items, generate: bool) -> list[str]:
    """Say which metrics the benchmark's rows, not the options, leave undefined."""
    wanted = [*(muse_score.TEXTS if generate else ()), "privleak_forget", "privleak_holdout"]
    missing = [name for name in wanted if name not in found]
    told = [row["gt"] for name in muse_score.TEXTS for row in found.get(name, {}).values()]
    lines = [f"no rows of {name}: its metrics are left out" for name in missing]
    return lines + sight.unseen(told)


def _shortened(cut: dict[str, int]) -> list[str]:
    """Say how many texts were longer than the model's context."""
    return [
        f"{n} texts of {what} are longer than the model's context and were cut to it"
        for what, n in cut.items()
        if n
    ]


# Likelihood
# --------------------------------------------------------------------------------------------------


def _reference(
    reference: LM | Report | None, bench: Benchmark, how: Convention, say: Say, budget: int | None
) -> Report | None:
    """Return the report of the retain-only model; of a model only what is compared is computed.

    That is: the scores of the privleak documents.
    """
    ref, rows = reference, reference_rows(bench)
    if ref is not None and not isinstance(ref, Report):
        found = _membership(ref, bench, how, say, budget, {})
        ref = Report(_leak(found, 0.5, how), found, meta_of(ref, bench, how) | dict([rows]))
    check_reference(ref, bench, how, rows)
    return ref


def reference_rows(bench: Benchmark) -> tuple[str, str]:
    """The entry of meta by which a reference is of the same documents: privleak's alone."""
    documents = [
        [row["answer"] for row in bench.configs.get(f"privleak_{side}", ())]
        for side in muse_score.SIDES
    ]
    return "privleak_rows", content_key(documents)


def _membership(
    lm: LM, bench: Benchmark, how: Convention, say: Say, budget: int | None, cut: dict[str, int]
) -> Items:
    """privleak_<side>: the Min-40 % score of each document. Undefined for one without a token after
    the first.
    """
    begun, found = time.perf_counter(), {}
    for side in muse_score.SIDES:
        rows = bench.configs.get(f"privleak_{side}")
        if not rows:
            continue
        ids = [how.document(lm, row["answer"]) for row in rows]
        limit = lm.context or max(map(len, ids))
        cut[f"privleak_{side}"] = sum(len(row) > limit for row in ids)
        stats = forward.likelihood(
            lm.model, [Example(row[:limit], row[:limit]) for row in ids], budget=budget
        )
        scores = [metrics.min_k(how.scored(s.logp)) for s in stats]
        found[f"privleak_{side}"] = items.scores(scores)
    say(
        f"{lm.name}: scores of {sum(map(len, found.values()))} documents in "
        f"{time.perf_counter() - begun:.1f} s"
    )
    return found


def _leak(found: Items, auc_retain: float, how: Convention) -> dict[str, float]:
    sides = {
        side: items.column(found[f"privleak_{side}"])
        for side in muse_score.SIDES
        if f"privleak_{side}" in found
    }
    return (
        muse_score.membership(sides, auc_retain, how.eps)
        if {"forget", "holdout"} <= set(sides)
        else {}
    )


def _losses(
    lm: LM, bench: Benchmark, documents: int | None, say: Say, budget: int | None
) -> dict[str, float]:
    """loss_<set>: the mean over all tokens of the documents, EOS included, whatever the
    convention.
    """
    begun, values = time.perf_counter(), {}
    for name in ("forget", "retain", "holdout"):
        rows = bench.configs.get(name, [])[:documents]
        whole = [
            encode(
                lm.tokenizer, lm.prompt if row["question"] else BARE, row["question"], row["answer"]
            )
            for row in rows
        ]
        if pieces := [piece for example in whole for piece in _pieces(example, lm.context)]:
            stats = forward.likelihood(lm.model, pieces, budget=budget)
            values[f"loss_{name}"] = metrics.mean_nll([logp for s in stats for logp in s.logp])
    say(f"{lm.name}: losses in {time.perf_counter() - begun:.1f} s")
    return values


def _pieces(example: Example, context: int | None) -> list[Example]:
    n = len(example)
    step = context or n
    return [
        Example(example.input_ids[i : i + step], example.labels[i : i + step])
        for i in range(0, n, step)
    ]


def _memorisation(
    lm: LM, continuations: list[Encoded], how: Convention, budget: int | None
) -> Items:
    """exact_memorization and extraction_strength of the labelled tokens of true continuations."""
    if not continuations:
        return {}
    stats = forward.likelihood(lm.model, continuations, budget=budget)
    hits = [how.scored(s.hits) for s in stats]
    strengths = [metrics.extraction_strength(h, how.floor) for h in hits]
    return {
        "exact_memorization": items.scores([metrics.exact_memorization(h) for h in hits]),
        "extraction_strength": items.scores(strengths),
    }


def _generations(
    lm: LM,
    bench: Benchmark,
    how: Convention,
    continuations: list[Encoded],
    max_new_tokens: int,
    say: Say,
    budget: int | None,
    cut: dict[str, int],
) -> Items:
    """verbmem, knowmem_f, knowmem_r: what the model says, and its ROUGE."""
    found: Items = {}
    for name in muse_score.TEXTS:
        rows = bench.configs.get(name)
        if not rows:
            continue
        begun, asked = time.perf_counter(), name != "verbmem"
        new = min(muse_texts.ANSWER, max_new_tokens) if asked else max_new_tokens
        if asked:
            shots = bench.configs.get(f"{name}_icl", ())
            texts = [muse_texts.prompt(row, shots) for row in rows]
            pairs = [how.asked(lm, t, row["answer"]) for t, row in zip(texts, rows, strict=True)]
        else:
            tails = zip((row["answer"] for row in rows), continuations, strict=True)
            pairs = [(c.given, how.continued(lm, tail, new, c)) for tail, c in tails]
        room = max(1, lm.context - new) if lm.context else max(len(ids) for ids, _ in pairs)
        cut[name] = sum(len(ids) > room for ids, _ in pairs)
        given = [muse_texts.last(lm, ids, room) for ids, _ in pairs]
        tick = Progress(f"  {lm.name}: {name}", len(given), say, last=False)
        generated = greedy(lm.model, given, how.stops(lm), new, budget or 16384, tick=tick)
        found[name] = {}
        for i, (row, (_, gt), ids) in enumerate(zip(rows, pairs, generated, strict=True)):
            response = how.response(lm, ids, asked)
            said = {"question" if asked else "prompt": row["question"], "gt": gt}
            scores = metrics.rouge(response, gt, how.stemmer)
            found[name][i] = said | {"response": response} | scores
        say(f"{lm.name}: {name}, {len(rows)} generations in {time.perf_counter() - begun:.1f} s")
    return found
