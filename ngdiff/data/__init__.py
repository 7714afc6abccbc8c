"""Benchmarks: what to forget, what to retain, what to ask. Imports neither torch nor `datasets`.

Real: `tofu`, `muse`, `semeval`. Generated in the same form, without a download: `authors`, `news`, `dossiers`.
"""

from ngdiff.data.authors import authors
from ngdiff.data.benchmark import Benchmark, Prompt, load
from ngdiff.data.dossiers import dossiers
from ngdiff.data.muse import muse
from ngdiff.data.news import news
from ngdiff.data.semeval import semeval
from ngdiff.data.tofu import tofu

__all__ = ["Benchmark", "Prompt", "authors", "dossiers", "load", "muse", "news", "semeval", "tofu"]
