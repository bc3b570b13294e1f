"""Photographs reduced to a short side."""

import cv2
import numpy as np

from wsss.data.item import Source


class Reduced:
    """A source reduced to a short side; its photographs are kept in memory once decoded, if asked for."""

    def __init__(self, source: Source, short_side: int, cache: bool) -> None:
        self.source, self.short_side = source, short_side
        self.classes, self.names, self.labels = source.classes, source.names, source.labels
        self._kept: dict[int, np.ndarray] | None = {} if cache else None

    def __len__(self) -> int:
        return len(self.source)

    def rgb(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8."""
        if self._kept is not None and index in self._kept:
            return self._kept[index]
        rgb = reduce(self.source.rgb(index), self.short_side)
        if self._kept is not None:
            self._kept[index] = rgb
        return rgb

    def mask(self, index: int) -> np.ndarray | None:
        """(H, W) uint8 at the size of `rgb`, or None."""
        mask = self.source.mask(index)
        if mask is None:
            return None
        height, width = reduced_size(mask.shape, self.short_side)
        return cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)


def reduce(rgb: np.ndarray, short_side: int) -> np.ndarray:
    """Shrink a picture so that its short side is at most `short_side`; 0 leaves it."""
    height, width = reduced_size(rgb.shape[:2], short_side)
    if (height, width) == rgb.shape[:2]:
        return rgb
    return cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)


def reduced_size(size: tuple[int, int], short_side: int) -> tuple[int, int]:
    """The (height, width) that `reduce` gives a picture of `size`."""
    if short_side == 0 or min(size) <= short_side:
        return size
    scale = short_side / min(size)
    return round(size[0] * scale), round(size[1] * scale)
