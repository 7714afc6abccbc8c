"""Benchmarks: what to forget, what to retain, what to ask. Imports neither torch nor `datasets`."""

from ngdiff.data.authors import authors
from ngdiff.data.benchmark import Benchmark, Prompt, load
from ngdiff.data.tofu import tofu

__all__ = ["Benchmark", "Prompt", "authors", "load", "tofu"]
