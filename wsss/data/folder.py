"""A user's own photographs: a folder of pictures and one CSV file with the classes of each.

ROOT/images/*        any file names; jpg, jpeg, png, webp, bmp, gif, tif or tiff
ROOT/labels.csv      image,labels[,split] with rows like: holiday.jpg,cat;dog,train
ROOT/masks/*.png     optional, for evaluation: NAME.png for NAME.jpg; 0 background, classes from 1, 255 unlabelled
ROOT/classes.txt     optional: the class names, one a line, in the order of their values in the masks
"""

from pathlib import Path

import numpy as np

from wsss import UserError
from wsss.data.item import Photographs
from wsss.data.labels import Table, check_classes, read_csv, read_text, require_label

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


def read_folder(root: Path, split: str, *, labelled: bool = True) -> Photographs:
    """The photographs of a split, in the order of labels.csv.

    The split of a photograph is the CSV's column `split`. Without that column "train" (also "train_aug" or "all") takes
    every photograph, "val" those that have a mask. Classes are sorted by name unless classes.txt gives their order.

    Args:
        labelled: whether each photograph must have a class.

    Raises:
        UserError: a picture without a row, a row without its picture, an unknown class or split, no class where one is
            needed.
    """
    classes = _classes(root / "classes.txt")
    table = read_csv(root / "labels.csv", classes)
    images = _images(root / "images")
    paths = _paired(table, images)
    names = _split(table, split, {name for name, path in paths.items() if _mask_path(root, path)})
    for name in names if labelled else ():
        require_label(table.vectors[name], table.place(name))
    return Photographs(
        classes=table.classes,
        names=tuple(paths[name].stem for name in names),
        labels=np.stack([table.vectors[name] for name in names]),
        images=tuple(paths[name] for name in names),
        masks=tuple(_mask_path(root, paths[name]) for name in names),
        mask_values=tuple(range(len(table.classes) + 1)),
    )


def _classes(path: Path) -> tuple[str, ...] | None:
    if not path.exists():
        return None
    return check_classes([line.strip() for line in read_text(path).splitlines() if line.strip()], str(path))


def _images(folder: Path) -> dict[str, Path]:
    """The pictures by their name without suffix, under which their masks and results are kept."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; the photographs belong there")
    images: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES:
            continue
        if path.stem in images:
            raise UserError(f"{path}: {images[path.stem].name} has the same name but for the suffix; rename one")
        images[path.stem] = path
    if not images:
        raise UserError(f"{folder}: holds no picture ({', '.join(sorted(SUFFIXES))})")
    return images


def _paired(table: Table, images: dict[str, Path]) -> dict[str, Path]:
    """The picture of each row, whose name may have its suffix or not. Raises UserError for a row or picture alone."""
    by_file = {path.name: path for path in images.values()}
    paths: dict[str, Path] = {}
    rows: dict[Path, int] = {}
    for name, line in table.lines.items():
        path = by_file.get(name) or images.get(name)
        if path is None:
            raise UserError(f"{table.path}:{line}: there is no picture {name!r} in the folder images")
        if path in rows:
            raise UserError(f"{table.path}:{line}: {path.name} stands in line {rows[path]} already")
        paths[name], rows[path] = path, line
    for path in images.values():
        if path not in rows:
            raise UserError(f"{path}: has no row in {table.path.name}; add its classes there, or take the picture away")
    return paths


def _split(table: Table, split: str, with_mask: set[str]) -> list[str]:
    """The rows of a split. Raises UserError when there is none."""
    if split == "all":
        return list(table.lines)
    if table.splits:
        names = [name for name, own in table.splits.items() if own == split]
        if not names:
            there = ", ".join(sorted(set(table.splits.values())))
            raise UserError(f"{table.path}: no row has the split {split!r}; there are {there}")
        return names
    if split in ("train", "train_aug"):
        return list(table.lines)
    if split != "val":
        raise UserError(f"{table.path}: has no column 'split', so there are only train, val and all, not {split!r}")
    if not with_mask:
        raise UserError(
            f"{table.path.parent / 'masks'}: no photograph has a mask, so there is no split 'val'; "
            "put masks there, or train with --val-split none"
        )
    return [name for name in table.lines if name in with_mask]


def _mask_path(root: Path, image: Path) -> Path | None:
    path = root / "masks" / f"{image.stem}.png"
    return path if path.exists() or path.is_symlink() else None
