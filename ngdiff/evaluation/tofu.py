"""TOFU's metrics of a language model, under open-unlearning's names.

Every likelihood metric reads one table, (question, answer) -> token statistics, filled by one
teacher-forced pass; the same text is computed once.  Generation answers each question once.

    forget, EM, ES, MIA members   forgetXX_perturbed          MIA non-members   holdoutXX
    model utility                 retain_perturbed, real_authors_perturbed (ra),
                                  world_facts_perturbed (wf)

References: Maini et al., "TOFU: A Task of Fictitious Unlearning for LLMs" (2024); open-unlearning
(locuslab).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import cache, partial
from typing import TYPE_CHECKING

from ngdiff.evaluation import forward, gradients, items, metrics, sight, trust
from ngdiff.evaluation.conventions import Convention
from ngdiff.evaluation.conventions import convention as convention_of
from ngdiff.evaluation.definition import Encoded, unanswered
from ngdiff.evaluation.files import write_files
from ngdiff.evaluation.generate import greedy
from ngdiff.evaluation.items import UTILITY, Items, Row, Table
from ngdiff.evaluation.report import Report, check_reference, meta_of, speaker
from ngdiff.lm.tokens import named
from ngdiff.store.progress import Progress, Say

if TYPE_CHECKING:
    from ngdiff.data.benchmark import Benchmark
    from ngdiff.lm.model import LM

__all__ = ["evaluate", "write_files"]
Rows = dict[str, list[Row]]


class Subject:
    """A model under a convention, for one evaluation: each (question, answer) is encoded once.

    say: where progress lines go.
    """

    def __init__(self, lm: LM, how: Convention, say: Say) -> None:
        self.lm, self.how, self.say = lm, how, say
        self.encode = cache(partial(how.encode, lm))
        self.unanswered: dict[tuple[str, str], None] = {}  # texts without a token of an answer

    def answer(self, row: Row) -> Encoded:
        """Return the row with its own answer as tokens."""
        return self.encode(row["question"], row["answer"])


# part of the metric names -> the benchmark's rows, the first that exist (own data may come without
# wrong answers)
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
    convention: str | Convention = "ngdiff",
    generate: bool = True,
    gradnorm: bool = True,
    progress: bool | Say = True,
    max_new_tokens: int = 200,
) -> Report:
    """All TOFU metrics of `lm` on `bench`.

    reference   the retain-only model, or its Report (then it is not evaluated again).
                forget_quality and mia_reference need it; privleak's AUC_ret is ½ without one, and
                meta["auc_retain"] says so
    convention  "ngdiff", or for numbers comparable with their tables "tofu", "open-unlearning" (see
                `conventions`), or a `Convention` of your own
    generate    False leaves out ROUGE and with it model_utility
    gradnorm    False leaves out mia_gradnorm, which takes a backward for each row
    progress    True: one line a stage on stderr (silent under pytest); a callable is given the
                lines

    Beside the benchmark's names: loss_{forget,retain,holdout}, the NLL over all of a set's tokens,
    nats per token. A collapsed model (NaN logits) has infinite losses; its probabilities, ROUGE and
    utility are 0.

    Raises ValueError for an unknown convention, a reference report of another convention or split,
    and rows longer than the model's context.  The model's mode is restored; its gradients are not
    touched.
    """
    how = convention_of(convention, "tofu")
    say, begun = speaker(progress), time.perf_counter()
    ref = _reference(reference, bench, how, say)
    said = meta_of(lm, bench, how, ref)
    rows, configs = _rows(bench, PARTS, how)
    subject = Subject(lm, how, say)
    found, values = _likelihood(subject, rows)
    if generate:
        found |= _rouge(subject, rows, max_new_tokens)
    if gradnorm:
        found |= _gradnorm(subject, rows)
    if ref and ref.meta.get("fingerprint") == bench.fingerprint:
        found |= items.against(found, ref.items)
    auc_retain = ref.metrics.get("mia_min_k", 0.5) if ref else 0.5
    values |= items.aggregate(found, how.eps)
    values |= _compared(values, found, ref, auc_retain, how.eps)
    left_out = [*_left_out(rows, values, generate), *_unanswered(subject)]
    for line in [*said["notes"], *left_out]:
        say(f"{lm.name}: {line}")
    meta = {
        "max_new_tokens": max_new_tokens if generate else None,
        "configs": configs,
        "auc_retain": auc_retain,
        **trust.of_rows(found, ref, bench, rows, say, how.eps),
        "rows": {part: len(members) for part, members in rows.items()},
        "left_out": left_out,
        "seconds": round(time.perf_counter() - begun, 3),
    }
    return Report.of(values, found, said | meta)


def _reference(
    reference: LM | Report | None, bench: Benchmark, how: Convention, say: Say
) -> Report | None:
    """Return the report of the retain-only model, made here where a model is given.

    A given one must be of the same split; a part of its rows will do.
    """
    check_reference(reference, bench, how, ("split", bench.split))
    if reference is None or isinstance(reference, Report):
        return reference
    return _brief(Subject(reference, how, say), bench)


def _left_out(rows: Rows, values: dict[str, float], generate: bool) -> list[str]:
    """Return what the benchmark's rows, not the options, leave undefined or unseen."""
    lines = [] if "holdout" in rows else ["no hold-out rows, so no mia_… and no privleak"]
    missing = [
        name for name in UTILITY if name not in values and (generate or not name.endswith("_ROUGE"))
    ]
    told = [row["answer"] for part in rows if part != "holdout" for row in rows[part]]
    lines += sight.unseen(told) if generate else []
    return lines + (
        [f"no model_utility: the rows of {', '.join(missing)} are not there"] if missing else []
    )


def _unanswered(subject: Subject) -> list[str]:
    """Name the texts that have no token of an answer; every mean is over the others."""
    if not (texts := list(subject.unanswered)):
        return []
    some = "; ".join(named(question, answer) for question, answer in texts[:3])
    more = ", …" if len(texts) > 3 else ""
    how = subject.how.name
    return [f"{len(texts)} texts have no token of an answer under {how} ({some}{more})"]


def _compared(
    values: dict[str, float], found: Items, ref: Report | None, auc_retain: float, eps: float
) -> dict[str, float]:
    """model_utility, forget_quality and privleak, each where its parts are there."""
    more = {}
    if all(name in values for name in UTILITY):
        more["model_utility"] = metrics.harmonic_mean(values[name] for name in UTILITY)
    ratios = "forget_truth_ratio"
    if ref and ratios in found and ratios in ref.items:
        more["forget_quality"] = metrics.ks_pvalue(
            items.defined(found[ratios]), items.defined(ref.items[ratios])
        )
    if "mia_min_k" in values:
        more["privleak"] = metrics.privleak(values["mia_min_k"], auc_retain, eps)
    return more


def _rows(bench: Benchmark, parts: Iterable[str], how: Convention) -> tuple[Rows, dict[str, str]]:
    """Return part -> its rows to evaluate, and part -> the benchmark's name for them.

    A part that the benchmark lacks is left out.
    """
    rows: Rows = {}
    names: dict[str, str] = {}
    for part in parts:
        for name in PARTS[part]:
            try:
                members = getattr(bench, name)
            except KeyError:  # no such config
                continue
            if members and part not in rows:
                rows[part] = members if part == "holdout" else how.first(members)
                names[part] = name
    return rows, names


def _brief(subject: Subject, bench: Benchmark) -> Report:
    """Return only what is compared of a reference model: the likelihoods of forget and holdout
    rows.
    """
    rows, _ = _rows(bench, ("forget", "holdout"), subject.how)
    found, values = _likelihood(subject, rows)
    values |= items.aggregate(found, subject.how.eps)
    return Report(values, found, meta_of(subject.lm, bench, subject.how))


def _likelihood(subject: Subject, rows: Rows) -> tuple[Items, dict[str, float]]:
    """Return the items of every likelihood metric, and the losses per token."""
    lm, how = subject.lm, subject.how
    table = _table(subject, rows)
    found: Items = {}
    for part, members in rows.items():
        if part != "holdout":
            found |= items.probabilities(table, part, members, how.eps)
        if part in ("forget", "holdout"):
            texts = [how.compressed(lm, row["answer"], subject.answer(row)) for row in members]
            found |= items.membership(table, part, members, texts, how.empty)
    if "forget" in rows:
        found |= items.memorisation(table, rows["forget"], how.floor)
    losses = {}
    for part in ("forget", "retain", "holdout"):
        if part in rows:
            stats = [table[row["question"], row["answer"]] for row in rows[part]]
            losses[f"loss_{part}"] = metrics.mean_nll([logp for s in stats for logp in s.logp])
    return found, losses


def _table(subject: Subject, rows: Rows) -> Table:
    """Return the teacher-forced statistics of each text that a metric needs.

    Those of forget and holdout answers have the moments that min-k++ needs.
    """
    lm, say, begun = subject.lm, subject.say, time.perf_counter()
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
    examples = [subject.encode(question, answer) for question, answer in wanted]
    subject.unanswered |= {
        text: None for text, row in zip(wanted, examples, strict=True) if unanswered(row)
    }
    tick = Progress(f"  {lm.name}: texts", len(examples), say, last=False)
    hidden = subject.how.hidden(lm)
    moments = list(wanted.values())
    stats = forward.likelihood(lm.model, examples, moments, blind=hidden, tick=tick)
    say(f"{lm.name}: likelihood of {len(examples)} texts in {time.perf_counter() - begun:.1f} s")
    return dict(zip(wanted, stats, strict=True))


def _rouge(subject: Subject, rows: Rows, max_new_tokens: int) -> Items:
    """{part}_Q_A_ROUGE: the greedy answer to each question against the true one."""
    lm, how, say, begun = subject.lm, subject.how, subject.say, time.perf_counter()
    parts = [part for part in rows if part != "holdout"]
    every = [(part, i, row) for part in parts for i, row in enumerate(rows[part])]
    asked = [one for one in every if not unanswered(subject.answer(one[2]))]
    encoded = [subject.answer(row) for _, _, row in asked]
    prompts, stop = [row.given for row in encoded], how.stops(lm, encoded)
    tick = Progress(f"  {lm.name}: generations", len(prompts), say, last=False)
    options = {"blind": how.hidden(lm), "longest": how.longest, "tick": tick}
    generated = greedy(lm.model, prompts, stop, max_new_tokens, **options)
    found: Items = {f"{part}_Q_A_ROUGE": {} for part in parts}
    for (part, i, row), tokens, ids in zip(asked, encoded, generated, strict=True):
        generation, truth = how.decode(lm, ids), how.truth(lm, row["answer"], tokens)
        said = {"input": row["question"], "ground_truth": truth, "generation": generation}
        found[f"{part}_Q_A_ROUGE"][i] = metrics.rouge(generation, truth) | said
    say(f"{lm.name}: {len(prompts)} generations in {time.perf_counter() - begun:.1f} s")
    return found


def _gradnorm(subject: Subject, rows: Rows) -> Items:
    """mia_gradnorm_<part>, one backward a row."""
    lm, begun = subject.lm, time.perf_counter()
    hidden = subject.how.hidden(lm)
    found: Items = {}
    for part in ("forget", "holdout"):
        if part in rows:
            examples = [subject.answer(row) for row in rows[part]]
            norms = gradients.gradient_norms(lm.model, examples, hidden)
            found[f"mia_gradnorm_{part}"] = items.scores(norms)
    subject.say(f"{lm.name}: gradient norms in {time.perf_counter() - begun:.1f} s")
    return found
