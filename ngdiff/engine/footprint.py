"""How much memory a step takes: one estimate, by what the bytes are for, and what fits instead.

With W bytes of weights and optimizer state, G of gradients, A_R and A_F of activations of the
largest microbatch of a phase

    phase R                     A_R or G, whichever is more (the one shrinks as the other grows);
                                A_R + G when accumulating
    phase F, swap               G + the same of the forget phase
    phase F, recompute          G + A_F
    update                      G and, in bfloat16, the weights that are float32 at the same time
                                (`ngdiff.engine.master`)
    probe                       θ₀ and u: twice the weights that move, in the memory of the
                                gradients; and a forward of all rows it looks at, which keeps
                                nothing for a backward

and the peak is W plus the largest: an estimate, which leaves out what operations need for
themselves. Beside it stands the host memory for what objectives such as KL keep of the start.

The bytes come from two places. `ngdiff.engine.watch.prepared` counts those of a model that is
there: its tensors, its optimizer's slots, one row's forward. `planned` counts those of a model that
is not made yet, from its number of weights. `ngdiff bench` refuses a case by it. The run sheets of
the paper profile are the same count without activations. Nothing here imports torch.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

WIDTH = {"float32": 4, "bfloat16": 2}  # bytes of a weight or gradient as the model computes
EXACT = 4  # bytes of a weight that is trained: float32, or bfloat16 and its 16 low bits
SLOTS = {"adamw": 2, "sgd": 0}  # float32 numbers an optimizer keeps for each trained weight


def size(bytes_: float) -> str:
    """Return a number of bytes in words."""
    return f"{bytes_ / 1e9:.2f} GB" if bytes_ >= 1e9 else f"{bytes_ / 1e6:.1f} MB"


def stash(gradients: int, activations: int) -> int:
    """Bytes that a second set of gradients takes beyond the activations: max(0, G − A_F).

    Activations are freed as gradients grow, and the gradients lie where they were.
    """
    return max(0, gradients - activations)


@dataclass(frozen=True)
class Footprint:
    """Bytes of a step of one process, in `parts` microbatches a phase, of `layers` blocks.

    retain, forget: activations of all rows of the batch; outside: the part of them that
    checkpointing keeps; line: θ₀ and u of a probe, 0 without one; bucket: float32 copies of a
    master; look: the probe's forward; host: the start model's outputs on the rows, on the host.
    """

    weights: int
    gradients: int
    optimizer: int
    retain: int
    forget: int
    outside: float
    layers: int
    line: int
    bucket: int = 0
    look: int = 0
    parts: int = 1
    host: int = 0
    memory: str = "swap"
    checkpointing: bool = False

    def peak(self) -> int:
        """Return the peak memory of a step, in bytes."""
        G, several = self.gradients, self.parts > 1
        A_R, A_F = self._kept(self.retain), self._kept(self.forget)

        def phase(A: int) -> int:
            return A + (G if several else stash(G, A))

        probe = self.line + max(self.bucket, self.look // self.parts) if self.line else 0
        F = G + (A_F if self.memory == "recompute" else phase(A_F))
        return self.weights + self.optimizer + max(phase(A_R), F, G + self.bucket, probe)

    def _kept(self, whole: int) -> int:
        """Activations of one microbatch.

        With checkpointing: what lies outside the blocks, and one block at a time.
        """
        one = whole / self.parts
        block = (1 - self.outside) / self.layers
        return round(one * (self.outside + block) if self.checkpointing else one)

    def __str__(self) -> str:
        A = max(self._kept(self.retain), self._kept(self.forget))
        return (
            f"{size(self.peak())}: weights {size(self.weights)}, "
            f"optimizer {size(self.optimizer)}, gradients {size(self.gradients)} each, "
            f"activations {size(A)}, memory={self.memory}"
            + (f"; {size(self.host)} of the host for the start's values" if self.host else "")
        )

    def fitting(self, limit: int, rows: int) -> list[str]:
        """Settings that need at most `limit` bytes, in words, the least costly first.

        rows: of a batch.
        """
        found = []
        twice = (True,) if self.checkpointing else (False, True)
        choices = itertools.product(twice, ("swap", "recompute"), _parts(self.parts, rows))
        for cheap, memory, parts in choices:
            other = replace(self, memory=memory, checkpointing=cheap, parts=parts)
            if other != self and other.peak() <= limit:
                words = [f"--micro {-(-rows // parts)}"] if parts != self.parts else []
                words += [f"--memory {memory}"] if memory != self.memory else []
                words += ["--checkpointing"] if other.checkpointing != self.checkpointing else []
                found.append((len(words), parts, f"{' '.join(words)} ({size(other.peak())})"))
        return [words for _, _, words in sorted(found)[:3]]


def _parts(now: int, rows: int) -> list[int]:
    more = [now * 2**k for k in range(12) if now * 2**k < rows]
    return [*more, rows] if rows > now else [now]


def planned(
    trained: int,
    frozen: int = 0,
    precision: str = "bfloat16",
    optimizer: str = "adamw",
    activations: float = 0.0,
    memory: str = "swap",
    adapter: bool = False,
) -> Footprint:
    """Return the estimate for so many weights, before there is a model.

    activations: bytes that a batch keeps, the same for both phases, as they are held (with
    checkpointing fewer). adapter: what is trained is float32 whatever the precision. The float32
    copies that an update in bfloat16 makes, and a probe, are left out.
    """
    width = WIDTH[precision]
    return Footprint(
        weights=EXACT * trained + width * frozen,
        gradients=trained * (WIDTH["float32"] if adapter else width),
        optimizer=WIDTH["float32"] * SLOTS[optimizer] * trained,
        retain=round(activations),
        forget=round(activations),
        outside=1.0,
        layers=1,
        line=0,
        memory=memory,
    )
