"""Files of weights that may be anything: what they claim is checked before a tensor exists, and no code of theirs runs.

safetensors is the format of a checkpoint. A PyTorch file (.pt) is taken too, if all in it is tensors and plain values.
"""

import json
import math
import pickletools
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from wsss import UserError
from wsss.disk import reading
from wsss.exits import is_out_of_memory

MOST_BYTES = 2 * 2**30
"""Of a file of weights; WideResNet-38 with 21 classes takes 0.5 GiB."""

_MOST_HEADER = 16 * 2**20  # of what describes the tensors
_MOST_TENSORS = 20_000

_ITEM_BYTES = {
    **{"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "U16": 2, "I16": 2, "F16": 2, "BF16": 2},
    **{"U32": 4, "I32": 4, "F32": 4, "U64": 8, "I64": 8, "F64": 8},
}
"""Of the number types of safetensors."""

_STORAGES = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool", "Untyped")
_ALLOWED = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    "torch.storage UntypedStorage",
    *(f"torch {name}Storage" for name in _STORAGES),
}
"""All that torch.save names for dicts of tensors and parameters."""

_CALLS = ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID")
"""Instructions that reach for code in ways that torch.save does not use."""

_NESTED = ("state_dict", "model", "network", "weights")
"""Where in a training state the weights of the network are."""

CODE = "contains code or unknown objects"


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or, by its content, a PyTorch file; a prefix "module." is dropped.

    Raises:
        UserError: naming the file: it is no regular file, broken, too large, holds code or anything but finite, dense
            tensors of real numbers.
    """
    return own_names(weights_of(read_pt(path), path) if is_pt(path) else read_safetensors(path), path)


def read_foreign_weights(path: Path) -> dict[str, Tensor]:
    """As `read_weights`, of the user's own file: one of PyTorch from before version 1.6 is taken too.

    Published ImageNet weights are often that old. Nothing but tensors is unpickled of them either, but what such a file
    claims cannot be checked before.
    """
    if not is_pt(path) or zipfile.is_zipfile(path):
        return read_weights(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whose own words recommend to run the code
        if is_out_of_memory(error):
            raise
        raise UserError(f"{path}: is broken, or {CODE} ({type(error).__name__})") from None
    weights = weights_of(content, path)
    require_finite(weights, path)
    return own_names(weights, path)


def is_pt(path: Path) -> bool:
    """Whether the file begins as one of PyTorch: a zip archive, or the bare pickle of old versions.

    A safetensors file begins with a number of 8 bytes, which may look like either, and goes on with a brace.
    """
    require_weights_file(path)
    with reading(path), path.open("rb") as file:
        start = file.read(9)
    return start[:2] in (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05") and start[8:] != b"{"


def require_weights_file(path: Path) -> None:
    """Raises UserError unless it is a regular file of a fitting size, and none of the texts that come in its place."""
    with reading(path):
        if not path.is_file():
            raise UserError(f"{path}: is not a regular file" if path.exists() else f"{path}: no such file")
        size = path.stat().st_size
    if size == 0:
        raise UserError(f"{path}: is empty")
    if size > MOST_BYTES:
        raise UserError(f"{path}: is too large, over {MOST_BYTES / 2**30:.0f} GiB")
    with reading(path), path.open("rb") as file:
        start = file.read(64).lstrip().lower()
    if start.startswith(b"version https://git-lfs"):
        raise UserError(f"{path}: is broken: a pointer of Git LFS stands in its place; run `git lfs pull`")
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise UserError(f"{path}: is broken: it is a web page, the download has failed")


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file, all finite. Raises UserError naming the file and what is wrong."""
    require_weights_file(path)
    require_bounds(path)
    try:
        tensors = load_file(path)
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:
        if is_out_of_memory(error):
            raise
        raise UserError(f"{path}: is broken: is not a safetensors file ({_first_line(error)})") from None
    require_finite(tensors, path)
    return tensors


def require_bounds(path: Path) -> None:
    """Raises UserError unless the header of a safetensors file describes just the bytes that follow it."""
    size = path.stat().st_size
    with reading(path), path.open("rb") as file:
        length = _header_length(file, size, path)
        try:
            header = json.loads(file.read(length).decode(), object_pairs_hook=_without_duplicates)
            end = _described_bytes(header)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise UserError(f"{path}: is broken: its header is not one of safetensors ({_first_line(error)})") from None
    if end != size - 8 - length:
        raise UserError(f"{path}: is broken: its header describes {end} bytes, {size - 8 - length} follow")


def _header_length(file: BinaryIO, size: int, path: Path) -> int:
    start = file.read(8)
    length = struct.unpack("<Q", start)[0] if len(start) == 8 else size
    if length > size - 8 or size < 8:
        raise UserError(f"{path}: is broken: is not a safetensors file, or cut off within its header")
    if length > _MOST_HEADER:
        raise UserError(f"{path}: is too large: its header alone has over {_MOST_HEADER / 2**20:.0f} MiB")
    return length


def _described_bytes(header: Mapping[str, Any]) -> int:
    """How many bytes the tensors of a header take, one after the other. Raises ValueError for overlaps and holes."""
    tensors = [entry for name, entry in header.items() if name != "__metadata__"]
    if len(tensors) > _MOST_TENSORS:
        raise ValueError(f"it names {len(tensors)} tensors")
    end = 0
    for entry in sorted(tensors, key=lambda entry: tuple(entry["data_offsets"])):
        shape, (begin, stop) = entry["shape"], entry["data_offsets"]
        if not all(type(number) is int and number >= 0 for number in (*shape, begin, stop)):
            raise ValueError("a size or an offset is not a whole number")
        if begin != end:
            raise ValueError("tensors overlap, or leave a hole")
        if stop - begin != math.prod(shape) * _ITEM_BYTES[entry["dtype"]]:
            raise ValueError(f"a tensor of shape {shape} has {stop - begin} bytes")
        end = stop
    return end


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a name stands there twice")
    return found


def read_pt(path: Path) -> object:
    """What a PyTorch file holds: tensors, all finite, in dicts and lists with plain values.

    The archive is checked and the names in its pickle are read before PyTorch opens it. There is no second try with
    fewer checks.

    Raises:
        UserError: naming the file and what is wrong.
    """
    require_weights_file(path)
    if not zipfile.is_zipfile(path):
        with reading(path), path.open("rb") as file:
            if file.read(1) == b"\x80":
                raise UserError(
                    f"{path}: {CODE}, or is a PyTorch file from before version 1.6, which cannot be told apart; save "
                    "its weights as safetensors"
                )
        raise UserError(f"{path}: is broken: is not a PyTorch file, or is cut off")
    _require_plain_archive(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whose own words recommend to run the code
        if is_out_of_memory(error):
            raise
        raise UserError(f"{path}: is broken: PyTorch cannot read its tensors ({type(error).__name__})") from None
    try:
        tensors = tensors_in(content)
    except RecursionError:
        raise UserError(f"{path}: is broken: it holds itself, or is nested too deeply") from None
    require_finite(tensors, path)
    return content


def _require_plain_archive(path: Path) -> None:
    """Raises UserError unless the zip file is stored as it is, whole, and its pickle names only tensors."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if any(entry.filename.endswith("constants.pkl") or "/code/" in entry.filename for entry in entries):
                raise UserError(f"{path}: {CODE}: it is TorchScript")
            if any(entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 for entry in entries):
                raise UserError(f"{path}: is too large: its archive is compressed, which torch.save never does")
            if sum(entry.file_size for entry in entries) > path.stat().st_size or len(entries) > _MOST_TENSORS:
                raise UserError(f"{path}: is too large: its archive claims more than the file holds")
            pickles = [entry for entry in entries if entry.filename.endswith("data.pkl")]
            if len(pickles) != 1 or pickles[0].file_size > _MOST_HEADER:
                raise UserError(f"{path}: is broken: is not a PyTorch file")
            if (damaged := archive.testzip()) is not None:
                raise UserError(f"{path}: is broken: the checksum of {damaged[:80]!r} differs")
            foreign = _foreign_name(archive.read(pickles[0]))
    except UserError:
        raise
    except Exception as error:  # zipfile raises many types
        raise UserError(f"{path}: is broken: its archive cannot be read ({_first_line(error)})") from None
    if foreign:
        raise UserError(f"{path}: {CODE}: {foreign[:80]!r}")


def _foreign_name(pickled: bytes) -> str:
    """The first thing in a pickle that is no part of a dict of tensors; "" where there is none."""
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name == "GLOBAL" and argument not in _ALLOWED:
            return argument.replace(" ", ".")
        if opcode.name in _CALLS:
            return opcode.name
    return ""


def tensors_in(content: object, name: str = "") -> dict[str, object]:
    """All tensors in nested dicts and lists, by their dotted names."""
    if isinstance(content, Tensor):
        return {name: content}
    pairs = content.items() if isinstance(content, Mapping) else ()
    if isinstance(content, list | tuple):
        pairs = enumerate(content)
    return {
        key: tensor
        for k, value in pairs
        for key, tensor in tensors_in(value, f"{name}.{k}" if name else str(k)).items()
    }


def require_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Raises UserError unless all tensors are dense, real, finite and not larger than what is stored of them."""
    for name, tensor in tensors.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise UserError(f"{path}: does not fit: {name[:80]!r} is not a dense tensor")
        if tensor.is_complex():
            raise UserError(f"{path}: does not fit: {name[:80]!r} holds complex numbers")
        if tensor.is_floating_point() and tensor.element_size() < 2:  # with which torch does not compute
            raise UserError(f"{path}: does not fit: {name[:80]!r} holds numbers of 8 bits ({tensor.dtype})")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise UserError(f"{path}: is too large: {name[:80]!r} claims more numbers than the file holds")
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise UserError(f"{path}: does not fit: {name[:80]!r} holds numbers that are not finite")


def weights_of(content: object, path: Path) -> dict[str, Tensor]:
    """The weights in what a PyTorch file holds: the dict itself, or the one under a usual name.

    Raises:
        UserError: there is no dict of tensors.
    """
    if isinstance(content, Mapping):
        content = next((content[key] for key in _NESTED if isinstance(content.get(key), Mapping)), content)
    if not isinstance(content, Mapping):
        raise UserError(f"{path}: does not fit: it holds a {type(content).__name__} where a dict of weights is wanted")
    if not content:
        raise UserError(f"{path}: does not fit: it holds no weights")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise UserError(f"{path}: does not fit: {str(key)[:80]!r} is not the weight of a layer")
    return dict(content)


def own_names(weights: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Without the prefix that DataParallel adds to all names."""
    if not weights:
        raise UserError(f"{path}: does not fit: it holds no weights")
    if all(name.startswith("module.") for name in weights):
        return {name.removeprefix("module."): value for name, value in weights.items()}
    return dict(weights)


def require_fit(wanted: Mapping[str, Tensor], weights: Mapping[str, Tensor], path: object) -> None:
    """Raises UserError naming the first three weights that are missing, unknown or misshapen, with both shapes.

    Floating-point weights may have another precision than the network's.
    """
    faults = [f"{key} is missing" for key in wanted if key not in weights]
    faults += [f"{key[:80]!r} is unknown" for key in weights if key not in wanted]
    for key in (key for key in wanted if key in weights):
        ours, theirs = wanted[key], weights[key]
        if ours.shape != theirs.shape:
            faults.append(f"{key} is {tuple(theirs.shape)} instead of {tuple(ours.shape)}")
        elif ours.is_floating_point() != theirs.is_floating_point():
            faults.append(f"{key} is {theirs.dtype} instead of {ours.dtype}")
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise UserError(f"{path}: the weights do not fit the network: {'; '.join(faults[:3])}{more}")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:120]
