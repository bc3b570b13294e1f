"""A user's own photographs: a folder of pictures and one CSV file with the classes of each.

ROOT/images/*        any file names; jpg, jpeg, png, webp, bmp, gif, tif or tiff
ROOT/labels.csv      image,labels[,split] with rows like: holiday.jpg,cat;dog,train
ROOT/masks/*.png     optional, for evaluation: NAME.png for NAME.jpg; 0 background, classes from 1, 255 unlabelled
ROOT/classes.txt     optional: the class names, one a line, in the order of their values in the masks
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from wsss import UserError
from wsss.data.faults import Faults, noting
from wsss.data.item import Photographs
from wsss.data.labels import Table, check_classes, read_csv, read_text, require_label

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


def read_folder(root: Path, split: str, *, labelled: bool = True, faults: Faults | None = None) -> Photographs:
    """The photographs of a split, in the order of labels.csv.

    The split of a photograph is the CSV's column `split`. Without that column "train" (also "train_aug" or "all") takes
    every photograph, "val" those that have a mask. Classes are sorted by name unless classes.txt gives their order.

    Args:
        labelled: whether each photograph must have a class.
        faults: where those of single rows and pictures are noted, which are left out then.

    Raises:
        UserError: an unknown split; without `faults` also a picture without a row, a row without its picture, an
            unknown class, no class where one is needed.
    """
    table = read_csv(root / "labels.csv", _classes(root / "classes.txt"), faults)
    paths = _paired(table, _images(root / "images"), split, faults)
    names = []
    for name in _split(table, split, {name for name, path in paths.items() if _mask_path(root, path)}):
        if name not in paths:
            continue
        with noting(faults, left_out=1):
            if labelled:
                require_label(table.vectors[name], table.place(name))
            names.append(name)
    return Photographs(
        classes=table.classes,
        names=tuple(paths[name].stem for name in names),
        labels=np.array([table.vectors[name] for name in names], np.float32).reshape(len(names), len(table.classes)),
        images=tuple(paths[name] for name in names),
        masks=tuple(_mask_path(root, paths[name]) for name in names),
        mask_values=tuple(range(len(table.classes) + 1)),
        places={paths[name].stem: table.place(name) for name in names},
    )


def _classes(path: Path) -> tuple[str, ...] | None:
    if not path.exists():
        return None
    return check_classes([line.strip() for line in read_text(path).splitlines() if line.strip()], str(path))


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; the photographs belong there")
    images = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not images:
        raise UserError(f"{folder}: holds no picture ({', '.join(sorted(SUFFIXES))})")
    return images


def _paired(table: Table, images: Sequence[Path], split: str, faults: Faults | None) -> dict[str, Path]:
    """The picture of each row, whose name may have its suffix or not; a row or picture alone is a fault."""
    by_file = {path.name: path for path in images}
    by_stem = {path.stem: path for path in reversed(images)}
    if table.refused:
        faults.left_out += sum(_is_of(own, split) for own in table.refused.values())
    rows = dict.fromkeys((by_file.get(name) or by_stem.get(name) for name in table.refused), 0)
    paths: dict[str, Path] = {}
    for name, line in table.lines.items():
        with noting(faults, left_out=_is_of(table.splits.get(name, ""), split)):
            path = by_file.get(name) or by_stem.get(name)
            if path is None:
                raise UserError(f"{table.path}:{line}: there is no picture {name!r} in the folder images")
            if path in rows:
                raise UserError(f"{table.path}:{line}: {path.name} stands in line {rows[path]} already")
            rows[path] = line
            _require_own_name(path, by_stem)
            paths[name] = path
    for path in images:
        with noting(faults, left_out=1):
            if path not in rows:
                _require_own_name(path, by_stem)
                where = table.path.name
                raise UserError(f"{path}: has no row in {where}; add its classes there, or take the picture away")
    return paths


def _is_of(own: str, split: str) -> bool:
    """Whether a row belongs to a split; one without a split of its own may."""
    return own in ("", split) or split == "all"


def _require_own_name(path: Path, by_stem: Mapping[str, Path]) -> None:
    """Masks and results are kept under the name without its suffix."""
    if (other := by_stem[path.stem]) != path:
        raise UserError(f"{path}: {other.name} has the same name but for the suffix; rename one")


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
