"""What a step is measured by: seconds, bytes, reads by the host, model FLOPs.

Nothing here knows what the step does.

On a CPU: CPU time of this process, bytes from the allocator's own events, reads from torch's
function calls. On CUDA: device events, the caching allocator's statistics, and the warnings of its
synchronisation debug mode.
"""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

# dense FLOP/s of bfloat16 and float32 (no TF32), by the first of these in the device's name
TOPS = {
    "B200": (2250e12, 80e12),
    "H200": (989e12, 67e12),
    "H100 PCIe": (756e12, 51e12),
    "H100 NVL": (835e12, 60e12),
    "H100": (989e12, 67e12),
    "A100": (312e12, 19.5e12),
    "L40S": (362e12, 91.6e12),
    "RTX 4090": (165e12, 82.6e12),
}
CLOCK = {"cpu": "CPU time, one thread", "cuda": "device events"}
READS_BY = {"cpu": "torch function calls", "cuda": "synchronisation warnings"}
READING = (
    "item",
    "tolist",
    "numpy",
    "nonzero",
    "__bool__",
    "__float__",
    "__int__",
    "__index__",
    "__array__",
)


# ------------------------------------------------------------------------------------------ seconds
def timed(step: Callable[[], Any], device: str) -> Callable[[], float]:
    """Run `step`; give its seconds when asked.

    They are CPU time, or the time between two device events (ask after `settle`).
    """
    if device != "cuda":
        began = time.process_time()
        step()
        took = time.process_time() - began
        return lambda: took
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    step()
    last.record()
    return lambda: first.elapsed_time(last) / 1e3


def settle(device: str) -> None:
    """Wait until the device has done all it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def upper95(ratios: Sequence[float]) -> float:
    """Upper end of the 95 % interval of the median: percentile bootstrap, 9999 resamples."""
    drawn = np.random.default_rng(0).choice(np.asarray(ratios), (9999, len(ratios)))
    return float(np.quantile(np.median(drawn, axis=1), 0.975))


# -------------------------------------------------------------------------------------------- bytes
def allocated(run: Callable[[], Any], device: str) -> tuple[int, int]:
    """Bytes on top of those before `run`: the most that were alive, and those its result keeps."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        result = run()
        torch.cuda.synchronize()
        most, left = torch.cuda.max_memory_allocated(), torch.cuda.memory_allocated()
        del result
        return most - before, left - before
    with torch.autograd.profiler.profile(use_kineto=True, profile_memory=True) as profile:
        result = run()
    del result
    kineto: Any = profile.kineto_results  # raw: to parse all events takes longer than the run
    events = [e for e in kineto.events() if e.name() == "[memory]"]
    events.sort(key=lambda e: e.start_ns())
    alive = list(itertools.accumulate((e.nbytes() for e in events), initial=0))
    return max(alive), alive[-1]


# -------------------------------------------------------------------------------------------- reads
class _Host(torch.Tensor):
    """A tensor known to be on the host: reading it costs nothing."""


class _Reads(TorchFunctionMode):
    """Counts device→host reads as if every tensor lived on a device."""

    count = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, out = getattr(func, "__name__", ""), func(*args, **(kwargs or {}))
        if name == "cpu":
            self.count, out = self.count + 1, out.as_subclass(_Host)
        elif name in READING and not isinstance(args[0], _Host):
            self.count += 1
        return out


def reads(run: Callable[[], Any], device: str) -> int:
    """Return how often the host waited for a number.

    On CUDA every call that made it wait counts, blocking copies to the device too. On a CPU those
    calls count that would read if its tensors lived on a device.
    """
    if device != "cuda":
        with _Reads() as seen:
            run()
        return seen.count
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            run()
        finally:
            torch.cuda.set_sync_debug_mode(mode)
    return sum("called a synchronizing" in str(w.message) for w in caught)


# -------------------------------------------------------------------------------------------- FLOPs
def flops(model: Any, tokens: int, length: int) -> float:
    """Model FLOPs of a forward and backward over `tokens` tokens in rows of `length`:

        tokens · (6·N + 4·N₀ + 12·L·h·length)

    N: trained weights, N₀: frozen ones, which need no gradient of their own. The output layer
    counts, tied or not; the look-up of the input embedding does not. L layers of width h attend to
    whole rows (Chowdhery et al. 2022, arXiv 2204.02311, appendix B). What checkpointing or a memory
    mode computes twice is no model FLOP.
    """
    table, config = model.get_input_embeddings().weight, model.config
    tied = table is model.get_output_embeddings().weight
    weights = [p for p in model.parameters() if p is not table or tied]
    N = sum(p.numel() for p in weights if p.requires_grad)
    N_0 = sum(p.numel() for p in weights) - N
    attention = 12.0 * config.num_hidden_layers * config.hidden_size * length
    return tokens * (6.0 * N + 4.0 * N_0 + attention)


def top(name: str, precision: str) -> float | None:
    """FLOP/s of a device by its name, dense; None for one that is not in TOPS."""
    speeds = (found for part, found in TOPS.items() if part in name)
    return next(speeds, (None, None))[precision == "float32"]
