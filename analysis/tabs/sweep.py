"""Pseudo masks over one or two settings (Table 6)."""

import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import numpy as np

from analysis.charts import sweep_figure
from analysis.contact_sheet import cell_at, contact_sheet
from analysis.sweeps import (
    AXES,
    MEASURES,
    NETWORK_AXES,
    Axis,
    Cell,
    SweptSettings,
    csv_text,
    description,
    png,
    sweep,
)
from analysis.tabs.events import PRIVATE
from analysis.tabs.pictures import PICTURE
from analysis.tabs.scene import Scene
from analysis.tabs.subject import Subject, unlike_before
from analysis.tabs.words import in_words
from wsss import UserError

NOTHING = "nothing"
"""Chosen as columns, it makes a sweep over one setting."""

VALUES = {
    "alpha": "0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1",
    "T": "0, 1, 3, 5, 10, 20, 30",
    "threshold": "0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9",
    "background threshold": "0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9",
    "floor": "0, 0.1, 0.2, 0.3, 0.4, 0.5",
    "tau": "0.1, 0.25, 0.5, 1, 2",
    "R1": "1, 3, 5, 7, 9",
}
"""Of each axis, until the visitor writes others."""

_BEST = "best"  # the measure that says most
_PAUSE = 0.3  # seconds between two pictures: drawing all cells at each new one would take longer than the sweep
_NO_FILES = (gr.update(value=None, interactive=False),) * 2  # of a sweep that has not come to its end
_CONCURRENCY = {"concurrency_id": "sweep", "concurrency_limit": 2, "trigger_mode": "multiple", "queue": True}
"""A sweep that is asked for does not wait for the one under way: that ends as soon as it is not the `Latest`."""


class Latest:
    """A session's latest sweep by number: one that is no longer the latest ends."""

    number = 0
    unwanted = 0  # sweeps that were asked for before this moment (`unlike_before`) do not begin
    axes: tuple = ()  # what was chosen for it; nothing where it was ended by hand

    def end(self) -> int:
        """Let the sweep under way be the latest no more; returns the number of the next one."""
        self.number += 1
        return self.number

    def end_all(self) -> None:
        """End also those that wait for their turn."""
        self.end()
        self.unwanted, self.axes = unlike_before(), ()


class Axes(NamedTuple):
    """What the visitor chooses."""

    rows: gr.Dropdown
    row_values: gr.Textbox
    columns: gr.Dropdown
    column_values: gr.Textbox
    measure: gr.Dropdown


class Results(NamedTuple):
    """What is shown; `swept` is a `Swept`, the files are there when the sweep has ended."""

    sheet: gr.Image
    figure: gr.Plot
    swept: gr.State
    picture: gr.DownloadButton
    table: gr.DownloadButton


@dataclass(frozen=True)
class Swept:
    """What a session keeps of a sweep: no masks."""

    rows: Axis
    columns: Axis | None
    settings: dict[tuple[int, int], SweptSettings]
    size: tuple[int, int]  # of the contact sheet


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
            downloads = [gr.DownloadButton(f"Download {kind}", size="sm", interactive=False) for kind in ("PNG", "CSV")]
        results = Results(sheet, gr.Plot(label="Measure"), gr.State(), *downloads)
        latest = gr.State(Latest())
    sliders = [refinement[name] for name in ("alpha", "T", "threshold", "background_threshold", "floor")]
    controls = [latest, subject.turn(tab), *axes, *sliders, refinement["dilations"], refinement["by_objects"]]
    subject.follow(tab, _sweep, controls, results, first=end_before, **_CONCURRENCY)
    again = {"fn": _anew, "inputs": [latest, *axes], "outputs": subject.turn(tab)}
    gr.on([axes.row_values.input, axes.column_values.input, axes.measure.input], **again, **PRIVATE)
    for at, (name, values) in enumerate([(axes.rows, axes.row_values), (axes.columns, axes.column_values)]):
        name.input(partial(_values_of, 2 * at), [latest, name], values, **PRIVATE).then(**again, **PRIVATE)
    stop.click(Latest.end_all, latest, None, **PRIVATE | {"queue": False})
    # Opened again, the tab sweeps anew: to go on meanwhile would only keep other visitors waiting.
    tabs.select(_leave, latest, None, **PRIVATE | {"queue": False})
    sheet.select(in_words(_open), results.swept, [tabs, *sliders], **PRIVATE)
    return axes._asdict()


def end_before(latest: Latest, _, *controls) -> int:
    """Whatever is asked for, the sweep of before has ended: also where its photograph was taken away."""
    latest.axes = controls[: len(Axes._fields)]
    return latest.end()


def _leave(latest: Latest, opened: gr.SelectData) -> None:
    if opened.value != "Sweep":
        latest.end_all()


def _values_of(place: int, latest: Latest, name: str) -> Any:
    """The first values of an axis that was chosen; to Gradio a list that is left is one that was chosen from."""
    return gr.skip() if latest.axes[place : place + 1] == (name,) else VALUES.get(name, "")


def _anew(latest: Latest, *axes) -> Any:
    """Another sweep is wanted. The one under way ends now: the next may have to wait for those of other visitors."""
    if latest.axes == axes:
        return gr.skip()
    latest.end()
    latest.axes = axes
    return unlike_before()


def _axes() -> Axes:
    measures = MEASURES.items()
    return Axes(
        gr.Dropdown(list(AXES), value="alpha", label="Rows", min_width=100),
        gr.Textbox(VALUES["alpha"], label="values", max_length=400, min_width=160),
        gr.Dropdown([NOTHING, *AXES], value=NOTHING, label="Columns", min_width=100),
        gr.Textbox("", label="values", max_length=400, min_width=160),
        gr.Dropdown(
            [("IoU, or outlines without truth", _BEST), *((text, name) for name, text in measures)],
            value=_BEST,
            label="Measure",
            min_width=290,
        ),
    )


def _sweep(
    scene: Scene, number, latest, wanted, rows, row_values, columns, column_values, measure, *given
) -> Iterator[tuple]:
    """The contact sheet as it fills, then the figure; in the order of `Results`. It ends when it is not the latest."""
    if (wanted or 0) < latest.unwanted:  # nothing is known of a session that was forgotten
        return
    *sliders, dilations, by_objects = given
    down = Axis.read(rows, row_values)
    across = None if columns == NOTHING else Axis.read(columns, column_values)
    config = scene.predictor.config
    settings = SweptSettings(*sliders, tuple(dilations), by_objects, config.drop_temperature, config.info_radius)
    if measure == _BEST:
        measure = "edges" if scene.truth is None else "iou"
    cells: list[Cell] = []
    shown = 0.0
    for cell in sweep(scene.predictor, scene.encoding, scene.present, down, across, settings, truth=scene.truth):
        if number != latest.number:
            return
        cells.append(cell)
        if time.monotonic() - shown > _PAUSE:
            sheet = _sheet(scene, cells, down, across, measure)
            # What else there was is of the sweep before; the first cells can be clicked already.
            yield sheet, None, _swept(cells, down, across, sheet), *_NO_FILES
            shown = time.monotonic()
    sheet = _sheet(scene, cells, down, across, measure)
    figure = sweep_figure(cells, down, across, measure)
    told = description(scene.predictor, scene.present, down, across, settings)
    files = (gr.DownloadButton(value=path, interactive=True) for path in _written(sheet, told, csv_text(cells)))
    yield sheet, figure, _swept(cells, down, across, sheet), *files


def _sheet(scene: Scene, cells: list[Cell], rows: Axis, columns: Axis | None, measure: str) -> np.ndarray:
    return contact_sheet(cells, rows, columns, scene.encoding.rgb, scene.colors, measure=measure)


def _swept(cells: list[Cell], rows: Axis, columns: Axis | None, sheet: np.ndarray) -> Swept:
    return Swept(rows, columns, {(cell.row, cell.column): cell.settings for cell in cells}, sheet.shape[:2])


def _open(swept: Swept | None, event: gr.SelectData) -> tuple:
    """The clicked cell's settings into the sliders of the Refinement tab, which is opened."""
    place = cell_at(event.index, swept.size, swept.rows, swept.columns) if swept else None
    if place not in (swept.settings if swept else {}):
        return (gr.skip(),) * 6
    if fixed := [axis.name for axis in (swept.rows, swept.columns) if axis and axis.name in NETWORK_AXES]:
        raise UserError(f"{fixed[0]} changes the network, and Refinement shows the checkpoint's own")
    cell = swept.settings[place]
    sliders = cell.alpha, cell.steps, cell.object_cutoff, cell.background_cutoff, cell.least_cutoff
    return gr.Tabs(selected="Refinement"), *sliders


def _written(sheet: np.ndarray, description: dict[str, Any], table: str) -> tuple[str, str]:
    """Paths of the PNG, with its settings inside, and of the CSV."""
    folder = Path(tempfile.mkdtemp(dir=gr.utils.get_upload_folder()))
    paths = folder / "sweep.png", folder / "sweep.csv"
    paths[0].write_bytes(png(sheet, description))
    paths[1].write_text(table)
    return tuple(map(str, paths))
