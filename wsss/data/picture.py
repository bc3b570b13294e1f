"""Reading picture files that may be anything: each is taken as a viewer would show it, or refused in one sentence."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from wsss import UNLABELLED, UserError
from wsss.exits import is_out_of_memory

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""What photographs may be; Pillow knows more, and starts other programs for some of them."""

MOST_PIXELS = 40_000_000
"""Of a photograph: a file of a few kilobytes can claim to hold gigabytes."""

MOST_BYTES = 128 * 2**20
"""Of a file: MOST_PIXELS without compression."""

PngImagePlugin.MAX_TEXT_CHUNK = 16 * 2**20
"""Of text or a color profile in a PNG, once unpacked: photo editors leave more there than Pillow's own 1 MiB."""

_MOST_SCANS = 100
"""Of a progressive JPEG, which has about ten: each costs a pass over all pixels, however few bytes it takes."""

_ORIENTATION = 0x0112  # EXIF
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_ITS_SIDE = [_UPRIGHT[tag] for tag in (5, 6, 7, 8)]

_GRAY_STEP = {"L;2": 85, "L;4": 17}
"""By which Pillow multiplies gray of 2 and 4 bits, so that the greatest value is white."""

_MARKER = re.compile(rb"\xff([\xc0-\xcf\xd8-\xfe])")
"""JPEG: what begins a segment; not a 255 among the pixels' data, nor a restart within them."""

_TILE = (322, 323)  # TIFF: width and length of a tile
_SAMPLE_FORMAT, _UNSIGNED = 339, 1  # TIFF


def require_file(path: Path, most_bytes: int = MOST_BYTES) -> None:
    """Raises UserError unless `path` is a regular file with content; opening anything else may never return."""
    try:
        found, regular = path.exists(), path.is_file()
        size = path.stat().st_size if regular else 0
    except (OSError, ValueError) as error:  # a name with a NUL, or longer than the file system takes
        name = str(path).replace("\0", "?")
        raise UserError(f"{name}: cannot be looked at ({_reason(error)})") from None
    if not found:
        raise UserError(f"{path}: no such file")
    if not regular:
        raise UserError(f"{path}: is not a regular file")
    if size == 0:
        raise UserError(f"{path}: is empty")
    if size > most_bytes:
        raise UserError(f"{path}: is over {most_bytes / 2**20:.0f} MiB")


def read_rgb(path: Path) -> np.ndarray:
    """A picture file as (H, W, 3) uint8, turned upright by its EXIF tag; of several frames the first.

    Gray of 16 bits is scaled by [0, 65535]. Wider gray, or of real numbers, by the range that it uses: [0, 1] (real
    numbers alone), [0, 255] or [0, 65535], and beyond that from 0, or a lesser least value, to its greatest one.

    Raises:
        UserError: naming the file: it is no regular file, empty, too large, of another format, cut off or broken.
    """
    with _opened(path, "a picture") as picture:
        picture.load()
        return _rgb(_upright(picture))


def photograph_size(path: Path) -> tuple[int, int]:
    """(height, width) of what `read_rgb` gives, and its refusals; of a JPEG in half the time."""
    with _opened(path, "a picture") as picture:
        if picture.format == "JPEG":
            size = picture.size if _turn(picture) in _ON_ITS_SIDE else picture.size[::-1]
            picture.draft(None, (1, 1))  # all its data are looked at, an eighth of its rows and columns computed
            picture.load()
            return size
    return read_rgb(path).shape[:2]


def read_mask(path: Path) -> np.ndarray:
    """The raw values of an index mask, (H, W) uint8. Raises UserError naming the file."""
    with _opened(path, "a mask") as picture:
        if picture.format != "PNG":
            raise UserError(f"{path}: a mask must be a PNG file, which keeps its values, this is {picture.format}")
        if picture.mode not in ("P", "L"):
            raise UserError(f"{path}: a mask must hold class indices (palette or gray PNG), this is {picture.mode}")
        step = _GRAY_STEP.get(picture.tile[0][3], 1)  # the tile is only there before the picture is decoded
        return np.array(picture) // step


def class_indices(values: np.ndarray, of_classes: Sequence[int]) -> np.ndarray:
    """The values of a mask file, uint8, as indices of the classes with 255 unlabelled.

    `of_classes[k]` is the value of class k, the background first; other values become background.
    """
    indices = np.zeros(256, np.uint8)
    indices[UNLABELLED] = UNLABELLED
    indices[list(of_classes)] = range(len(of_classes))
    return indices[values]


@contextmanager
def _opened(path: Path, kind: str) -> Iterator[Image.Image]:
    """The file, opened and not decoded; whatever fails until it is closed is a UserError naming it."""
    require_file(path)
    try:
        _require_few_scans(path)
        with Image.open(path, formats=FORMATS) as picture:
            _require_modest(picture, path)
            yield picture
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UserError(f"{path}: is not a picture of a known format ({', '.join(FORMATS)})") from None
    except Image.DecompressionBombError:
        raise UserError(f"{path}: has more than {MOST_PIXELS // 10**6} million pixels") from None
    # Pillow's readers raise nearly every type of error for a file that breaks their expectations, and what they mean is
    # always the same.
    except Exception as error:
        if is_out_of_memory(error):
            raise
        if isinstance(error, OSError) and error.errno:  # Pillow's own have no number
            raise UserError(f"{path}: cannot be read ({_reason(error)})") from None
        raise UserError(f"{path}: cannot be read as {kind}, it is cut off or broken ({_reason(error)})") from None


def _require_few_scans(path: Path) -> None:
    """Refuse a JPEG that would be decoded for hours."""
    with path.open("rb") as file:
        if file.read(2) == b"\xff\xd8" and _has_many_scans(file.read()):
            raise UserError(f"{path}: is a JPEG of more than {_MOST_SCANS} scans")


def _has_many_scans(content: bytes) -> bool:
    """Whether a JPEG has too many scans up to its own end: previews within it and films behind it have others.

    Its segments are passed over as libjpeg does, so that no scan is missed that would be decoded; the data behind a
    scan's own segment go on to the next marker.
    """
    count = position = 0
    while count <= _MOST_SCANS and (found := _MARKER.search(content, position)):
        kind, position = found[1][0], found.end()
        if kind == 0xD9:  # the end
            break
        count += kind == 0xDA  # a scan begins
        position += max(2, int.from_bytes(content[position : position + 2], "big"))
    return count > _MOST_SCANS


def _require_modest(picture: Image.Image, path: Path) -> None:
    """Refuse what the header alone tells to be too large, before anything is decoded."""
    sizes = [picture.size]
    if picture.format == "TIFF" and picture.tag_v2.get(_TILE[0]):  # a tile is decoded whole, even for one pixel
        sizes.append(tuple(picture.tag_v2.get(tag) for tag in _TILE))
    for width, height in sizes:
        if width * height > MOST_PIXELS:
            raise UserError(f"{path}: has {width}x{height} pixels, more than {MOST_PIXELS // 10**6} million")


def _upright(picture: Image.Image) -> Image.Image:
    """The picture as its EXIF tag says it was held; as it is when the tags are broken."""
    turn = _turn(picture)
    return picture if turn is None else picture.transpose(turn)


def _turn(picture: Image.Image) -> Image.Transpose | None:
    try:
        return _UPRIGHT.get(picture.getexif().get(_ORIENTATION))
    except Exception:  # of a block that no viewer minds
        return None


def _rgb(picture: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 as a viewer would show it: wide gray scaled to 8 bits, transparency over white."""
    if picture.mode == "F" or picture.mode.startswith("I"):  # Pillow would clip both at 255
        picture = Image.fromarray(_gray(picture))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return np.array(picture.convert("RGB"))


def _gray(picture: Image.Image) -> np.ndarray:
    """Wide gray as (H, W) uint8. Not a number is black, infinity the end of the scale."""
    values = np.asarray(picture)
    if values.dtype == np.int32 and picture.format == "TIFF" and _unsigned(picture):
        values = values.view(np.uint32)  # Pillow has no unsigned gray of 32 bits
    low, high = (0, 65535) if picture.mode.startswith("I;16") else _range(values)
    scaled = values.astype(np.float64)
    scaled -= low
    scaled *= 255 / (high - low)
    np.nan_to_num(scaled, copy=False, nan=0, posinf=255, neginf=0)
    return np.round(np.clip(scaled, 0, 255, out=scaled), out=scaled).astype(np.uint8)


def _unsigned(picture: Image.Image) -> bool:
    return picture.tag_v2.get(_SAMPLE_FORMAT, (_UNSIGNED,))[0] == _UNSIGNED


def _range(values: np.ndarray) -> tuple[float, float]:
    """What is black and what is white in an array of numbers without a stated range.

    One pixel in a hundred may lie beyond: highlights, and what resampling adds at edges.
    """
    known = values.ravel()[:: max(1, values.size // 2**20)].astype(np.float64)
    known = known[np.isfinite(known)]
    if known.size == 0:
        return 0, 1
    least, most = np.quantile(known, (0.01, 0.99))
    for high in (1, 255, 65535):
        if -0.05 * high <= least and most <= high and (high > 1 or values.dtype.kind == "f"):
            return 0, high
    low, high = min(0, known.min()), known.max()
    return low, high if high > low else low + 1


def _reason(error: Exception) -> str:
    """The first words of an error, on one line and without the addresses of objects."""
    text = (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
    return re.sub(r"<[^>]* object at 0x[^>]*>|[^\x20-\x7e]+", "?", text)[:120]
