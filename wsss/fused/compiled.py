"""What the kernels are made of: compilation, threads, the exponential, and the test whether they may be used."""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

try:
    import numba
except ImportError:  # everything is computed by plain PyTorch instead
    numba = None

ZERO, ONE = np.float32(0), np.float32(1)


def usable(*tensors: Tensor) -> bool:
    """Whether the kernels take these tensors: float32 in the CPU's memory, without a gradient, numba installed."""
    needs_gradient = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    fits = all(x.dtype == torch.float32 and x.device.type == "cpu" for x in tensors)
    return numba is not None and fits and not needs_gradient


def source_digest(folder: Path) -> str:
    """SHA-256 of the modules in a folder."""
    texts = (path.name.encode() + path.read_bytes() for path in sorted(folder.glob("*.py")))
    return hashlib.sha256(b"\0".join(texts)).hexdigest()


_DIGEST = source_digest(Path(__file__).parent)


def compiled(function: Callable) -> Callable:
    """Compiled when first called, then kept on disk where it can be. Sums may be fused; NaN keeps its meaning."""
    if numba is None:
        return function
    settings = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
    try:
        kernel = numba.njit(cache=True, **settings)(function)
    except RuntimeError:  # there is no folder to keep it in
        return numba.njit(**settings)(function)
    # numba looks for changes in the function's own file alone, and would keep what it has compiled into it of others.
    kernel._cache._cache_file._source_stamp = _DIGEST
    keep = kernel._cache.save_overload

    def keep_if_there_is_room(*compiled: object) -> None:
        with suppress(OSError):  # numba would have the caller fail, who writes nothing
            keep(*compiled)

    kernel._cache.save_overload = keep_if_there_is_room
    return kernel


_LEAST_CELLS = 2**20  # a thread must start and end: fewer numbers than these are done sooner without one


def shared(work: Callable[[int, int], object], rows: int, cells: int) -> list:
    """work(first, last) on equal parts of range(rows), one part a thread; what each part returned.

    `cells` is how many numbers the work reads.
    """
    threads = max(1, min(torch.get_num_threads(), rows, cells // _LEAST_CELLS))
    if threads == 1:
        return [work(0, rows)]
    bounds = [rows * i // threads for i in range(threads + 1)]
    parts = list(zip(bounds, bounds[1:], strict=False))
    with ThreadPoolExecutor(threads - 1) as pool:
        others = [pool.submit(work, *part) for part in parts[1:]]
        return [work(*parts[0]), *(other.result() for other in others)]


def array(x: Tensor) -> np.ndarray:
    """The tensor's numbers, one after another."""
    return x.detach().contiguous().numpy()


@compiled
def exp(x):
    """e^x for x <= 0, within 3e-7 of it and 1 at 0; below e^-80 it stays there. LLVM vectorises it.

    2^k times a polynomial of degree 5 in r = x - k log 2, the best one with value 1 at 0 by relative error.
    """
    x = x if x > np.float32(-80) else np.float32(-80)
    # Adding 1.5 * 2^23 rounds to a whole number and leaves it in the lowest bits.
    shifted = x * np.float32(1.44269504088896341) + np.float32(12582912)
    power = shifted - np.float32(12582912)
    r = x - power * np.float32(0.693359375) + power * np.float32(2.12194440e-4)
    p = np.float32(8.312501432e-3)
    p = p * r + np.float32(4.189033218e-2)
    p = p * r + np.float32(1.666711539e-1)
    p = p * r + np.float32(4.99992303e-1)
    p = p * r + ONE
    p = p * r + ONE
    bits = np.float32(p).view(np.int32) + np.int32(np.float32(shifted).view(np.int32) << 23)
    return np.int32(bits).view(np.float32)
