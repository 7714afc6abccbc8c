"""What a case says of itself, and what it refuses."""

from __future__ import annotations

import pytest

from ngdiff.timing.case import Case
from tests.helpers.timed import TWO, built, rows_of


def test_rows_are_as_long_as_asked():
    assert built("ngdiff", 300).subject.ids[0].shape == (2, 128) and built(
        "ngdiff", 20
    ).subject.ids[0].shape == (1, 20)
    assert Case("7B", 4096).shape == (4, 1024) and Case("1B", 512).shape == (1, 512)
    assert Case("10M", 512, length=64).shape == (8, 64)
    assert rows_of(length=4, variants=TWO)["ngdiff"]["length"] == 4


def test_names_that_are_not_known_are_refused():
    for wrong, message in (
        ({"size": "7T"}, "unknown size '7T'; choose one of: 1M, 10M, 100M, 135M, 1B, 7B"),
        ({"precision": "float16"}, "unknown precision"),
        ({"optimizer": "lion"}, "choose one of: adamw, sgd"),
        ({"memory": "disk"}, "choose one of: swap, recompute"),
        ({"variants": ("ngdif",)}, "unknown variant 'ngdif'; choose some of: graddiff-two"),
        ({"tokens": 1}, "at least 2 tokens"),
        ({"length": 1}, "at least 2 tokens"),
        ({"lora": -1}, "0 or more"),
    ):
        with pytest.raises(ValueError, match=message):
            Case(**wrong)
