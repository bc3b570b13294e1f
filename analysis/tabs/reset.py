"""Two buttons that bring settings back: the defaults, and those that the checkpoint was trained with."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from analysis.tabs.subject import Subject
from wsss.config import Config


def build(subject: Subject, controls: Sequence[gr.components.Component], values: Callable[[Config], list]) -> list[Any]:
    """Add the buttons to the open row; returns their events, for what must follow.

    Args:
        values: the controls' values that a config asks for. The defaults are those of `Config`: the paper's where it
            gives them, and ours where it does not.
    """
    default = gr.Button("Default settings", size="sm", min_width=110)
    own = gr.Button("Checkpoint's settings", size="sm", min_width=110)

    def of(checkpoint: str) -> list:
        return values(subject.library[checkpoint].config)

    return [
        default.click(lambda: values(Config()), None, list(controls), api_visibility="private"),
        own.click(of, subject.checkpoint, list(controls), api_visibility="private"),
    ]
