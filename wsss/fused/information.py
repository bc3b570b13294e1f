"""Self-information (Eq. 3), row by row; its oracle is `wsss.shape_cue.self_information`."""

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from wsss.fused.compiled import ZERO, array, compiled, exp, shared
from wsss.fused.neighborhood import Neighborhood, continue_border


def self_information(image: Tensor, offsets: Sequence[tuple[int, int]], *, patch: int, bandwidth: float) -> Tensor:
    """`shape_cue.self_information` in absolute units: (B, C, H, W) -> (B, 1, H, W)."""
    near, images = Neighborhood(offsets), array(image)
    batch, _, height, width = image.shape
    out = np.empty((batch, 1, height, width), np.float32)
    scale = np.float32(0.5 / bandwidth**2)
    shared(partial(_information_rows, images, *near, patch, scale, out), batch * height, out.size * len(offsets))
    return torch.from_numpy(out)


@compiled
def _information_rows(images, offsets, reach, patch, scale, out, first, last):
    """Rows of images (B, C, H, W) -> out (B, 1, H, W)."""
    channels, height, width = images.shape[1:]
    margin = reach + patch // 2
    padded = np.empty((channels, height + 2 * margin, width + 2 * margin), np.float32)
    count, wide = len(offsets), width + patch - 1
    squares = np.empty((patch, count, wide), np.float32)  # of differences; the patch's rows take turns in it
    column = np.empty(wide, np.float32)
    distance = np.empty((count, width), np.float32)
    least, total = np.empty(width, np.float32), np.empty(width, np.float32)
    for i in range(first, last):
        b, y = i // height, i % height
        is_new = y == 0 or i == first
        if is_new:
            continue_border(images[b], margin, padded)
        for k in range(0 if is_new else patch - 1, patch):  # the patch above had the others too
            _square_row(padded, offsets, reach, y + k, squares[(y + k) % patch])
        least[:], total[:] = np.float32(np.inf), ZERO
        for n in range(count):
            row = distance[n]
            column[:], row[:] = ZERO, ZERO
            for k in range(patch):
                _add(column, squares[k, n])
            for k in range(patch):
                _add(row, column[k : k + width])
            for x in range(width):
                least[x] = row[x] if row[x] < least[x] else least[x]
        for n in range(count):
            row = distance[n]
            for x in range(width):
                total[x] += exp((least[x] - row[x]) * scale)
        for x in range(width):
            value = least[x] * scale + np.float32(math.log(np.float32(count) / total[x]))
            out[b, 0, y, x] = ZERO if value < ZERO else value


@compiled
def _square_row(padded, offsets, reach, y, out):
    """Squared differences to each neighbour along row y, summed over channels: (C, ...) -> out (N, W + patch - 1)."""
    wide = out.shape[1]
    for n in range(len(offsets)):
        left, row = reach + offsets[n, 1], out[n]
        row[:] = ZERO
        for c in range(len(padded)):
            here = padded[c, reach + y, reach : reach + wide]
            there = padded[c, reach + y + offsets[n, 0], left : left + wide]
            for x in range(wide):
                difference = there[x] - here[x]
                row[x] += difference * difference


@compiled
def _add(total, values):
    for x in range(len(total)):
        total[x] += values[x]
