"""What an evaluation has found: scores, figures and photographs, the worst first; also beside another's."""

import html
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import pandas as pd

from analysis import evaluations, report, run_files, runs
from analysis.curves import MEASURES, SCORES, class_bars, confusion_figure, precision_recall_figure
from analysis.exports import mask_png, picture_png
from analysis.tabs.inspect import JUDGED
from analysis.tabs.subject import Subject
from wsss import UserError

NOTHING = "nothing"
"""What stands for no other evaluation."""

_MOST_ROWS = 3000


class Result(NamedTuple):
    """What an evaluation has found; `drawn` is what it was drawn from."""

    place: gr.Column  # all of it; hidden while there is nothing to see
    headline: gr.HTML
    bars: gr.Plot
    confusion: gr.Plot
    other: gr.Plot
    points: gr.Plot
    table: gr.Dataframe
    drawn: gr.State


def result(place: gr.Column) -> Result:
    """Lay out the scores, figures and table."""
    headline = gr.HTML()
    with gr.Row():
        bars, points = gr.Plot(label="Classes (Tables 3 and 4)"), gr.Plot(label="Precision and recall")
    with gr.Row():
        confusion = gr.Plot(label="Confusion", visible=False)
        other = gr.Plot(label="Confusion, compared", visible=False)
    table = gr.Dataframe(
        label="Photographs, the worst first: click one to look at it", interactive=False, max_height=360
    )
    return Result(place, headline, bars, confusion, other, points, table, gr.State())


def pictures() -> tuple[gr.Gallery, gr.State, gr.Button]:
    """Lay out the clicked photograph: its pictures, its name, the button that opens it."""
    gallery = gr.Gallery(label="Photograph, truth, prediction, errors", columns=4, height=260, format="jpeg")
    return gallery, gr.State(), gr.Button("Open in Inspect", size="sm")


def shown(left, right, measure, drawn) -> tuple:
    """The result of one evaluation, or of two, in the order of `Result`; what is drawn already stays as it is."""
    measure = measure if measure in MEASURES else "iou"
    reports = {name: found for name in dict.fromkeys((left, right)) if (found := _report(name)) is not None}
    drawing = [measure, *((name, _version(name)) for name in reports)] if left in reports else []
    if drawing == drawn:
        return (gr.skip(),) * len(Result._fields)
    if left not in reports:
        hidden = gr.Plot(value=None, visible=False)
        return Result(gr.Column(visible=False), "", None, hidden, hidden, None, None, drawing)
    other = reports.get(right) if right != left else None
    is_other_measure = bool(drawn) and drawn[1:] == drawing[1:]
    return Result(
        gr.Column(visible=True),
        _headline(reports),
        class_bars(reports, measure),
        *([gr.skip()] * 4 if is_other_measure else _details(left, right, reports[left], other, reports)),
        drawing,
    )


def _details(left, right, found, other, reports) -> tuple:
    """What does not depend on the measure: both confusions, precision and recall, the table."""
    return (
        gr.Plot(value=confusion_figure(found, left), visible=True),
        gr.Plot(value=confusion_figure(other, right) if other else None, visible=other is not None),
        precision_recall_figure(reports),
        _table(found, other),
    )


def _version(name: str) -> tuple[int, int]:
    return run_files.version(runs.folder_of(name, evaluation=True) / runs.REPORT)


def _report(name: str | None) -> dict[str, Any] | None:
    """The report of an evaluation; None where it has none, or not yet."""
    if not name or name == NOTHING:
        return None
    try:
        return evaluations.report_of(name)
    except UserError:
        return None


def _headline(reports: dict[str, dict[str, Any]]) -> str:
    """The scores as a small table; with two evaluations also their difference."""
    rows = []
    for name, found in reports.items():
        cells = "".join(f"<td>{report.percent(found[key])}</td>" for key in SCORES)
        rows.append(f"<tr><th>{html.escape(name)}</th>{cells}<td>{found['photographs']}</td></tr>")
    if len(reports) == 2:
        first, second = reports.values()
        cells = "".join(f"<td>{_difference(first[key], second[key])}</td>" for key in SCORES)
        rows.append(f"<tr><th>difference</th>{cells}<td></td></tr>")
    head = "".join(f"<th>{words}</th>" for words in SCORES.values())
    return f'<table class="scores"><tr><th></th>{head}<th>photographs</th></tr>{"".join(rows)}</table>'


def _difference(first: float | None, second: float | None) -> str:
    return "-" if first is None or second is None else f"{100 * (first - second):+.1f}"


def _table(found: dict[str, Any], other: dict[str, Any] | None) -> pd.DataFrame:
    """One line a photograph, the worst first; with another evaluation, its mIoU beside."""
    beside = {row["name"]: row["miou"] for row in other.get("images", [])} if other else {}
    lines = []
    for row in report.worst_first(found)[:_MOST_ROWS]:
        lines.append([row["name"], *(_points(row[key]) for key in SCORES), report.worst_class(row)])
        if other:
            lines[-1].append(_points(beside.get(row["name"])))
    columns = ["photograph", *SCORES.values(), "worst class", *(["mIoU of the other"] if other else [])]
    return pd.DataFrame(lines, columns=columns, dtype=object)


def _points(share: float | None) -> float | None:
    """In percent; a number, by which a visitor may sort."""
    return None if share is None else round(100 * share, 1)


def clicked(left: str, event: gr.SelectData) -> tuple:
    """The pictures of the clicked line."""
    name = str(event.row_value[0])
    return name, list(zip(evaluations.pictures_of(left, name), report.TITLES, strict=True))


def open_by(subject: Subject) -> Callable:
    """The handler of that button."""

    def opened(left: str, name: str | None) -> tuple:
        """The clicked photograph with its truth, by which it is judged, and the checkpoint that was evaluated."""
        if not name:
            raise UserError("click a photograph of the table first")
        job = evaluations.job_of(left)
        label, folder = str(job.get("label")), Path(str(job.get("checkpoint")))
        subject.library.show(label, folder)
        photograph, truth = _written(left, name)
        checkpoint = gr.Dropdown(choices=subject.library.names, value=label)
        return checkpoint, photograph, gr.Tabs(selected="Inspect"), truth, JUDGED if truth else gr.skip()

    return opened


def _written(left: str, name: str) -> tuple[str, str | None]:
    """Paths of a photograph of an evaluation and of its truth, written for the page; no truth has no path."""
    folder = Path(tempfile.mkdtemp(dir=gr.utils.get_upload_folder()))
    photograph, truth = folder / "photograph.png", folder / "truth.png"
    rgb, mask, classes = evaluations.judged(left, name)
    photograph.write_bytes(picture_png(rgb))
    if mask is None:
        return str(photograph), None
    truth.write_bytes(mask_png(mask, classes))
    return str(photograph), str(truth)
