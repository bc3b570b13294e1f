"""PASCAL VOC 2012 as its devkit unpacks, and folders laid out like it."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np

from wsss import UserError
from wsss.data.faults import Faults, noting
from wsss.data.item import Photographs
from wsss.data.labels import Table, read_csv, read_text, read_xml, require_label
from wsss.data.npy import read_npy
from wsss.disk import reading

VOC_CLASSES = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)
"""The objects in VOC's order: the value of one in a mask is its index here plus 1."""


def _palette() -> np.ndarray:
    """VOC's colors, (256, 3) uint8: bits 0, 3, 6... of the index are red's, from the highest bit down, and so on."""
    index = np.arange(256)
    colors = np.zeros((256, 3), np.uint8)
    for bit in range(8):
        for channel in range(3):
            colors[:, channel] |= ((index >> (3 * bit + channel) & 1) << (7 - bit)).astype(np.uint8)
    return colors


VOC_PALETTE = _palette()


def voc_values(classes: Sequence[str]) -> tuple[int, ...] | None:
    """The mask values of background and `classes` in VOC's files; None when a class is not VOC's."""
    if any(name not in VOC_CLASSES for name in classes):
        return None
    return (0, *(VOC_CLASSES.index(name) + 1 for name in classes))


def mask_values(classes: Sequence[str]) -> tuple[int, ...]:
    """The values of background and `classes` in the masks that are written here: VOC's, or else 0, 1, 2 ..."""
    return voc_values(classes) or tuple(range(len(classes) + 1))


class Entry(NamedTuple):
    """One line of a list of photographs."""

    name: str
    image: str | None  # path under the devkit, where the list gives one
    mask: str | None
    line: int


def read_voc(root: Path, split: str, *, labelled: bool = True, noted: Faults | None = None) -> Photographs:
    """The photographs of ImageSets/Segmentation/{split}.txt.

    `root` is the devkit (JPEGImages, Annotations...) or a folder with it in VOC2012 or VOCdevkit/VOC2012. Labels come
    from image_labels.csv in either folder, else from the published cls_labels.npy there, else from the boxes of
    Annotations. They never come from masks, which are for evaluation and may be missing.

    Args:
        labelled: whether each photograph must have a class.
        noted: where the faults of single lines and photographs go, which are left out then.

    Raises:
        UserError: no devkit, no such list or an empty one, no such table of labels, classes that are not VOC's; unless
            it is noted, also a list entry that leaves the folder or stands there twice, a photograph without labels.
            Whether the pictures can be read is for `preflight.photograph_faults`.
    """
    devkit = _devkit(root)
    path = _list_path(devkit, split)
    table = _table(devkit, root, noted)
    classes = table.classes if table else VOC_CLASSES
    values = voc_values(classes)
    if values is None:
        unknown = next(name for name in classes if name not in VOC_CLASSES)
        raise UserError(f"{table.path}: {unknown!r} is no class of VOC; own classes go with the layout 'folder'")
    entries, labels = [], []
    for entry in read_list(path, noted):
        if table and entry.name in table.refused:
            noted.left_out += 1
            continue
        with noting(noted, left_out=1), reading(path):
            labels.append(_labels(entry, path, table, devkit, labelled))
            entries.append(entry)
    return Photographs(
        classes=classes,
        names=tuple(entry.name for entry in entries),
        labels=np.array(labels, np.float32).reshape(len(labels), len(classes)),
        images=tuple(devkit / (entry.image or f"JPEGImages/{entry.name}.jpg") for entry in entries),
        masks=tuple(_mask_path(devkit, entry) for entry in entries),
        mask_values=values,
        places={entry.name: f"{path}:{entry.line}" for entry in entries},
    )


def _devkit(root: Path) -> Path:
    for folder in (root / "VOCdevkit" / "VOC2012", root / "VOC2012", root):
        if (folder / "JPEGImages").is_dir():
            return folder
    raise UserError(f"{root}: holds no VOC data; give the folder that has JPEGImages, VOC2012 or VOCdevkit in it")


def _list_path(devkit: Path, split: str) -> Path:
    folder = devkit / "ImageSets" / "Segmentation"
    path = folder / f"{split}.txt"
    if path.name != f"{split}.txt" or path.parent != folder:
        raise UserError(f"split {split!r} must be the plain name of a list in {folder}")
    if not path.exists():
        there = ", ".join(sorted(file.stem for file in folder.glob("*.txt"))) or "none"
        if split == "train_aug":
            why = "it comes with SBD, not with VOC: put the published list of 10,582 photographs at this path"
            raise UserError(f"{path}: no such list; {why}, or choose one that is there: {there}")
        raise UserError(f"{path}: no such list; choose one that is there: {there}")
    return path


def read_list(path: Path, noted: Faults | None = None) -> list[Entry]:
    """A list of photographs, one a line: an id, or the two columns /JPEGImages/x.jpg /SegmentationClassAug/x.png.

    Blank lines, CRLF, a byte order mark and spaces around are accepted.

    Raises:
        UserError: an empty list, or, unless it is noted, an entry that leads out of the folder, one that
            stands there twice (also in another case: the files of the two could not be told apart everywhere). The
            sentence starts with file:line.
    """
    lines = [(line, text.split()) for line, text in enumerate(read_text(path).splitlines(), start=1) if text.strip()]
    if not lines:
        raise UserError(f"{path}: the list is empty")
    entries: list[Entry] = []
    seen: dict[str, int] = {}
    for line, fields in lines:
        with noting(noted, left_out=1):
            where = f"{path}:{line}"
            entry = _entry(fields, line, where)
            if (first := seen.setdefault(entry.name.casefold(), line)) != line:
                raise UserError(f"{where}: {entry.name} stands in line {first} already; delete one of the lines")
            entries.append(entry)
    return entries


def _entry(fields: list[str], line: int, where: str) -> Entry:
    if len(fields) > 2:
        raise UserError(f"{where}: expected an id, or a photograph and its mask, got {len(fields)} fields")
    if len(fields) == 2 or fields[0].removeprefix("/").startswith("JPEGImages/"):
        paths = [_inner_path(field, where) for field in fields]
        return Entry(PurePosixPath(paths[0]).stem, paths[0], paths[1] if len(paths) == 2 else None, line)
    name = fields[0]
    if "/" in name or "\\" in name or name in (".", ".."):
        raise UserError(f"{where}: {name!r} is no id of a photograph; an id is a file name without folder and suffix")
    return Entry(name, None, None, line)


def _inner_path(field: str, where: str) -> str:
    """A path under the devkit; the lists write it with a leading slash."""
    path = PurePosixPath(field.removeprefix("/"))
    if path.is_absolute() or ".." in path.parts or "\\" in field or not path.name:
        raise UserError(f"{where}: {field!r} leads out of the data folder")
    return str(path)


def _table(devkit: Path, root: Path, noted: Faults | None) -> Table | None:
    """The labels of the file that is there, or None when the boxes are to be read."""
    for name in ("image_labels.csv", "cls_labels.npy"):
        for path in (devkit / name, root / name):
            if path.exists():
                return read_csv(path, noted=noted) if path.suffix == ".csv" else read_npy(path, VOC_CLASSES)
    return None


def _labels(entry: Entry, list_path: Path, table: Table | None, devkit: Path, labelled: bool) -> np.ndarray:
    """(K-1,) float32 in {0, 1}."""
    where = f"{list_path}:{entry.line}"
    if table is not None:
        if entry.name not in table.vectors:
            raise UserError(f"{where}: {entry.name} has no labels in {table.path}; add a row")
        labels, place = table.vectors[entry.name], table.place(entry.name)
    else:
        path = devkit / "Annotations" / f"{entry.name}.xml"
        if not path.exists():
            without = f"there is no image_labels.csv, cls_labels.npy or {path}"
            raise UserError(f"{where}: {entry.name} has no labels: {without}")
        labels, place = read_xml(path, VOC_CLASSES), str(path)
    if labelled:
        require_label(labels, place)
    return labels


def _mask_path(devkit: Path, entry: Entry) -> Path | None:
    """The mask that the list names, else the official one, else SBD's; None where there is none."""
    if entry.mask is not None:
        path = devkit / entry.mask
        return path if path.exists() or path.is_symlink() else None
    for folder in ("SegmentationClass", "SegmentationClassAug"):
        path = devkit / folder / f"{entry.name}.png"
        if path.exists():
            return path
    return None
