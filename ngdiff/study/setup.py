"""What a run is about: a benchmark by the name that settings and commands give it, and what it
keeps and forgets.

data        benchmark
""          the generated authors (TOFU's form)      "hub", or a folder         TOFU
"news"      the generated news (MUSE's form)         "muse:hub", "muse:FOLDER"  MUSE
"dossiers"  the generated dossiers (SemEval's form)  "semeval:hub", …           SemEval-2025 Task 4
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ngdiff import zoo
from ngdiff.data import Benchmark, authors, dossiers, muse, news, semeval, tofu
from ngdiff.data.real.muse import cut
from ngdiff.evaluation import terms
from ngdiff.evaluation.metrics import harmonic_mean
from ngdiff.evaluation.suites import of
from ngdiff.profiles import Profile, profile

STAND_INS: dict[str, Callable[..., Benchmark]] = {"": authors, "news": news, "dossiers": dossiers}
REAL: dict[str, Callable[..., Benchmark]] = {"tofu": tofu, "muse": muse, "semeval": semeval}
DEFAULT = {"muse": "news", "semeval": "train"}  # split; TOFU's is the profile's
TASKS = [f"{task}_{what}" for task in terms.TASKS for what in ("regurgitation", "knowledge")]


def benchmark(name: str | Profile, split: str = "", data: str | Benchmark = "") -> Benchmark:
    """The benchmark of a profile's name, a split ("" = the default) and `data` as in the module's
    table.
    """
    if isinstance(data, Benchmark):
        return data
    P = profile(name)
    if data in STAND_INS:
        return authors(P, split or "forget10") if data == "" else STAND_INS[data](P)
    suite, _, place = data.rpartition(":") if not Path(data).is_dir() else ("", "", data)
    suite = suite or "tofu"
    if suite not in REAL:
        raise ValueError(
            f"unknown benchmark {suite!r} in data={data!r}: write one of {', '.join(REAL)} before "
            "the colon"
        )
    if suite == "muse" and P.model:  # a target is of one corpus
        split = split or next(
            (key.split()[1] for key in zoo.model(P.model).ready if key.startswith("muse")), ""
        )
    return REAL[suite](
        P, split or DEFAULT.get(suite, P.tofu_split), root=None if place == "hub" else place
    )


def convention(P: Profile, bench: Benchmark) -> str:
    """Whose convention an evaluation follows: of the hub's models that of the published numbers
    beside them, else ours.
    """
    return "ngdiff" if P.model is None else {"tofu": "open-unlearning"}.get(of(bench), of(bench))


def unseen(bench: Benchmark) -> list[Any]:
    """The rows the model has never seen, at whose loss runs stop. Errors: ValueError where there
    are none.
    """
    try:
        return bench.holdout
    except KeyError:
        raise ValueError(
            f"{bench.name} has no rows that the model has never seen, where runs stop: give a "
            "folder with all its files (for "
            "SemEval LUME's: ngdiff reproduce --data FOLDER)"
        ) from None


def axes(metrics: Mapping[str, float]) -> tuple[float, float]:
    """(utility, memory) of an evaluation: what unlearning must keep and what it must lose, both in
    [0, 1]; NaN if not there.

    TOFU: model utility; ROUGE-L recall on the forget set. MUSE: knowmem on retain; verbmem.
    SemEval: harmonic mean of the six retain values; mean of the six forget values.
    """
    if "verbmem_f" in metrics:
        return metrics.get("knowmem_r", math.nan), metrics["verbmem_f"]
    if f"retain_{TASKS[0]}" in metrics:
        kept, known = (
            [metrics.get(f"{fold}_{name}", math.nan) for name in TASKS]
            for fold in ("retain", "forget")
        )
        return harmonic_mean(kept), sum(known) / len(known)
    return metrics.get("model_utility", math.nan), metrics.get("forget_Q_A_ROUGE", math.nan)


def fitted(bench: Benchmark, lm: Any) -> Benchmark:
    """The benchmark with MUSE's long documents cut to the model's context; others as they are."""
    return cut(bench, lm.tokenizer, lm.context) if of(bench) == "muse" and lm.context else bench
