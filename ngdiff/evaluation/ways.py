"""How a model can be asked for many texts at once, found out by a rehearsal on a few tokens.

Architectures differ. A recurrent one has no cache to continue from. Another counts positions from
the padding, and a third takes no mask of one's own. Names of classes do not say so. So each way is
tried on two short texts. It is used where its logits are those of plain forwards, one text each.
"""

from __future__ import annotations

import copy
import warnings
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from ngdiff.core.probe import evaluating
from ngdiff.evaluation.buffer import in_place
from ngdiff.evaluation.packed import Tree, shown
from ngdiff.evaluation.padding import pad, positions
from ngdiff.lm.tokens import Example

# what a forward that does not know an argument, or a shape, may raise
FAILS = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError)
# tokens, counted from the middle of the vocabulary (`_texts`)
PROMPTS = ((3, 5), (4, 6, 7, 5, 3, 9, 8, 4, 6, 3, 5, 7, 9))
ANSWERS = ((6, 8, 4, 7), (6, 5, 8, 3, 9, 4, 7))
# layers of a cache that hold all tokens, or the last of them, as they came
HELD = (DynamicLayer, DynamicSlidingWindowLayer)
_KNOWN: weakref.WeakKeyDictionary[Any, Ways] = weakref.WeakKeyDictionary()


@dataclass(frozen=True)
class Ways:
    """What the rehearsal found.

    packs      texts that begin alike can share a row, each behind a mask of its own
    continues  left-padded prompts leave a cache behind which whole answers follow
    steps      from such a cache tokens follow one by one, and rows can leave it
    pads       rows of different lengths can stand in one batch, padded on the right
    """

    packs: bool
    continues: bool
    steps: bool
    pads: bool


def ways(model: Any) -> Ways:
    """Return how the model can be asked; rehearsed once for each model.

    A warning says where generation must compute all tokens again for each new one. Raises
    ValueError, naming the model's class, for one whose plain forward fails or whose tokens see
    later ones: no evaluation of it would mean anything.
    """
    if model not in _KNOWN:
        with evaluating(model), torch.inference_mode():
            _KNOWN[model] = found = _rehearsed(model)
        if not found.steps:
            warnings.warn(
                f"{type(model).__name__} keeps no attention cache that generation can use: "
                "every new token recomputes the whole text, which is correct but slow",
                stacklevel=2,
            )
    return _KNOWN[model]


def _rehearsed(model: Any) -> Ways:
    prompts, answers = _texts(model)
    texts = [[*prompt, *answer] for prompt, answer in zip(prompts, answers, strict=True)]
    name = type(model).__name__
    try:
        plain = [_plain(model, text) for text in texts]
        shorter = [_plain(model, text[:-1]) for text in texts]
    except FAILS as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        raise ValueError(
            f"{name} cannot be evaluated: a plain forward of {len(texts[0])} tokens ends in "
            f"{type(error).__name__}: {error}. Give a causal language model "
            "whose model(input_ids=…) returns logits"
        ) from error
    if not all(_same(a[:-1], b) for a, b in zip(plain, shorter, strict=True)):
        raise ValueError(
            f"{name} is not causal: the logits of a token depend on later tokens. Load "
            "it as a decoder (is_decoder=True), or give a causal language model"
        )
    kinds = _kinds(model)
    # a model's own kind of cache may join tokens by places that padding shifts, far behind these
    common = bool(kinds) and all(kind.__module__ == DynamicLayer.__module__ for kind in kinds)
    return Ways(
        bool(kinds) and kinds <= {*HELD} and _works(lambda: _packed(model, plain[0])),
        common and _works(lambda: _continues(model, plain)),
        common and _works(lambda: _steps(model, plain)),
        _works(lambda: _padded(model, texts, plain)),
    )


def _texts(model: Any) -> tuple[list[list[int]], list[list[int]]]:
    """Return the prompts and answers of the rehearsal as tokens of the model's vocabulary.

    They are from its middle. The first tokens are often special ones that were never trained, and a
    bfloat16 model's logits on them are mostly rounding.
    """
    embedding = getattr(model, "get_input_embeddings", lambda: None)()
    size = getattr(getattr(embedding, "weight", None), "shape", (0,))[0]
    first = size // 2 if size >= 2 * 10 else 0
    prompts, answers = ([[first + i for i in text] for text in part] for part in (PROMPTS, ANSWERS))
    return prompts, answers


def _works(trial: Callable[[], bool]) -> bool:
    try:
        return trial()
    except torch.OutOfMemoryError:
        raise
    except FAILS:
        return False


def _kinds(model: Any) -> set[type]:
    """Return of what kinds the layers of the model's cache are; none where it has no such cache."""
    try:
        return {type(layer) for layer in _begun(model)[0].layers}
    except torch.OutOfMemoryError:
        raise
    except FAILS:
        return set()


def _plain(model: Any, text: list[int]) -> Tensor:
    """Return the logits of one text by itself, (time, vocabulary)."""
    ids = torch.tensor([text], device=model.device)
    return model(input_ids=ids, use_cache=False).logits[0]


def _same(a: Tensor, b: Tensor) -> bool:
    """Return whether two logits differ by no more than rounding; both may be NaN."""
    b = b.float()
    spread = b[b.isfinite()].abs().max().item() if bool(b.isfinite().any()) else 0.0
    tiny = torch.finfo(a.dtype).eps ** 0.6  # 7e-5 in float32, .05 in bfloat16
    return torch.allclose(a.float(), b, rtol=0.0, atol=tiny * spread, equal_nan=True)


def _padded(model: Any, texts: list[list[int]], plain: list[Tensor]) -> bool:
    ids, _ = pad(texts, "right", model.device)
    logits = model(input_ids=ids, use_cache=False).logits
    return all(_same(logits[b, : len(text)], plain[b]) for b, text in enumerate(texts))


def _packed(model: Any, plain: Tensor) -> bool:
    """Compare two texts that share a beginning, as branches of one row."""
    (prompt, _), (answer, other) = _texts(model)
    text, tree = [*prompt, *answer], Tree()
    texts = [text, [*text[:-1], *other[1:4:2]]]
    for i, ids in enumerate(texts):
        tree.add(i, Example([*ids, 0], [*ids, 0]))
    rows = torch.tensor([tree.ids], device=model.device)
    logits = model(input_ids=rows, **shown(model, [tree], rows), use_cache=False).logits[0]
    wanted = [plain, _plain(model, texts[1])]
    paths = [torch.tensor([node for node, _ in pairs]) for pairs in tree.pairs]
    return all(_same(logits[path], one) for path, one in zip(paths, wanted, strict=True))


def _begun(model: Any) -> tuple[Any, Tensor]:
    """Return the cache and the mask of left-padded prompts."""
    ids, left = pad(_texts(model)[0], "left", model.device)
    inputs = {"attention_mask": left, "position_ids": positions(left), "use_cache": True}
    return model(input_ids=ids, **inputs).past_key_values, left


def _continues(model: Any, plain: list[Tensor]) -> bool:
    """Continue prompts by answers, one of them twice."""
    (cache, left), owner = _begun(model), torch.tensor([1, 0, 1], device=model.device)
    part = copy.deepcopy(cache)
    part.reorder_cache(owner)
    answers = [_texts(model)[1][i] for i in owner.tolist()]
    logits = _behind(model, part, left[owner], answers)
    return all(
        _same(logits[b, : len(answers[b])], plain[i][len(PROMPTS[i]) :])
        for b, i in enumerate(owner.tolist())
    )


def _steps(model: Any, plain: list[Tensor]) -> bool:
    """Continue prompts token by token, where the first row leaves after one."""
    (cache, left), answers = _begun(model), _texts(model)[1]
    cache, alive, right = in_place(cache), [0, 1], []
    for t in range(len(answers[1])):
        logits = _behind(model, cache, left, [answers[i][t : t + 1] for i in alive])
        right += [_same(logits[b, 0], plain[i][len(PROMPTS[i]) + t]) for b, i in enumerate(alive)]
        left = torch.cat([left, torch.ones_like(left[:, :1])], dim=1)
        if t == 0:
            alive, only = [1], torch.tensor([1], device=model.device)
            cache.reorder_cache(only)
            left = left[only]
    return all(right)


def _behind(model: Any, cache: Any, before: Tensor, rows: Sequence[Sequence[int]]) -> Tensor:
    """Return the logits of rows of tokens behind a cache whose tokens have the mask `before`."""
    ids, right = pad(rows, "right", model.device)
    mask = torch.cat([before, right], dim=1)
    place = positions(mask)[:, before.shape[1] :]
    inputs = {"attention_mask": mask, "position_ids": place, "past_key_values": cache}
    return model(input_ids=ids, **inputs, use_cache=True).logits
