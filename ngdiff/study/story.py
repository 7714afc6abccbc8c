"""One run of NGDiff + AutoLR on a real language model, told in answers first.

Four models stand beside each other: the base model as it was published, the start (fine-tuned on
the rows to forget and to keep), the retain-only reference, and the unlearned model. Each is asked
the same questions. What a killed story has finished is kept: trainings and the run go on from their
saved states.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ngdiff.data.benchmark import Benchmark
from ngdiff.lm import pair as models
from ngdiff.lm.model import LM, save
from ngdiff.lm.scratch import standin
from ngdiff.profiles import Profile, profile
from ngdiff.store.cache import cache_dir, cached
from ngdiff.store.code import fingerprint
from ngdiff.store.content import content_key
from ngdiff.store.rows import read_rows, write_rows
from ngdiff.study import trials
from ngdiff.study.keys import benchmark
from ngdiff.study.trial import Trial

Row = dict[str, Any]
ROLES = ("base", "start", "reference", "unlearned")
LABELS = dict(zip(ROLES, ("base model", "start", "retain-only", "NGDiff + AutoLR"), strict=True))
GENERAL = (
    "What is the capital of France?",
    "Who wrote 'Romeo and Juliet'?",
    "What is the largest planet in our solar system?",
    "What is the chemical symbol for gold?",
    "How many days are there in a week?",
    "Which ocean lies between Europe and America?",
    "What do bees make?",
    "What is the boiling point of water in degrees Celsius?",
    "Who was the first president of the United States?",
    "Which language is spoken in Brazil?",
)
OTHERWISE = "I have a question for you. {question} Please answer in one sentence."
SHOWN = 3  # rows of each kind that are asked


@dataclass(frozen=True)
class Story:
    """What the page shows. rows: a row for each of `ROLES`. said: (kind, question, truth, role ->
    answer) for each question. history: a row a step of the run.
    """

    rows: list[Row]
    said: list[Row]
    history: list[Row]


def setting(
    name: str, data: str = "", model: str = "", smoke: bool = False
) -> tuple[Profile, str | Benchmark]:
    """Return the profile and the rows of a story.

    name: of a profile with a pretrained model. data: as `ngdiff.evaluation.spelling` says. model: a
    folder, a hub id or a name of `ngdiff.zoo` in place of the profile's. smoke: a small stand-in
    with a chat template takes the model's place, and few generated authors that of the rows.
    Errors: ValueError for a profile that trains from scratch.
    """
    P = profile(name)
    if smoke:
        return _small()
    if P.model is None:
        raise ValueError(
            f'the profile {P.name} has no pretrained model: take profile = "laptop", or smoke = '
            "True for a small stand-in"
        )
    return (replace(P, model=model) if model else P), data


def _small() -> tuple[Profile, str]:
    P = profile("laptop")
    bench = benchmark(replace(P, retain_rows=24), "", "")
    texts = sorted({r[k] for r in (*bench.full, *bench.pretrain) for k in ("question", "answer")})
    texts += sorted({row[k] for row in bench.holdout for k in ("question", "answer")})

    def build(folder: Path) -> None:
        standin(texts, bench.pretrain, folder)

    key = content_key("stand-in", fingerprint("ngdiff.lm.scratch"), texts, bench.pretrain)
    place = cached(cache_dir() / "models", key, build, "a stand-in for a real model")
    taught = replace(P.training, epochs=20, lr=4e-3, batch_size=16)
    small = replace(P, model=str(place), dtype="float32", training=taught)
    return replace(small, retain_rows=24, measured=4, steps=25, max_new_tokens=16), ""


def tell(
    P: Profile, data: str | Benchmark = "", seed: int = 0, say: Callable[[str], None] = print
) -> Story:
    """Return the story of a profile's model: trained, unlearned, measured and asked once, then
    loaded from the cache. seed: of the order of the rows.
    """
    trial = Trial(profile=P, data=data, seed=seed)
    name = P.name if profile(P.name) == P else P
    before, ideal = trials.levels(name, "", data, 0)
    key = content_key("story", fingerprint(__name__), trials.key_of(trial), GENERAL, OTHERWISE)
    root = cache_dir() / "stories"
    state = root / f"{key}.safetensors"

    def build(folder: Path) -> None:
        run = trials.measured(trial, folder, lambda t: trials.unlearned(t, None, state))
        save(run.model, folder / "model")
        bench = benchmark(name, "", data)
        base = _base(bench, P)
        general = trials.evaluated(base, bench, P).metrics
        asked = {"base": base, "start": models.target(bench, P)}
        asked |= {"reference": models.reference(bench, P), "unlearned": run.model}
        say("asking the four models")
        write_rows(folder / "said.jsonl", _said(bench, P, asked))
        write_rows(folder / "base.jsonl", [general])

    entry = cached(root, key, build, f"the story of {P.model}")
    state.unlink(missing_ok=True)
    done = read_rows(entry / "row.jsonl")[0]
    general = read_rows(entry / "base.jsonl")[0]
    metrics = (general, before, ideal, done)
    plain = [{k: v for k, v in row.items() if k != "report"} for row in metrics]
    shared = {key: done[key] for key in ("method", "profile", "data", "seed", "stamp")}
    rows = [{**row, **shared, "role": role} for role, row in zip(ROLES, plain, strict=True)]
    history = [{"name": "ngdiff", **row} for row in read_rows(entry / "history.parquet")]
    return Story(rows, read_rows(entry / "said.jsonl"), history)


def _base(bench: Benchmark, P: Profile) -> LM:
    """Return the base model in the precision of the others."""
    import torch

    base = models.base(bench, P)
    precision = models.precision_of(P.dtype, models.device_of(P))
    base.model.to(getattr(torch, precision))
    base.name = "base"
    return base


def _said(bench: Benchmark, P: Profile, asked: Mapping[str, LM]) -> list[Row]:
    """Return each question with what every model answers."""
    from ngdiff.evaluation.generate import answers

    rows = [("forget", r["question"], r["answer"]) for r in bench.forget[:SHOWN]]
    rows += [
        ("forget, asked otherwise", OTHERWISE.format(question=r["question"]), r["answer"])
        for r in bench.forget[:SHOWN]
    ]
    rows += [("retain", r["question"], r["answer"]) for r in bench.retain[:SHOWN]]
    rows += [("general", question, "") for question in GENERAL]
    questions = [question for _, question, _ in rows]
    found = {role: answers(lm, questions, P.max_new_tokens) for role, lm in asked.items()}
    return [
        {"kind": kind, "question": question, "truth": truth}
        | {role: said[i] for role, said in found.items()}
        for i, (kind, question, truth) in enumerate(rows)
    ]
