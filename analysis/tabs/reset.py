"""Settings that are brought back: the defaults, or those of the checkpoint, by buttons and with another checkpoint."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from analysis.tabs.events import PRIVATE
from analysis.tabs.subject import Subject, unlike_before
from analysis.tabs.words import in_words
from wsss.config import Config


def build(subject: Subject, controls: Sequence[gr.components.Component], values: Callable[[Config], list]) -> list[Any]:
    """Add the buttons to the open row; returns their events, for what must follow.

    Where the controls stand as the checkpoint before has them, another one that is chosen brings its own.

    Args:
        values: the controls' values that a config asks for. The defaults are those of `Config`: the paper's where it
            gives them, and ours where it does not.
    """
    default = gr.Button("Default settings", size="sm", min_width=110)
    own = gr.Button("Checkpoint's settings", size="sm", min_width=110)

    before = gr.State(subject.library.names[0])

    def of(checkpoint: str) -> list:
        own = values(subject.library[checkpoint].config)
        return [_within(control, value) for control, value in zip(controls, own, strict=True)]

    def follows(checkpoint: str, left: str, *given) -> list:
        """The checkpoint's own in place of those of the one that was left; what was moved by hand stays."""
        stand = left in subject.library.names and list(given) == values(subject.library[left].config)
        brought = [*of(checkpoint), unlike_before()] if stand else [gr.skip()] * (len(controls) + 1)
        return [checkpoint, *brought]

    subject.checkpoint.input(
        in_words(follows), [subject.checkpoint, before, *controls], [before, *controls, subject.reopened], **PRIVATE
    )
    return [
        default.click(lambda: values(Config()), None, list(controls), api_visibility="private"),
        own.click(of, subject.checkpoint, list(controls), api_visibility="private"),
    ]


def _within(control: gr.components.Component, value: Any) -> Any:
    """The value; where it lies beyond the end of a slider that end, which is told."""
    if not isinstance(control, gr.Slider) or control.minimum <= value <= control.maximum:
        return value
    end = min(max(value, control.minimum), control.maximum)
    gr.Warning(f"{control.label} of this checkpoint is {value:g}; the slider ends at {end:g}.")
    return end
