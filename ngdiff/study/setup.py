"""What a run is about: a profile, a benchmark and its suite, resolved once.

`ngdiff.evaluation.spelling` defines which rows `data` names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ngdiff import zoo
from ngdiff.data import Benchmark
from ngdiff.evaluation import suites
from ngdiff.evaluation.spelling import which
from ngdiff.evaluation.suites import Suite
from ngdiff.profiles import Profile, profile


@dataclass(frozen=True)
class Setup:
    """A profile, a benchmark, and the suite whose metrics are computed."""

    profile: Profile
    bench: Benchmark
    suite: Suite

    @classmethod
    def of(cls, P: str | Profile, split: str = "", data: str | Benchmark = "") -> Setup:
        """Return the setup of a profile, or its name, and of rows by their spelling or as they are.

        split: "" is the suite's default; a Benchmark has its own. Errors: ValueError for a name
        that is none; those of the rows' reader.
        """
        P = profile(P)
        bench = which(data).bench(P, split) if isinstance(data, str) else data
        return cls(P, bench, suites.of(bench))

    @property
    def convention(self) -> str:
        """The convention an evaluation follows.

        For models with published targets it is that of the numbers beside them, else ours.
        """
        published = self.profile.model and zoo.ready(self.profile.model)
        return self.suite.convention if published else "ngdiff"

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments for `ngdiff.evaluate` that the profile settles.

        Where it measures a part of the rows, time is short: no backward pass a row is taken.
        """
        found: dict[str, Any] = {"convention": self.convention}
        if self.suite.answers_cut:
            found["max_new_tokens"] = self.profile.max_new_tokens
        if self.profile.measured is not None and "gradnorm" in self.suite.options:
            found["gradnorm"] = False
        return found

    @property
    def batch_size(self) -> int:
        """Return how many rows a step takes of each side."""
        return int(getattr(self.profile, self.suite.batch))

    @property
    def unseen(self) -> list[Any]:
        """The rows the model has never seen, at whose loss runs stop. Error: ValueError without."""
        try:
            return self.bench.holdout
        except KeyError:
            raise ValueError(
                f"{self.bench.name} has no rows that the model has never seen, where runs stop: "
                "give a folder with all its files (for SemEval LUME's: ngdiff reproduce --data "
                "FOLDER)"
            ) from None

    def fitted(self, lm: Any) -> Benchmark:
        """Return the benchmark with its long documents cut to the model's context."""
        if self.suite.cut is None or not lm.context:
            return self.bench
        return self.suite.cut(self.bench, lm.tokenizer, lm.context)


def benchmark(name: str | Profile, split: str = "", data: str | Benchmark = "") -> Benchmark:
    """Return the benchmark of `Setup.of`."""
    return Setup.of(name, split, data).bench
