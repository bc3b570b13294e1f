"""The affinity probe: how much each neighbour of a pixel weighs in the refinement, by color, by class, and joint."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch

from analysis.encoding import Encoding, cell_of, require_pixel
from analysis.predictor import Predictor
from analysis.pseudo_settings import PseudoSettings
from wsss.refinement import affinity, neighbor_offsets

KINDS = ("color", "class", "joint")
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
    weights: dict[str, np.ndarray]  # of each of KINDS, (N,) float32 that sum to 1


@torch.inference_mode()
def probe(
    predictor: Predictor,
    encoding: Encoding,
    pixel: tuple[int, int],
    name: str,
    present: Sequence[str],
    settings: PseudoSettings,
) -> Probe:
    """The weights of Eq. 5 with which a pixel takes over its neighbours' score of a class.

    Args:
        pixel: (row, column) of encoding.rgb.
        name: of the class, or "background".
        present: names of the objects in the photograph, on which the background's weights hang.
        settings: of which alpha and what the kernels depend on matter.

    Raises:
        UserError: the pixel lies outside, or there is no such class.
    """
    of_background = name == "background"
    size, grid = encoding.rgb.shape[:2], encoding.maps.shape[-2:]
    require_pixel(pixel, size)
    row, column = cell_of(pixel, size, grid)
    objects = present if of_background else [name]
    color_kernel, class_kernels = predictor.kernels(encoding, objects, settings)
    class_kernel = class_kernels[:1] if of_background else class_kernels[1:]
    here = np.s_[:, :, row : row + 1, column : column + 1]
    weights = {
        kind: affinity(color_kernel[here], class_kernel[here], share)[0, :, 0, 0].cpu().numpy()
        for kind, share in zip(KINDS, (1.0, 0.0, settings.alpha), strict=True)
    }
    offsets = np.array(neighbor_offsets(settings.dilations))
    reach = np.abs(offsets).max(1)
    return Probe(
        (_center(row, grid[0], size[0]), _center(column, grid[1], size[1])),
        np.array([_center(row + dy, grid[0], size[0]) for dy in offsets[:, 0]]),
        np.array([_center(column + dx, grid[1], size[1]) for dx in offsets[:, 1]]),
        reach,
        tuple(DIRECTIONS[tuple(step)] for step in offsets // reach[:, None]),
        weights,
    )


def draw(rgb: np.ndarray, seen: Probe, kind: str = "joint", *, within: int | None = None) -> np.ndarray:
    """The neighbours on their photograph: the area and the brightness of a circle are its weight.

    Args:
        kind: from KINDS.
        within: show the surroundings up to this distance only, enlarged: there the nearest rings do not overlap.

    Returns:
        uint8, its short side 640 pixels or the photograph's where that is longer. The largest weight has the largest
        circle; the smallest is still a dot.
    """
    far = int(seen.dilations.max())
    inside = seen.dilations <= (within or far)
    (top, left), view = (0, 0), rgb
    if within is not None and within < far:
        reach = _reach(seen, within)
        top, left = (max(0, place - reach) for place in seen.at)
        view = rgb[top : seen.at[0] + reach + 1, left : seen.at[1] + reach + 1]
    factor = max(1.0, _DRAWN_SIDE / min(view.shape[:2]))
    out = cv2.resize(view, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)
    weights, most = seen.weights[kind], _MOST_RADIUS * min(out.shape[:2])
    shares = weights / max(float(weights.max()), 1e-12)
    places = np.rint((np.stack([seen.columns - left, seen.rows - top], 1) + 0.5) * factor).astype(int)
    for n in np.argsort(-shares):  # small ones last, so that none is hidden
        if inside[n]:
            radius = max(2, round(most * float(shares[n]) ** 0.5))
            cv2.circle(out, places[n].tolist(), radius, _brightness(float(shares[n])), -1, cv2.LINE_AA)
            cv2.circle(out, places[n].tolist(), radius, (255, 255, 255), 1, cv2.LINE_AA)
    center = [round((place - start + 0.5) * factor) for place, start in zip(seen.at[::-1], (left, top), strict=True)]
    for thickness, color in ((4, (0, 0, 0)), (2, (0, 255, 255))):
        cv2.drawMarker(out, center, color, cv2.MARKER_CROSS, 18, thickness)
    return out


def _reach(seen: Probe, distance: int) -> int:
    """Pixels of the photograph from the middle to a little beyond the neighbours at this distance."""
    near = seen.dilations == seen.dilations.min()
    cell = max(np.abs(seen.rows[near] - seen.at[0]).max(), np.abs(seen.columns[near] - seen.at[1]).max())
    return round((distance + 1) * cell / int(seen.dilations.min()))


def _brightness(share: float) -> list[int]:
    """The color of a weight that is this share of the largest."""
    return cv2.applyColorMap(np.uint8([[55 + round(200 * share)]]), cv2.COLORMAP_INFERNO)[0, 0, ::-1].tolist()


def _center(cell: int, cells: int, side: int) -> int:
    """The photograph's pixel at the center of a cell of the refinement's grid; cells beyond it are those at its end."""
    return int((min(max(cell, 0), cells - 1) + 0.5) * side / cells)
