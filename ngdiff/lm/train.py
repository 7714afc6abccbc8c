"""Plain supervised training of a causal LM: how a target and a reference learn their facts.

Deterministic on the CPU: one thread, own generators, no global seed touched. Two savings matter at
this size. Batches hold rows of similar length, so little is padded. Right padding under a causal
mask needs no attention mask, since a real token never looks right. So attention runs the fast
causal kernel. Logits are made at labelled positions only.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ngdiff.core import checkpoint
from ngdiff.engine.linear import quick
from ngdiff.lm.tokens import IGNORE, Example, collate
from ngdiff.profiles import Training
from ngdiff.store.progress import Progress, to_stderr

FLOOR = 0.02  # last learning rate over the highest
EVERY = 45.0  # seconds between two saved states of a training


@contextlib.contextmanager
def eager(model: nn.Module, precision: str) -> Iterator[None]:
    """Compute attention by plain products in the block, where that is faster.

    torch's own kernel for bfloat16 on a CPU takes longer for rows of about a hundred tokens.
    """
    config = getattr(model, "config", None)
    used = getattr(config, "_attn_implementation", None)
    on_cpu = next(model.parameters()).device.type == "cpu"
    if precision != "bfloat16" or not on_cpu or used != "sdpa":
        yield
        return
    model.set_attn_implementation("eager")  # type: ignore[operator]
    try:
        yield
    finally:
        model.set_attn_implementation(used)  # type: ignore[operator]


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
    precision: str = "float32",
    saved: Path | None = None,
) -> float:
    """Train `model` in place by AdamW on `rows`; return the mean loss of the last epoch.

    `epochs` passes, or more where that takes fewer than `min_steps` updates. Each mixes in
    round(training.replay·len(replay)) rows of `replay`, drawn afresh, so that what was learned
    before stays known. Order and draws come from `seed` alone. NaN where there is nothing to do.
    precision: "bfloat16" computes products in it (autocast); the weights stay float32. saved: a
    file for the state after an epoch, at most once in `EVERY` seconds. A killed training goes on
    from it, bit for bit. Raises FloatingPointError on a loss that is not finite.
    """
    generator, extra = torch.Generator().manual_seed(seed), round(training.replay * len(replay))
    if epochs == 0 or not rows:
        return math.nan
    per_epoch = math.ceil((len(rows) + extra) / training.batch_size)
    epochs = max(epochs, math.ceil(min_steps / per_epoch))
    optimizer = _adamw(model, training)
    kept = _Kept(saved, model, optimizer, generator)
    done, mean = kept.load()
    progress = Progress(f"{what}: epoch", epochs, begun=done)
    model.eval()  # dropout off: the order of rows is the only randomness
    for epoch in range(done + 1, epochs + 1):
        drawn = torch.randperm(len(replay), generator=generator)[:extra].tolist()
        mixed = [*rows, *(replay[i] for i in drawn)]
        cut = enumerate(_cut(mixed, training.batch_size, generator), (epoch - 1) * per_epoch)
        rates = ((part, rate(t, epochs * per_epoch, training)) for t, part in cut)
        losses = [_update(model, optimizer, part, pad_id, lr, precision) for part, lr in rates]
        mean = torch.stack(losses).mean()
        if not torch.isfinite(mean):
            found = f"{what}: the loss is {mean.item()} in epoch {epoch}"
            raise FloatingPointError(f"{found}: lower Training.lr")
        progress(epoch, note=f"loss {mean.item():.3f}")
        kept.save(epoch, mean)
    return float(mean)


def _adamw(model: nn.Module, training: Training) -> torch.optim.Optimizer:
    options = {"lr": training.lr, "weight_decay": training.weight_decay, "fused": True}
    return torch.optim.AdamW(model.parameters(), **options)


def _cut(rows: list[Example], size: int, generator: torch.Generator) -> list[list[Example]]:
    """Return the rows in batches (`batches`)."""
    cut = batches([len(row) for row in rows], size, generator)
    return [[rows[i] for i in part] for part in cut]


class _Kept:
    """The state of a training on disk; without a file nothing is kept."""

    def __init__(
        self,
        path: Path | None,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        generator: torch.Generator,
    ) -> None:
        self.path, self.model, self.optimizer = path, model, optimizer
        self.generator, self.at = generator, time.monotonic()

    def load(self) -> tuple[int, Tensor]:
        """Put a saved state back; return its epoch, 0 without one, and its mean loss.

        A damaged one is said and not used.
        """
        try:
            found = None if self.path is None else checkpoint.read(self.path)
        except ValueError as error:
            to_stderr(f"the training starts anew: {error}")
            found = None
        if found is None:
            return 0, torch.tensor(math.nan)
        state = found["state"]
        with torch.no_grad():
            for p, q in zip(self.model.parameters(), state["theta"], strict=True):
                p.copy_(q)
        self.optimizer.load_state_dict(state["optimizer"])
        self.generator.set_state(state["random"])
        return state["epoch"], state["loss"]

    def save(self, epoch: int, loss: Tensor) -> None:
        """Save the state after an epoch, where the last one is old enough."""
        if self.path is None or time.monotonic() - self.at < EVERY:
            return
        state: dict[str, Any] = {"theta": list(self.model.parameters())}
        state |= {
            "optimizer": self.optimizer.state_dict(),
            "random": self.generator.get_state(),
            "epoch": epoch,
            "loss": loss,
        }
        checkpoint.write(self.path, "training", state, [])
        self.at = time.monotonic()


def _update(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    rows: list[Example],
    pad_id: int,
    lr: float,
    precision: str = "float32",
) -> Tensor:
    """One step at rate `lr` on a batch of rows; its loss before the step."""
    device = next(model.parameters()).device
    low = precision == "bfloat16"
    with torch.autocast(device.type, torch.bfloat16, enabled=low), quick(model):
        loss = label_loss(model, {k: v.to(device) for k, v in collate(rows, pad_id).items()})
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    return loss.detach()
