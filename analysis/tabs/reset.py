"""Settings that are brought back: the defaults, or those of the checkpoint, by buttons and with another checkpoint."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from analysis.library import Library
from analysis.tabs.events import CLICK, PRIVATE
from analysis.tabs.subject import Subject, unlike_before
from analysis.tabs.words import in_words
from wsss.config import Config


def build(subject: Subject, controls: Sequence[gr.components.Component], values: Callable[[Config], list]) -> list[Any]:
    """Add the buttons to the open row; returns their events, for what must follow.

    Args:
        values: the controls' values that a config asks for. The defaults are those of `Config`: the paper's where it
            gives them, and ours where it does not.
    """
    default = gr.Button("Default settings", size="sm", min_width=110)
    own = gr.Button("Checkpoint's settings", size="sm", min_width=110)
    follow(subject.library, subject.checkpoint, controls, values, subject.reopened)
    return [
        default.click(lambda: values(Config()), None, list(controls), api_visibility="private"),
        own.click(_own_by(subject.library, controls, values), subject.checkpoint, list(controls), **PRIVATE),
    ]


def follow(
    library: Library,
    checkpoint: gr.Dropdown,
    controls: Sequence[gr.components.Component],
    values: Callable[[Config], list],
    brought: gr.State,
) -> None:
    """Where the controls stand as the checkpoint before has them, another one that is chosen brings its own.

    What was moved by hand stays. `brought` is another number when some have changed, for what must follow.
    """
    before, own = gr.State(library.names[0]), _own_by(library, controls, values)

    def follows(chosen: str, left: str, *given) -> list:
        stand = left in library.names and list(given) == values(library[left].config)
        new = own(chosen) if stand else list(given)
        return [chosen, *([gr.skip()] * (len(given) + 1) if new == list(given) else [*new, unlike_before()])]

    checkpoint.input(in_words(follows), [checkpoint, before, *controls], [before, *controls, brought], **CLICK)


def _own_by(
    library: Library, controls: Sequence[gr.components.Component], values: Callable[[Config], list]
) -> Callable[[str], list]:
    """What gives the controls' values of a checkpoint."""

    def own(checkpoint: str) -> list:
        given = values(library[checkpoint].config)
        return [_within(control, value) for control, value in zip(controls, given, strict=True)]

    return own


def _within(control: gr.components.Component, value: Any) -> Any:
    """The value; where it lies beyond the end of a slider that end, which is told."""
    if not isinstance(control, gr.Slider) or control.minimum <= value <= control.maximum:
        return value
    end = min(max(value, control.minimum), control.maximum)
    gr.Warning(f"{control.label} of this checkpoint is {value:g}; the slider ends at {end:g}.")
    return end
