"""Training views: crops of photographs, each a pure function of (seed, epoch, index)."""

import math
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch.utils.data import Dataset

from wsss import UNLABELLED, UserError
from wsss.data.item import Source, item


class View(NamedTuple):
    """One training sample; batches carry a leading B."""

    image: torch.Tensor  # (3, S, S) uint8
    labels: torch.Tensor  # (K-1,) float32
    mask: torch.Tensor  # (S, S) uint8, all unlabelled where masks are not asked for
    name: str  # of the photograph


class TrainingViews(Dataset):
    """The views of one epoch. The same (seed, epoch, index) gives the same view in any process, at any time."""

    def __init__(
        self,
        source: Source,
        *,
        crop: int,
        least_scale: float,
        color_jitter: float,
        seed: int,
        epoch: int,
        with_masks: bool = False,
    ) -> None:
        self.source, self.crop, self.least_scale, self.color_jitter = source, crop, least_scale, color_jitter
        self.seed, self.epoch, self.with_masks = seed, epoch, with_masks

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> View:
        """The view of photograph `index`. Raises UserError where masks are asked for and it has none of its size."""
        random = np.random.default_rng([self.seed, self.epoch, index])
        if self.with_masks:
            _, rgb, _, mask = item(self.source, index)
        else:
            rgb = self.source.rgb(index)
            mask = np.full(rgb.shape[:2], UNLABELLED, np.uint8)
        if mask is None:
            raise UserError(f"{self.source.names[index]}: has no mask, which supervision by masks needs")
        window = random_window(rgb.shape[:2], self.least_scale, random)
        size = (self.crop, self.crop)
        rgb, shrinks = rgb[window], all(part.stop - part.start >= self.crop for part in window)
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
        mask = cv2.resize(mask[window], size, interpolation=cv2.INTER_NEAREST_EXACT)
        if self.color_jitter:
            rgb = jitter(rgb, self.color_jitter, random)
        if random.random() < 0.5:
            rgb, mask = rgb[:, ::-1], mask[:, ::-1]
        return View(
            torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1))),
            torch.from_numpy(self.source.labels[index]),
            torch.from_numpy(np.ascontiguousarray(mask)),
            self.source.names[index],
        )


def random_window(size: tuple[int, int], least_scale: float, random: np.random.Generator) -> tuple[slice, slice]:
    """A random part of the image that becomes the square crop: an area share in [least_scale, 1], aspect 3/4 to 4/3.

    The rule of torchvision's RandomResizedCrop, which Araslanov and Roth train with; where no draw fits, the largest
    central part of allowed aspect.
    """
    height, width = size
    for _ in range(10):
        area = height * width * random.uniform(least_scale, 1)
        aspect = math.exp(random.uniform(math.log(3 / 4), math.log(4 / 3)))
        h, w = round(math.sqrt(area / aspect)), round(math.sqrt(area * aspect))
        if 0 < h <= height and 0 < w <= width:
            top, left = int(random.integers(height - h + 1)), int(random.integers(width - w + 1))
            return slice(top, top + h), slice(left, left + w)
    h, w = min(height, round(width * 4 / 3)), min(width, round(height * 4 / 3))
    top, left = (height - h) // 2, (width - w) // 2
    return slice(top, top + h), slice(left, left + w)


def jitter(rgb: np.ndarray, strength: float, random: np.random.Generator) -> np.ndarray:
    """Random brightness, contrast and saturation, each within 1 +- strength; (H, W, 3) uint8."""
    brightness, contrast, saturation = random.uniform(1 - strength, 1 + strength, 3)
    image = rgb.astype(np.float32) * brightness
    image = (image - image.mean()) * contrast + image.mean()
    gray = image.mean(2, keepdims=True)
    return ((image - gray) * saturation + gray).clip(0, 255).astype(np.uint8)
