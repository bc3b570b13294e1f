"""The visitor's own colors for classes, instead of VOC's."""

import re
from collections.abc import Mapping, Sequence

import gradio as gr

from analysis.render import recolored
from analysis.tabs.events import PRIVATE
from analysis.tabs.subject import LIVE, Subject
from analysis.tabs.words import in_words
from wsss import UserError


def build(subject: Subject) -> None:
    """Add the choice to the open column; the opened tab is drawn anew, the others when they are opened."""
    with gr.Accordion("Colors of the classes", open=False):
        name = gr.Dropdown(list(subject.default.classes), label="Class", allow_custom_value=True)
        # Above the picker, which grows when it is opened: a button below it would move away from under the pointer.
        reset = gr.Button("VOC's colors", size="sm")
        color = gr.ColorPicker(_hex(subject.default.colors[1]), label="Color on the page; files keep VOC's")

    def offered(checkpoint: str, name: str) -> gr.Dropdown:
        classes = list(subject.library[checkpoint].classes)
        return gr.Dropdown(classes) if name in classes else gr.Dropdown(classes, value=classes[0])

    def current(checkpoint: str, name: str, own: Mapping[str, tuple]) -> tuple[int, ...]:
        predictor = subject.library[checkpoint]
        known = recolored(predictor.colors, predictor.classes, own)
        return tuple(known[predictor.index(name)].tolist())

    def shown(checkpoint: str, name: str, own: Mapping[str, tuple]) -> str:
        return _hex(current(checkpoint, name, own))

    def painted(checkpoint: str, name: str, own: Mapping[str, tuple], color: str, opened: str) -> list:
        if current(checkpoint, name, own) == (given := parse(color)):  # the page itself has put it there
            return [gr.skip()] * (1 + len(subject.turns))
        return [{**own, name: given}, *subject.turned(opened)]

    chosen, outputs = [subject.checkpoint, name, subject.own_colors], [subject.own_colors, *subject.turns]
    # "multiple": as of the subject's own answer to this event, see `Subject.live`.
    subject.checkpoint.change(in_words(offered), [subject.checkpoint, name], name, trigger_mode="multiple", **PRIVATE)
    name.change(in_words(shown), chosen, color, **PRIVATE)
    color.change(in_words(painted), [*chosen, color, subject.opened], outputs, **(LIVE | {"queue": True}))
    reset.click(lambda opened: [{}, *subject.turned(opened)], subject.opened, outputs, **PRIVATE).then(
        in_words(shown), chosen, color, **PRIVATE
    )


def parse(color: str) -> tuple[int, int, int]:
    """Red, green and blue of "#rrggbb" or "rgb(r, g, b)", as browsers write colors. Raises UserError."""
    text = str(color)
    if found := re.fullmatch(r"#([0-9a-fA-F]{2})([0-9a-fA-F]{2})([0-9a-fA-F]{2})(?:[0-9a-fA-F]{2})?", text):
        return tuple(int(part, 16) for part in found.groups())
    number = r"\s*(\d{1,3}(?:\.\d{1,20})?)\s*"
    found = re.fullmatch(rf"rgba?\({number},{number},{number}(?:,{number})?\)", text)
    values = [round(float(part)) for part in found.groups()[:3]] if found else []
    if not values or max(values) > 255:
        raise UserError(f"{text[:40]!r} is not a color; write #rrggbb or rgb(r, g, b)")
    return tuple(values)


def _hex(color: Sequence[int]) -> str:
    return "#{:02x}{:02x}{:02x}".format(*(int(value) for value in color))
