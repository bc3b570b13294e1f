"""The neighbours of a pixel as compiled code takes them."""

from collections.abc import Iterator, Sequence

import numpy as np

from wsss.fused.compiled import compiled


class Neighborhood:
    """The offsets of a pixel's neighbours as the compiled code takes them: an array, and how far they reach."""

    def __init__(self, offsets: Sequence[tuple[int, int]]) -> None:
        self.offsets = np.array(offsets, np.int64)
        self.reach = int(np.abs(self.offsets).max())

    def __iter__(self) -> Iterator:
        return iter((self.offsets, self.reach))

    def padded(self, x: np.ndarray) -> np.ndarray:
        """x (..., H, W) with the border continued as far as any neighbour looks."""
        reach = self.reach
        out = np.empty((*x.shape[:-2], x.shape[-2] + 2 * reach, x.shape[-1] + 2 * reach), x.dtype)
        continue_border(x.reshape(-1, *x.shape[-2:]), reach, out.reshape(-1, *out.shape[-2:]))
        return out

    def inner(self, padded: np.ndarray) -> np.ndarray:
        """Without the border: a view."""
        height, width = padded.shape[-2:]
        return padded[..., self.reach : height - self.reach, self.reach : width - self.reach]


@compiled
def continue_border(x, reach, out):
    """x (P, H, W) amid out (P, H + 2 reach, W + 2 reach), which continues it; numpy.pad takes several times as long."""
    height, width = x.shape[1:]
    for p in range(len(x)):
        for y in range(height):
            row = out[p, reach + y]
            row[:reach] = x[p, y, 0]
            row[reach : reach + width] = x[p, y]
            row[reach + width :] = x[p, y, width - 1]
        for k in range(reach):
            out[p, k] = out[p, reach]
            out[p, reach + height + k] = out[p, reach + height - 1]
