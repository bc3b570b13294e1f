"""Two buttons that bring settings back: the paper's, and those that the checkpoint was trained with."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from analysis.tabs.subject import Subject
from wsss.config import Config


def build(subject: Subject, controls: Sequence[gr.components.Component], values: Callable[[Config], list]) -> list[Any]:
    """Add the buttons to the open row; returns their events, for what must follow.

    Args:
        values: the controls' values that a config asks for; the paper's are the defaults of `Config`.
    """
    paper = gr.Button("Paper's settings", size="sm", min_width=110)
    own = gr.Button("Checkpoint's settings", size="sm", min_width=110)

    def of(checkpoint: str) -> list:
        return values(subject.library[checkpoint].config)

    return [
        paper.click(lambda: values(Config()), None, list(controls), api_visibility="private"),
        own.click(of, subject.checkpoint, list(controls), api_visibility="private"),
    ]
