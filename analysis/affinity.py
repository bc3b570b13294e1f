"""The affinity probe: how much each neighbour of a pixel weighs in the refinement, by color, by class, and joint."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from analysis.predictor import Encoding, Predictor
from wsss import UserError
from wsss.refinement import DILATIONS, affinity, neighbor_offsets

KINDS = ("color", "label", "joint")
"""Color affinity alone (alpha = 1), class affinity alone (alpha = 0), and both as they act (Eq. 5)."""

DIRECTIONS = {
    (-1, 0): "↑",
    (-1, 1): "↗",
    (0, 1): "→",
    (1, 1): "↘",
    (1, 0): "↓",
    (1, -1): "↙",
    (0, -1): "←",
    (-1, -1): "↖",
}

_DRAWN_SIDE = 640  # of the drawing's short side in pixels: the nearest neighbours would overlap on a small photograph
_MOST_RADIUS = 0.03  # of the largest circle, as a share of the short side


@dataclass(frozen=True)
class Probe:
    """The neighbours of one pixel, ring by ring, N of them."""

    at: tuple[int, int]  # row and column in the photograph: the center of the refinement's pixel that was asked about
    rows: np.ndarray  # (N,) int, in the photograph; beyond its border a neighbour is the pixel at the border
    columns: np.ndarray  # (N,)
    dilations: np.ndarray  # (N,) int, distance in pixels of the refinement
    directions: tuple[str, ...]  # N arrows
    color: np.ndarray  # (N,) float32 weights that sum to 1
    label: np.ndarray  # (N,)
    joint: np.ndarray  # (N,)


@torch.inference_mode()
def probe(
    predictor: Predictor,
    encoding: Encoding,
    pixel: tuple[int, int],
    name: str,
    *,
    alpha: float,
    dilations: Sequence[int] = DILATIONS,
) -> Probe:
    """The weights of Eq. 5 with which a pixel takes over its neighbours' score of a class.

    Args:
        pixel: (row, column) of encoding.rgb.
        name: of the class, or "background".

    Raises:
        UserError: the pixel lies outside, there is no such class, or alpha is not in [0, 1].
    """
    k = 0 if name == "background" else predictor.indices([name])[1]
    size, grid = encoding.rgb.shape[:2], encoding.maps.shape[-2:]
    if not all(0 <= place < side for place, side in zip(pixel, size, strict=True)):
        raise UserError(f"the pixel {pixel} does not lie in the photograph of {size[0]} rows and {size[1]} columns")
    if not 0 <= alpha <= 1:
        raise UserError(f"alpha must be a number from 0 to 1, got {alpha!r}")
    row, column = (place * cells // side for place, cells, side in zip(pixel, grid, size, strict=True))
    colors, labels = predictor.kernels(encoding, dilations)
    here = np.s_[:, :, row : row + 1, column : column + 1]
    weights = [
        affinity(colors[here], labels[k : k + 1][here], share)[0, :, 0, 0].cpu().numpy() for share in (1.0, 0.0, alpha)
    ]
    offsets = np.array(neighbor_offsets(dilations))
    reach = np.abs(offsets).max(1)
    return Probe(
        (_center(row, grid[0], size[0]), _center(column, grid[1], size[1])),
        np.array([_center(row + dy, grid[0], size[0]) for dy in offsets[:, 0]]),
        np.array([_center(column + dx, grid[1], size[1]) for dx in offsets[:, 1]]),
        reach,
        tuple(DIRECTIONS[tuple(step)] for step in offsets // reach[:, None]),
        *weights,
    )


def draw(rgb: np.ndarray, seen: Probe, kind: str = "joint") -> np.ndarray:
    """The neighbours on their photograph: the area and the brightness of a circle are its weight.

    Args:
        kind: from KINDS.

    Returns:
        uint8, enlarged where the photograph is small. The largest weight has the largest circle; a weight of a
        hundredth of it is still a dot.
    """
    factor = max(1.0, _DRAWN_SIDE / min(rgb.shape[:2]))
    size = round(rgb.shape[1] * factor), round(rgb.shape[0] * factor)
    out = cv2.resize(rgb, size, interpolation=cv2.INTER_CUBIC)
    weights, most = getattr(seen, kind), _MOST_RADIUS * min(size)
    places = np.stack([seen.columns, seen.rows], 1)
    center = tuple(_scaled(seen.at[::-1], factor))
    shares = weights / max(float(weights.max()), 1e-12)
    for n in np.argsort(-shares):  # small ones last, so that none is hidden
        place, radius = tuple(_scaled(places[n], factor)), max(2, round(most * float(shares[n]) ** 0.5))
        paint = cv2.applyColorMap(np.uint8([[55 + round(200 * float(shares[n]))]]), cv2.COLORMAP_INFERNO)[0, 0, ::-1]
        cv2.circle(out, place, radius, tuple(int(value) for value in paint), -1, cv2.LINE_AA)
        cv2.circle(out, place, radius, (255, 255, 255), 1, cv2.LINE_AA)
    for thickness, color in ((4, (0, 0, 0)), (2, (0, 255, 255))):
        cv2.drawMarker(out, center, color, cv2.MARKER_CROSS, 18, thickness)
    return out


def _center(cell: int, cells: int, side: int) -> int:
    """The photograph's pixel at the center of a cell of the refinement's grid; cells beyond it are those at its end."""
    return int((min(max(cell, 0), cells - 1) + 0.5) * side / cells)


def _scaled(place: Sequence[int], factor: float) -> list[int]:
    return [round((int(value) + 0.5) * factor) for value in place]
