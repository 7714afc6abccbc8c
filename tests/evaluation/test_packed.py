"""Rows of several texts, caches that grow in place, and guesses: each against the plain way."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.cache_utils import DynamicCache

from ngdiff.evaluation import decode, forward, packed
from ngdiff.evaluation.buffer import BLOCK, Buffer, in_place
from ngdiff.evaluation.generate import greedy
from ngdiff.evaluation.packed import Tree
from ngdiff.evaluation.ways import ways
from ngdiff.lm.tokens import IGNORE, Example
from tests.helpers import causal, micro

# Trees --------------------------------------------------------------------------------------------


def test_a_tree_holds_each_beginning_once_and_shows_a_token_its_ancestors():
    texts = [
        Example([7, 8, a, b, 2], [IGNORE, IGNORE, a, b, 2]) for a, b in ((3, 4), (3, 5), (6, 4))
    ]
    tree = Tree()
    for i, text in enumerate(texts):
        assert tree.new(text) == (4, 1, 2)[i]
        tree.add(i, text)
    assert tree.ids == [7, 8, 3, 4, 5, 6, 4] and tree.depth == [0, 1, 2, 3, 3, 2, 3]
    assert tree.pairs[1] == [(1, 3), (2, 5), (4, 2)] and tree.first == 1
    seen = tree.seen(8)
    assert [np.flatnonzero(row).tolist() for row in seen] == [
        [0],
        [0, 1],
        [0, 1, 2],
        [0, 1, 2, 3],
        [0, 1, 2, 4],
        [0, 1, 5],
        [0, 1, 5, 6],
        [7],
    ]


@pytest.mark.parametrize("limit", [12, 30, 512])
def test_texts_share_rows_as_far_as_the_limit_allows(limit, monkeypatch):
    monkeypatch.setattr(packed, "LIMIT", limit)
    model, examples = causal.model("llama"), causal.texts()
    for example, stats in zip(examples, forward.likelihood(model, examples), strict=True):
        np.testing.assert_allclose(stats.logp, micro.slow(model, example)[0], atol=1e-5)


def test_fewer_tokens_are_computed_than_the_texts_have(monkeypatch):
    model, examples = causal.model("llama"), causal.texts()
    ways(model)  # its rehearsal is not counted
    given, pad = [], packed.pad
    monkeypatch.setattr(packed, "pad", lambda rows, *a: given.extend(rows) or pad(rows, *a))
    forward.likelihood(model, examples)
    beginnings = {tuple(e.input_ids[:n]) for e in examples for n in range(1, len(e))}
    assert sum(map(len, given)) == len(beginnings) < sum(len(e) - 1 for e in examples)


def test_a_window_bounds_a_tree():
    assert packed.limit(causal.model("llama")) == packed.LIMIT
    assert packed.limit(causal.model("gemma3_text")) == 16  # its layers see 16 tokens


@pytest.mark.parametrize("blind", [None, 5])
def test_a_hidden_token_is_hidden_in_any_batch(blind):
    """A hidden token gives the same numbers in any batch, and other ones than a seen one."""
    model, examples = causal.model("llama"), causal.texts()
    examples = [Example([5, *e.input_ids], [IGNORE, *e.labels]) for e in examples]
    whole = forward.likelihood(model, examples, blind=blind)
    for example, stats in zip(examples, whole, strict=True):
        alone = forward.likelihood(model, [example], blind=blind)[0]
        np.testing.assert_allclose(stats.logp, alone.logp, atol=1e-5)
    seen = forward.likelihood(model, examples)
    assert np.allclose(whole[0].logp, seen[0].logp, atol=1e-5) == (blind is None)


# Buffers ------------------------------------------------------------------------------------------


def test_a_buffer_holds_what_a_joined_cache_holds_and_keeps_its_storage():
    make = torch.Generator().manual_seed(0)
    joined = DynamicCache()
    new = [torch.randn(2, 4, 2, n, 3, generator=make) for n in (5, 1, 1, 3, BLOCK, 1)]
    joined.update(*new[0], 0)
    mine = in_place(DynamicCache())
    mine.update(*new[0], 0)
    mine = in_place(mine)
    places = set()
    for step, (k, v) in enumerate(new[1:]):
        rows = torch.tensor([[0, 1, 2, 3], [0, 3, 2], [2, 1], [1, 0], [0]][step])
        joined.reorder_cache(rows)
        mine.reorder_cache(rows)
        joined.update(k[: len(rows)], v[: len(rows)], 0)
        mine.update(k[: len(rows)], v[: len(rows)], 0)
        assert type(mine.layers[0]) is Buffer and mine.get_seq_length() == joined.get_seq_length()
        assert torch.equal(mine.layers[0].keys, joined.layers[0].keys)
        assert torch.equal(mine.layers[0].values, joined.layers[0].values)
        places.add(mine.layers[0].keys.data_ptr())
    assert len(places) == 2  # it grew once, and once more after BLOCK tokens


def test_the_last_rows_take_the_places_of_those_that_leave():
    assert decode._closed_up([False, True, False, True, False]) == [0, 4, 2]
    assert decode._closed_up([True, True]) == [] and decode._closed_up([False]) == [0]


# Guesses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("guesses", [((0.0, 0),), ((0.0, 1),), ((0.0, 4),), decode.GUESSES])
@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_guessed_tokens_are_those_of_one_at_a_time(name, guesses, monkeypatch):
    monkeypatch.setattr(decode, "GUESSES", guesses)
    model = causal.model(name)
    prompts = [e.prompt_ids for e in causal.texts()[:9:3]]
    expected = [causal.greedy(model, prompt, 24) for prompt in prompts]
    assert greedy(model, prompts, set(), 24) == expected
    stop = {expected[1][6]}
    cut = [t[: next((n for n, x in enumerate(t) if x in stop), 24)] for t in expected]
    assert greedy(model, prompts, stop, 24) == cut


def test_guesses_end_where_a_learned_table_of_positions_does(monkeypatch):
    """Rows that repeat themselves up to the context's last token."""
    monkeypatch.setattr(decode, "GUESSES", ((0.0, 7),))
    model = causal.model("gpt2")
    length = model.config.max_position_embeddings
    prompt = [5] * (length - 20)
    found = greedy(model, [prompt, prompt[:-9]], set(), 500)
    assert [len(text) for text in found] == [20, 29]
    assert found[0] == causal.greedy(model, prompt, 20)


def test_a_row_that_repeats_itself_takes_few_forwards(monkeypatch):
    model, chosen, calls = causal.model("llama"), decode._chosen, []
    ways(model)  # its rehearsal is not counted

    def constant(logits, ends):
        calls.append(1)
        token, wrong = chosen(logits, ends)
        return torch.full_like(token, 9), wrong

    monkeypatch.setattr(decode, "_chosen", constant)
    assert greedy(model, [[3, 4], [5, 6, 7]], set(), 60) == [[9] * 60] * 2
    assert len(calls) < 20
