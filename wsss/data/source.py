"""The one door to all layouts of data."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from wsss import UserError
from wsss.data.coco import Coco, read_coco
from wsss.data.faults import Faults, mask_size, refusals
from wsss.data.folder import read_folder
from wsss.data.item import Checkable, Photographs, item
from wsss.data.shapes import Shapes
from wsss.data.voc import mask_values, read_voc
from wsss.disk import reading

LAYOUTS = ("voc", "folder", "coco", "shapes")
"""What `read` reads; shapes are drawn."""

_DRAWN = {"train": (160, 0), "val": (40, 1)}  # number of pictures, seed


def read(
    dataset: str, root: Path | None, split: str, *, labelled: bool = True, noted: Faults | None = None
) -> Checkable:
    """The photographs of a split of `root`, laid out as `dataset`: voc, folder or coco; shapes are drawn, without root.

    Args:
        labelled: whether each photograph must have a class, as where labels are learned; of COCO those without are left
            out.
        noted: where the faults of single lines and photographs go, which are left out then; one of COCO's file of
            annotations is raised all the same.

    Raises:
        UserError: there is no such layout, folder or split, or its list or labels are wrong or cannot be read.
    """
    if dataset == "shapes":
        if split not in _DRAWN:
            raise UserError(f"the drawn shapes have no split {split!r}; choose {' or '.join(_DRAWN)}")
        return Shapes(*_DRAWN[split])
    require_root(dataset, root)
    with reading(root):
        if dataset == "coco":
            return read_coco(root, split, labelled=labelled)
        reader = read_voc if dataset == "voc" else read_folder
        return reader(root, split, labelled=labelled, noted=noted)


def require_root(dataset: str, root: Path | None) -> None:
    """Raises UserError unless there is such a layout, and a folder to read it from where it is not drawn."""
    if dataset not in LAYOUTS:
        raise UserError(f"there is no layout of data {dataset!r}; choose one of {', '.join(LAYOUTS)}")
    if dataset == "shapes":
        return
    if root is None:
        raise UserError(f"the layout {dataset!r} is read from a folder; give one with --data")
    with reading(root):
        if not root.is_dir():
            raise UserError(f"{root}: no such data folder")


def with_masks(source: Checkable, folder: Path) -> Checkable:
    """The same photographs with the masks folder/NAME.png, as `wsss.pseudo_labels` writes them.

    Their values are VOC's where the classes are, whatever the layout; others are faults of a photograph.

    Raises:
        UserError: there is no such folder.
    """
    with reading(folder):
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder of masks")
        found = (folder / f"{name}.png" for name in source.names)
        masks = tuple(path if path.exists() else None for path in found)
    values = mask_values(source.classes)
    if isinstance(source, Photographs):
        return replace(source, masks=masks, mask_values=values, are_pseudo=True)
    if isinstance(source, Coco):
        known = source.classes, source.names, source.labels, source.images
        return Photographs(*known, masks, values, are_pseudo=True)
    return Masked(source, masks, values)


class Masked:
    """Drawn pictures with masks from files."""

    def __init__(self, source: Shapes, masks: Sequence[Path | None], values: tuple[int, ...]) -> None:
        self.source, self.classes, self.names, self.labels = source, source.classes, source.names, source.labels
        self._masks = Photographs(source.classes, source.names, source.labels, (), masks, values)

    def __len__(self) -> int:
        return len(self.source)

    def rgb(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8."""
        return self.source.rgb(index)

    def mask(self, index: int) -> np.ndarray | None:
        """(H, W) uint8 class indices with 255 unlabelled; None without a mask."""
        return self._masks.mask(index)

    def faults(self, index: int, *, masks: bool) -> list[str]:
        """What is wrong with the mask of a picture, which is needed whatever `masks` says."""
        path = self._masks.masks[index]
        if path is None:
            return [f"{self.names[index]}: has no mask, which is needed here"]
        unusable = refusals(lambda: mask_size(path, self._masks.mask_values, are_pseudo=True))
        return unusable or refusals(lambda: item(self, index))

    def subset(self, kept: Sequence[int]) -> "Masked":
        """These pictures alone."""
        masks = [self._masks.masks[index] for index in kept]
        return Masked(self.source.subset(kept), masks, self._masks.mask_values)
