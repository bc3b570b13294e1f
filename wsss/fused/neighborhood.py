"""The neighbours of a pixel as compiled code takes them."""

from collections.abc import Iterator, Sequence

import numpy as np


class Neighborhood:
    """The offsets of a pixel's neighbours as the compiled code takes them: an array, and how far they reach."""

    def __init__(self, offsets: Sequence[tuple[int, int]]) -> None:
        self.offsets = np.array(offsets, np.int64)
        self.reach = int(np.abs(self.offsets).max())

    def __iter__(self) -> Iterator:
        return iter((self.offsets, self.reach))

    def padded(self, x: np.ndarray, margin: int = 0) -> np.ndarray:
        """x (..., H, W) with the border continued as far as any neighbour looks, and `margin` farther."""
        reach = self.reach + margin
        return np.pad(x, [(0, 0)] * (x.ndim - 2) + [(reach, reach)] * 2, mode="edge")

    def inner(self, padded: np.ndarray) -> np.ndarray:
        """Without the border: a view."""
        height, width = padded.shape[-2:]
        return padded[..., self.reach : height - self.reach, self.reach : width - self.reach]
