"""How pictures and sliders look on every tab."""

import base64
import re
from collections.abc import Callable, Sequence

import cv2
import gradio as gr
import numpy as np
from gradio.components.imageslider import SliderData
from gradio.data_classes import ImageData

from analysis.legends import line

PICTURE = {"interactive": False, "format": "jpeg", "buttons": ["download", "fullscreen"]}

_QUALITY = 85  # of JPEG, in percent


class Picture(gr.Image):
    """A picture (H, W, 3) uint8 that is only looked at: it travels within the answer.

    Gradio would write it into a folder for the browser to fetch by another question, which a slider would wait for.
    """

    is_template = True  # to the browser it is an ordinary picture

    def postprocess(self, value: np.ndarray | None) -> ImageData | None:
        """The picture as an address that contains it."""
        return None if value is None else _inline(value, self.label)


class Wipe(gr.ImageSlider):
    """Two pictures (H, W, 3) uint8 with a line to wipe between them, only looked at."""

    is_template = True

    def postprocess(self, value: tuple[np.ndarray, np.ndarray] | None) -> SliderData | None:
        """The pictures as addresses that contain them."""
        return None if value is None else SliderData(root=tuple(_inline(rgb, self.label) for rgb in value))


class Slider(gr.Slider):
    """A slider whose number box may be empty, or hold what lies outside, while it is being written in."""

    is_template = True

    def preprocess(self, payload: float | None) -> float:
        """The nearest value that the slider has, as the page itself puts it there once the box is left."""
        given = self.minimum if payload is None else payload
        return super().preprocess(min(max(given, self.minimum), self.maximum))


class Number(gr.Number):
    """A number box from 0 that may be empty, or hold less, while it is being written in."""

    is_template = True

    def preprocess(self, payload: float | None) -> float | int | None:
        """The number, 0 where there is none or a negative one."""
        return super().preprocess(max(0, payload or 0))


def picture(label: str, elem_classes: str = "picture") -> Picture:
    """An empty `Picture`."""
    return Picture(label=label, elem_classes=elem_classes, **PICTURE)


def note(text: str) -> gr.HTML:
    """Words below a picture."""
    return gr.HTML(line(text))


def wipe(label: str) -> Wipe:
    """An empty `Wipe`."""
    return Wipe(label=label, max_height=480, **PICTURE)


def _inline(rgb: np.ndarray, label: str) -> ImageData:
    """The picture as an address that contains it (RFC 2397); where it is downloaded it is called by its label."""
    name = "-".join(re.findall(r"\w+", label.lower()))
    quality = [cv2.IMWRITE_JPEG_QUALITY, _QUALITY]
    _, encoded = cv2.imencode(".jpeg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), quality)
    return ImageData(url=f"data:image/jpeg;base64,{base64.b64encode(encoded).decode()}", orig_name=f"{name}.jpeg")


def slider(label: str, value: float, info: str | None = None, most: float = 1, step: float = 0.01) -> Slider:
    """A slider from 0."""
    return Slider(0, most, value, step=step, label=label, info=info, min_width=120)


def moved(controls: Sequence[gr.components.Component]) -> list[Callable]:
    """The events of a visitor who moves one; the arrow beside a slider, which puts it back, is no input of it."""
    slid = [control.release for control in controls if isinstance(control, gr.Slider)]
    return [*(control.input for control in controls), *slid]


def pixel(event: gr.SelectData) -> tuple[int, int]:
    """The (row, column) of a click into a picture."""
    column, row = event.index
    return row, column
