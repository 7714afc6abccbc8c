"""A device by its name, and the precision that suits it."""

from __future__ import annotations

import platform

import torch


def device_named(name: str) -> torch.device:
    """A device by torch's name; "auto" is CUDA where there is one.

    Errors: ValueError for a name unknown to torch, and for a device that this machine has
    not.
    """
    there = torch.cuda.is_available()
    try:
        device = torch.device(("cuda" if there else "cpu") if name == "auto" else name)
    except RuntimeError as error:
        raise ValueError(f"unknown device {name!r}: give auto, cpu, cuda or cuda:1") from error
    if device.type == "cuda" and not (there and (device.index or 0) < torch.cuda.device_count()):
        raise ValueError(
            f"device {name!r}: torch sees {torch.cuda.device_count()} CUDA devices here; give "
            "auto or cpu"
        )
    return device


def fast_bfloat16(device: torch.device) -> bool:
    """Return whether a device multiplies bfloat16 numbers in hardware.

    torch computes with them on any CPU, but on those that lack the instructions slower than in
    float32.
    """
    if device.type != "cpu":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    if platform.machine().lower() in ("arm64", "aarch64"):
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()


def precision_of(dtype: str, device: torch.device) -> str:
    """Return torch's name of a profile's dtype: of "auto" bfloat16 where it is fast, or float32."""
    if dtype != "auto":
        return dtype
    return "bfloat16" if fast_bfloat16(device) else "float32"
