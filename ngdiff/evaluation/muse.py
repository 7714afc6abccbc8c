"""MUSE's metrics of a language model: verbatim and knowledge memorisation, privacy leakage, and the loss on each set.

    verbmem   the prompt is continued by 128 tokens, greedily; ROUGE-L F1 against the first 128 tokens of the true continuation
    knowmem   "Question: {q}\\nAnswer: {a}\\n\\n" of each in-context pair, then "Question: {q}\\nAnswer: ", 32 tokens, cut at
              the next question; ROUGE-L F1, on questions about what is forgotten and about what is retained
    privleak  Min-40 % score of each document: −mean of the lowest 40 % log-probabilities of its tokens but the first

Values are fractions (MUSE's script multiplies ROUGE by 100). What a convention changes:

    ngdiff            a prompt's last space is left to the model's own first token, as in `ngdiff.lm.tokens`
    muse              prompts verbatim
    open-unlearning   as muse, and: stemmer; texts are stripped; prompt and continuation are joined by a space; the last token
                      of what is scored is dropped as if it were EOS; documents and true continuations are cut to 2048 tokens,
                      pairs and question to 512

Both remove spaces before punctuation and in contractions ("do n't"), which ROUGE hardly sees; this is not done here.

Reference: Shi et al., "MUSE: Machine Unlearning Six-Way Evaluation for Language Models" (2024), and its code.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from ngdiff.evaluation import forward, items, metrics, muse_score, muse_texts, texts
from ngdiff.evaluation.conventions import Convention
from ngdiff.evaluation.conventions import convention as convention_of
from ngdiff.evaluation.generate import greedy
from ngdiff.evaluation.items import Items
from ngdiff.evaluation.muse_score import document, mean, open_unlearning, score, write
from ngdiff.evaluation.report import Report, Say, check_reference, meta_of, speaker, ticker
from ngdiff.lm.model import BARE
from ngdiff.lm.tokens import Example, encode
from ngdiff.store.cache import content_key

if TYPE_CHECKING:
    from ngdiff.data.benchmark import Benchmark
    from ngdiff.lm.model import LM

__all__ = ["document", "evaluate", "open_unlearning", "score", "write"]


def evaluate(
    lm: LM,
    bench: Benchmark,
    reference: LM | Report | None = None,
    convention: str = "ngdiff",
    generate: bool = True,
    progress: bool | Say = True,
    max_new_tokens: int = 128,
    documents: int | None = 500,
    budget: int | None = None,
) -> Report:
    """MUSE's metrics of `lm` on `bench`, as far as the benchmark has their parts.

    reference       the retain-only model, or its Report, for privleak's A_ret; ½ without one, and meta["auc_retain"] says so
    convention      "ngdiff", "muse" or "open-unlearning": see above
    generate        False leaves out verbmem and knowmem
    progress        True: one line a stage on stderr (silent under pytest); a callable is given the lines
    max_new_tokens  of a continuation, and how many tokens of the true one count; an answer has at most 32 of them
    documents       how many documents of a set the losses are taken over, the first ones (None: all)
    budget          tokens in one forward, padding included (None: by device)

    Metrics: verbmem_f, knowmem_f, knowmem_r; mia_min_k (AUC, forget against holdout), mia_min_k_retain (against retain),
    privleak (per cent); exact_memorization and extraction_strength of the true continuations; loss_{forget,retain,holdout},
    nats per token of the documents. Items: {"prompt" | "question", "gt", "response", "rougeL_f1"} a row, {"score"} a document.

    Texts longer than the context: a document to be scored keeps its first tokens, a prompt its last ones (meta["cut"] counts
    both); a document whose loss is taken is scored in pieces. Raises ValueError for an unknown convention, and for a reference
    report of another convention or on other documents.
    """
    how = convention_of(convention, "muse")
    say, begun = speaker(progress), time.perf_counter()
    ref = (
        reference if isinstance(reference, Report) or reference is None else _brief(reference, bench, how, say, budget)
    )
    check_reference(ref, bench, how, reference_rows(bench))
    cut: dict[str, int] = {}
    found = _membership(lm, bench, how, say, budget, cut)
    auc_retain = ref.metrics.get("mia_min_k", 0.5) if ref else 0.5
    values = _leak(found, auc_retain, how) | _losses(lm, bench, documents, say, budget)
    found |= _memorisation(lm, bench, how, max_new_tokens, budget)
    if generate:
        found |= _generations(lm, bench, how, max_new_tokens, say, budget or 16384, cut)
    for what, n in cut.items():
        if n:
            say(f"{lm.name}: {n} texts of {what} are longer than the model's context and were cut to it")
    wanted = [*(muse_score.TEXTS if generate else ()), "privleak_forget", "privleak_holdout"]
    left_out = [f"no rows of {name}, so that its metrics are left out" for name in wanted if name not in found]
    for line in left_out:
        say(f"{lm.name}: {line}")
    for name in ("exact_memorization", "extraction_strength"):
        values[name] = mean([row["score"] for row in found.get(name, {}).values()])
    for name, metric in muse_score.TEXTS.items():
        values[metric] = mean([row["rougeL_f1"] for row in found.get(name, {}).values()])
    meta = meta_of(lm, bench, how) | {
        **{"max_new_tokens": max_new_tokens if generate else None, "privleak_rows": reference_rows(bench)[1]},
        **{"reference": ref.meta.get("model") if ref else None, "auc_retain": auc_retain},
        **{"rows": {name: len(rows) for name, rows in bench.configs.items()}, "losses_over": documents, "cut": cut},
        "left_out": left_out,
        "seconds": round(time.perf_counter() - begun, 3),
    }
    return Report({name: value for name, value in values.items() if not math.isnan(value)}, found, meta)


# Likelihood -------------------------------------------------------------------------------------------------------


def _brief(lm: LM, bench: Benchmark, how: Convention, say: Say, budget: int | None) -> Report:
    """Of a reference model only what is compared: the scores of the privleak documents."""
    found = _membership(lm, bench, how, say, budget, {})
    return Report(_leak(found, 0.5, how), found, meta_of(lm, bench, how) | dict([reference_rows(bench)]))


def reference_rows(bench: Benchmark) -> tuple[str, str]:
    """The entry of meta by which a reference is of the same documents: privleak's alone."""
    documents = [[row["answer"] for row in bench.configs.get(f"privleak_{side}", ())] for side in muse_score.SIDES]
    return "privleak_rows", content_key(documents)


def _membership(lm: LM, bench: Benchmark, how: Convention, say: Say, budget: int | None, cut: dict[str, int]) -> Items:
    """privleak_<side>: the Min-40 % score of each document. Undefined for one without a token after the first."""
    begun, found = time.perf_counter(), {}
    published = how.name == "open-unlearning"
    for side in muse_score.SIDES:
        rows = bench.configs.get(f"privleak_{side}")
        if not rows:
            continue
        ids = [muse_texts.ids(lm, row["answer"], how) for row in rows]
        if published:
            ids = [row[: muse_texts.LONGEST + len(muse_texts.ids(lm, "", how))] for row in ids]
        limit = lm.context or max(map(len, ids))
        cut[f"privleak_{side}"] = sum(len(row) > limit for row in ids)
        stats = forward.likelihood(lm.model, [Example(row[:limit], row[:limit]) for row in ids], budget=budget)
        scores = [metrics.min_k(s.logp[:-1] if published else s.logp) for s in stats]
        found[f"privleak_{side}"] = items.scores(scores)
    say(f"{lm.name}: scores of {sum(map(len, found.values()))} documents in {time.perf_counter() - begun:.1f} s")
    return found


def _leak(found: Items, auc_retain: float, how: Convention) -> dict[str, float]:
    sides = {side: items.column(found[f"privleak_{side}"]) for side in muse_score.SIDES if f"privleak_{side}" in found}
    return muse_score.membership(sides, auc_retain, how.eps) if {"forget", "holdout"} <= set(sides) else {}


def _losses(lm: LM, bench: Benchmark, documents: int | None, say: Say, budget: int | None) -> dict[str, float]:
    """loss_<set>: the mean over all tokens of the documents, EOS included, whatever the convention."""
    begun, values = time.perf_counter(), {}
    for name in ("forget", "retain", "holdout"):
        rows = bench.configs.get(name, [])[:documents]
        whole = [
            encode(lm.tokenizer, lm.prompt if row["question"] else BARE, row["question"], row["answer"]) for row in rows
        ]
        if pieces := [piece for example in whole for piece in _pieces(example, lm.context)]:
            stats = forward.likelihood(lm.model, pieces, budget=budget)
            values[f"loss_{name}"] = metrics.mean_nll([logp for s in stats for logp in s.logp])
    say(f"{lm.name}: losses in {time.perf_counter() - begun:.1f} s")
    return values


def _pieces(example: Example, context: int | None) -> list[Example]:
    n = len(example)
    step = context or n
    return [Example(example.input_ids[i : i + step], example.labels[i : i + step]) for i in range(0, n, step)]


def _memorisation(lm: LM, bench: Benchmark, how: Convention, max_new_tokens: int, budget: int | None) -> Items:
    """exact_memorization and extraction_strength of the true continuations, the first max_new_tokens tokens of each."""
    examples = [muse_texts.continuation(lm, row, how, max_new_tokens) for row in bench.configs.get("verbmem", ())]
    if not examples:
        return {}
    stats = forward.likelihood(lm.model, examples, budget=budget)
    hits = [s.hits[:-1] if how.name == "open-unlearning" else s.hits for s in stats]
    return {
        "exact_memorization": items.scores([metrics.exact_memorization(h) for h in hits]),
        "extraction_strength": items.scores([metrics.extraction_strength(h, how) for h in hits]),
    }


def _generations(
    lm: LM, bench: Benchmark, how: Convention, max_new_tokens: int, say: Say, budget: int, cut: dict[str, int]
) -> Items:
    """verbmem, knowmem_f, knowmem_r: what the model says, and its ROUGE."""
    found: Items = {}
    for name in muse_score.TEXTS:
        rows = bench.configs.get(name)
        if not rows:
            continue
        begun, asked = time.perf_counter(), name != "verbmem"
        new = min(muse_texts.ANSWER, max_new_tokens) if asked else max_new_tokens
        prompts = [muse_texts.prompt(row, bench.configs.get(f"{name}_icl", ()) if asked else None) for row in rows]
        if asked:
            ids = [muse_texts.asked_ids(lm, t, row["answer"], how) for t, row in zip(prompts, rows, strict=True)]
        else:
            ids = [muse_texts.prompt_ids(lm, text, how) for text in prompts]
        room = max(1, lm.context - new) if lm.context else max(map(len, ids))
        cut[name] = sum(len(row) > room for row in ids)
        given = [muse_texts.last(lm, row, room) for row in ids]
        tick = ticker(say, f"{lm.name}: {name}")
        generated = greedy(lm.model, given, texts.stops(lm, [], how), new, budget, tick=tick)
        found[name] = {}
        for i, (row, text, tokens) in enumerate(zip(rows, prompts, generated, strict=True)):
            response = muse_texts.response(lm, tokens, asked, how)
            if asked:
                gt = muse_texts.asked_truth(lm, text, row["answer"], how)
            else:
                gt = muse_texts.truth(lm, row, how, max_new_tokens)
            said = {"question" if asked else "prompt": row["question"], "gt": gt, "response": response}
            found[name][i] = said | metrics.rouge(response, gt, how.stemmer)
        say(f"{lm.name}: {name}, {len(rows)} generations in {time.perf_counter() - begun:.1f} s")
    return found
