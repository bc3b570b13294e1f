"""A button that deletes a run or an evaluation, after it was asked twice."""

from collections.abc import Callable, Sequence

import gradio as gr

from analysis import jobs, runs
from analysis.tabs.events import PRIVATE
from analysis.tabs.words import in_words
from wsss import UserError


def build(
    chosen: gr.Dropdown, refresh: Callable, inputs: Sequence, outputs: Sequence, *, evaluation: bool = False
) -> None:
    """Add it to the open row.

    Args:
        chosen: holds the name.
        refresh: refresh(*inputs) -> outputs, called afterwards.
    """
    asked = gr.State()
    ask = gr.Button("Delete ...", size="sm", min_width=90)
    with gr.Group(visible=False) as question:
        words = gr.Markdown()
        with gr.Row():
            confirm = gr.Button("Yes, delete it", variant="stop", size="sm", min_width=110)
            cancel = gr.Button("Keep it", size="sm", min_width=90)

    def put(name: str | None) -> tuple:
        if not name:
            raise UserError("choose first what is to be deleted")
        found = runs.known(name, evaluation=evaluation)
        text = f"Delete **{name}** with all its files ({runs.size_of(found.folder) / 1e6:.0f} MB)? It cannot be undone."
        return name, gr.Group(visible=True), text

    def answered(name: str | None) -> gr.Group:
        """Delete what the question was about, whatever has been chosen since."""
        if name:
            jobs.delete(runs.known(name, evaluation=evaluation))
        return gr.Group(visible=False)

    ask.click(in_words(put), chosen, [asked, question, words], **PRIVATE)
    cancel.click(lambda: gr.Group(visible=False), None, question, **PRIVATE)
    confirm.click(in_words(answered), asked, question, **PRIVATE).success(refresh, inputs, outputs, **PRIVATE)
