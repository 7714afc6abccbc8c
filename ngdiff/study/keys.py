"""What a trial is, in keys: of its settings, of its population, and of its models.

A setting is the same whatever the code and the machine. The cache's key of a trial holds both, too
(`ngdiff.study.trials`).
"""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

from ngdiff.data.benchmark import Benchmark
from ngdiff.profiles import Profile, profile
from ngdiff.store.content import content_key
from ngdiff.store.values import content
from ngdiff.study.setup import benchmark as benchmark_of
from ngdiff.study.trial import Trial

benchmark = lru_cache(maxsize=4)(benchmark_of)


def steps_of(trial: Trial) -> int:
    return profile(trial.profile).steps if trial.steps is None else trial.steps


def setting(trial: Trial) -> str:
    """Return the key of what a trial is, whatever the code and the machine: its settings and its
    `population`.
    """
    return content_key("setting", *settings(trial), population(trial))


def population(trial: Trial) -> str:
    """Return the key of the rows that a trial works on and of the recipe of its models, seeds left
    out.
    """
    P, bench = profile(trial.profile), benchmark(trial.profile, trial.split, trial.data)
    return content_key("population", bench.fingerprint, sizes(P), P.lm, P.model, P.training)


def settings(trial: Trial) -> list[Any]:
    """Return the trial as it enters a key: steps written out, rows and profile by their content
    (`population`), a method of a user by its own content, code included and its look left out.
    """
    named = isinstance(trial.method, str)
    plain = replace(
        trial,
        method=trial.method if named else "ngdiff",
        profile=trial.profile if isinstance(trial.profile, str) else "tiny",
        data="",
        split=trial.split if isinstance(trial.data, str) else "",
        steps=steps_of(trial),
    )
    return [plain] if named else [plain, content(trial.recipe.parts)]


def models_key(bench: Benchmark, P: Profile, seed: int) -> list[Any]:
    from ngdiff.lm.pair import ROLES, key_of

    return [bench.fingerprint, *sizes(P), *(key_of(bench, P, seed, role) for role in ROLES)]


def sizes(P: Profile) -> list[Any]:
    """Return the fields of a profile that decide a run and its evaluation."""
    sizes: list[Any] = [P.dtype, P.batch_size, P.batch_documents, P.max_new_tokens]
    return sizes if P.measured is None else [*sizes, P.measured]
