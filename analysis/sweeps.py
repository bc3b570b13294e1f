"""Sweeps over one or two settings of the refinement and of the shape cue: what Table 6 does for alpha."""

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple, Self

import cv2
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from analysis.encoding import Encoding
from analysis.exports import identity
from analysis.predictor import Predictor
from analysis.pseudo_settings import PseudoSettings
from wsss import UNLABELLED, UserError
from wsss.config import Config
from wsss.metrics import confusion, mean_iou

AXES = {
    "alpha": "alpha",
    "T": "steps",
    "threshold": "object_cutoff",
    "background threshold": "background_cutoff",
    "floor": "least_cutoff",
    "tau": "temperature",
    "R1": "radius",
}
"""What can be swept, and which of the `SweptSettings` it is."""

MEASURES = {
    "iou": "mean IoU of the labelled pixels with the ground truth",
    "edges": "outline pixels on edges of the photograph",
    "valid": "labelled pixels",
    "neighbor": "agreement with the neighboring cell",
}
"""All are shares in [0, 1]."""

MOST_CELLS = 144

NETWORK_AXES = ("tau", "R1")
"""For these the network must look at the photograph anew."""

_WHOLE_AXES = ("T", "R1")
_EDGE_SHARE = 0.2  # of the photograph's pixels count as its edges
_TOLERANCE = 2  # pixels between an outline and an edge


@dataclass(frozen=True)
class SweptSettings(PseudoSettings):
    """All that a cell can differ in: the settings of its pseudo mask, and of the shape cue before it."""

    temperature: float
    radius: int

    @classmethod
    def of(cls, config: Config) -> Self:
        """Those that a network was trained with."""
        return cls(**vars(PseudoSettings.of(config)), temperature=config.drop_temperature, radius=config.info_radius)


class Axis(NamedTuple):
    """A name from AXES and its values."""

    name: str
    values: tuple[float, ...]

    @classmethod
    def read(cls, name: str, text: str) -> "Axis":
        """From numbers with commas between. Raises UserError where one is not a finite number."""
        try:
            values = tuple(float(value) for value in text.split(",") if value.strip())
        except (ValueError, AttributeError):
            values = (math.nan,)
        if not all(map(math.isfinite, values)):
            raise UserError(f"the values of {name} must be numbers with commas between, got {str(text)[:60]!r}")
        return cls(name, tuple(int(value) if value == int(value) else value for value in values))


@dataclass(frozen=True)
class Cell:
    """One pseudo mask of a sweep."""

    row: int
    column: int
    settings: SweptSettings
    mask: np.ndarray  # (H, W) uint8, 255 unlabelled
    measures: dict[str, float]  # by the names of MEASURES; NaN where one is not defined


def sweep(
    predictor: Predictor,
    encoding: Encoding,
    present: Sequence[str],
    rows: Axis,
    columns: Axis | None,
    settings: SweptSettings,
    *,
    truth: np.ndarray | None = None,
) -> Iterator[Cell]:
    """The pseudo mask of each combination of two settings, one by one; to cancel, stop iterating.

    Sweeps over tau and R1 run the network anew with another drop. A trained checkpoint has seen one tau and one R1
    only: its masks tell how much it depends on them, not how good another training would have been.

    Args:
        rows, columns: which settings vary; None: one column.
        settings: the values of the others.
        truth: ground truth, (H, W) as encoding.rgb, 255 unlabelled.

    Returns:
        Cells, row by row; column by column where only the columns need the network.

    Raises:
        UserError: at once, when the axes do not fit; at a cell, when its value is out of range.
    """
    axes = [rows] if columns is None else [rows, columns]
    _require(predictor, axes)
    places = [(r, c) for r in range(len(rows.values)) for c in range(count(columns))]
    if columns and columns.name in NETWORK_AXES and rows.name not in NETWORK_AXES:
        places.sort(key=lambda place: place[::-1])

    def cells() -> Iterator[Cell]:
        strong, masks, encoded = strong_edges(encoding.rgb), {}, (None, encoding)
        for place in places:
            given = {AXES[axis.name]: axis.values[i] for axis, i in zip(axes, place, strict=False)}
            chosen = replace(settings, **given)
            drop = chosen.temperature, chosen.radius
            if encoded[0] != drop:
                encoded = drop, predictor.encode_by_drop(encoding, *drop)
            mask = predictor.pseudo(encoded[1], present, chosen)
            beside = masks.get((place[0], place[1] - 1), masks.get((place[0] - 1, place[1])))
            masks[place] = mask
            yield Cell(*place, chosen, mask, _measures(mask, strong, truth, beside, len(predictor.classes) + 1))

    return cells()


def strong_edges(rgb: np.ndarray) -> np.ndarray:
    """Pixels at most 2 from the fifth of the photograph with the largest color gradients, (H, W) bool."""
    smooth = cv2.GaussianBlur(rgb, (0, 0), 1).astype(np.float32)
    gradient = np.hypot(cv2.Sobel(smooth, cv2.CV_32F, 1, 0), cv2.Sobel(smooth, cv2.CV_32F, 0, 1)).max(2)
    strong = gradient > np.quantile(gradient, 1 - _EDGE_SHARE)
    return cv2.dilate(strong.astype(np.uint8), np.ones([2 * _TOLERANCE + 1] * 2, np.uint8)) > 0


def edge_agreement(mask: np.ndarray, strong: np.ndarray) -> float:
    """Share of the objects' outlines that lie on strong edges; NaN for a mask without objects.

    Compare masks of one photograph only: chance alone gives the share of its pixels that are strong.
    """
    is_object = (mask > 0) & (mask != UNLABELLED)
    outline = np.zeros(mask.shape, bool)
    for here, there in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        outline[here] |= (mask[here] != mask[there]) & (is_object[here] | is_object[there])
    return float(strong[outline].mean()) if outline.any() else float("nan")


def count(axis: Axis | None) -> int:
    """How many values an axis has; without one there is one column."""
    return len(axis.values) if axis else 1


def png(picture: np.ndarray, settings: Mapping[str, Any]) -> bytes:
    """A PNG whose text chunk "settings" holds them as JSON, so that the picture tells how it was made."""
    text = PngInfo()
    text.add_text("settings", json.dumps(settings, ensure_ascii=True))
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", pnginfo=text)
    return file.getvalue()


def description(
    predictor: Predictor, present: Sequence[str], rows: Axis, columns: Axis | None, settings: SweptSettings
) -> dict[str, Any]:
    """What a sweep was, for `png` or a file of its own."""
    return {
        "checkpoint": identity(predictor),
        "present": list(present),
        "axes": {axis.name: list(axis.values) for axis in (rows, columns) if axis},
        "settings": asdict(settings) | {"dilations": list(settings.dilations)},
    }


def csv_text(cells: Sequence[Cell]) -> str:
    """One line a cell: its place, its settings, its measures; a measure that is not defined is empty."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["row", "column", *SweptSettings.__dataclass_fields__, *MEASURES])
    for cell in sorted(cells, key=lambda cell: (cell.row, cell.column)):
        measures = ["" if np.isnan(cell.measures[name]) else f"{cell.measures[name]:.5f}" for name in MEASURES]
        chosen = asdict(cell.settings) | {"dilations": " ".join(map(str, cell.settings.dilations))}
        writer.writerow([cell.row, cell.column, *chosen.values(), *measures])
    return file.getvalue()


def _measures(
    mask: np.ndarray, strong: np.ndarray, truth: np.ndarray | None, beside: np.ndarray | None, num_classes: int
) -> dict[str, float]:
    return {
        "iou": float("nan") if truth is None else mean_iou(confusion(truth, mask, num_classes)),
        "edges": edge_agreement(mask, strong),
        "valid": float((mask != UNLABELLED).mean()),
        "neighbor": float("nan") if beside is None else float((mask == beside).mean()),
    }


def _require(predictor: Predictor, axes: Sequence[Axis]) -> None:
    """Raises UserError unless the axes make a sweep of this checkpoint."""
    for axis in axes:
        if axis.name not in AXES:
            raise UserError(f"there is no axis {axis.name!r}; choose from {', '.join(AXES)}")
        if not axis.values:
            raise UserError(f"the axis {axis.name} has no values")
        if axis.name in _WHOLE_AXES and any(value != int(value) for value in axis.values):
            raise UserError(f"the values of {axis.name} must be whole numbers")
        if axis.name in NETWORK_AXES and not predictor.drops:
            raise UserError(f"{axis.name} changes nothing: this checkpoint has no shape cue, or one that drops nothing")
    if len(axes) == 2 and axes[0].name == axes[1].name:
        raise UserError(f"both axes are {axes[0].name}; choose two different ones")
    if (count := int(np.prod([len(axis.values) for axis in axes]))) > MOST_CELLS:
        raise UserError(f"a sweep of {count} cells is too large; {MOST_CELLS} are allowed")
