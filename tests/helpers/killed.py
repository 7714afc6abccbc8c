"""A script whose process is killed while it writes a checkpoint, with half of the file on disk."""

from __future__ import annotations

SCRIPT = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import torch; torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
from ngdiff.core import checkpoint

real, calls = checkpoint.save_file, []
def half(tensors, path, **kw):
    calls.append(path)
    real(tensors, path, **kw)
    if len(calls) == {at}:
        os.truncate(path, os.path.getsize(path) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
checkpoint.save_file = half
{run}
"""


def script(tests: str, run: str, at: int = 2) -> str:
    """Return the source: `run`, killed at the checkpoint of that number; tests: the checkout."""
    return SCRIPT.format(tests=tests, run=run, at=at)
