"""Masks as files: palette pictures, pictures of them over their photographs, and the probabilities behind them."""

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from wsss import UNLABELLED, UserError
from wsss.data.voc import VOC_PALETTE, mask_values
from wsss.disk import replacing

_OPACITY = 0.6


def palette_picture(mask: np.ndarray, classes: tuple[str, ...]) -> Image.Image:
    """A mask (H, W) of class indices as a palette picture; VOC's indices where the classes are VOC's."""
    table, values = np.full(256, UNLABELLED, np.uint8), mask_values(classes)
    table[: len(values)] = values
    picture = Image.fromarray(table[mask], mode="P")
    picture.putpalette(VOC_PALETTE.tobytes())
    return picture


def save_mask(path: Path, mask: np.ndarray, classes: tuple[str, ...]) -> None:
    """Write a mask as `palette_picture` makes it, a PNG. Raises Unwritable; what was there before then still stands."""
    with replacing(path) as temporary:
        palette_picture(mask, classes).save(temporary, format="PNG")


def save_overlay(path: Path, rgb: np.ndarray, mask: np.ndarray, classes: tuple[str, ...]) -> None:
    """Write a mask over its photograph as `overlaid` draws it, a PNG; errors as in `save_mask`."""
    with replacing(path) as temporary:
        Image.fromarray(overlaid(rgb, mask, classes)).save(temporary, format="PNG")


def save_probs(path: Path, probs: np.ndarray, classes: tuple[str, ...]) -> None:
    """Write probabilities (K, H, W) and the K names of their classes, background first; errors as in `save_mask`.

    `numpy.load` reads it: arrays `probs` and `classes`.
    """
    with replacing(path) as temporary, temporary.open("wb") as file:  # by a name, numpy would add its own ending
        np.savez_compressed(file, probs=probs, classes=["background", *classes])


def overlaid(rgb: np.ndarray, mask: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """The photograph (H, W, 3) uint8 with a mask (H, W) of class indices in VOC's colors; the background stays."""
    values = mask_values(classes)
    colors = VOC_PALETTE[list(values)].astype(np.float32)
    mixed = rgb + _OPACITY * (mask > 0)[..., None] * (colors[mask] - rgb)
    return mixed.round().clip(0, 255).astype(np.uint8)


def require_apart(written: Iterable[Path], given: Iterable[Path]) -> None:
    """Raises UserError where a file to be written would replace one that was given, by whatever path to it."""
    kept = set(map(os.path.realpath, given))  # unlike Path.resolve it takes links that lead in a circle
    for path in written:
        if os.path.realpath(path) in kept:
            raise UserError(f"{path}: is one of the given files, which would be replaced; choose another folder")
