"""COCO 2014 by its annotation files. Masks are drawn on demand by pycocotools, which only this layout needs.

ROOT/annotations/instances_{split}.json      train2014, val2014
ROOT/{split}/FILE or ROOT/images/FILE        the pictures
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Self

import numpy as np

from wsss import UserError
from wsss.data.faults import picture_faults, refusals
from wsss.data.item import picked
from wsss.data.labels import check_classes
from wsss.data.picture import read_rgb
from wsss.exits import is_out_of_memory

try:
    from pycocotools import mask as coco_mask
except ImportError:  # labels and pictures do without
    coco_mask = None


@dataclass(frozen=True)
class Region:
    """One annotated object: its class index, 0 the first object, and its outline in COCO's own form."""

    kind: int
    area: float
    outline: object  # a list of polygons, or a dict with a run length code


@dataclass(frozen=True)
class Coco:
    """A `Source` of COCO's photographs; each mask is drawn from the outlines when it is asked for."""

    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: np.ndarray
    images: Sequence[Path]
    sizes: Sequence[tuple[int, int]]  # (height, width) as the annotations say
    regions: Sequence[Sequence[Region]]

    def __len__(self) -> int:
        return len(self.names)

    def rgb(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8, upright. Raises UserError naming the file when it cannot be read."""
        return read_rgb(self.images[index])

    def mask(self, index: int) -> np.ndarray:
        """(H, W) uint8: class index + 1, 0 background. Where objects overlap the smaller one is seen.

        Crowds are drawn as their class, so that no annotated object counts as background; nothing is 255.

        Raises:
            UserError: pycocotools is missing, or an outline is broken.
        """
        require_pycocotools()
        mask = np.zeros(self.sizes[index], np.uint8)
        for region in sorted(self.regions[index], key=lambda region: -region.area):
            mask[_drawn(region.outline, self.sizes[index], self.names[index])] = region.kind + 1
        return mask

    def faults(self, index: int, *, masks: bool) -> list[str]:
        """What is wrong with a photograph; with its outlines too where `masks` are needed."""
        # A mask is drawn at the annotated size, which may be anything until the photograph has confirmed it.
        found = picture_faults(self.images[index], self.sizes[index], "its annotation")
        return refusals(lambda: self.mask(index)) if masks and not found else found

    def subset(self, kept: Sequence[int]) -> Self:
        """These photographs alone."""
        return replace(
            self, labels=self.labels[list(kept)], **picked(self, ("names", "images", "sizes", "regions"), kept)
        )


def require_pycocotools() -> None:
    """Raises UserError when masks cannot be drawn."""
    if coco_mask is None:
        raise UserError("the masks of COCO are drawn by pycocotools, which is not installed: pip install pycocotools")


def read_coco(root: Path, split: str, *, labelled: bool = True) -> Coco:
    """The photographs of annotations/instances_{split}.json, with the classes of their objects as labels.

    Classes are in the order of their category numbers. Photographs without any object have no label to learn from, and
    may only not have been annotated yet: where `labelled` they are left out. Published evaluations count them.

    Raises:
        UserError: no such file, not one of this kind, or two entries of one id or photographs of one name; the
            sentence names the file and the number of the entry.
    """
    path = root / "annotations" / f"instances_{split}.json"
    content = _content(path, split)
    try:
        categories = sorted(content["categories"], key=lambda category: category["id"])
        for what in ("categories", "images"):
            _require_own_ids(content[what], what, path)
        kinds = {category["id"]: k for k, category in enumerate(categories)}
        regions = _regions(content["annotations"], kinds, path)
        pictures = [picture for picture in content["images"] if picture["id"] in regions or not labelled]
        files = [_file(root, split, picture["file_name"], path) for picture in pictures]
        sizes = tuple((int(picture["height"]), int(picture["width"])) for picture in pictures)
        names = [_class_name(category, path) for category in categories]
    except UserError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{path}: is not a file of COCO instances ({type(error).__name__}: {error})") from None
    classes = check_classes(names, str(path))
    _require_apart(files, path)
    labels = np.zeros((len(pictures), len(classes)), np.float32)
    for row, picture in zip(labels, pictures, strict=True):
        row[[region.kind for region in regions.get(picture["id"], ())]] = 1
    return Coco(
        classes=classes,
        names=tuple(file.stem for file in files),
        labels=labels,
        images=tuple(files),
        sizes=sizes,
        regions=tuple(tuple(regions.get(picture["id"], ())) for picture in pictures),
    )


def _content(path: Path, split: str) -> dict:
    if path.name != f"instances_{split}.json" or not path.is_file():
        there = sorted(file.stem.removeprefix("instances_") for file in path.parent.glob("instances_*.json"))
        raise UserError(f"{path}: no such annotations; splits that are there: {', '.join(there) or 'none'}")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: is not JSON ({error})") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: is not a file of COCO instances")
    return content


def _class_name(category: dict, path: Path) -> str:
    name = category["name"]
    if not isinstance(name, str):
        raise UserError(f"{path}: the name of category {category['id']} must be a text, got {name!r}")
    return name


def _require_own_ids(entries: Sequence[dict], what: str, path: Path) -> None:
    """Raises UserError for two entries of one id: the objects of the one would be the other's too."""
    counts = Counter(entry["id"] for entry in entries)
    if twice := [number for number, count in counts.items() if count > 1]:
        raise UserError(f"{path}: {counts[twice[0]]} {what} have the id {twice[0]}; give each its own")


def _require_apart(files: Sequence[Path], path: Path) -> None:
    """Raises UserError for two pictures of one name, also in another case: their masks and results would be one."""
    seen: dict[str, Path] = {}
    for file in files:
        if (other := seen.setdefault(file.stem.casefold(), file)) is not file:
            same = "have the same name but for folder, case and suffix"
            raise UserError(f"{path}: {other.name} and {file.name} {same}; rename one, and its entry")


def _regions(annotations: list[dict], kinds: dict[int, int], path: Path) -> dict[int, list[Region]]:
    """The objects by the number of their photograph."""
    regions: dict[int, list[Region]] = {}
    for entry in annotations:
        if entry["category_id"] not in kinds:
            raise UserError(f"{path}: annotation {entry['id']} has the unknown category {entry['category_id']}")
        region = Region(kinds[entry["category_id"]], float(entry["area"]), entry["segmentation"])
        regions.setdefault(entry["image_id"], []).append(region)
    return regions


def _file(root: Path, split: str, name: str, path: Path) -> Path:
    """A picture under {split}/, or images/ without that folder. Raises UserError for a name that leads out of there."""
    inner = PurePosixPath(name)
    if inner.is_absolute() or ".." in inner.parts or "\\" in name or not inner.name:
        raise UserError(f"{path}: the file name {name!r} leads out of the data folder")
    return root / (split if (root / split).is_dir() else "images") / inner


def _require_inside(outline: object, size: tuple[int, int], name: str) -> None:
    """Raises UserError for an outline far outside of its picture, for which pycocotools would take all memory."""
    if isinstance(outline, dict) and outline.get("size") != list(size):
        its_size = outline.get("size")
        raise UserError(f"{name}: an object's outline is for a picture of {its_size}, not {size} (height, width)")
    polygons = outline if isinstance(outline, list) else []
    numbers = [x for polygon in polygons for x in (polygon if isinstance(polygon, list) else ())]
    if not all(abs(x) <= 10 * max(size) for x in numbers if isinstance(x, int | float)):
        raise UserError(f"{name}: the outline of an object lies far outside of its picture of {size} (height, width)")


def _drawn(outline: object, size: tuple[int, int], name: str) -> np.ndarray:
    """(H, W) bool."""
    _require_inside(outline, size, name)
    try:
        if isinstance(outline, dict) and isinstance(outline["counts"], str | bytes):
            code = outline
        else:
            code = coco_mask.frPyObjects(outline, *size)
        drawn = coco_mask.decode(coco_mask.merge(code) if isinstance(code, list) else code)
    # pycocotools raises a bare Exception for a form it does not know.
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise UserError(f"{name}: the outline of an object cannot be drawn ({error})") from None
    if drawn.shape != size:
        raise UserError(f"{name}: an object's outline is for a picture of {drawn.shape}, not {size} (height, width)")
    return drawn.astype(bool)
