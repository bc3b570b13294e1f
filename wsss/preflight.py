"""All faults of a data set at once, with file and line, before hours of training depend on it.

The readers of `wsss.data` stop at the first wrong line. Here each line they refuse is noted and blanked in a copy of
the lists and tables, which is then read again: one implementation says what is wrong, and the rest can be trained on.
"""

import csv
import os
import re
import tempfile
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from wsss import UserError
from wsss.data.coco import Coco, require_pycocotools
from wsss.data.folder import SUFFIXES
from wsss.data.item import Photographs, Source
from wsss.data.source import Masked, listed, photograph_faults, read, with_masks, without
from wsss.data.voc import gives_paths, list_path
from wsss.disk import reading

_TEXTS = (".txt", ".csv")
_LONGEST_ROW = 10_000  # characters that are looked at
_MOST_FAULTS = 1000  # then the data are of another kind than was said, and each would be looked for anew


class Surveyed(NamedTuple):
    """A split without the photographs that have faults."""

    source: Source
    faults: list[str]
    skipped: int  # photographs that are left out; a line that names one for the second time counts as one


class _Row(NamedTuple):
    """A line of a list or table that was blanked."""

    name: str  # of the photograph
    split: str = ""  # where the table has that column


def survey(
    dataset: str,
    root: Path | None,
    split: str,
    *,
    labelled: bool = True,
    masks: bool = False,
    masks_from: str = "",
) -> Surveyed:
    """Read a split and look at each of its files.

    Args:
        labelled: each photograph needs a class.
        masks: each photograph needs a mask.
        masks_from: a folder of masks to take instead of the data's own.

    Raises:
        UserError: there is no such data, nothing could be read of it, or what draws its masks is not installed.
    """
    lines, dropped = [], 0
    if dataset in ("voc", "folder") and root is not None and os.path.isdir(root):
        source, lines, dropped = _read_leniently(dataset, root, split, labelled)
    else:
        source = read(dataset, root, split, labelled=labelled)
    if masks_from:
        source = with_masks(source, Path(masks_from))
    if masks and isinstance(source, Coco):
        require_pycocotools()
    places = _places(dataset, root, split)
    faults = photograph_faults(source, masks=masks)
    placed = [
        f"{fault} ({places[source.names[index]]})" if source.names[index] in places else fault
        for index, found in faults.items()
        for fault in found
    ]
    sound = source if isinstance(source, Masked) else without(source, faults.keys())
    return Surveyed(sound, lines + placed, dropped + len(faults))


def require_sound_splits(surveys: dict[str, Surveyed], *, skip_bad: bool) -> None:
    """Raises UserError that lists all faults, or, if they may be skipped, when nothing is left of a split."""
    faults = [fault for surveyed in surveys.values() for fault in surveyed.faults]
    if faults and any(isinstance(surveyed.source, Masked) for surveyed in surveys.values()):
        raise UserError(
            "drawn pictures with a faulty mask cannot be skipped, write their masks anew; " + listed(faults)
        )
    if faults and not skip_bad:
        raise UserError(listed(list(dict.fromkeys(faults))) + "\n(--skip-bad goes on with the rest)")
    for name, surveyed in surveys.items():
        if not len(surveyed.source):
            if not faults:
                raise UserError(f"the split {name} holds no photograph")
            raise UserError(f"no photograph of the split {name} is left; " + listed(faults))


def _read_leniently(dataset: str, root: Path, split: str, labelled: bool) -> tuple[Source, list[str], int]:
    """The source without the lines that its reader refuses, its words on them, and how many photographs that costs."""
    faults: list[str] = []
    dropped = 0
    hidden: set[str] = set()  # photographs of which a line was blanked: that they lack it then is no other fault
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder).resolve() / "data"
        _copy_texts(root, copy)
        while True:
            try:
                source = read(dataset, copy, split, labelled=labelled)
                break
            except UserError as error:
                sentence = str(error)
                rows = _blank(sentence, copy, split)
                names = {row.name for row in rows}
                follows = bool(hidden & names) and "has no" in sentence
                if not follows:
                    faults.append(sentence.replace(str(copy), str(root)))
                if not names or len(faults) > _MOST_FAULTS:
                    raise UserError(faults[0] if len(faults) == 1 else listed(faults)) from None
                hidden |= names
                # A row of VOC's table is not a photograph of this list; that it lacks labels is the next thing found.
                # In the other layout the row counts, if it is of this split, and not again the picture that is taken
                # away after it.
                of_another = all(row.split not in ("", split) for row in rows)
                dropped += not (".csv:" in sentence.split(": ")[0] if dataset == "voc" else follows or of_another)
        return _moved(source, copy, root), faults, dropped


def _copy_texts(root: Path, copy: Path) -> None:
    """Lists and tables are copied, folders of pictures linked to."""
    copy.mkdir()
    for path in _inside(root):
        target = copy / path.name
        if path.suffix in _TEXTS and path.is_file():
            with reading(path):
                content = path.read_bytes()
            target.write_bytes(content)
        elif path.name in ("VOCdevkit", "VOC2012", "ImageSets", "Segmentation") and path.is_dir():
            _copy_texts(path, target)
        elif path.name == "images" and path.is_dir():  # a picture without a row is taken away in the copy
            target.mkdir()
            for picture in _inside(path):
                (target / picture.name).symlink_to(picture.absolute())
        else:
            target.symlink_to(path.absolute())


def _inside(folder: Path) -> list[Path]:
    with reading(folder):
        return list(folder.iterdir())


def _blank(sentence: str, copy: Path, split: str) -> set[_Row]:
    """Blank the line that a reader refuses; returns what it told of, nothing if the fault has no line of its own."""
    path, line = _told_of(sentence)
    if path.suffix in _TEXTS and line and path.is_file() and not path.is_symlink():
        return _blank_line(path, line)
    if os.path.islink(path) and path.parent.name == "images":
        path.unlink()
        return {_Row(path.stem)}
    if path.suffix == ".xml":  # the labels of one photograph, which the list names
        lists = [text for text in copy.rglob(f"{split}.txt") if not text.is_symlink()]
        found = [(text, _lines(text).get(path.stem)) for text in lists]
        return set().union(*(_blank_line(text, line) for text, line in found if line))
    return set()


def _told_of(sentence: str) -> tuple[Path, int]:
    """The file that a sentence begins with, and the line in it, 0 for none; its name may hold what ends it: ": "."""
    ends = [*re.finditer(r":(?:(\d+):)? ", sentence)]
    there = (end for end in reversed(ends) if os.path.lexists(sentence[: end.start()]))
    end = next(there, ends[0] if ends else None)
    return (Path(sentence[: end.start()]), int(end[1] or 0)) if end else (Path(), 0)


def _blank_line(path: Path, line: int) -> set[_Row]:
    lines = _split(path, path.read_text(encoding="utf-8-sig"))
    if path.suffix == ".csv" and not any(map(str.strip, lines[: line - 1])):
        return set()  # the header
    text, lines[line - 1] = lines[line - 1], ""
    path.write_text("\n".join(lines), encoding="utf-8")
    header = next((_fields(text) for text in lines if text.strip()), []) if path.suffix == ".csv" else []
    fields = _fields(text) if [name.lower() for name in header[1:]] == ["labels", "split"] else []
    return {_Row(_name(text, path), fields[2] if len(fields) == 3 else "")} if text.strip() else set()


def _name(line: str, path: Path) -> str:
    """The photograph of a line of a list or table, under the name that the layout's reader gives it."""
    if path.suffix == ".csv":
        first = PurePosixPath(_fields(line)[0])
        return first.stem if first.suffix.lower() in SUFFIXES else str(first)
    fields = line.split()
    return PurePosixPath(fields[0]).stem if gives_paths(fields) else fields[0]


def _fields(row: str) -> list[str]:
    return [field.strip() for field in next(csv.reader([row[:_LONGEST_ROW]]))]


def _split(path: Path, text: str) -> list[str]:
    """Into lines as the file's reader counts them: that of tables knows fewer ends than `str.splitlines`."""
    return re.split(r"\r\n|\r|\n", text) if path.suffix == ".csv" else text.splitlines()


def _lines(path: Path) -> dict[str, int]:
    """The line of each photograph in a list or table, its first one."""
    try:
        lines = _split(path, path.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError):
        return {}
    return {_name(text, path): number for number, text in reversed([*enumerate(lines, 1)]) if text.strip()}


def _places(dataset: str, root: Path | None, split: str) -> dict[str, str]:
    """file:line of each photograph, where the layout has such."""
    if root is None or dataset not in ("voc", "folder"):
        return {}
    path = list_path(root, split) if dataset == "voc" else root / "labels.csv"
    return {name: f"{path}:{line}" for name, line in _lines(path).items()}


def _moved(source: Source, copy: Path, root: Path) -> Source:
    """A source that was read from the copy, with the paths of the files themselves."""
    if not isinstance(source, Photographs):
        return source

    def back(path: Path | None) -> Path | None:
        return None if path is None else root / path.relative_to(copy)

    return Photographs(
        source.classes,
        source.names,
        source.labels,
        tuple(map(back, source.images)),
        tuple(map(back, source.masks)),
        source.mask_values,
    )
