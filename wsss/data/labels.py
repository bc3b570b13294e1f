"""Image-level labels from a CSV table and from VOC's boxes; never from masks. `npy.py` reads the published ones."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from wsss import UNLABELLED, UserError
from wsss.data.faults import Faults, noting
from wsss.data.picture import require_file


class Row(NamedTuple):
    """A row of a CSV file."""

    line: int
    fields: list[str]  # without the spaces around them
    fault: str  # why it is no CSV line; empty if it is one


class Table(NamedTuple):
    """The labels of photographs by their name."""

    path: Path
    classes: tuple[str, ...]
    vectors: dict[str, np.ndarray]  # (K-1,) float32 in {0, 1}
    lines: dict[str, int]  # where each photograph stands in the file; empty for a file without lines
    splits: dict[str, str]  # empty without a column "split"
    refused: dict[str, str]  # the photographs all of whose rows are faulty, and their splits, "" without any

    def place(self, name: str) -> str:
        """Where the labels of a photograph stand: file:line."""
        return f"{self.path}:{self.lines[name]}" if name in self.lines else str(self.path)


def read_text(path: Path) -> str:
    """A text file in UTF-8 with or without a byte order mark. Raises UserError naming the file."""
    require_file(path)
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 text (byte {error.start}); save it again as UTF-8") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None


def check_classes(classes: Sequence[str], where: str) -> tuple[str, ...]:
    """The class names, when they can serve as such. Raises UserError that starts with `where`."""
    if not classes:
        raise UserError(f"{where}: names no class")
    if len(classes) >= UNLABELLED:
        raise UserError(f"{where}: names {len(classes)} classes; a mask has values for {UNLABELLED - 1}")
    for k, name in enumerate(classes):
        if not name or name.lower() == "background":
            raise UserError(f"{where}: {name!r} cannot be the name of a class; only objects are named")
        if name in classes[:k]:
            raise UserError(f"{where}: class {name!r} is named twice")
    return tuple(classes)


def read_csv(path: Path, classes: Sequence[str] | None = None, noted: Faults | None = None) -> Table:
    """A table of labels, a row a line, in one of two forms told apart by the header:

        image,cat,dog                image,labels[,split]
        2007_000175,0,1              holiday.jpg,cat;dog[,train]

    The classes are `classes`; without them the columns of the first form, the sorted names in the second.

    Args:
        noted: where the faults of single rows go, which are left out then.

    Raises:
        UserError: the file is not such a table; unless it is noted, also a row with an unknown class, a value other
            than 0 and 1, or the photograph of an earlier row. The sentence starts with file:line. Whether a row
            without a class can be used is for `require_label` to say.
    """
    header, *rows = _rows(path)
    titles = [name.lower() for name in header.fields[1:]]
    plain = titles in (["labels"], ["labels", "split"])
    has_split = titles == ["labels", "split"] and any(row.fields[2:3] not in ([], [""]) for row in rows)
    columns = None if plain else check_classes(header.fields[1:], f"{path}:{header.line}")
    named: dict[str, list[str]] = {}
    lines: dict[str, int] = {}
    splits: dict[str, str] = {}
    for row in rows:
        with noting(noted):
            _require_like(header, row, path)
            where, photograph, *fields = f"{path}:{row.line}", *row.fields
            if photograph in lines:
                raise UserError(f"{where}: {photograph!r} stands in line {lines[photograph]} already")
            if has_split and not fields[1]:
                raise UserError(f"{where}: {photograph!r} has no split; name one")
            named[photograph] = _split_names(fields[0]) if plain else _flagged_names(fields, columns, where)
            lines[photograph] = row.line
            if has_split:
                splits[photograph] = fields[1]
    classes = check_classes(classes or columns or sorted(set().union(*named.values())), str(path))
    vectors: dict[str, np.ndarray] = {}
    for photograph, names in named.items():
        with noting(noted):
            vectors[photograph] = label_vector(names, classes, f"{path}:{lines[photograph]}")
    lost = [row for row in rows if row.fields[0] not in vectors]
    return Table(
        path,
        classes,
        vectors,
        lines={name: lines[name] for name in vectors},
        splits={name: splits[name] for name in vectors if has_split},
        refused={row.fields[0]: row.fields[2] if has_split and len(row.fields) == 3 else "" for row in lost},
    )


def _rows(path: Path) -> list[Row]:
    """The header and the rows that are not blank."""
    lines = enumerate(io.StringIO(read_text(path), newline=None), start=1)
    rows = [_row(number, text.removesuffix("\n"), path) for number, text in lines if text.strip()]
    rows = [row for row in rows if any(row.fields)]
    form = "the header must be image,CLASS,CLASS... or image,labels"
    if not rows:
        raise UserError(f"{path}: is empty; {form}")
    header = rows[0]
    if header.fault:
        raise UserError(header.fault)
    if header.fields[0].lower() != "image" or len(header.fields) < 2:
        raise UserError(f"{path}:{header.line}: {form}, got {','.join(header.fields)!r}")
    return rows


def _row(number: int, text: str, path: Path) -> Row:
    """A line by itself, so that a quote without its end takes no other with it."""
    try:
        (fields,) = csv.reader([text], strict=True)
        fault = ""
    except csv.Error as error:
        fields, fault = text.replace('"', "").split(","), f"{path}:{number}: is not a CSV line ({error})"
    return Row(number, [field.strip() for field in fields], fault)


def _require_like(header: Row, row: Row, path: Path) -> None:
    if row.fault:
        raise UserError(row.fault)
    if len(row.fields) != len(header.fields):
        raise UserError(f"{path}:{row.line}: has {len(row.fields)} fields, the header has {len(header.fields)}")


def _split_names(field: str) -> list[str]:
    return [name.strip() for name in field.split(";") if name.strip()]


def _flagged_names(flags: Sequence[str], columns: Sequence[str], where: str) -> list[str]:
    for flag, name in zip(flags, columns, strict=True):
        if flag not in ("0", "1"):
            raise UserError(f"{where}: the value of {name} must be 0 or 1, got {flag!r}")
    return [name for flag, name in zip(flags, columns, strict=True) if flag == "1"]


def label_vector(names: Sequence[str], classes: Sequence[str], where: str) -> np.ndarray:
    """Class names as (K-1,) float32 in {0, 1}. Raises UserError, starting with `where`, for an unknown one."""
    vector = np.zeros(len(classes), np.float32)
    for name in names:
        if name not in classes:
            raise UserError(f"{where}: there is no class {name!r}; the classes are {', '.join(classes)}")
        vector[classes.index(name)] = 1
    return vector


def require_label(vector: np.ndarray, where: str) -> None:
    """Raises UserError, starting with `where`, for a photograph without a class: there is nothing to learn of it."""
    if not vector.any():
        raise UserError(f"{where}: no class is given; each photograph that is learned from needs one at least")


def read_xml(path: Path, classes: Sequence[str]) -> np.ndarray:
    """The classes of VOC's boxes in one Annotations file, the difficult ones too, as (K-1,) float32 in {0, 1}.

    Raises:
        UserError: naming the file when it is no XML, or has an object of an unknown class.
    """
    try:
        tree = ElementTree.fromstring(read_text(path))
    except ElementTree.ParseError as error:
        raise UserError(f"{path}:{error.position[0]}: is not an XML annotation ({error})") from None
    # A person's parts (head, hand, foot) are nested deeper and are no objects.
    return label_vector([(node.findtext("name") or "").strip() for node in tree.findall("object")], classes, str(path))
