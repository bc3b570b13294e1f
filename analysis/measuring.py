"""Seconds and bytes of our work and of a peer's: in turn, so that a busy machine slows both. The ratio counts."""

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Row:
    """One line of the table; `ours` and `theirs` in `unit`, the ratio is what the target speaks of."""

    work: str
    ours: float
    peer: str
    theirs: float
    unit: str
    ratio: float
    target: str
    met: bool


def alternating(
    ours: Callable[[], object], theirs: Callable[[], object], pairs: int = 5, *, compiles: bool = True
) -> tuple[float, float]:
    """Median seconds of each, called in turn; what a call has left a GPU to do belongs to it.

    Args:
        compiles: ours may have to be compiled, by a call that does not count.
    """
    mine, others = np.median(in_turn(ours, theirs, pairs, compiles=compiles), axis=0)
    return float(mine), float(others)


def in_turn(
    ours: Callable[[], object], theirs: Callable[[], object], pairs: int, *, compiles: bool = True
) -> np.ndarray:
    """Seconds of both, pair by pair, (pairs, 2); arguments as in `alternating`."""
    if compiles:
        _seconds(ours)
    return np.array([(_seconds(ours), _seconds(theirs)) for _ in range(pairs)])


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def peak_bytes(work: Callable[[], object]) -> int:
    """What `work` adds to the resident memory at its highest; 0 where the system does not tell (Linux does)."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        return 0

    def kilobytes(name: str) -> int:
        return int(next(line.split()[1] for line in status.read_text().splitlines() if line.startswith(name)))

    ctypes.CDLL(None).malloc_trim(0)  # what was freed before would be taken again, unseen
    reset.write_text("5")
    before = kilobytes("VmRSS")
    work()
    return max(0, kilobytes("VmHWM") - before) * 1024


def bandwidth(megabytes: int = 400) -> Callable[[], object]:
    """A copy that moves twice as many bytes."""
    source = torch.ones(megabytes * 250_000)
    target = torch.empty_like(source)
    return lambda: target.copy_(source)


def at_least(work: str, ours: float, peer: str, theirs: float, target: float) -> Row:
    """How many times faster we are, in milliseconds."""
    ratio = theirs / ours
    return Row(work, 1e3 * ours, peer, 1e3 * theirs, "ms", ratio, f"at least {target:g} times faster", ratio >= target)


def at_most(work: str, ours: float, peer: str, theirs: float, target: float, unit: str = "ms") -> Row:
    """Our share of the peer's."""
    scale = 1e3 if unit == "ms" else 1e-6
    ratio = ours / theirs
    return Row(work, scale * ours, peer, scale * theirs, unit, ratio, f"at most {target:g} of it", ratio <= target)


def at_least_in_rate(work: str, ours: float, peer: str, theirs: float, target: float) -> Row:
    """How many times more images a second."""
    ratio = ours / theirs
    return Row(work, ours, peer, theirs, "images/s", ratio, f"at least {target:g} times faster", ratio >= target)


def on(device: torch.device) -> str:
    """What the name of a piece of work says of where it is done; nothing of the CPU."""
    return "" if device == CPU else f", on {torch.cuda.get_device_name(device)}"
