"""Arrays become pictures: masks over photographs, maps as heat, legends."""

import html
from collections.abc import Sequence

import cv2
import numpy as np

from wsss import UNLABELLED

_GRAY = (180, 180, 180)  # of unlabelled pixels in a legend


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
    painted = colors[np.where(mask == UNLABELLED, 0, mask)].astype(np.float32)
    share = np.where((mask > 0) & (mask != UNLABELLED), opacity, 0.0)
    rows, columns = np.indices(mask.shape, sparse=True)
    stripes = (rows + columns) // 5 % 2
    unlabelled = mask == UNLABELLED
    painted[unlabelled] = np.where(stripes, 215, 150)[unlabelled][:, None]
    share[unlabelled] = 0.75
    share = share[..., None]
    out = np.rint(rgb * (1 - share) + painted * share).astype(np.uint8)
    return _outlined(out, mask, colors)


def _outlined(rgb: np.ndarray, mask: np.ndarray, colors: np.ndarray) -> np.ndarray:
    """Draw a thin line in its class's color around each region."""
    for k in np.unique(mask):
        if 0 < k < len(colors):
            outlines, _ = cv2.findContours((mask == k).astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
            cv2.drawContours(rgb, outlines, -1, _bright(colors[k]), 1)
    return rgb


def _bright(color: np.ndarray) -> tuple[int, ...]:
    return tuple(int(255 - (255 - value) * 0.55) for value in color)


def heat(values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A map (h, w) in false colors from its minimum (dark) to its maximum (bright), (H, W, 3) uint8 of `size`."""
    low, high = float(values.min()), float(values.max())
    scaled = (values - low) / (high - low) if high > low else np.zeros_like(values)
    gray = np.rint(255 * cv2.resize(scaled, size[::-1], interpolation=cv2.INTER_LINEAR)).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(gray, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)


def shares(mask: np.ndarray, classes: Sequence[str]) -> dict[str, float]:
    """The share of the area that each class in the mask has, in [0, 1], by name; "unlabelled" comes last."""
    names = ("background", *classes)
    return {"unlabelled" if k == UNLABELLED else names[k]: float((mask == k).mean()) for k in np.unique(mask)}


def legend(mask: np.ndarray, classes: Sequence[str], colors: np.ndarray) -> str:
    """HTML with the name, color and area share of each class in the mask; names are escaped."""
    paints = dict(zip(("background", *classes), colors, strict=True))
    entries = []
    for name, share in shares(mask, classes).items():
        swatch = f"background:rgb({','.join(str(int(value)) for value in paints.get(name, _GRAY))})"
        entries.append(f'<span class="entry"><i style="{swatch}"></i>{html.escape(name)} {100 * share:.0f} %</span>')
    return f'<div class="legend">{"".join(entries)}</div>'
