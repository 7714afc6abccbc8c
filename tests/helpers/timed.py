"""The step benchmark at a size that takes no time."""

from __future__ import annotations

from ngdiff.timing.case import Case
from ngdiff.timing.subject import Subject
from ngdiff.timing.turns import measure
from ngdiff.timing.variants import Variant

MICRO = (32, 1, 2, 64, 256)  # 18 528 parameters, the output layer tied
TWO = ("graddiff-two", "ngdiff")


def built(name, tokens=16, **options):
    return Variant(name, Subject(Case("micro", tokens, **options), "cpu"))


def rows_of(**options):
    """Rows by variant."""
    return {row["variant"]: row for row in measure(Case("micro", 16, pairs=1, **options), "cpu")}
