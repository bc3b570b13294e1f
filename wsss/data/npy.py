"""The published cls_labels.npy of PSA, IRN, SEAM...: a pickle, whose instructions are read and never carried out."""

import pickletools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from wsss import UserError
from wsss.data.labels import Table
from wsss.data.picture import require_file


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
        except Exception as error:
            raise UserError(f"{path}: is refused: it is no plain dict of id -> label array ({error})") from None
    table = Table(path, tuple(classes), {}, {}, {}, {})
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
    except (ValueError, OSError, RecursionError, MemoryError, SyntaxError) as error:  # numpy parses it as Python
        raise UserError(f"{path}: is not an npy file ({str(error)[:120]})") from None
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
