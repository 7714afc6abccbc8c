"""The disk space that a run of `ngdiff unlearn` takes, estimated before its first step.

Checkpoint, model and all temporary files lie in the folder that holds OUT. The most is there in one
of two moments: while a checkpoint is written beside the one before it, or the model beside the last
one.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from ngdiff.commands.claim import CHECKPOINT
from ngdiff.commands.job import Job
from ngdiff.engine.footprint import EXACT, SLOTS, size
from ngdiff.lm.model import LM
from ngdiff.store.disk import FullDiskError

BESIDE = 1 << 20  # bytes of report, card and run.json
STEP, TENSOR = 600, 2000  # bytes that a checkpoint says of a step, and of a trained tensor


@dataclass(frozen=True)
class Space:
    """Bytes. checkpoint, out: of one each. copies: checkpoints that lie there at the same time.
    there: of a checkpoint that an earlier process left.
    """

    checkpoint: int
    copies: int
    out: int
    there: int = 0

    @property
    def needed(self) -> int:
        """Return what must be free."""
        kept = self.checkpoint * min(self.copies, 1)
        most = max(self.checkpoint * self.copies, kept + self.out)
        return max(most - self.there, self.out)

    def __str__(self) -> str:
        parts = f"model {size(self.out)}"
        if self.copies:
            many = f"{self.copies} checkpoints of" if self.copies > 1 else "checkpoint"
            parts = f"{many} {size(self.checkpoint)}, {parts}"
        return f"up to {size(self.needed)} of disk ({parts})"


def space(job: Job, lm: LM, origin: Path | None) -> Space:
    """Return the estimate. origin: the folder of the user's model, where it is known."""
    moving = [p.numel() for p in lm.model.parameters() if p.requires_grad]
    buffers = sum(x.numel() * x.element_size() for x in lm.model.buffers())
    history = STEP * job.steps
    said = history + TENSOR * len(moving)
    one = sum(moving) * (EXACT + 4 * SLOTS[job.optimizer]) + buffers + said
    copies = min(job.steps // job.save_every, 2) if job.save_every else 0
    if job.lora is not None or origin is None:
        weights = sum(p.numel() for p in lm.model.parameters() if p.requires_grad or not lm.adapted)
        out = weights * EXACT
    else:
        out = _bytes(origin, "*.safetensors")
    out += _bytes(origin, "*.json", "*.model", "*.txt", "*.md") if origin is not None else 0
    there = _bytes(job.work, CHECKPOINT)
    return Space(one, copies, out + history + BESIDE, there)


def _bytes(folder: Path, *patterns: str) -> int:
    """Return the bytes of the files in a folder that match one of the patterns."""
    return sum(path.stat().st_size for pattern in patterns for path in folder.glob(pattern))


def check(job: Job, needed: Space) -> None:
    """Error: FullDiskError where less is free than the run needs."""
    folder = job.folder.parent
    free = shutil.disk_usage(folder).free
    if free >= needed.needed:
        return
    less = Space(needed.checkpoint, 0, needed.out).needed
    advice = f", or give --save-every 0, which needs {size(less)}" if less <= free else ""
    raise FullDiskError(
        f"the run takes {needed}, and {size(free)} is free at {folder}: free some space, choose "
        f"--out on another disk{advice}"
    )
