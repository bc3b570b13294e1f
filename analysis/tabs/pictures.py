"""How pictures and sliders look on every tab."""

import gradio as gr

PICTURE = {"interactive": False, "format": "jpeg", "buttons": ["download", "fullscreen"]}


def slider(label: str, value: float, info: str | None = None, most: float = 1, step: float = 0.05) -> gr.Slider:
    """A slider from 0."""
    return gr.Slider(0, most, value, step=step, label=label, info=info, min_width=120)


def pixel(event: gr.SelectData) -> tuple[int, int]:
    """The (row, column) of a click into a picture."""
    column, row = event.index
    return row, column
