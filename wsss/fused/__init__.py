"""The fused CPU kernels: pixel refinement, self-information, region loss, and the gradient of depthwise convolutions.

Each repeats what `refinement`, `shape_cue`, `losses` or torch itself states in plain PyTorch, which is its oracle and
takes its place where `usable` says no. Inner loops run along a row and store into one array or two, so that LLVM
vectorises them. Weights lie as (photograph, row, neighbour, column): a step of Eq. 6 reads memory from end to end.

Threads are Python's own, as many as torch's, and only for the time of a call: the kernels hold no lock of the
interpreter, any number of callers may run side by side, and a forked process lacks no pool. numba's own threads allow
neither.
"""

from wsss.fused.compiled import usable
from wsss.fused.depthwise import DepthwiseConvolution
from wsss.fused.information import self_information
from wsss.fused.refinement import affinity, kernel, refine, spread
from wsss.fused.regions import RegionPairs

__all__ = [
    "DepthwiseConvolution",
    "RegionPairs",
    "affinity",
    "kernel",
    "refine",
    "self_information",
    "spread",
    "usable",
]
