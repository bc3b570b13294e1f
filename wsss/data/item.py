"""What every source of data gives: a photograph, its image-level labels and, where there is one, its mask."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol, Self

import numpy as np

from wsss import UserError
from wsss.data.faults import mask_size, picture_faults
from wsss.data.picture import class_indices, read_mask, read_rgb


class Item(NamedTuple):
    """One photograph."""

    name: str
    rgb: np.ndarray  # (H, W, 3) uint8
    labels: np.ndarray  # (K-1,) float32 in {0, 1}
    mask: np.ndarray | None  # (H, W) uint8 of class indices, 255 unlabelled


class Source(Protocol):
    """A list of photographs. `labels` is known without opening a picture, masks are only read when asked for."""

    classes: tuple[str, ...]  # the K-1 objects; the background is not named
    names: tuple[str, ...]
    labels: np.ndarray  # (len(names), K-1) float32 in {0, 1}

    def __len__(self) -> int: ...

    def rgb(self, index: int) -> np.ndarray: ...

    def mask(self, index: int) -> np.ndarray | None: ...


class Checkable(Source, Protocol):
    """A `Source` whose files can be looked at, and single ones be left out."""

    def faults(self, index: int, *, masks: bool) -> list[str]: ...

    def subset(self, kept: Sequence[int]) -> Self: ...


@dataclass(frozen=True)
class Photographs:
    """A `Source` of files: each picture a file and each mask a palette or gray PNG.

    `mask_values[k]` is the value that class k has in the mask files (background first); other values but 255 become
    background. Only masks `are_pseudo` that a network has made may be unlabelled all over.
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: np.ndarray
    images: Sequence[Path]
    masks: Sequence[Path | None]
    mask_values: tuple[int, ...]
    are_pseudo: bool = False
    places: Mapping[str, str] = field(default_factory=dict)  # file:line of the list or table, by the photograph's name

    def __len__(self) -> int:
        return len(self.names)

    def rgb(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8, upright. Raises UserError naming the file when it cannot be read."""
        return read_rgb(self.images[index])

    def mask(self, index: int) -> np.ndarray | None:
        """(H, W) uint8 class indices with 255 unlabelled; None without a mask. Raises UserError naming the file."""
        path = self.masks[index]
        if path is None:
            return None
        return class_indices(read_mask(path), self.mask_values)

    def faults(self, index: int, *, masks: bool) -> list[str]:
        """What is wrong with the files of a photograph; with its mask where `masks` are needed."""
        place = self.places.get(self.names[index])
        return [f"{fault} ({place})" if place else fault for fault in self._file_faults(index, masks)]

    def _file_faults(self, index: int, masks: bool) -> list[str]:
        image, mask = self.images[index], self.masks[index]
        if not masks:  # those of photographs that train by their labels are read by nobody
            return picture_faults(image)
        if mask is None:
            return [f"{image}: has no mask, which is needed here", *picture_faults(image)]
        try:
            size = mask_size(mask, self.mask_values, self.are_pseudo)
        except UserError as error:
            return [str(error), *picture_faults(image)]
        return picture_faults(image, size, f"the mask {mask.name}")

    def subset(self, kept: Sequence[int]) -> Self:
        """These photographs alone."""
        return replace(self, labels=self.labels[list(kept)], **picked(self, ("names", "images", "masks"), kept))


def picked(source: Source, fields: Sequence[str], kept: Sequence[int]) -> dict[str, tuple]:
    """What these fields say of some photographs."""
    return {name: tuple(getattr(source, name)[index] for index in kept) for name in fields}


def files(source: Source) -> list[Path]:
    """The pictures and masks that a source is read from; drawn shapes have none."""
    found = (*getattr(source, "images", ()), *getattr(source, "masks", ()))
    return [path for path in found if path is not None]


def item(source: Source, index: int) -> Item:
    """The photograph at `index` with all that is known of it. Raises UserError when picture and mask differ in size."""
    rgb, mask = source.rgb(index), source.mask(index)
    if mask is not None and mask.shape != rgb.shape[:2]:
        sizes = f"the mask is {mask.shape}, the photograph {rgb.shape[:2]} (height, width)"
        raise UserError(f"{source.names[index]}: {sizes}")
    return Item(source.names[index], rgb, source.labels[index], mask)


def fingerprint(source: Source) -> str:
    """SHA-256 of the photographs' names and labels, which every sample follows from but for masks that supervise."""
    names = "\n".join(source.names).encode()
    return hashlib.sha256(names + np.ascontiguousarray(source.labels, np.float32).tobytes()).hexdigest()
