"""The benchmarks' rows: what to forget, what to retain, what to evaluate.

Importing them loads neither torch nor `datasets`.

Real: `tofu`, `muse`, `semeval`. Generated in the same form, without a download: `authors`, `news`,
`dossiers`.
"""

from ngdiff.data.benchmark import Benchmark, Prompt
from ngdiff.data.made.authors import authors
from ngdiff.data.made.dossiers import dossiers
from ngdiff.data.made.news import news
from ngdiff.data.real.muse import muse
from ngdiff.data.real.semeval import semeval
from ngdiff.data.real.tofu import tofu
from ngdiff.data.recipes import load

__all__ = ["Benchmark", "Prompt", "authors", "dossiers", "load", "muse", "news", "semeval", "tofu"]
