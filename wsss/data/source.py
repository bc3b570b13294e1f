"""The one door to all layouts of data, and the check of the files before hours of training depend on them."""

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import fields, replace
from pathlib import Path

import numpy as np

from wsss import UNLABELLED, UserError
from wsss.data.coco import Coco, read_coco, require_pycocotools
from wsss.data.folder import read_folder
from wsss.data.item import Photographs, Source, item
from wsss.data.picture import photograph_size, read_mask
from wsss.data.shapes import Shapes
from wsss.data.voc import mask_values, read_voc
from wsss.disk import reading

_READERS = {"voc": read_voc, "folder": read_folder, "coco": read_coco}
LAYOUTS = (*_READERS, "shapes")
"""What `read` reads; shapes are drawn."""

_DRAWN = {"train": (160, 0), "val": (40, 1)}  # number of pictures, seed
_FAULTS_SHOWN = 20
_OF_EACH = ("names", "images", "masks", "sizes", "regions")  # what sources of files know of each photograph


def read(dataset: str, root: Path | None, split: str, *, labelled: bool = True) -> Source:
    """The photographs of a split of `root`, laid out as `dataset`: voc, folder or coco; shapes are drawn, without root.

    Args:
        labelled: whether each photograph must have a class, as where labels are learned; of COCO those without are left
            out.

    Raises:
        UserError: there is no such layout, folder or split, or its list or labels are wrong or cannot be read.
    """
    if dataset == "shapes":
        if split not in _DRAWN:
            raise UserError(f"the drawn shapes have no split {split!r}; choose {' or '.join(_DRAWN)}")
        return Shapes(*_DRAWN[split])
    require_root(dataset, root)
    with reading(root):
        return _READERS[dataset](root, split, labelled=labelled)


def require_root(dataset: str, root: Path | None) -> None:
    """Raises UserError unless there is such a layout, and a folder to read it from where it is not drawn."""
    if dataset not in LAYOUTS:
        raise UserError(f"there is no layout of data {dataset!r}; choose one of {', '.join(LAYOUTS)}")
    if dataset == "shapes":
        return
    if root is None:
        raise UserError(f"the layout {dataset!r} is read from a folder; give one")
    with reading(root):
        if not root.is_dir():
            raise UserError(f"{root}: no such data folder")


def with_masks(source: Source, folder: Path) -> Source:
    """The same photographs with the masks folder/NAME.png, as `wsss.pseudo_labels` writes them.

    Their values are VOC's where the classes are, whatever the layout; others are for `check` to refuse.

    Raises:
        UserError: there is no such folder.
    """
    with reading(folder):
        if not folder.is_dir():
            raise UserError(f"{folder}: no such folder of masks")
        found = (folder / f"{name}.png" for name in source.names)
        masks = tuple(path if path.exists() else None for path in found)
    values = mask_values(source.classes)
    if isinstance(source, Photographs | Coco):
        known = source.classes, source.names, source.labels, source.images
        return Photographs(*known, masks, values, are_pseudo=True)
    return Masked(source, masks, values)


class Masked:
    """Drawn pictures with masks from files."""

    def __init__(self, source: Source, masks: Sequence[Path | None], values: tuple[int, ...]) -> None:
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

    def faults(self, index: int) -> list[str]:
        """What is wrong with the mask of a photograph."""
        path = self._masks.masks[index]
        if path is None:
            return [f"{self.names[index]}: has no mask, which is needed here"]
        unusable = _faults(lambda: _mask_size(path, self._masks.mask_values, are_pseudo=True))
        return unusable or _faults(lambda: item(self, index))


def require_sound(source: Source, *, masks: bool = False) -> None:
    """Raises UserError with the first 20 faults that `check` finds and the number of all, when there are any."""
    if faults := check(source, masks=masks):
        raise UserError(listed(faults))


def listed(faults: Sequence[str]) -> str:
    """The first 20 faults, one a line, and the number of all."""
    more = [f"... and {len(faults) - _FAULTS_SHOWN} more"] if len(faults) > _FAULTS_SHOWN else []
    count = f"{len(faults)} faults" if len(faults) > 1 else "a fault"
    return "\n".join([f"the data have {count}:", *faults[:_FAULTS_SHOWN], *more])


def check(source: Source, *, masks: bool = False) -> list[str]:
    """All faults of the data, each a sentence that names its file.

    Photographs are looked at to their last byte. Where training or evaluation needs the masks, `masks=True`
    asks that there be one for each photograph and that it hold classes; this decodes them.
    """
    faults = []
    if isinstance(source, Coco) and masks and (missing := _faults(require_pycocotools)):
        faults, masks = missing, False  # each photograph would say the same
    if not len(source):
        faults.append("the data hold no photograph")
    for found in photograph_faults(source, masks=masks).values():
        faults += found
    return faults


def photograph_faults(source: Source, *, masks: bool = False) -> dict[int, list[str]]:
    """The faults of single photographs, by their index; `check` says more of them."""
    faults: dict[int, list[str]] = {}
    for index in range(len(source)):
        if isinstance(source, Photographs):
            found = _photograph_faults(source, index, masks)
        elif isinstance(source, Coco):
            found = _annotated_faults(source, index, masks)
        elif isinstance(source, Masked):
            found = source.faults(index)
        else:
            found = []
        if found:
            faults[index] = found
    return faults


def without(source: Source, bad: Collection[int]) -> Source:
    """The source, which has files, without some of its photographs."""
    if not bad:
        return source
    keep = [index for index in range(len(source)) if index not in bad]
    parts = {f.name: getattr(source, f.name) for f in fields(source) if f.name in _OF_EACH}
    return replace(source, labels=source.labels[keep], **{k: tuple(v[i] for i in keep) for k, v in parts.items()})


def _faults(ask: Callable[[], object]) -> list[str]:
    """The sentence of the UserError that `ask` raises, if it does."""
    try:
        ask()
    except UserError as error:
        return [str(error)]
    return []


def _photograph_faults(source: Photographs, index: int, masks: bool) -> list[str]:
    image, mask = source.images[index], source.masks[index]
    if not masks:  # those of photographs that train by their labels are read by nobody
        return _picture_faults(image)
    if mask is None:
        return [f"{image}: has no mask, which is needed here", *_picture_faults(image)]
    try:
        size = _mask_size(mask, source.mask_values, source.are_pseudo)
    except UserError as error:
        return [str(error), *_picture_faults(image)]
    return _picture_faults(image, size, f"the mask {mask.name}")


def _annotated_faults(source: Coco, index: int, masks: bool) -> list[str]:
    """A mask is drawn at the annotated size, which may be anything until the photograph has confirmed it."""
    faults = _picture_faults(source.images[index], source.sizes[index], "its annotation")
    return _faults(lambda: source.mask(index)) if masks and not faults else faults


def _picture_faults(path: Path, expected: tuple[int, int] | None = None, by: str = "") -> list[str]:
    """What is wrong with a photograph, also when its (height, width) is not what `by` says."""
    try:
        _require_inside(path)
        size = photograph_size(path)
    except UserError as error:
        return [str(error)]
    if expected is not None and size != expected:
        return [f"{path}: is {size}, but {by} is {expected} (height, width)"]
    return []


def _mask_size(path: Path, values: Sequence[int], are_pseudo: bool) -> tuple[int, int]:
    """(height, width) of a mask; `values` are those of the classes. Raises UserError when it cannot be used."""
    _require_inside(path)
    mask = read_mask(path)
    found = set(np.unique(mask).tolist())
    # Where the classes are a part of a larger list, as in VOC's animals, the others' values are background in the true
    # masks. In given ones they tell that the values are another list's, whose objects would all become background.
    is_whole = list(values) == list(range(len(values)))
    if unknown := found - {*values, UNLABELLED} if is_whole or are_pseudo else set():
        known = f"0 to {values[-1]}" if is_whole else ", ".join(map(str, values))
        raise UserError(f"{path}: holds the values {sorted(unknown)[:5]}; they must be {known}, or 255")
    if found == {UNLABELLED} and not are_pseudo:
        raise UserError(f"{path}: is unlabelled (255) all over")
    return mask.shape


def _require_inside(path: Path) -> None:
    """Raises UserError for a link to a file elsewhere; linked folders are the user's own arrangement and pass."""
    if not os.path.islink(path):
        return
    place, folder = (Path(os.path.realpath(one)) for one in (path, path.parent.parent))  # a circle of links is no error
    if not place.is_relative_to(folder):
        raise UserError(f"{path}: is a link that leads out of the data folder; put the file itself there")
