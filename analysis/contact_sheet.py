"""All cells of a sweep in one picture, and which of them lies at a place of it."""

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from analysis.render import overlay
from analysis.sweeps import MEASURES, Axis, Cell, count

_CELL_WIDTH, _CELL_HEIGHT, _BAR, _GAP, _MARGIN = 220, 330, 22, 4, 124  # pixels; a photograph fits into a cell
_A_LINE = 6  # cells in a line where there is one axis


def contact_sheet(
    cells: Sequence[Cell],
    rows: Axis,
    columns: Axis | None,
    rgb: np.ndarray,
    colors: np.ndarray,
    *,
    measure: str = "edges",
) -> np.ndarray:
    """All cells in one picture with their settings and their measure, uint8; cells that are not there stay gray.

    Args:
        rgb: the photograph.
        colors: (K, 3) uint8.
        measure: from MEASURES.
    """
    height = min(_CELL_HEIGHT, round(_CELL_WIDTH * rgb.shape[0] / rgb.shape[1]))
    width = min(_CELL_WIDTH, max(1, round(height * rgb.shape[1] / rgb.shape[0])))
    num_rows, num_columns = _shape(rows, columns)
    margin, wide, high = _margin(columns), _CELL_WIDTH + _GAP, height + _BAR + _GAP
    sheet = Image.new("RGB", (margin + wide * num_columns, _BAR + high * num_rows + _GAP), (255, 255, 255))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    if columns:
        for c, value in enumerate(columns.values):
            pen.text((margin + wide * c, 3), f"{columns.name} = {value:g}", "black", font)
        for r, value in enumerate(rows.values):
            name = rows.name.replace(" ", "\n")
            pen.text((6, _BAR + high * r + height // 2), f"{name} = {value:g}", "black", font)
    else:
        pen.text((margin, 3), f"{rows.name}: {MEASURES[measure]}", "black", font)
    places = [_place(row, column, columns) for row in range(len(rows.values)) for column in range(count(columns))]
    for r, c in places:
        left, top = margin + wide * c, _BAR + high * r
        pen.rectangle((left, top, left + _CELL_WIDTH - 1, top + height - 1), (220, 220, 220))
    for cell in cells:
        r, c = _place(cell.row, cell.column, columns)
        left, top = margin + wide * c, _BAR + high * r
        shown = cv2.resize(overlay(rgb, cell.mask, colors, 0.6), (width, height), interpolation=cv2.INTER_AREA)
        sheet.paste(Image.fromarray(shown), (left + (_CELL_WIDTH - width) // 2, top))
        value = cell.measures[measure]
        text = f"{measure} " + ("-" if np.isnan(value) else f"{value:.3f}") + f", labelled {cell.measures['valid']:.2f}"
        text = text if columns else f"{rows.values[cell.row]:g}:  {text}"
        pen.text((left, top + height + 2), text, (90, 90, 90), font)
    return np.asarray(sheet)


def cell_at(place: tuple[int, int], size: tuple[int, int], rows: Axis, columns: Axis | None) -> tuple[int, int] | None:
    """The (row, column) of the cell at a place (x, y) of a contact sheet of that size (H, W); None between cells."""
    num_rows, num_columns = _shape(rows, columns)
    high = (size[0] - _BAR - _GAP) // num_rows
    across, right = divmod(place[0] - _margin(columns), _CELL_WIDTH + _GAP)
    down, below = divmod(place[1] - _BAR, high)
    if not (0 <= down < num_rows and 0 <= across < num_columns and right < _CELL_WIDTH and below < high - _BAR - _GAP):
        return None
    if columns:
        return down, across
    row = down * _A_LINE + across
    return (row, 0) if row < len(rows.values) else None


def _place(row: int, column: int, columns: Axis | None) -> tuple[int, int]:
    """Where a cell lies in a contact sheet; one axis alone runs along lines, as text does."""
    return (row, column) if columns else divmod(row, _A_LINE)


def _shape(rows: Axis, columns: Axis | None) -> tuple[int, int]:
    if columns:
        return len(rows.values), len(columns.values)
    return -(-len(rows.values) // _A_LINE), min(_A_LINE, len(rows.values))


def _margin(columns: Axis | None) -> int:
    return _MARGIN if columns else _GAP
