"""Which number format the network computes in."""

import time
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F


def fastest_precision(device: torch.device) -> str:
    """The name of the fastest format that trains safely on the device: float32, bfloat16 or float16."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float16"
    # Processors without bfloat16 instructions emulate them at a loss, so it is measured, not asked.
    return "bfloat16" if _seconds(torch.bfloat16) < 0.8 * _seconds(torch.float32) else "float32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """The context in which the network computes in that format."""
    return nullcontext() if precision == "float32" else torch.autocast(device.type, getattr(torch, precision))


def _seconds(dtype: torch.dtype) -> float:
    x = torch.zeros(4, 64, 56, 56, dtype=dtype).to(memory_format=torch.channels_last)
    weight = torch.zeros(64, 64, 3, 3, dtype=dtype)
    F.conv2d(x, weight)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        F.conv2d(x, weight)
        times.append(time.perf_counter() - start)
    return min(times)
