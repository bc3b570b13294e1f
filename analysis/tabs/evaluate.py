"""Evaluations of checkpoints: start one, look at its scores and its worst photographs, two side by side, export."""

import html
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import pandas as pd

from analysis import evaluations, jobs, report, runs
from analysis.curves import MEASURES, SCORES, class_bars, confusion_figure, precision_recall_figure
from analysis.exports import picture_png
from analysis.tabs import deletion
from analysis.tabs.events import UNDOCUMENTED, WATCH
from analysis.tabs.subject import Subject
from analysis.tabs.words import in_words
from wsss import UserError
from wsss.crf import available
from wsss.distributed import pick_device

NOTHING = "nothing"
_TICK = 2.0  # seconds
_IN_PAGE = 6  # worst photographs whose pictures the HTML page holds
_MOST_ROWS = 3000
_KINDS = {"csv": report.csv_text, "json": report.json_text}


class Start(NamedTuple):
    """What is evaluated."""

    checkpoint: gr.Dropdown
    data: gr.Textbox
    split: gr.Textbox
    with_crf: gr.Checkbox
    multi_scale: gr.Checkbox


class State(NamedTuple):
    """What is going on; `seen` is what is on the page, so that nothing is drawn twice."""

    left: gr.Dropdown
    right: gr.Dropdown
    checkpoint: gr.Dropdown
    status: gr.HTML
    stop: gr.Button
    log: gr.Textbox
    timer: gr.Timer
    seen: gr.State


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


def build(subject: Subject, tabs: gr.Tabs) -> None:
    """Lay out the tab and wire it, inside open gr.Tabs."""
    with gr.Tab("Evaluate", id="Evaluate") as tab:
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=320):
                start, begin = _start()
            with gr.Column(scale=3, min_width=360):
                state = _state(start)
        with gr.Column(visible=False) as place:
            measure = gr.Radio([(words, key) for key, words in MEASURES.items()], value="iou", label="of each class")
            result = _result(place)
            pictures, name, opened = _pictures()
            with gr.Row(equal_height=False):
                _exports(state.left)
        watched = [state.left, state.right, state.seen]
        with gr.Row(equal_height=False):
            deletion.build(state.left, _refresh, watched, state, evaluation=True)
    chosen = [state.left, state.right, measure, result.drawn]
    begun = begin.click(in_words(_begin), start, state.left, api_name="evaluate_start", **UNDOCUMENTED)
    begun.success(_refresh, watched, state, **WATCH)
    gr.on([tab.select, state.timer.tick], in_words(_refresh), watched, state, trigger_mode="once", **WATCH)
    state.stop.click(in_words(_stop), state.left, None, api_name="evaluate_stop", **UNDOCUMENTED).then(
        _refresh, watched, state, **WATCH
    )
    # A change by hand, and one by the end of an evaluation: `seen` changes when a report appears.
    gr.on(
        [state.left.change, state.right.change, state.seen.change, measure.input],
        in_words(_shown),
        chosen,
        result,
        trigger_mode="always_last",
        **WATCH,
    )
    result.table.select(in_words(_clicked), state.left, [name, pictures], **WATCH)
    opened.click(
        in_words(_open_by(subject)),
        [state.left, name],
        [subject.checkpoint, subject.photograph, tabs],
        api_name="evaluate_open",
        **UNDOCUMENTED,
    )


def _start() -> tuple[Start, gr.Button]:
    names, is_available = list(runs.checkpoints()), available()
    with gr.Group():
        start = Start(
            gr.Dropdown(
                names,
                value=names[0] if names else None,
                label="Checkpoint to evaluate",
                info="of the list, or its folder",
                allow_custom_value=True,
            ),
            gr.Textbox("", label="Data folder", info="on the server; drawn shapes need none", max_length=1000),
            gr.Textbox("val", label="Split", max_length=100),
            gr.Checkbox(
                False,
                label="CRF",
                info="refine the masks by a dense CRF" if is_available else "needs `pip install pydensecrf2`",
                interactive=is_available,
            ),
            gr.Checkbox(False, label="Multi-scale", info="mean over scales 0.5, 1, 1.5, 2 and flips"),
        )
    return start, gr.Button("Evaluate", variant="primary")


def _state(start: Start) -> State:
    with gr.Row():
        # As on the Train tab: a page may be older than the server.
        left = gr.Dropdown([], label="Evaluation", allow_custom_value=True, min_width=160)
        right = gr.Dropdown([NOTHING], value=NOTHING, label="beside it", allow_custom_value=True, min_width=160)
    status = gr.HTML(elem_id="evaluation-status")
    stop = gr.Button("Stop", interactive=False, size="sm", min_width=80)
    with gr.Accordion("Log", open=False):
        log = gr.Textbox(show_label=False, lines=6, max_lines=12, interactive=False)
    return State(left, right, start.checkpoint, status, stop, log, gr.Timer(_TICK, active=False), gr.State({}))


def _result(place: gr.Column) -> Result:
    headline = gr.HTML()
    with gr.Row():
        bars, points = gr.Plot(label="Classes (Tables 3 and 4)"), gr.Plot(label="Precision and recall")
    with gr.Row():
        confusion = gr.Plot(label="Confusion", visible=False)
        other = gr.Plot(label="Confusion of the other", visible=False)
    table = gr.Dataframe(
        label="Photographs, the worst first: click one to look at it", interactive=False, max_height=360
    )
    return Result(place, headline, bars, confusion, other, points, table, gr.State())


def _pictures() -> tuple[gr.Gallery, gr.State, gr.Button]:
    pictures = gr.Gallery(label="Photograph, truth, prediction, errors", columns=4, height=260, format="jpeg")
    return pictures, gr.State(), gr.Button("Open in Inspect", size="sm")


def _begin(chosen, data, split, with_crf, multi_scale) -> gr.Dropdown:
    folder = evaluations.checkpoint_folder(chosen)
    dataset, split = evaluations.dataset_of(folder), str(split or "").strip()
    if not split or split.startswith("-"):
        raise UserError("a split is needed, such as val")
    name = evaluations.free_name(str(chosen), split)
    out = runs.folder_of(name, evaluation=True)
    argv = jobs.evaluation_argv(
        folder, dataset, data or "", split, out, with_crf=bool(with_crf), multi_scale=bool(multi_scale)
    )
    root = next((word.removeprefix("--data=") for word in argv if word.startswith("--data=")), "")
    facts = {"checkpoint": str(folder), "label": str(chosen), "dataset": dataset, "data": root, "split": split}
    jobs.start(out, argv, kind="evaluation", device=jobs.normal(str(pick_device("auto"))), **facts)
    return gr.Dropdown(choices=_names(runs.found_evaluations()), value=name)


def _stop(name: str) -> None:
    gr.Info(jobs.stop(runs.known(name, evaluation=True)))


def _names(found: Sequence[runs.Found]) -> list[str]:
    return [one.name for one in found]


def _refresh(left, right, seen) -> tuple:
    """What has changed since it was last shown, in the order of `State`."""
    found = runs.found_evaluations()
    names = _names(found)
    one = next((one for one in found if one.name == left), found[0] if found else None)
    now: dict[str, Any] = {
        "names": (one.name if one else None, right if right in names else NOTHING, names),
        "checkpoints": list(runs.checkpoints()),
        "status": _status(one) if one else "There is no evaluation yet.",
        "stop": bool(one and one.is_alive),
        "log": (one.name, runs.version(one.folder / runs.LOG)) if one else None,
        "alive": any(one.is_alive for one in found),
        "report": (one.name, runs.version(one.folder / runs.REPORT)) if one else None,
    }
    new = {part for part, value in now.items() if seen.get(part) != value}
    return State(
        gr.Dropdown(choices=names, value=now["names"][0]) if "names" in new else gr.skip(),
        gr.Dropdown(choices=[NOTHING, *names], value=now["names"][1]) if "names" in new else gr.skip(),
        gr.Dropdown(choices=now["checkpoints"]) if "checkpoints" in new else gr.skip(),
        now["status"] if "status" in new else gr.skip(),
        gr.Button(interactive=now["stop"]) if "stop" in new else gr.skip(),
        (runs.tail(one.folder / runs.LOG) if one else "") if "log" in new else gr.skip(),
        gr.Timer(active=now["alive"]) if "alive" in new else gr.skip(),
        now if new else gr.skip(),
    )


def _status(one: runs.Found) -> str:
    parts = [f"<b>{html.escape(one.status)}</b>", html.escape(one.name)]
    parts += [html.escape(f"{one.job[key]}") for key in ("label", "split") if one.job.get(key)]
    if one.start:
        parts.append(time.strftime("%Y-%m-%d %H:%M", time.localtime(one.start)))
    if said := jobs.reason(one):
        parts.append(f'<span style="color:#e15759">{html.escape(said[:600])}</span>')
    return f'<div class="legend" data-state="{html.escape(one.status)}">{" &middot; ".join(parts)}</div>'


def _shown(left, right, measure, drawn) -> tuple:
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
    return runs.version(runs.folder_of(name, evaluation=True) / runs.REPORT)


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
        scores = [report.percent(row[key]) for key in SCORES]
        lines.append([row["name"], *scores, report.worst_class(row)])
        if other:
            lines[-1].append(report.percent(beside.get(row["name"])))
    columns = ["photograph", *SCORES.values(), "worst class", *(["mIoU of the other"] if other else [])]
    return pd.DataFrame(lines, columns=columns)


def _clicked(left: str, event: gr.SelectData) -> tuple:
    """The pictures of the clicked line."""
    name = str(event.row_value[0])
    return name, list(zip(evaluations.pictures_of(left, name), report.TITLES, strict=True))


def _open_by(subject: Subject) -> Callable:
    def opened(left: str, name: str | None) -> tuple:
        """The clicked photograph, and the checkpoint that was evaluated, at the top of the page."""
        if not name:
            raise UserError("click a photograph of the table first")
        job = runs.known(left, evaluation=True).job
        label, folder = str(job.get("label")), Path(str(job.get("checkpoint")))
        subject.library.show(label, folder)
        path = Path(tempfile.mkdtemp(dir=gr.utils.get_upload_folder()), "photograph.png")
        path.write_bytes(picture_png(evaluations.pictures_of(left, name).photograph))
        names = subject.library.names
        return gr.Dropdown(choices=names, value=label), str(path), gr.Tabs(selected="Inspect")

    return opened


def _exports(left: gr.Dropdown) -> None:
    """A button for each format. A link must exist before it is clicked, so the button makes the file, then clicks."""
    for kind in (*_KINDS, "html"):
        button = gr.Button(f"Download {kind.upper()}", size="sm", min_width=110)
        link = gr.DownloadButton(elem_id=f"download-report-{kind}", elem_classes="hidden-link")
        click = f"() => document.querySelector('#download-report-{kind}').click()"
        settings = UNDOCUMENTED | {"api_name": f"evaluate_{kind}", "show_progress": "full"}
        made = button.click(in_words(_export_by(kind)), left, link, **settings)
        made.success(None, None, None, js=click, api_visibility="private")


def _export_by(kind: str) -> Callable:
    def export(left: str) -> str:
        found = evaluations.report_of(left)
        text = _KINDS[kind](found) if kind in _KINDS else report.html_text(found, left, _worst(left, found))
        path = Path(tempfile.mkdtemp(dir=gr.utils.get_upload_folder()), f"{left}.{kind}")
        path.write_text(text)
        return str(path)

    return export


def _worst(left: str, found: dict[str, Any]) -> list[tuple[str, report.Pictures]]:
    """The pictures of the worst photographs; none where the data have gone."""
    names = [row["name"] for row in report.worst_first(found)[:_IN_PAGE]]
    try:
        return [(name, evaluations.pictures_of(left, name)) for name in names]
    except UserError:
        return []
