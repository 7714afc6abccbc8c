"""Plain supervised training of a causal LM: how a target and a reference learn their facts.

Deterministic on the CPU: one thread, own generators, no global seed touched. Two savings matter at
this size. Batches hold rows of similar length, so little is padded. Right padding under a causal
mask needs no attention mask, since a real token never looks right. So attention runs the fast
causal kernel. Logits are made at labelled positions only.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ngdiff.engine.linear import quick
from ngdiff.lm.tokens import IGNORE, Example, collate
from ngdiff.profiles import Training
from ngdiff.store.progress import Progress

FLOOR = 0.02  # last learning rate over the highest


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Run the block on one CPU thread: sums in a fixed order, hence the same bytes each time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def batches(
    lengths: Sequence[int], size: int, generator: torch.Generator, pool: int = 16
) -> list[list[int]]:
    """Indices of one epoch in batches of `size` rows of similar length, in random order.

    A random permutation is cut into pools of pool·size rows; each pool is sorted by length and cut
    into batches.
    """
    order = torch.randperm(len(lengths), generator=generator).tolist()
    cut = []
    for start in range(0, len(order), pool * size):
        rows = sorted(order[start : start + pool * size], key=lengths.__getitem__)
        cut += [rows[i : i + size] for i in range(0, len(rows), size)]
    return [cut[i] for i in torch.randperm(len(cut), generator=generator).tolist()]


def label_loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """Mean cross-entropy (nats) over the labelled tokens of a right-padded batch from `collate`.

    Logits are computed only there.
    """
    encoded = model.base_model(input_ids=batch["input_ids"], use_cache=False)
    hidden = encoded.last_hidden_state  # (batch, time, d)
    labels = batch["labels"][:, 1:]  # what position t predicts is label t + 1
    asked = labels != IGNORE
    logits = model.get_output_embeddings()(hidden[:, :-1][asked])  # (labelled tokens, vocabulary)
    return nn.functional.cross_entropy(logits.float(), labels[asked])


def rate(step: int, steps: int, training: Training) -> float:
    """Learning rate of step 0 … steps−1.

    Linear warm-up over a share `warmup`, then cosine down to FLOOR·lr.
    """
    warm = max(1, round(training.warmup * steps))
    if step < warm:
        return training.lr * (step + 1) / warm
    done = (step - warm) / max(1, steps - warm)
    return training.lr * (FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * done)))


def fit(
    model: nn.Module,
    rows: Sequence[Example],
    replay: Sequence[Example],
    epochs: int,
    training: Training,
    *,
    seed: int,
    pad_id: int,
    what: str,
    min_steps: int = 0,
) -> float:
    """Train `model` in place by AdamW on `rows`; return the mean loss of the last epoch.

    `epochs` passes, or more where that takes fewer than `min_steps` updates. Each mixes in
    round(training.replay·len(replay)) rows of `replay`, drawn afresh, so that what was learned
    before stays known. Order and draws come from `seed` alone. NaN where there is nothing to do.
    Raises FloatingPointError on a loss that is not finite.
    """
    if epochs == 0 or not rows:
        return math.nan
    generator = torch.Generator().manual_seed(seed)
    extra = round(training.replay * len(replay))
    per_epoch = math.ceil((len(rows) + extra) / training.batch_size)
    epochs = max(epochs, math.ceil(min_steps / per_epoch))
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=training.lr, weight_decay=training.weight_decay, fused=True
    )
    step, progress = 0, Progress(f"{what}: epoch", epochs)
    model.eval()  # dropout off: the order of rows is the only randomness
    for epoch in range(1, epochs + 1):
        drawn = torch.randperm(len(replay), generator=generator)[:extra].tolist()
        mixed = [*rows, *(replay[i] for i in drawn)]
        losses = []
        for chosen in batches([len(row) for row in mixed], training.batch_size, generator):
            lr = rate(step, epochs * per_epoch, training)
            losses.append(_update(model, optimizer, [mixed[i] for i in chosen], pad_id, lr))
            step += 1
        mean = torch.stack(losses).mean()
        if not torch.isfinite(mean):
            raise FloatingPointError(
                f"{what}: the loss is {mean.item()} in epoch {epoch}: lower Training.lr"
            )
        progress(epoch, note=f"loss {mean.item():.3f}")
    return mean.item()


def _update(
    model: nn.Module, optimizer: torch.optim.Optimizer, rows: list[Example], pad_id: int, lr: float
) -> Tensor:
    """One step at rate `lr` on a batch of rows; its loss before the step."""
    device = next(model.parameters()).device
    with quick(model):
        loss = label_loss(model, {k: v.to(device) for k, v in collate(rows, pad_id).items()})
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    return loss.detach()
