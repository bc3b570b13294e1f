"""Two masks of one photograph side by side, and over many photographs where they differ most (Fig. 7, Table 5)."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from wsss import UNLABELLED
from wsss.metrics import class_iou, confusion, mean_iou

DIFFERENCES = {
    "both background": (70, 70, 70),
    "agree on the object": (170, 170, 170),
    "only left": (230, 130, 20),
    "only right": (40, 130, 230),
    "different objects": (210, 40, 160),
    "unlabelled in one or both": (120, 110, 60),
}
"""What can be the case at a pixel, and its color in the difference map."""


@dataclass(frozen=True)
class Comparison:
    """How two masks (H, W) of one photograph differ."""

    iou: np.ndarray  # (K,) of the left with the right, where both name a class; NaN for a class in neither
    mean: float  # over the classes in either
    difference: np.ndarray  # (H, W) uint8, index into DIFFERENCES

    @property
    def picture(self) -> np.ndarray:
        """The difference map, (H, W, 3) uint8."""
        return np.array(list(DIFFERENCES.values()), np.uint8)[self.difference]

    @property
    def shares(self) -> dict[str, float]:
        """The share of the pixels of each kind in DIFFERENCES."""
        counts = np.bincount(self.difference.ravel(), minlength=len(DIFFERENCES))
        return dict(zip(DIFFERENCES, (counts / self.difference.size).tolist(), strict=True))


def compare(left: np.ndarray, right: np.ndarray, num_classes: int) -> Comparison:
    """Compare two masks (H, W) of indices in [0, K) or 255.

    Raises:
        ValueError: their shapes differ, or a value is neither a class nor 255.
    """
    counts = confusion(left, right, num_classes)
    in_left, in_right, same = left > 0, right > 0, left == right
    kinds = [same & ~in_left, same, in_left & ~in_right, in_right & ~in_left, in_left & in_right]
    # First, as the IoU leaves these out: an unlabelled pixel neither agrees nor disagrees.
    unlabelled = (left == UNLABELLED) | (right == UNLABELLED)
    difference = np.select([unlabelled, *kinds], [len(kinds), *range(len(kinds))])
    return Comparison(class_iou(counts), mean_iou(counts), difference.astype(np.uint8))


def renumbered(mask: np.ndarray, classes: Sequence[str], common: Sequence[str]) -> np.ndarray:
    """A mask whose indices mean `classes`, with indices that mean `common`; classes that are not in it are unlabelled.

    For checkpoints that know different classes; `common` may be `in_common` of theirs.
    """
    table = np.full(256, UNLABELLED, np.uint8)
    table[0] = 0
    for k, name in enumerate(classes, 1):
        if name in common:
            table[k] = 1 + list(common).index(name)
    return table[mask]


def in_common(left: Sequence[str], right: Sequence[str]) -> list[str]:
    """The classes that both know, in the order of the left."""
    return [name for name in left if name in right]


def least_alike_first(
    photographs: Iterable[tuple[str, np.ndarray]],
    left: Callable[[np.ndarray], np.ndarray],
    right: Callable[[np.ndarray], np.ndarray],
    classes: Sequence[str],
) -> Iterator[pd.DataFrame]:
    """After each photograph the table of all so far, those on which the two masks agree least first.

    Args:
        photographs: names and rgb (H, W, 3) uint8.
        left, right: make a mask (H, W) of a photograph.
        classes: of the masks, without background.

    Yields:
        Columns photograph, IoU, one for each kind in DIFFERENCES.
    """
    lines = []
    for name, rgb in photographs:
        seen = compare(left(rgb), right(rgb), len(classes) + 1)
        lines.append({"photograph": name, "IoU": seen.mean} | seen.shares)
        yield pd.DataFrame(lines).sort_values("IoU", kind="stable", ignore_index=True)
