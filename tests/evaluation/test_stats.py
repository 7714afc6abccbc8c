"""Statistics of tokens against their definitions, equal and infinite logits among them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ngdiff.evaluation import stats


@pytest.mark.parametrize("head", [1, 2**19])  # one position at a time, and all
def test_a_hit_is_the_first_of_equal_logits_and_finite(head, monkeypatch):
    monkeypatch.setitem(stats.HEAD, "cpu", head)
    nan, inf = float("nan"), float("inf")
    logits = torch.tensor(
        [[0, 2, 2, 1], [3, 1, 1, 1], [nan, 5, 0, 0], [0, inf, 0, 0], [0, -inf, 1, 0]]
    )
    owner = torch.tensor([0, 0, 0, 1, 2, 3, 4, 4])
    targets = torch.tensor([1, 2, 3, 0, 1, 1, 1, 2])
    wanted = torch.zeros(5, dtype=torch.bool)
    logp, hits, _, _ = stats.statistics(logits, torch.arange(5), owner, targets, wanted)
    assert hits.tolist() == [True, False, False, True, False, False, False, True]
    expected = logits.log_softmax(-1)[owner, targets].numpy()
    np.testing.assert_allclose(logp, expected, rtol=1e-6)
