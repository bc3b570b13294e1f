"""Self-information (Eq. 3), row by row; its oracle is `wsss.shape_cue.self_information`."""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from wsss.fused.compiled import ZERO, array, compiled, exp, shared
from wsss.fused.neighborhood import Neighborhood


def self_information(image: Tensor, offsets: Sequence[tuple[int, int]], *, patch: int, bandwidth: float) -> Tensor:
    """`shape_cue.self_information` in absolute units: (B, C, H, W) -> (B, 1, H, W)."""
    near = Neighborhood(offsets)
    batch, _, height, width = image.shape
    padded = near.padded(array(image), patch // 2)
    out = np.empty((batch, 1, height, width), np.float32)
    scale = np.float32(0.5 / bandwidth**2)
    shared(partial(_information_rows, padded, *near, patch, scale, out), batch * height, out.size * len(offsets))
    return torch.from_numpy(out)


@compiled
def _information_rows(padded, offsets, reach, patch, scale, out, first, last):
    """Rows of padded (B, C, H + 2 margin, W + 2 margin), margin = reach + patch // 2, -> out (B, 1, H, W)."""
    _, _, height, width = out.shape
    count, wide = len(offsets), width + patch - 1
    column = np.empty(wide, np.float32)  # squared differences, summed over channels and the patch's rows
    distance = np.empty((count, width), np.float32)
    least, total = np.empty(width, np.float32), np.empty(width, np.float32)
    for i in range(first, last):
        b, y = i // height, i % height
        least[:], total[:] = np.float32(np.inf), ZERO
        for n in range(count):
            column[:] = ZERO
            left = reach + offsets[n, 1]
            for c in range(padded.shape[1]):
                for k in range(patch):
                    here = padded[b, c, reach + y + k, reach : reach + wide]
                    there = padded[b, c, reach + y + k + offsets[n, 0], left : left + wide]
                    for x in range(wide):
                        difference = there[x] - here[x]
                        column[x] += difference * difference
            row = distance[n]
            row[:] = ZERO
            for k in range(patch):
                shifted = column[k : k + width]
                for x in range(width):
                    row[x] += shifted[x]
            for x in range(width):
                least[x] = row[x] if row[x] < least[x] else least[x]
        for n in range(count):
            row = distance[n]
            for x in range(width):
                total[x] += exp((least[x] - row[x]) * scale)
        for x in range(width):
            value = least[x] * scale + np.float32(math.log(np.float32(count) / total[x]))
            out[b, 0, y, x] = ZERO if value < ZERO else value
