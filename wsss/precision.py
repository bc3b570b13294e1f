"""Which number format the network computes in."""

import time
from functools import cache

import torch
import torch.nn.functional as F


@cache
def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The autocast format: the one asked for, or with "auto" the fastest that trains safely here; None is float32."""
    if precision != "auto":
        return None if precision == "float32" else getattr(torch, precision)
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    # Processors without bfloat16 instructions emulate them at a loss, so it is measured, not asked.
    return torch.bfloat16 if _seconds(torch.bfloat16) < 0.8 * _seconds(torch.float32) else None


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
