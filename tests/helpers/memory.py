"""What a piece of code takes, measured."""

from __future__ import annotations

import itertools

import torch


def peak_bytes(run):
    """The most bytes alive at once beyond the start, from the allocator's own events."""
    cpu = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=cpu, profile_memory=True) as recorded:
        run()
    events = [e for e in recorded.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(itertools.accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())))
