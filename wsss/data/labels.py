"""Image-level labels from a CSV table, from VOC's boxes and from the published cls_labels.npy; never from masks."""

import csv
import io
import pickletools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple
from xml.etree import ElementTree

import numpy as np

from wsss import UNLABELLED, UserError
from wsss.data.item import require_file


class Row(NamedTuple):
    """A row of a CSV file."""

    line: int
    fields: list[str]


class Table(NamedTuple):
    """The labels of photographs by their name."""

    path: Path
    classes: tuple[str, ...]
    vectors: dict[str, np.ndarray]  # (K-1,) float32 in {0, 1}
    lines: dict[str, int]  # where each photograph stands in the file; empty for a file without lines
    splits: dict[str, str]  # empty without a column "split"


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


def read_csv(path: Path, classes: Sequence[str] | None = None) -> Table:
    """A table of labels, in one of two forms told apart by the header:

        image,cat,dog                image,labels[,split]
        2007_000175,0,1              holiday.jpg,cat;dog[,train]

    The classes are `classes`; without them the columns of the first form, the sorted names in the second.

    Raises:
        UserError: the file is not such a table, or a row has an unknown class, no class, a value other than 0 and 1, or
            the photograph of an earlier row. The sentence starts with file:line.
    """
    header, *rows = _rows(path)
    plain = [name.lower() for name in header.fields[1:]] in (["labels"], ["labels", "split"])
    if plain:
        columns, found = None, [_split_names(row.fields[1]) for row in rows]
    else:
        columns = check_classes(header.fields[1:], f"{path}:{header.line}")
        found = [_flagged_names(row.fields[1:], columns, f"{path}:{row.line}") for row in rows]
    classes = check_classes(classes or columns or sorted(set().union(*found)), str(path))
    table = Table(path, classes, {}, {}, {})
    for row, names in zip(rows, found, strict=True):
        photograph, where = row.fields[0], f"{path}:{row.line}"
        if photograph in table.lines:
            raise UserError(f"{where}: {photograph!r} stands in line {table.lines[photograph]} already")
        table.vectors[photograph] = label_vector(names, classes, where)
        table.lines[photograph] = row.line
        if plain and len(row.fields) == 3:
            table.splits[photograph] = row.fields[2]
    return table


def _rows(path: Path) -> list[Row]:
    """The header and the rows that are not blank, all of one length; spaces around fields are dropped."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""), strict=True)
    try:
        rows = [Row(reader.line_num, [field.strip() for field in fields]) for fields in reader if any(fields)]
    except csv.Error as error:
        raise UserError(f"{path}:{reader.line_num}: is not a CSV line ({error})") from None
    form = "the header must be image,CLASS,CLASS... or image,labels"
    if not rows:
        raise UserError(f"{path}: is empty; {form}")
    header = rows[0]
    if header.fields[0].lower() != "image" or len(header.fields) < 2:
        raise UserError(f"{path}:{header.line}: {form}, got {','.join(header.fields)!r}")
    for row in rows:
        if len(row.fields) != len(header.fields):
            raise UserError(f"{path}:{row.line}: has {len(row.fields)} fields, the header has {len(header.fields)}")
    return rows


def _split_names(field: str) -> list[str]:
    return [name.strip() for name in field.split(";") if name.strip()]


def _flagged_names(flags: Sequence[str], columns: Sequence[str], where: str) -> list[str]:
    for flag, name in zip(flags, columns, strict=True):
        if flag not in ("0", "1"):
            raise UserError(f"{where}: the value of {name} must be 0 or 1, got {flag!r}")
    return [name for flag, name in zip(flags, columns, strict=True) if flag == "1"]


def label_vector(names: Sequence[str], classes: Sequence[str], where: str) -> np.ndarray:
    """Class names as (K-1,) float32 in {0, 1}. Raises UserError, starting with `where`, for none or an unknown one."""
    if not names:
        raise UserError(f"{where}: no class is given; each photograph needs one at least")
    vector = np.zeros(len(classes), np.float32)
    for name in names:
        if name not in classes:
            raise UserError(f"{where}: there is no class {name!r}; the classes are {', '.join(classes)}")
        vector[classes.index(name)] = 1
    return vector


def read_xml(path: Path, classes: Sequence[str]) -> np.ndarray:
    """The classes of VOC's boxes in one Annotations file, the difficult ones too, as (K-1,) float32 in {0, 1}.

    Raises:
        UserError: naming the file when it is no XML, has no object or one of an unknown class.
    """
    try:
        tree = ElementTree.fromstring(read_text(path))
    except ElementTree.ParseError as error:
        raise UserError(f"{path}:{error.position[0]}: is not an XML annotation ({error})") from None
    # A person's parts (head, hand, foot) are nested deeper and are no objects.
    return label_vector([(node.findtext("name") or "").strip() for node in tree.findall("object")], classes, str(path))


def read_npy(path: Path, classes: Sequence[str]) -> Table:
    """The published cls_labels.npy of PSA, IRN, SEAM...: a dict of id -> (K-1,) numbers in {0, 1}.

    The file is a pickle, and unpickling runs whatever code the file names. Here its instructions are only read, and a
    file that needs more of them than such a dict does is refused.

    Raises:
        UserError: naming the file when it is anything else, or a vector of labels that does not fit `classes`.
    """
    require_file(path)
    with path.open("rb") as file:
        _skip_npy_header(file, path)
        try:
            by_id = _vectors(_symbolic(file.read()))
        # Whatever goes wrong while a foreign file is taken apart means the same: it is not the file that is expected.
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise UserError(f"{path}: is refused: it is no plain dict of id -> label array ({error})") from None
    table = Table(path, tuple(classes), {}, {}, {})
    for name, values in by_id.items():
        if values.shape != (len(classes),) or not np.isin(values, (0, 1)).all() or not values.any():
            raise UserError(f"{path}: the labels of {name} must be {len(classes)} values 0 or 1, and one of them 1")
        table.vectors[name] = values.astype(np.float32)
    return table


def _skip_npy_header(file: BinaryIO, path: Path) -> None:
    """Reads up to the pickle. Raises UserError when none follows."""
    try:
        version = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_2_0 if version == (2, 0) else np.lib.format.read_array_header_1_0
        shape, _, dtype = read_header(file)
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: is not an npy file ({error})") from None
    if not dtype.hasobject or shape != ():
        raise UserError(
            f"{path}: holds an array {shape} of {dtype} that names no photograph; write the labels as a CSV table with "
            "the header image,CLASS,CLASS..."
        )


class _Name(NamedTuple):
    """A function that a pickle wants to be called."""

    module: str
    name: str


class _Made:
    """What calling a function would make, and the state that would be handed to it then; nothing is called."""

    def __init__(self, function: _Name, arguments: tuple) -> None:
        self.function, self.arguments, self.state = function.name, arguments, None


# The instructions and names that numpy writes for a dict of arrays, in pickle protocols 2 to 5.
_VALUES = ("BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES", "SHORT_BINBYTES")
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_MODULES = (
    "numpy",
    "_codecs",
    *(f"numpy.{core}.{part}" for core in ("core", "_core") for part in ("multiarray", "numeric")),
)
_FUNCTIONS = ("dtype", "ndarray", "_reconstruct", "_frombuffer", "scalar", "encode")


def _symbolic(pickled: bytes) -> object:
    """What a pickle describes, with a `_Made` wherever unpickling would have called something.

    Raises:
        ValueError, LookupError, TypeError, AttributeError: an instruction that a dict of arrays does not need, or a
            broken one.
    """
    stack: list = []
    marks: list[int] = []
    memo: dict[int, object] = {}

    def pop_marked() -> list:
        start = marks.pop()
        marked = stack[start:]
        del stack[start:]
        return marked

    for opcode, argument, _ in pickletools.genops(pickled):
        match opcode.name:
            case "PROTO" | "FRAME":
                pass
            case name if name in _VALUES or name == "BYTEARRAY8":
                stack.append(argument)
            case name if name in _CONSTANTS:
                stack.append(_CONSTANTS[name])
            case "EMPTY_DICT":
                stack.append({})
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_TUPLE":
                stack.append(())
            case "TUPLE1" | "TUPLE2" | "TUPLE3" as name:
                count = int(name[-1])
                stack[-count:] = [tuple(stack[-count:])]
            case "MARK":
                marks.append(len(stack))
            case "TUPLE":
                stack.append(tuple(pop_marked()))
            case "APPEND":
                value = stack.pop()
                stack[-1].append(value)
            case "SETITEM":
                key, value = stack.pop(-2), stack.pop()
                stack[-1][_photograph(key)] = value
            case "SETITEMS":
                marked = pop_marked()
                stack[-1].update(zip(map(_photograph, marked[::2]), marked[1::2], strict=True))
            case "BINPUT" | "LONG_BINPUT":
                memo[argument] = stack[-1]
            case "MEMOIZE":
                memo[len(memo)] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[argument])
            case "GLOBAL":
                stack.append(_name(*argument.split(" ")))
            case "STACK_GLOBAL":
                stack[-2:] = [_name(*stack[-2:])]
            case "REDUCE":
                function, arguments = stack.pop(-2), stack.pop()
                stack.append(_Made(function, arguments))
            case "BUILD":
                state = stack.pop()
                stack[-1].state = state
            case "STOP":
                return stack.pop()
            case name:
                raise ValueError(f"it holds the instruction {name}")
    raise ValueError("it is cut off")


def _name(module: str, name: str) -> _Name:
    if module not in _MODULES or name not in _FUNCTIONS:
        raise ValueError(f"it wants to call {module}.{name}")
    return _Name(module, name)


def _photograph(key: object) -> str:
    """The name of a photograph; IRN writes 2007_000032 as the number 2007000032."""
    if isinstance(key, _Made) and key.function == "scalar":
        key = int(np.frombuffer(_bytes(key.arguments[1]), _dtype(key.arguments[0]))[0])
    if isinstance(key, int):
        return f"{key // 10**6}_{key % 10**6:06d}"
    if not isinstance(key, str):
        raise TypeError("one of its keys is no id")
    return key


def _vectors(described: object) -> dict[str, np.ndarray]:
    """The dict in a 0-d array of objects, whose state is (version, shape, dtype, order, [the object])."""
    by_id = described.state[4][0]
    if not isinstance(by_id, dict):
        raise TypeError("it holds no dict")
    return {name: _array(made) for name, made in by_id.items()}


def _array(made: _Made) -> np.ndarray:
    if made.function == "_reconstruct":
        _, shape, dtype, _, data = made.state
    elif made.function == "_frombuffer":
        data, dtype, shape, _ = made.arguments
    else:
        raise TypeError("one of its values is no array")
    return np.frombuffer(_bytes(data), _dtype(dtype)).reshape(shape)


def _dtype(made: _Made) -> np.dtype:
    """A number type of at most 8 bytes; its state is (version, byte order, ...)."""
    name = made.arguments[0]
    if made.function != "dtype" or not re.fullmatch("b1|[iu][1248]|f[248]", name):
        raise TypeError("one of its arrays does not hold numbers")
    order = made.state[1]
    return np.dtype(order + name if order in ("<", ">") else name)


def _bytes(data: object) -> bytes:
    """Protocol 2 has no bytes: they stand there as a text that is to be encoded."""
    if isinstance(data, _Made) and data.function == "encode" and data.arguments[1] == "latin1":
        return data.arguments[0].encode("latin1")
    if not isinstance(data, bytes | bytearray):
        raise TypeError("one of its arrays has no bytes")
    return bytes(data)
