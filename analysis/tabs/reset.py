"""Settings that are brought back: the defaults, or those of the checkpoint, by buttons and with another checkpoint."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import gradio as gr

from analysis.library import Library
from analysis.tabs.events import CLICK
from analysis.tabs.subject import Subject, unlike_before
from analysis.tabs.words import in_words
from wsss import UserError, checkpoint
from wsss.config import Config


def build(subject: Subject, controls: Sequence[gr.components.Component], values: Callable[[Config], list]) -> list[Any]:
    """Add the buttons to the open row; returns their events, for what must follow.

    Args:
        values: the controls' values that a config asks for. The defaults are those of `Config`: the paper's where it
            gives them, and ours where it does not.
    """
    default = gr.Button("Default settings", size="sm", min_width=110)
    own = gr.Button("Checkpoint's settings", size="sm", min_width=110)

    def of(name: str) -> list:
        own = values(subject.library[name].config)
        return [_told(control, value) for control, value in zip(controls, own, strict=True)]

    chosen = [subject.checkpoint.input, subject.given.change]
    bring_settings(subject.library, chosen, [subject.checkpoint, *controls], values, subject.reopened)
    return [
        default.click(lambda: values(Config()), None, list(controls), api_visibility="private"),
        own.click(of, subject.checkpoint, list(controls), api_visibility="private"),
    ]


def bring_settings(
    library: Library,
    chosen: Sequence[Callable],
    inputs: Sequence[gr.components.Component],
    values: Callable[[Config], list],
    brought: gr.State,
) -> None:
    """Where the controls stand as a checkpoint has them, another one brings its own at the events `chosen`.

    What was moved by hand stays.

    Args:
        inputs: the dropdown of checkpoints, and the controls.
        brought: is another number when some have changed, for what must follow.
    """
    controls = inputs[1:]

    def of(config: Config) -> list:
        return [_reached(control, value) for control, value in zip(controls, values(config), strict=True)]

    def follows(name: str, *given) -> list:
        now, own = _in_order(given), of(_config(library, name))
        moved = all(now != _in_order(of(config)) for config in _configs(library))
        return [gr.skip()] * (len(given) + 1) if moved or now == _in_order(own) else [*own, unlike_before()]

    gr.on(chosen, in_words(follows), list(inputs), [*controls, brought], **CLICK)


def _config(library: Library, name: str) -> Config:
    """That of a checkpoint, whose weights are not read: the page waits."""
    folder = library.folder(name)
    return checkpoint.config_of(folder, checkpoint.read_config(folder))


def _configs(library: Library) -> Iterator[Config]:
    for name in library.names:
        with suppress(UserError):  # its files have gone
            yield _config(library, name)


def _in_order(values: Sequence[Any]) -> list[Any]:
    """With lists in an order of their own: Gradio has what is ticked in the order of the ticks."""
    return [sorted(value) if isinstance(value, list) else value for value in values]


def _reached(control: gr.components.Component, value: Any) -> Any:
    """The value, as near as a slider comes to it."""
    return min(max(value, control.minimum), control.maximum) if isinstance(control, gr.Slider) else value


def _told(control: gr.components.Component, value: Any) -> Any:
    """The same, and a word where the slider ends before it."""
    reached = _reached(control, value)
    if reached != value:
        gr.Warning(f"{control.label} of this checkpoint is {value:g}; the slider ends at {reached:g}.")
    return reached
