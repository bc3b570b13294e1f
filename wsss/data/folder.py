"""A user's own photographs: a folder of pictures and one CSV file with the classes of each.

ROOT/images/*        any file names; jpg, jpeg, png, webp, bmp, gif, tif or tiff
ROOT/labels.csv      image,labels[,split] with rows like: holiday.jpg,cat;dog,train
ROOT/masks/*.png     optional, for evaluation: NAME.png for NAME.jpg; 0 background, classes from 1, 255 unlabelled
ROOT/classes.txt     optional: the class names, one a line, in the order of their values in the masks
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from wsss import UserError
from wsss.data.faults import Faults, noting
from wsss.data.item import Photographs
from wsss.data.labels import Table, check_classes, read_csv, read_text, require_label

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


def read_folder(root: Path, split: str, *, labelled: bool = True, noted: Faults | None = None) -> Photographs:
    """The photographs of a split, in the order of labels.csv.

    The split of a photograph is the CSV's column `split`. Without that column "train" (also "train_aug" or "all") takes
    every photograph, "val" those that have a mask. Classes are sorted by name unless classes.txt gives their order.

    Args:
        labelled: whether each photograph must have a class.
        noted: where the faults of single rows and pictures go, which are left out then.

    Raises:
        UserError: no table or no such one, no pictures, an unknown split; unless it is noted, also a picture without a
            row, a row without its picture, an unknown class, no class where one is needed.
    """
    table = read_csv(root / "labels.csv", _classes(root / "classes.txt"), noted)
    paths = _paired(table, _images(root / "images"), split, noted)
    names = []
    for name in _split(table, split, {name for name, path in paths.items() if _mask_path(root, path)}):
        if name not in paths:
            continue
        with noting(noted, left_out=1):
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


def _paired(table: Table, images: Sequence[Path], split: str, noted: Faults | None) -> dict[str, Path]:
    """The picture of each row, whose name may have its suffix or not; a row or picture alone is a fault."""
    by_name = {path.stem: path for path in reversed(images)} | {path.name: path for path in images}
    rows: dict[Path, int] = {}
    stems: dict[str, Path] = {}
    paths: dict[str, Path] = {}
    for name, line in table.lines.items():
        with noting(noted, left_out=_is_of(table.splits.get(name, ""), split)):
            path = by_name.get(name)
            if path is None:
                raise UserError(f"{table.path}:{line}: there is no picture {name!r} in the folder images")
            if path in rows:
                raise UserError(f"{table.path}:{line}: {path.name} stands in line {rows[path]} already")
            rows[path] = line
            _require_own_stem(path, stems)
            paths[name] = path
    refused = {by_name.get(name, name): own for name, own in table.refused.items()}
    for path in images:
        with noting(noted, left_out=1):
            if path not in rows and path not in refused:
                _require_own_stem(path, stems)
                where = table.path.name
                raise UserError(f"{path}: has no row in {where}; add its classes there, or take the picture away")
    if noted is not None:
        noted.left_out += sum(_is_of(own, split) for path, own in refused.items() if path not in rows)
    return paths


def _is_of(own: str, split: str) -> bool:
    """Whether a row belongs to a split; one without a split of its own may."""
    return own in ("", split) or split == "all"


def _require_own_stem(path: Path, stems: dict[str, Path]) -> None:
    """Masks and results are kept under the name without its suffix, on some disks whatever its case."""
    if (other := stems.setdefault(path.stem.casefold(), path)) != path:
        raise UserError(f"{path}: {other.name} has the same name but for case and suffix; rename one")


def _split(table: Table, split: str, with_mask: set[str]) -> list[str]:
    """The rows of a split. Raises UserError when there is none."""
    if split == "all":
        return list(table.lines)
    splits = {*table.splits.values(), *table.refused.values()}
    if table.splits or any(splits):
        if split not in splits:
            there = ", ".join(sorted(splits))
            raise UserError(f"{table.path}: no row has the split {split!r}; there are {there}")
        return [name for name, own in table.splits.items() if own == split]
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
