"""Pseudo masks over one or two settings (Table 6)."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr

from analysis.charts import sweep_figure
from analysis.sweeps import (
    AXES,
    MEASURES,
    Axis,
    Cell,
    Settings,
    cell_at,
    contact_sheet,
    csv_text,
    description,
    png,
    sweep,
)
from analysis.tabs.pictures import PICTURE
from analysis.tabs.subject import Scene, Subject
from wsss import UserError

NOTHING = "nothing"
"""Chosen as columns, it makes a sweep over one setting."""

VALUES = {
    "alpha": "0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1",
    "T": "0, 1, 3, 5, 10, 20, 30",
    "threshold": "0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9",
    "tau": "0.1, 0.25, 0.5, 1, 2",
    "R1": "1, 3, 5, 7, 9",
}
"""Of each axis, until the visitor writes others."""

_PAUSE = 0.3  # seconds between two pictures: drawing all cells at each new one would take longer than the sweep
_CONCURRENCY = {"concurrency_id": "sweep", "concurrency_limit": 2, "trigger_mode": "always_last", "queue": True}


class Axes(NamedTuple):
    """What the visitor chooses."""

    rows: gr.Dropdown
    row_values: gr.Textbox
    columns: gr.Dropdown
    column_values: gr.Textbox
    measure: gr.Dropdown


class Results(NamedTuple):
    """What is shown; `swept` is a `Swept`."""

    sheet: gr.Image
    figure: gr.Plot
    swept: gr.State


@dataclass(frozen=True)
class Swept:
    """What a session keeps of a sweep: no masks."""

    rows: Axis
    columns: Axis | None
    settings: dict[tuple[int, int], Settings]
    table: str  # CSV
    description: dict[str, Any]


def build(
    subject: Subject, tabs: gr.Tabs, refinement: dict[str, gr.components.Component]
) -> dict[str, gr.components.Component]:
    """Lay out the tab and wire it, inside open gr.Tabs. Returns its settings by name.

    Args:
        refinement: the Refinement tab's settings by name; they hold what is not swept, and receive a clicked cell's.
    """
    with gr.Tab("Sweep", id="Sweep") as tab:
        with gr.Group(), gr.Row():
            axes = _axes()
        sheet = gr.Image(label="Click a cell to open it in Refinement", elem_classes="film", **PICTURE)
        with gr.Row():
            stop = gr.Button("Stop", size="sm")
            downloads = [gr.DownloadButton(f"Download {kind}", size="sm") for kind in ("PNG", "CSV")]
        results = Results(sheet, gr.Plot(label="Measure"), gr.State())
    sliders = [refinement[name] for name in ("alpha", "T", "threshold", "background_threshold", "floor")]
    controls = [*axes, *sliders]
    runs = [
        subject.follow(tab, _sweep, controls, results, **_CONCURRENCY),
        subject.live([axis.change for axis in axes], _sweep, controls, results, **_CONCURRENCY),
    ]
    stop.click(None, cancels=runs, api_visibility="private")
    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    for name, values in ((axes.rows, axes.row_values), (axes.columns, axes.column_values)):
        name.input(lambda name: VALUES.get(name, ""), name, values, **quiet)
    sheet.select(_open, [results.swept, sheet], [tabs, *sliders], **quiet)
    results.figure.change(_files, [results.swept, sheet], downloads, **quiet)
    return {"rows": axes.rows, "columns": axes.columns, "measure": axes.measure}


def _axes() -> Axes:
    return Axes(
        gr.Dropdown(list(AXES), value="alpha", label="Rows", min_width=100),
        gr.Textbox(VALUES["alpha"], label="values", max_length=400, min_width=160),
        gr.Dropdown([NOTHING, *AXES], value=NOTHING, label="Columns", min_width=100),
        gr.Textbox("", label="values", max_length=400, min_width=160),
        gr.Dropdown([(text, name) for name, text in MEASURES.items()], value="edges", label="Measure", min_width=290),
    )


def _sweep(scene: Scene, rows, row_values, columns, column_values, measure, *sliders) -> Iterator[tuple]:
    """The contact sheet as it fills, then the figure; in the order of `Results`."""
    down = _axis(rows, row_values)
    across = None if columns == NOTHING else _axis(columns, column_values)
    config = scene.predictor.config
    settings = Settings(*sliders, config.drop_temperature, config.info_radius)
    measure = "iou" if scene.truth is not None and measure == "edges" else measure
    cells: list[Cell] = []
    shown = 0.0
    for cell in sweep(scene.predictor, scene.encoding, scene.present, down, across, settings, truth=scene.truth):
        cells.append(cell)
        if time.monotonic() - shown > _PAUSE:
            yield _sheet(scene, cells, down, across, measure), gr.skip(), gr.skip()
            shown = time.monotonic()
    swept = Swept(
        down,
        across,
        {(cell.row, cell.column): cell.settings for cell in cells},
        csv_text(cells),
        description(scene.predictor, scene.present, down, across, settings),
    )
    yield _sheet(scene, cells, down, across, measure), sweep_figure(cells, down, across, measure), swept


def _sheet(scene: Scene, cells: list[Cell], rows: Axis, columns: Axis | None, measure: str):
    return contact_sheet(cells, rows, columns, scene.encoding.rgb, scene.predictor.colors, measure=measure)


def _axis(name: str, text: str) -> Axis:
    """An axis from numbers with commas between. Raises UserError where one is not a number."""
    try:
        values = tuple(float(value) for value in text.split(",") if value.strip())
    except ValueError:
        raise UserError(f"the values of {name} must be numbers with commas between, got {text[:60]!r}") from None
    return Axis(name, tuple(int(value) if value == int(value) else value for value in values))


def _open(swept: Swept | None, sheet, event: gr.SelectData) -> tuple:
    """The clicked cell's settings into the sliders of the Refinement tab, which is opened."""
    place = cell_at(event.index, sheet.shape, swept.rows, swept.columns) if swept else None
    if place not in (swept.settings if swept else {}):
        return (gr.skip(),) * 6
    cell = swept.settings[place]
    sliders = cell.alpha, cell.steps, cell.object_cutoff, cell.background_cutoff, cell.least_cutoff
    return gr.Tabs(selected="Refinement"), *sliders


def _files(swept: Swept | None, sheet) -> tuple[str | None, str | None]:
    """The PNG, with its settings inside, and the CSV of a finished sweep."""
    if swept is None or sheet is None:
        return None, None
    folder = Path(tempfile.mkdtemp(dir=gr.utils.get_upload_folder()))
    picture, table = folder / "sweep.png", folder / "sweep.csv"
    picture.write_bytes(png(sheet, swept.description))
    table.write_text(swept.table)
    return str(picture), str(table)
