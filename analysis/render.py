"""Arrays become pictures: masks over photographs, maps as heat."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from wsss import UNLABELLED

CAUSES = {"several classes claim it": (220, 60, 60), "no class claims it": (150, 150, 150)}
"""The colors of `causes`."""

ERRORS = {"a right object": (60, 170, 90), "wrong": (225, 60, 60), "not counted": (51, 51, 51)}
"""The colors of `error_map`; what is not counted is the photograph, darkened."""

_TITLE_HEIGHT = 32
_FRAME_GAP = 4  # pixels between the frames of a film strip
_CAPTION_WIDTH = 240  # pixels at least of a picture with a caption: two or three words fit in no less
_CAPTION_MARGIN = 4
_LETTERS = 10, 16  # least and greatest height of a caption's letters in pixels


def recolored(colors: np.ndarray, classes: Sequence[str], own: Mapping[str, tuple]) -> np.ndarray:
    """The colors (K, 3) uint8 of the background and of the classes, with the visitor's own by the class's name."""
    names = ("background", *classes)
    return np.array([own.get(name, color) for name, color in zip(names, colors, strict=True)], np.uint8)


def overlay(rgb: np.ndarray, mask: np.ndarray, colors: np.ndarray, opacity: float) -> np.ndarray:
    """A mask laid over its photograph. The background stays as it is, unlabelled pixels are hatched gray.

    Args:
        rgb: (H, W, 3) uint8.
        mask: (H, W) class indices, 255 unlabelled.
        colors: (K, 3) uint8.
        opacity: of the classes' colors, in [0, 1].

    Returns:
        (H, W, 3) uint8.
    """
    mask = mask.astype(np.uint8, copy=False)
    paints = np.zeros((256, 1, 3), np.uint8)
    paints[: len(colors), 0] = colors
    out = cv2.addWeighted(rgb, 1 - opacity, cv2.applyColorMap(mask, paints), opacity, 0)
    cv2.copyTo(rgb, _where(mask == 0), out)
    unlabelled = mask == UNLABELLED
    if unlabelled.any():
        rows, columns = np.indices(mask.shape, sparse=True)
        stripes = np.where((rows + columns) // 5 % 2, np.uint8(215), np.uint8(150))
        hatched = cv2.addWeighted(rgb, 0.25, cv2.merge([stripes] * 3), 0.75, 0)
        cv2.copyTo(hatched, _where(unlabelled), out)
    return _outlined(out, mask, colors)


def _where(pixels: np.ndarray) -> np.ndarray:
    """A bool array as OpenCV takes it: the same memory."""
    return pixels.view(np.uint8)


def marked(rgb: np.ndarray, at: tuple[int, int] | None) -> np.ndarray:
    """A copy of the picture with a ring around the pixel (row, column); None marks nothing."""
    out = rgb.copy()
    if at is not None:
        center = int(at[1]), int(at[0])
        cv2.circle(out, center, 6, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.circle(out, center, 6, (255, 255, 255), 1, cv2.LINE_AA)
    return out


def _outlined(rgb: np.ndarray, mask: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Draw a thin line in its class's color around each region."""
    for k in np.flatnonzero(_counts(mask)[: len(colors)]):
        if k > 0:
            outlines, _ = cv2.findContours(_where(mask == k), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(rgb, outlines, -1, _bright(colors[k]), 1)
    return rgb


def _counts(mask: np.ndarray) -> np.ndarray:
    """Pixels of each class, (256,)."""
    return np.bincount(mask.ravel(), minlength=256)


def _bright(color: np.ndarray) -> tuple[int, ...]:
    return tuple(int(255 - (255 - value) * 0.55) for value in color)


def heat(values: np.ndarray, size: tuple[int, int], limits: tuple[float, float] | None = None) -> np.ndarray:
    """A map (h, w) in false colors, (H, W, 3) uint8 of `size`.

    Dark is the lower limit, bright the upper one; without limits they are the map's minimum and maximum.
    """
    low, high = limits or (float(values.min()), float(values.max()))
    scaled = ((values - low) / (high - low)).clip(0, 1) if high > low else np.zeros_like(values)
    gray = np.rint(255 * cv2.resize(scaled, size[::-1], interpolation=cv2.INTER_LINEAR)).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(gray, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)


def black_and_white(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map (h, w) bool, white where it is true, at a size (H, W); no gray between."""
    gray = cv2.resize(np.uint8(255) * values, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    return cv2.cvtColor(gray, cv2.COLOR_GRAY2RGB)


def causes(rgb: np.ndarray, claims: np.ndarray) -> np.ndarray:
    """Why pixels stay unlabelled, over the photograph: gray where no class claims them, red where several do.

    Args:
        rgb: (H, W, 3) uint8.
        claims: how many classes claim a pixel, (H, W) uint8.
    """
    conflict, no_claim = CAUSES.values()
    paints = np.full((256, 1, 3), conflict, np.uint8)
    paints[0] = no_claim
    out = cv2.convertScaleAbs(rgb, alpha=2 / 3)
    return cv2.copyTo(cv2.applyColorMap(claims, paints), _where(claims != 1), out)


def error_map(rgb: np.ndarray, truth: np.ndarray, mask: np.ndarray, opacity: float) -> np.ndarray:
    """Where a mask is wrong: red over the photograph in gray. A right object is green, what does not count is dark.

    Args:
        rgb: (H, W, 3) uint8.
        truth, mask: (H, W) class indices, 255 unlabelled.
        opacity: of red and green, in [0, 1].
    """
    out = np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    counted = (truth != UNLABELLED) & (mask != UNLABELLED)
    right, wrong, _ = ERRORS.values()
    for where, color in ((counted & (truth != mask), wrong), (counted & (truth == mask) & (truth > 0), right)):
        out[where] = np.rint((1 - opacity) * out[where] + opacity * np.array(color)).astype(np.uint8)
    out[~counted] //= 4
    return out


def film_strip(
    rgb: np.ndarray, masks: Sequence[np.ndarray], colors: np.ndarray, titles: Sequence[str], height: int = 120
) -> np.ndarray:
    """Masks (h, w) over small copies of the photograph, side by side under their titles; (H, W, 3) uint8."""
    width = _scaled_width(rgb, height)
    small = cv2.resize(rgb, (width, height), interpolation=cv2.INTER_AREA)
    frames = []
    for mask, title in zip(masks, titles, strict=True):
        frame = np.full((height + _TITLE_HEIGHT, frame_width(rgb, height), 3), 255, np.uint8)
        resized = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST_EXACT)
        frame[_TITLE_HEIGHT:, :width] = overlay(small, resized, colors, 0.6)
        cv2.putText(frame, title, (3, 23), cv2.FONT_HERSHEY_SIMPLEX, 0.75, (60, 60, 60), 1, cv2.LINE_AA)
        frames.append(frame)
    return np.hstack(frames)


def frame_width(rgb: np.ndarray, height: int = 120) -> int:
    """Pixels from one frame of the film strip to the next; a narrow photograph leaves room for its title."""
    return max(84, _scaled_width(rgb, height)) + _FRAME_GAP


def _scaled_width(rgb: np.ndarray, height: int) -> int:
    return max(1, round(height * rgb.shape[1] / rgb.shape[0]))


def captioned(rgb: np.ndarray, lines: Sequence[str]) -> np.ndarray:
    """The picture with lines of text below it, black on white, in letters so small that the longest line fits.

    A narrow picture is widened by white. The result's size depends on the picture's and on how many lines there are,
    not on what they say, so that pictures of one size still make a `grid`.
    """
    wide = np.pad(rgb, ((0, 0), (0, max(0, _CAPTION_WIDTH - rgb.shape[1])), (0, 0)), constant_values=255)
    width = wide.shape[1]
    size = max(_LETTERS[0], min(_LETTERS[1], width // 26))
    bar = Image.new("RGB", (width, 2 * _CAPTION_MARGIN + len(lines) * (size + 5)), (255, 255, 255))
    pen, font = ImageDraw.Draw(bar), _fitting(lines, width - 2 * _CAPTION_MARGIN, size)
    for n, line in enumerate(lines):
        pen.text((_CAPTION_MARGIN, _CAPTION_MARGIN + n * (size + 5)), line, (40, 40, 40), font)
    return np.vstack([wide, np.asarray(bar)])


def _fitting(lines: Sequence[str], width: int, size: int) -> ImageFont.FreeTypeFont:
    """The font of at most this size in which no line is wider; the smallest, where none is small enough."""
    font = ImageFont.load_default(size)
    while size > 1 and any(font.getlength(line) > width for line in lines):
        size -= 1
        font = ImageFont.load_default(size)
    return font


def grid(rows: Sequence[Sequence[np.ndarray]], gap: int = 6) -> np.ndarray:
    """Pictures of one size in rows and columns on white; (H, W, 3) uint8."""
    spaced = [[np.pad(picture, ((0, gap), (0, gap), (0, 0)), constant_values=255) for picture in row] for row in rows]
    return np.vstack([np.hstack(row) for row in spaced])


def shares(mask: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """The share of the area that each class in the mask has, in [0, 1], by name; "unlabelled" comes last."""
    names, counts = ("background", *classes), _counts(mask)
    return {
        "unlabelled" if k == UNLABELLED else names[k]: counts[k] / mask.size for k in np.flatnonzero(counts).tolist()
    }
