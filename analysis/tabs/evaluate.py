"""Evaluations of checkpoints: start one, follow it, choose one to look at and another beside it."""

import html
import re
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gradio as gr

from analysis import commands, evaluations, jobs, run_files, runs
from analysis.curves import MEASURES
from analysis.legends import state_line
from analysis.library import Library
from analysis.predictor import ways_to_refine
from analysis.tabs import deletion, evaluation_result, report_download
from analysis.tabs.changes import chosen_of, if_changed
from analysis.tabs.evaluation_result import NOTHING
from analysis.tabs.events import CLICK, UNDOCUMENTED, WATCH
from analysis.tabs.subject import Subject
from analysis.tabs.words import in_words
from wsss import UserError
from wsss.data.source import LAYOUTS
from wsss.distributed import pick_device
from wsss.probabilities import MULTI_SCALE_HELP

OWN_LAYOUT = "the checkpoint's"
"""Chosen as the layout of the data, it is that of the data that the checkpoint was trained on."""

_TICK = 2.0  # seconds
_DONE = re.compile(r"(\d+)/(\d+) \[[^\n]*$")  # in the last line of its log, a progress bar


class Start(NamedTuple):
    """What is evaluated."""

    checkpoint: gr.Dropdown
    data: gr.Textbox
    layout: gr.Dropdown
    split: gr.Textbox
    refined_by: gr.Radio
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


def build(subject: Subject, tabs: gr.Tabs, view: gr.Radio) -> None:
    """Lay out the tab and wire it, inside open gr.Tabs."""
    with gr.Tab("Evaluate", id="Evaluate") as tab:
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=320):
                start, begin = _start(subject.library)
            with gr.Column(scale=3, min_width=360):
                state = _state(start)
        with gr.Column(visible=False) as place:
            measure = gr.Radio(
                [(words, key) for key, words in MEASURES.items()], value="iou", label="Bars of the classes"
            )
            result = evaluation_result.result(place)
            pictures, name, opened = evaluation_result.pictures()
            with gr.Row(equal_height=False):
                report_download.build(state.left)
        refresh = _refresh_by(subject.library)
        watched = [state.left, state.right, state.seen]
        with gr.Row(equal_height=False):
            deletion.build(state.left, refresh, watched, state, evaluation=True)
    chosen = [state.left, state.right, measure, result.drawn]
    begun = begin.click(
        in_words(_begin_by(subject.library)), start, state.left, api_name="evaluate_start", **UNDOCUMENTED
    )
    begun.success(refresh, watched, state, **WATCH)
    # What the page looks at, such as a run's result that was just opened, is likely what is evaluated next.
    subject.checkpoint.change(None, subject.checkpoint, start.checkpoint, js="name => name", **CLICK)
    moments = [tab.select, state.timer.tick, state.left.input]
    gr.on(moments, in_words(refresh), watched, state, **WATCH)
    state.stop.click(in_words(_stop), state.left, None, api_name="evaluate_stop", **UNDOCUMENTED).then(
        refresh, watched, state, **WATCH
    )
    # A change by hand, and one by the end of an evaluation: `seen` changes when a report appears.
    gr.on(
        [state.left.change, state.right.change, state.seen.change, measure.input],
        in_words(evaluation_result.shown),
        chosen,
        result,
        **WATCH,
    )
    # One after the other: a photograph that is clicked and opened at once would not be the one that opens.
    in_turn = {"concurrency_id": "photograph of an evaluation"}
    state.left.change(lambda: (None, []), None, [name, pictures], **CLICK, **in_turn)  # it was of the one before
    result.table.select(in_words(evaluation_result.clicked), state.left, [name, pictures], **CLICK, **in_turn)
    opened.click(
        in_words(evaluation_result.open_by(subject)),
        [state.left, name],
        [subject.checkpoint, subject.photograph, tabs, subject.truth_file, view],
        api_name="evaluate_open",
        **UNDOCUMENTED,
        **in_turn,
    )


def _start(library: Library) -> tuple[Start, gr.Button]:
    names, ways = list(evaluations.checkpoints(library)), ways_to_refine()
    advice = "none: as the paper tests" + ("" if "CRF" in ways else "; a CRF needs `pip install pydensecrf2`")
    with gr.Group():
        start = Start(
            gr.Dropdown(
                names,
                value=names[0],
                label="Checkpoint to evaluate",
                info="from the list, or its folder",
                allow_custom_value=True,
            ),
            gr.Textbox("", label="Data folder", info="on the server; drawn shapes need none", max_length=1000),
            gr.Dropdown([OWN_LAYOUT, *LAYOUTS], value=OWN_LAYOUT, label="Layout", info="classes are matched by name"),
            gr.Textbox("val", label="Split", max_length=100),
            gr.Radio(ways, value="SPR", label="refined by", info=advice),
            gr.Checkbox(False, label="Multi-scale", info=MULTI_SCALE_HELP),
        )
    return start, gr.Button("Evaluate", variant="primary")


def _state(start: Start) -> State:
    with gr.Row():
        # As on the Train tab: a page may be older than the server.
        left = gr.Dropdown([], label="Evaluation", allow_custom_value=True, min_width=160)
        right = gr.Dropdown([NOTHING], value=NOTHING, label="compared with", allow_custom_value=True, min_width=160)
    status = gr.HTML(elem_id="evaluation-status")
    stop = gr.Button("Stop", interactive=False, size="sm", min_width=80)
    with gr.Accordion("Log", open=False):
        log = gr.Textbox(show_label=False, lines=6, max_lines=12, interactive=False)
    return State(left, right, start.checkpoint, status, stop, log, gr.Timer(_TICK, active=False), gr.State({}))


def _begin_by(library: Library) -> Callable:
    def begin(chosen, data, layout, split, refined_by, multi_scale) -> gr.Dropdown:
        """Start an evaluation; the page looks at it from now on. Raises UserError for what cannot be evaluated."""
        folder = evaluations.checkpoint_folder(chosen, library)
        dataset = evaluations.dataset_of(folder) if layout == OWN_LAYOUT else str(layout)
        split = str(split or "").strip()
        if not split or split.startswith("-"):
            raise UserError("a split is needed, such as val")
        name = evaluations.free_name(str(chosen), split)
        out = runs.folder_of(name, evaluation=True)
        root = "" if dataset == "shapes" else str(commands.data_folder(data or ""))
        argv = commands.evaluation_argv(
            folder, dataset, root, split, out, refined_by=refined_by, multi_scale=bool(multi_scale)
        )
        facts = {"checkpoint": str(folder), "label": str(chosen), "dataset": dataset, "data": root, "split": split}
        jobs.start(out, argv, kind="evaluation", device=jobs.normal(str(pick_device("auto"))), **facts)
        return gr.Dropdown(choices=_names(runs.found_evaluations()), value=name)

    return begin


def _stop(name: str) -> None:
    gr.Info(jobs.stop(runs.known(name, evaluation=True)))


def _names(found: Sequence[runs.Found]) -> list[str]:
    return [one.name for one in found]


def _refresh_by(library: Library) -> Callable:
    def refresh(left, right, seen) -> tuple:
        """What has changed since it was last shown, in the order of `State`."""
        found = runs.found_evaluations()
        names = _names(found)
        one = next((one for one in found if one.name == left), found[0] if found else None)
        now: dict[str, Any] = {
            "names": (one.name if one else None, right if right in names else NOTHING, names),
            "checkpoints": list(evaluations.checkpoints(library)),
            "status": _status(one) if one else "There is no evaluation yet.",
            "stop": bool(one and one.is_alive),
            "log": (one.name, run_files.version(one.folder / runs.LOG)) if one else None,
            "alive": any(one.is_alive for one in found),
            "report": (one.name, run_files.version(one.folder / runs.REPORT)) if one else None,
        }
        if_new = if_changed(seen, now)
        return State(
            if_new("names", lambda: chosen_of(names, now["names"][0], left)),
            if_new("names", lambda: chosen_of([NOTHING, *names], now["names"][1], right)),
            if_new("checkpoints", lambda: gr.Dropdown(choices=now["checkpoints"])),
            if_new("status", lambda: now["status"]),
            if_new("stop", lambda: gr.Button(interactive=now["stop"])),
            if_new("log", lambda: run_files.tail(one.folder / runs.LOG) if one else ""),
            if_new("alive", lambda: gr.Timer(active=now["alive"])),
            now if now != seen else gr.skip(),
        )

    return refresh


def _status(one: runs.Found) -> str:
    parts = [f"<b>{html.escape(one.status)}</b>", html.escape(one.name)]
    parts += [html.escape(f"{one.job[key]}") for key in ("label", "split") if one.job.get(key)]
    if one.is_alive and (done := _DONE.search(run_files.tail(one.folder / runs.LOG, 2000))):
        parts.append(f"{done[1]} of {done[2]} photographs")
    if one.start:
        parts.append(time.strftime("%Y-%m-%d %H:%M", time.localtime(one.start)))
    if said := jobs.reason(one):
        parts.append(f'<span style="color:#e15759">{html.escape(said[:600])}</span>')
    return state_line(one.status, *parts)
