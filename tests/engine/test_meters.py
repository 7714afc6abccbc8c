"""What a step is measured by: seconds, bytes, reads, FLOP/s, on a CPU and on a device."""

from __future__ import annotations

import warnings

import pytest
import torch

from ngdiff.engine import meters


def test_tops_of_known_devices():
    assert (
        meters.top("NVIDIA H100 80GB HBM3", "bfloat16")
        == meters.top("NVIDIA H200", "bfloat16")
        == 989e12
    )
    assert (
        meters.top("NVIDIA A100-SXM4-80GB", "float32") == 19.5e12
        and meters.top("NVIDIA H100 PCIe", "bfloat16") == 756e12
    )
    assert meters.top("cpu", "float32") is None


def test_reads_are_counted_and_what_is_on_the_host_is_free():
    x = torch.ones(3)
    assert (
        meters.reads(
            lambda: [x.sum().item(), x.tolist(), bool(x[0]), float(x[0]), (x.cpu() * 2).tolist()],
            "cpu",
        )
        == 5
    )


def test_allocated_bytes_by_hand():
    def run():
        a = torch.ones(1000)
        b = a + 1
        return b + 1  # three alive at once, one left

    most, left = meters.allocated(run, "cpu")
    assert most == pytest.approx(12_000, abs=64) and left == 4000  # and the numbers 1


def test_upper_bound_of_a_median():
    assert meters.upper95([1.0] * 12) == 1.0
    values = [1 + i / 100 for i in range(31)]
    assert 1.15 < meters.upper95(values) < 1.30 and meters.upper95(values) == meters.upper95(values)


class FakeCuda:
    """What the meters ask of `torch.cuda`, in their order."""

    def __init__(self, patch):
        self.calls, self.now, self.held, self.mode = [], 0.0, 1000, 0
        names = (
            "synchronize",
            "reset_peak_memory_stats",
            "memory_allocated",
            "max_memory_allocated",
            "get_sync_debug_mode",
            "set_sync_debug_mode",
            "Event",
        )
        for name in names:
            patch.setattr(torch.cuda, name, getattr(self, name))

    def synchronize(self):
        self.calls.append("synchronize")

    def reset_peak_memory_stats(self):
        self.calls.append("reset")

    def memory_allocated(self):
        return self.held

    def max_memory_allocated(self):
        return 5000

    def get_sync_debug_mode(self):
        return self.mode

    def set_sync_debug_mode(self, mode):
        self.mode = mode

    def Event(self, enable_timing):
        outer = self

        class Event:
            def record(self):
                self.at = outer.now

            def elapsed_time(self, other):
                assert "synchronize" in outer.calls
                return 1e3 * (other.at - self.at)  # milliseconds

        return Event()


def test_meters_on_a_device(monkeypatch):
    cuda = FakeCuda(monkeypatch)
    took = meters.timed(lambda: setattr(cuda, "now", 0.25), "cuda")
    assert cuda.calls == []  # nothing waits within a round
    meters.settle("cuda")
    assert took() == 0.25
    assert meters.allocated(lambda: setattr(cuda, "held", 1700), "cuda") == (4000, 700)

    def step():
        assert cuda.mode == "warn"
        for text in (
            "called a synchronizing CUDA operation",
            "something else",
            "called a synchronizing CUDA operation",
        ):
            warnings.warn(text, stacklevel=1)

    assert meters.reads(step, "cuda") == 2 and cuda.mode == 0
