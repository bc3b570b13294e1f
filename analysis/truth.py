"""A ground-truth mask that the visitor gives, to compare with."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from wsss import UNLABELLED, UserError
from wsss.data.item import read_mask
from wsss.data.voc import voc_values


def read_truth(path: Path, classes: Sequence[str], size: tuple[int, int]) -> np.ndarray:
    """A mask file in the classes' own indices, (H, W) uint8 of `size`, 255 unlabelled.

    VOC's indices where the classes are VOC's, as in all masks that this project writes; values of other classes are
    background.

    Raises:
        UserError: it is not an index mask, or has not the photograph's proportions.
    """
    try:
        raw = read_mask(path)
    except UserError as error:
        raise UserError(f"this mask cannot be used ({str(error).removeprefix(f'{path}: ')})") from None
    height, width = raw.shape
    if abs(width * size[0] - height * size[1]) > 0.02 * width * size[0]:
        raise UserError(f"this mask is {width}x{height} pixels, which are not the photograph's proportions")
    values = voc_values(tuple(classes)) or range(len(classes) + 1)
    mapping = np.zeros(256, np.uint8)
    mapping[UNLABELLED] = UNLABELLED
    for k, value in enumerate(values):
        mapping[value] = k
    return cv2.resize(mapping[raw], size[::-1], interpolation=cv2.INTER_NEAREST)
