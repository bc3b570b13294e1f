"""What every source of data gives: a photograph, its image-level labels and, where there is one, its mask."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from wsss import UNLABELLED, UserError

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
"""What photographs may be; Pillow knows more, and starts other programs for some of them."""

MOST_PIXELS = 40_000_000
"""Of a photograph: a file of a few kilobytes can claim to hold gigabytes."""

_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # what Pillow raises for broken files


class Item(NamedTuple):
    """One photograph."""

    name: str
    rgb: np.ndarray  # (H, W, 3) uint8
    labels: np.ndarray  # (K-1,) float32 in {0, 1}
    mask: np.ndarray | None  # (H, W) uint8 of class indices, 255 unlabelled


class Source(Protocol):
    """A list of photographs. `labels` is known without opening a picture, masks are only read when asked for."""

    classes: tuple[str, ...]  # the K-1 objects; the background is not named
    names: tuple[str, ...]
    labels: np.ndarray  # (len(names), K-1) float32 in {0, 1}

    def __len__(self) -> int: ...

    def rgb(self, index: int) -> np.ndarray: ...

    def mask(self, index: int) -> np.ndarray | None: ...


@dataclass(frozen=True)
class Photographs:
    """A `Source` of files: each picture a file and each mask a palette or gray PNG.

    `mask_values[k]` is the value that class k has in the mask files (background first); other values but 255 become
    background.
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    labels: np.ndarray
    images: Sequence[Path]
    masks: Sequence[Path | None]
    mask_values: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.names)

    def rgb(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8, upright. Raises UserError naming the file when it cannot be read."""
        return read_rgb(self.images[index])

    def mask(self, index: int) -> np.ndarray | None:
        """(H, W) uint8 class indices with 255 unlabelled; None without a mask. Raises UserError naming the file."""
        path = self.masks[index]
        if path is None:
            return None
        values = read_mask(path)
        mapping = np.zeros(256, np.uint8)
        mapping[UNLABELLED] = UNLABELLED
        for k, value in enumerate(self.mask_values):
            mapping[value] = k
        return mapping[values]


def item(source: Source, index: int) -> Item:
    """The photograph at `index` with all that is known of it. Raises UserError when picture and mask differ in size."""
    rgb, mask = source.rgb(index), source.mask(index)
    if mask is not None and mask.shape != rgb.shape[:2]:
        sizes = f"the mask is {mask.shape}, the photograph {rgb.shape[:2]} (height, width)"
        raise UserError(f"{source.names[index]}: {sizes}")
    return Item(source.names[index], rgb, source.labels[index], mask)


def require_file(path: Path) -> None:
    """Raises UserError unless `path` is a regular file with content; opening anything else may never return."""
    if not path.exists():
        raise UserError(f"{path}: no such file")
    if not path.is_file():
        raise UserError(f"{path}: is not a regular file")
    if path.stat().st_size == 0:
        raise UserError(f"{path}: is empty")


def read_rgb(path: Path) -> np.ndarray:
    """A picture file as (H, W, 3) uint8, turned upright by its EXIF tag. Raises UserError naming the file."""
    require_file(path)
    try:
        with Image.open(path, formats=FORMATS) as picture:
            if picture.width * picture.height > MOST_PIXELS:  # known from the header, before anything is decoded
                size = f"{picture.width}x{picture.height}"
                raise UserError(f"{path}: has {size} pixels, more than {MOST_PIXELS // 10**6} million")
            return _rgb(ImageOps.exif_transpose(picture))
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UserError(f"{path}: is not a picture of a known format ({', '.join(FORMATS)})") from None
    except _UNREADABLE as error:
        raise UserError(f"{path}: cannot be read as a picture ({error})") from None


def _rgb(picture: Image.Image) -> np.ndarray:
    """(H, W, 3) uint8 as a viewer would show it: 16 bits scaled to 8, transparency over white."""
    if picture.mode.startswith("I"):  # Pillow would clip 16-bit gray at 255
        picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return np.array(picture.convert("RGB"))


def read_mask(path: Path) -> np.ndarray:
    """The raw values of an index mask, (H, W) uint8. Raises UserError naming the file."""
    with _open_mask(path) as picture:
        return np.array(picture)


def mask_size(path: Path) -> tuple[int, int]:
    """(height, width) of an index mask that is whole; its pixels are not decoded. Raises UserError naming the file."""
    with _open_mask(path) as picture:
        width, height = picture.size
        picture.verify()
        return height, width


@contextmanager
def _open_mask(path: Path) -> Iterator[Image.Image]:
    """The mask's file, opened; whatever fails until it is closed is a UserError naming it."""
    require_file(path)
    try:
        with Image.open(path, formats=FORMATS) as picture:
            if picture.format != "PNG":
                raise UserError(f"{path}: a mask must be a PNG file, which keeps its values, this is {picture.format}")
            if picture.mode not in ("P", "L"):
                raise UserError(f"{path}: a mask must hold class indices (palette or gray PNG), this is {picture.mode}")
            yield picture
    except UnidentifiedImageError:
        raise UserError(f"{path}: is not a picture") from None
    except _UNREADABLE as error:
        raise UserError(f"{path}: cannot be read as a mask ({error})") from None
