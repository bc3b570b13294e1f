"""A ground-truth mask that the visitor gives, to compare with."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from wsss import UNLABELLED, UserError
from wsss.data.picture import class_indices, read_mask
from wsss.data.voc import mask_values


def read_truth(path: Path, classes: Sequence[str], size: tuple[int, int]) -> np.ndarray:
    """A mask file in the classes' own indices, (H, W) uint8 of `size`, 255 unlabelled. Raises UserError."""
    return in_classes(read_values(path, size), classes)


def read_values(path: Path, size: tuple[int, int]) -> np.ndarray:
    """The values of a mask file, (H, W) uint8 of `size`, for `in_classes`.

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
    return cv2.resize(raw, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)


def in_classes(values: np.ndarray, classes: Sequence[str]) -> np.ndarray:
    """The values (H, W) uint8 of a mask file as the classes' own indices, 255 unlabelled.

    They are VOC's indices where the classes are VOC's, as in all masks that this project writes; values of other
    classes are background.
    """
    return class_indices(values, mask_values(classes))


def doubt(values: np.ndarray, classes: Sequence[str]) -> str | None:
    """Why a mask file of these values may not be what was meant: it has no object of these classes. None: it has."""
    if np.isin(values, mask_values(classes)[1:]).any():
        return None
    held = [str(value) for value in np.unique(values) if value != UNLABELLED]
    wanted = ", ".join(f"{name} {value}" for name, value in zip(classes, mask_values(classes)[1:], strict=True))
    return (
        f"this mask shows no object of the checkpoint's: it holds {', '.join(held[:8]) or 'no value'} and, "
        f"unlabelled, {UNLABELLED}, where an object has the value of its class ({wanted[:200]})"
    )
