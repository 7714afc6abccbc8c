"""A benchmark again from the recipe in its `source`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ngdiff.data.benchmark import Benchmark
from ngdiff.data.made import authors, dossiers, news
from ngdiff.data.real import muse, semeval, tofu

# Benchmark.source's name -> what makes it
RECIPES = {
    "authors": authors.from_source,
    "tofu": tofu.from_source,
    "news": news.from_source,
    "muse": muse.from_source,
    "dossiers": dossiers.from_source,
    "semeval": semeval.from_source,
}


def load(source: Mapping[str, Any]) -> Benchmark:
    """The benchmark that `Benchmark.source` describes; its fingerprint is the same.

    Raises ValueError for a recipe of unknown name.
    """
    name = source.get("name")
    if name not in RECIPES:
        raise ValueError(f"unknown benchmark {name!r} in source; known: {', '.join(RECIPES)}")
    recipe = {key: value for key, value in source.items() if key not in ("name", "first")}
    return RECIPES[name](recipe).first(source.get("first"))
