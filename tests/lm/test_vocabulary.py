"""A token for which the model has no row: refused in one line, where it is met."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest

from ngdiff.evaluation import evaluate
from ngdiff.lm.model import load, save
from tests.helpers import micro


def test_a_token_beyond_the_embedding_is_named(tmp_path):
    lm, bench = micro.lm(), micro.bench()
    tokenizer = copy.deepcopy(lm.tokenizer)
    tokenizer.add_tokens(["<extra>"])
    more = load(save(replace(lm, tokenizer=tokenizer), tmp_path / "model"))
    quick = {"generate": False, "gradnorm": False}
    evaluate(more, bench, **quick)  # no text holds it
    rows = [row | {"question": f"{row['question']} <extra>"} for row in bench.retain_perturbed]
    other = replace(bench, configs={**bench.configs, "retain_perturbed": rows})
    with pytest.raises(ValueError, match=r"the token '<extra>' \(\d+\), and the model knows \d+ t"):
        evaluate(more, other, **quick)
