"""Benchmarks: what to forget, what to retain, what to ask. Imports neither torch nor `datasets`.

Real: `tofu`, `muse`, `semeval`. Generated in the same form, without a download: `authors`, `news`, `dossiers`.
"""

from collections.abc import Mapping
from typing import Any

from ngdiff.data import authors as _authors
from ngdiff.data import dossiers as _dossiers
from ngdiff.data import muse as _muse
from ngdiff.data import news as _news
from ngdiff.data import semeval as _semeval
from ngdiff.data import tofu as _tofu
from ngdiff.data.authors import authors
from ngdiff.data.benchmark import Benchmark, Prompt
from ngdiff.data.dossiers import dossiers
from ngdiff.data.muse import muse
from ngdiff.data.news import news
from ngdiff.data.semeval import semeval
from ngdiff.data.tofu import tofu

__all__ = ["Benchmark", "Prompt", "authors", "dossiers", "load", "muse", "news", "semeval", "tofu"]
RECIPES = {
    **{"authors": _authors.from_source, "news": _news.from_source, "dossiers": _dossiers.from_source},
    **{"tofu": _tofu.from_source, "muse": _muse.from_source, "semeval": _semeval.from_source},
}  # the name in a benchmark's `source` -> what makes it


def load(source: Mapping[str, Any]) -> Benchmark:
    """Return the benchmark that `Benchmark.source` describes: load(bench.source).fingerprint == bench.fingerprint.

    Errors: ValueError for a recipe of unknown name.
    """
    name = source.get("name")
    if name not in RECIPES:
        raise ValueError(f"unknown benchmark {name!r} in source; known: {', '.join(RECIPES)}")
    return RECIPES[name]({key: value for key, value in source.items() if key != "name"})
