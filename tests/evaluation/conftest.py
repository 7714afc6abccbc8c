"""The micro benchmark and models, made once for each file of tests."""

from __future__ import annotations

import pytest

from ngdiff.data.benchmark import Benchmark
from ngdiff.lm.model import LM
from tests.helpers import micro


@pytest.fixture(scope="module")
def lm() -> LM:
    return micro.lm()


@pytest.fixture(scope="module")
def bench() -> Benchmark:
    return micro.bench()


@pytest.fixture(scope="module")
def memorised() -> LM:
    return micro.memorised()


@pytest.fixture(scope="module")
def reference() -> LM:
    return micro.reference()
