"""Texts that begin alike as one row: each token is computed once, and sees only its own beginning.

The answers to a question are branches of a tree whose trunk is the prompt. A row holds the tree's
tokens, parents before children. A token's position is its depth, and the attention mask shows it
its ancestors and itself: the same sums as with each text alone, but for zeros. A row that holds one
text is a tree without branches; it needs no mask, since the model is causal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ngdiff.evaluation.padding import pad, visible
from ngdiff.evaluation.stats import Stats, cut, start, statistics
from ngdiff.lm.tokens import Example

LIMIT = 256  # tokens of a tree: attention looks at all pairs, and prompts are short
# how configurations call what a token of some layer sees at most
WINDOWS = ("window", "window_size", "attention_chunk_size", "local_attention")


class Tree:
    """Texts of one row.

    texts     which ones, by their number
    ids       tokens (nodes,)
    depth     tokens before each (nodes,)
    chains    (parent, first, last + 1): runs of nodes, each the child of the one before
    pairs     per text: (predicting node, its token) of each token that has labels
    """

    def __init__(self) -> None:
        self.texts: list[int] = []
        self.ids: list[int] = []
        self.depth: list[int] = []
        self.chains: list[tuple[int, int, int]] = []
        self.pairs: list[list[tuple[int, int]]] = []
        self.child: dict[tuple[int, int], int] = {}

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def all(self) -> list[tuple[int, int]]:
        """The pairs of its texts, one behind the other."""
        return [pair for pairs in self.pairs for pair in pairs]

    @property
    def first(self) -> int:
        """The first node that predicts anything."""
        return min(node for node, _ in self.all)

    def new(self, example: Example) -> int:
        """Return how many tokens the text would add."""
        node = -1
        for depth, token in enumerate(example.input_ids[:-1]):
            if (node := self.child.get((node, token), -2)) < -1:
                return len(example) - 1 - depth
        return 0

    def add(self, i: int, example: Example) -> None:
        """Add text `i`: nodes for the tokens that no text before it shares."""
        path: list[int] = []
        node, fresh, parent = -1, len(self.ids), -1
        for depth, token in enumerate(example.input_ids[:-1]):
            if (node, token) not in self.child:
                parent = node if len(self.ids) == fresh else parent
                self.child[node, token] = len(self.ids)
                self.ids.append(token)
                self.depth.append(depth)
            node = self.child[node, token]
            path.append(node)
        if len(self.ids) > fresh:
            self.chains.append((parent, fresh, len(self.ids)))
        begin = start(example)
        self.texts.append(i)
        self.pairs.append(list(zip(path[begin - 1 :], example.input_ids[begin:], strict=True)))

    def seen(self, time: int) -> np.ndarray:
        """Return which tokens each one sees, (time, time) of bool; padding sees itself."""
        mask = np.eye(time, dtype=bool)
        for parent, a, b in self.chains:
            if parent >= 0:
                mask[a:b] = mask[parent]
            mask[a:b, a:b] = np.tri(b - a, dtype=bool)
        return mask


def windows(model: Any) -> list[int]:
    """Return how many tokens the layers with a window see; [] where all see all."""
    config = model.config.get_text_config().to_dict()
    sizes = [size for key, size in config.items() if key.endswith(WINDOWS)]
    return [size for size in sizes if isinstance(size, int) and size > 0]


def limit(model: Any) -> int:
    """Return how many tokens a tree may have: LIMIT, or what the narrowest window shows.

    A mask of one's own takes the place of the window's.
    """
    return min([LIMIT, *windows(model)])


def trees(
    examples: Sequence[Example], groups: Iterable[Sequence[int]], most: int
) -> Iterator[Tree]:
    """Put the texts of each group into trees of at most `most` tokens; one text always fits."""
    for group in groups:
        tree = Tree()
        for i in group:
            if tree.texts and len(tree) + tree.new(examples[i]) > most:
                yield tree
                tree = Tree()
            tree.add(i, examples[i])
        if tree.texts:
            yield tree


def forwarded(
    model: Any, rows: Sequence[Tree], moments: Sequence[bool], blind: int | None
) -> dict[int, Stats]:
    """Return the Stats of the texts of some trees, by one forward.

    blind: as in `forward.likelihood`; only for trees of one text.
    """
    ids, mask = pad([tree.ids for tree in rows], "right", model.device)
    first = min(tree.first for tree in rows)
    keep = ids.shape[1] - first
    inputs = shown(model, rows, ids) if any(len(tree.chains) > 1 for tree in rows) else {}
    if blind is not None:
        inputs = {"attention_mask": visible(ids, mask, blind)}
    logits = model(input_ids=ids, **inputs, use_cache=False, logits_to_keep=keep).logits
    logits = logits[:, -keep:]  # some models give them all
    return _read(rows, logits, first, moments)


def shown(model: Any, rows: Sequence[Tree], ids: Tensor) -> dict[str, Tensor]:
    """Return positions (batch, time) and an additive mask (batch, 1, time, time) of trees."""
    batch, time = ids.shape
    place = torch.zeros(batch, time, dtype=torch.long)
    for b, tree in enumerate(rows):
        place[b, : len(tree)] = torch.tensor(tree.depth)
    seen = torch.from_numpy(np.stack([tree.seen(time) for tree in rows]))
    hidden = torch.zeros(batch, 1, time, time, dtype=model.dtype)
    hidden.masked_fill_(~seen[:, None], torch.finfo(model.dtype).min)
    return {"position_ids": place.to(ids.device), "attention_mask": hidden.to(ids.device)}


def _read(
    rows: Sequence[Tree], logits: Tensor, first: int, moments: Sequence[bool]
) -> dict[int, Stats]:
    """Return the Stats of the texts from the logits of nodes `first` and later of each tree."""
    width = logits.shape[1]
    texts = [i for tree in rows for i in tree.texts]
    lengths = [len(pairs) for tree in rows for pairs in tree.pairs]
    pairs = [(b * width + node - first, token) for b, t in enumerate(rows) for node, token in t.all]
    nodes, tokens = np.array(pairs).T
    asked = np.repeat([moments[i] for i in texts], lengths)
    at, owner = np.unique(nodes, return_inverse=True)
    order = np.argsort(owner, kind="stable")
    wanted = np.zeros(len(at), bool)
    np.logical_or.at(wanted, owner, asked)
    arrays = (at, owner[order], tokens[order], wanted)
    given = (torch.from_numpy(x).to(logits.device) for x in arrays)
    back = np.argsort(order, kind="stable")
    columns = [column[back] for column in statistics(logits, *given)]
    return dict(zip(texts, cut(columns, lengths, [moments[i] for i in texts]), strict=True))
