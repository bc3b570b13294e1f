"""Training runs: start, watch, stop, resume, compare, open. All that is shown is read from the runs' folders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
import pandas as pd
import plotly.graph_objects as go

from analysis import commands, jobs, run_files, runs
from analysis.curves import training_curves
from analysis.run_line import COLUMNS, row_of, status_html
from analysis.run_settings import settings_of
from analysis.tabs import deletion, form
from analysis.tabs.changes import chosen_of, if_changed
from analysis.tabs.events import CLICK, PRIVATE, UNDOCUMENTED, WATCH
from analysis.tabs.pictures import Slider
from analysis.tabs.subject import Subject, unlike_before
from analysis.tabs.words import in_words
from wsss import UserError
from wsss.data.picture import read_rgb
from wsss.distributed import pick_device
from wsss.presets import PRESETS
from wsss.state import has_state

_TICK = 2.0  # seconds
_MOST_COMPARED = 6


class Start(NamedTuple):
    """What a new run is made from."""

    preset: gr.Dropdown
    name: gr.Textbox
    data: gr.Textbox
    settings: list[gr.components.Component]
    filled: gr.State  # the preset that the form was last filled by

    @property
    def inputs(self) -> list[gr.components.Component]:
        return [self.preset, self.name, self.data, *self.settings]


class Chosen(NamedTuple):
    """Which runs are looked at; `seen` is what is on the page, so that nothing is drawn twice."""

    watched: gr.Dropdown
    compared: gr.Dropdown
    epoch: gr.Slider
    is_paused: gr.Checkbox
    seen: gr.State


class View(NamedTuple):
    """What is shown of them."""

    watched: gr.Dropdown
    compared: gr.Dropdown
    status: gr.HTML
    stop: gr.Button
    resume: gr.Button
    open: gr.Button
    curves: gr.Plot
    epoch: gr.Slider
    previews: gr.Gallery
    log: gr.Textbox
    table: gr.Dataframe
    timer: gr.Timer
    seen: gr.State


def build(subject: Subject, page: gr.Blocks, tabs: gr.Tabs) -> None:
    """Lay out the tab and wire it, inside open gr.Tabs."""
    with gr.Tab("Train", id="Train") as tab:
        table = _table()
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=320):
                start, command, begin = _start()
            with gr.Column(scale=3, min_width=360):
                view, is_paused, again = _view(table)
                chosen = Chosen(view.watched, view.compared, view.epoch, is_paused, view.seen)
                deletion.build(view.watched, _refresh, chosen, view)
        table.render()
    _wire_start(start, command, begin, chosen, view)
    again.click(in_words(_again), view.watched, start.inputs, api_name="train_settings", **UNDOCUMENTED).then(
        lambda preset: preset, start.preset, start.filled, **PRIVATE
    ).then(_command, start.inputs, command, **PRIVATE)
    _wire_view(tab, chosen, view)
    _wire_run(subject, tabs, chosen, view)
    # Runs may have begun since the page was built.
    page.load(_free_name, start.preset, start.name, **WATCH).then(_command, start.inputs, command, **PRIVATE)


def _start() -> tuple[Start, gr.Code, gr.Button]:
    with gr.Group():
        preset = gr.Dropdown(
            list(PRESETS), value="tiny", label="Preset", info="tiny: drawn shapes, no download, under a minute"
        )
        name = gr.Textbox(_free_name("tiny"), label="Name of the run", info="its folder under runs/", max_length=64)
        data = gr.Textbox("", label="Data folder", info="on the server; drawn shapes need none", max_length=1000)
    begin = gr.Button("Start", variant="primary")
    command = gr.Code(
        _command("tiny", name.value, "", *form.values_of("tiny")),
        label="The same in a terminal",
        language="shell",
        interactive=False,
        wrap_lines=True,
        lines=2,
    )
    return Start(preset, name, data, form.build("tiny"), gr.State("tiny")), command, begin


def _table() -> gr.Dataframe:
    # Made before what it stands below, which refers to it.
    return gr.Dataframe(
        headers=list(COLUMNS),
        label="Runs: click one to watch it",
        interactive=False,
        max_height=320,
        render=False,
    )


def _view(table: gr.Dataframe) -> tuple[View, gr.Checkbox, gr.Button]:
    # A page that stays open over a restart of the server sends names that the new one has not offered to it yet.
    any_name = {"choices": [], "allow_custom_value": True, "min_width": 160}
    with gr.Row():
        watched = gr.Dropdown(label="Run", **any_name)
        compared = gr.Dropdown(
            label="Overlay curves of other runs", value=[], multiselect=True, max_choices=_MOST_COMPARED, **any_name
        )
    status = gr.HTML(elem_id="run-status")
    with gr.Row():
        stop = gr.Button("Stop", interactive=False, size="sm", min_width=80)
        resume = gr.Button("Resume", interactive=False, size="sm", min_width=80)
        opened = gr.Button("Open in the app", interactive=False, size="sm", min_width=120)
        again = gr.Button("Copy settings to form", size="sm", min_width=160)
        is_paused = gr.Checkbox(False, label="Freeze curves", info="to zoom in", min_width=120)
    curves = gr.Plot(label="Curves")
    epoch = Slider(1, 2, 1, step=1, label="previews after epoch", visible=False)
    previews = gr.Gallery(columns=4, height=220, visible=False, format="jpeg")
    log = gr.Textbox(label="Log", lines=8, max_lines=16, interactive=False, autoscroll=True, elem_id="run-log")
    timer, seen = gr.Timer(_TICK, active=False), gr.State({})
    shown = (status, stop, resume, opened, curves, epoch, previews, log)
    return View(watched, compared, *shown, table, timer, seen), is_paused, again


def _wire_start(start: Start, command: gr.Code, begin: gr.Button, chosen: Chosen, view: View) -> None:
    """A changed setting changes the command; Start runs it."""
    written = [control.input for control in (start.name, start.data, *start.settings)]

    def fill(preset: str, filled: str) -> list[Any]:
        if preset == filled:  # to Gradio a list that is left is one that was chosen from
            return [gr.skip()] * (2 + len(start.settings))
        return [preset, _free_name(preset), *form.values_of(preset)]

    start.preset.input(
        in_words(fill),
        [start.preset, start.filled],
        [start.filled, start.name, *start.settings],
        trigger_mode="always_last",
        **PRIVATE,
    ).then(_command, start.inputs, command, trigger_mode="always_last", **PRIVATE)
    gr.on(written, _command, start.inputs, command, trigger_mode="always_last", **PRIVATE)
    begun = begin.click(
        in_words(_begin), start.inputs, [view.watched, start.name], api_name="train_start", **UNDOCUMENTED
    )
    begun.success(_refresh, chosen, view, **WATCH).then(_command, start.inputs, command, **PRIVATE)


def _wire_view(tab: gr.Tab, chosen: Chosen, view: View) -> None:
    """The tab shows the runs when it is opened, then again and again while one of them lives."""
    moments = [tab.select, view.watched.input, view.compared.change, chosen.is_paused.input, view.timer.tick]
    looking = WATCH | {"api_name": "train_look", "api_visibility": "undocumented"}
    gr.on(moments, in_words(_refresh), chosen, view, **looking)
    view.epoch.input(in_words(_previews), [view.watched, view.epoch], view.previews, **WATCH)

    def clicked(event: gr.SelectData) -> str:
        return event.row_value[0]

    view.table.select(clicked, None, view.watched, **CLICK).then(_refresh, chosen, view, **WATCH)


def _wire_run(subject: Subject, tabs: gr.Tabs, chosen: Chosen, view: View) -> None:
    """Stop, resume and open the watched run."""

    def opened(name: str, chosen_before: str) -> tuple:
        """Offer the run's best checkpoint to the other tabs, and show it, though it may be the chosen one already."""
        found, label = runs.known(name), f"runs/{name}"
        folders = runs.checkpoints_of(found.folder)
        if not folders:
            raise UserError(f"{name}: has no checkpoint yet; the first one comes with its first evaluation")
        subject.library.show(label, next(iter(folders.values())))
        again = unlike_before() if label == chosen_before else gr.skip()
        dropdown = gr.Dropdown(choices=subject.library.names, value=label)
        return dropdown, again, unlike_before(), gr.Tabs(selected="Inspect")

    for button, act, api_name in ((view.stop, _stop, "train_stop"), (view.resume, _resume, "train_resume")):
        button.click(in_words(act), view.watched, None, api_name=api_name, **UNDOCUMENTED).then(
            _refresh, chosen, view, **WATCH
        )
    view.open.click(
        in_words(opened),
        [view.watched, subject.checkpoint],
        [subject.checkpoint, subject.reopened, subject.given, tabs],
        api_name="train_open",
        **UNDOCUMENTED,
    )


def _free_name(preset: str) -> str:
    """A name that no run has yet."""
    taken = {found.name for found in runs.found_runs()}
    number = next(number for number in range(1, 10_000) if f"{preset}-{number}" not in taken)
    return f"{preset}-{number}"


def _words_of(preset: str, name: str, data: str, values: Sequence[Any]) -> tuple[list[str], str]:
    """The command of a form, and the device that it asks for."""
    config = form.config_of(list(values))
    return commands.training_argv(preset, config, runs.folder_of(name), data or ""), config.device


def _command(preset: str, name: str, data: str, *values) -> str:
    """The command to copy, or why there is none."""
    try:
        return commands.command_text(_words_of(preset, name, data, values)[0])
    except UserError as error:
        return f"# {error}"


def _begin(preset: str, name: str, data: str, *values) -> tuple:
    argv, device = _words_of(preset, name, data, values)
    jobs.start(runs.folder_of(name), argv, kind="training", device=jobs.normal(str(pick_device(device))))
    return gr.Dropdown(choices=_names(runs.found_runs()), value=name), _free_name(preset)


def _again(name: str | None) -> list[Any]:
    """The form as it was when a run was started, but for the run's name."""
    if not name:
        raise UserError("there is no run yet whose settings could be taken")
    preset, data, config = settings_of(runs.known(name))
    return [preset, _free_name(preset), data, *form.filled(config)]


def _stop(name: str) -> None:
    gr.Info(jobs.stop(runs.known(name)))


def _resume(name: str) -> None:
    found = runs.known(name)
    if found.is_alive:
        raise UserError(f"{name} still runs")
    device = jobs.normal(str(found.device or pick_device("auto")))
    jobs.start(found.folder, commands.resumed_argv(found), kind="training", device=device, resume=True)


def _names(found: Sequence[runs.Found]) -> list[str]:
    return [run.name for run in found]


def _refresh(watched, compared, epoch, is_paused, seen) -> tuple:
    """What has changed since it was last shown, in the order of `View`; the rest stays untouched."""
    found, asked = runs.found_runs(), watched
    run = next((run for run in found if run.name == asked), None) or _first(found)
    others = [other for other in found if other.name in (compared or []) and other != run][:_MOST_COMPARED]
    now = _parts(run, others, found)
    if is_paused and [name for name, _ in seen.get("curves", [])] == [name for name, _ in now["curves"]]:
        now["curves"] = seen["curves"]
    shown_run, shown_last, _ = seen.get("previews", (None, 0, None))
    watched, last, _ = now["previews"]
    is_at_the_end = shown_run != watched or int(epoch) >= shown_last  # then the slider follows the run
    at = last if is_at_the_end else int(epoch)

    if_new = if_changed(seen, now)
    logs = [one.folder for one in (run, *others)] if run else []
    return View(
        if_new("names", lambda: chosen_of(_names(found), watched, asked)),
        if_new("names", lambda: gr.Dropdown(choices=_names(found))),
        if_new("status", lambda: now["status"]),
        *(if_new("buttons", lambda can=can: gr.Button(interactive=can)) for can in now["buttons"]),
        if_new("curves", lambda: _curves(logs)),
        if_new("previews", lambda: Slider(maximum=max(2, last), value=max(1, at), visible=last > 1)),
        if_new("previews", lambda: _previews(watched, at)),
        if_new("log", lambda: run_files.tail(run.folder / runs.LOG) if run else ""),
        if_new("table", lambda: pd.DataFrame(now["table"], columns=list(COLUMNS), dtype=object)),
        if_new("alive", lambda: gr.Timer(active=now["alive"])),
        now,
    )


def _curves(logs: Sequence[Path]) -> go.Figure | None:
    return training_curves({folder.name: run_files.metrics(folder) for folder in logs}) if logs else None


def _parts(run: runs.Found | None, others: Sequence[runs.Found], found: Sequence[runs.Found]) -> dict[str, Any]:
    """What each part of the view depends on; it is drawn again where this has changed."""
    logs = [one.folder for one in (run, *others)] if run else []
    return {
        "names": (run and run.name, _names(found)),
        "status": status_html(run) if run else "There is no run yet: choose a preset and press Start.",
        "buttons": _possible(run) if run else (False, False, False),
        "curves": [(folder.name, run_files.version(folder / "metrics.jsonl")) for folder in logs],
        "previews": (run and run.name, max(runs.previews(run.folder), default=0) if run else 0, run and run.start),
        "log": (run.name, run_files.version(run.folder / runs.LOG)) if run else None,
        "table": [row_of(one) for one in found],
        "alive": any(one.is_alive for one in found),
    }


def _possible(run: runs.Found) -> tuple[bool, bool, bool]:
    """Whether the run can be stopped, resumed, opened."""
    return (
        run.is_alive and run.status != "ending",
        not run.is_alive and run.status != "finished" and has_state(run.folder),
        bool(runs.checkpoints_of(run.folder)),
    )


def _first(found: Sequence[runs.Found]) -> runs.Found | None:
    """The run to look at when none is chosen: the one that lives, else the newest."""
    return next((run for run in found if run.is_alive), found[0] if found else None)


def _previews(watched: str | None, epoch: float) -> gr.Gallery:
    """The pictures of an epoch; where it has none, of the last one before it that has, else of the first."""
    folders = runs.previews(runs.known(watched).folder) if watched else {}
    if not folders:
        return gr.Gallery(value=[], visible=False)
    shown = max((number for number in folders if number <= epoch), default=min(folders))
    pictures = [(_picture(path), path.stem) for path in sorted(folders[shown].glob("*.png"))]
    return gr.Gallery(value=pictures, label=f"Masks of validation photographs after epoch {shown}", visible=True)


def _picture(path) -> np.ndarray:
    try:
        return read_rgb(path)
    except UserError:
        return np.zeros((8, 8, 3), np.uint8)  # the run was deleted meanwhile
