"""The first tab: a photograph, what the network sees in it, and the pseudo mask that would train it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import gradio as gr
import numpy as np

from analysis.figures import score_bars
from analysis.predictor import MOST_STEPS, Encoding, Predictor
from analysis.render import heat, legend, overlay
from analysis.tabs.photograph import Photograph
from analysis.tabs.words import in_words

EXAMPLES = sorted(Path(__file__).parent.parent.joinpath("examples").glob("*.jpg"))
_LIVE = {"trigger_mode": "always_last", "show_progress": "hidden", "concurrency_id": "model", "concurrency_limit": 1}
_PICTURE = {"interactive": False, "format": "jpeg", "buttons": ["download", "fullscreen"]}
_PSEUDO_OPACITY = 0.55


class Controls(NamedTuple):
    """What the visitor gives and moves, on the left of the page."""

    photograph: Photograph
    present: gr.CheckboxGroup
    alpha: gr.Slider
    steps: gr.Slider
    cutoff: gr.Slider
    background: gr.Slider
    reset: gr.Button


class Pictures(NamedTuple):
    """What the page shows, on the right, and the two sliders that belong to the mask."""

    mask: gr.ImageSlider
    mask_legend: gr.HTML
    opacity: gr.Slider
    confidence: gr.Slider
    pseudo: gr.Image
    pseudo_legend: gr.HTML
    information: gr.Image
    information_range: gr.HTML
    bars: gr.Plot


class Answers:
    """What the page does when something moves. A visitor's photograph is an argument, never remembered here."""

    def __init__(self, predictor: Predictor) -> None:
        self.predictor = predictor

    def analyse(self, picture, opacity, confidence, alpha, steps, cutoff, background) -> list:
        """Everything that the page shows of a new photograph, in the order of `build`'s outputs."""
        if picture is None:
            return [None, gr.CheckboxGroup(value=[]), None, "", None, "", None, "", None]
        encoding = self.predictor.encode(picture)
        picture, seen = encoding.rgb, self.predictor.present(encoding)
        low, high = encoding.information.min(), encoding.information.max()
        return [
            picture,
            gr.CheckboxGroup(value=seen),
            *self.mask(picture, opacity, confidence),
            *self.pseudo(picture, seen, alpha, steps, cutoff, background),
            heat(encoding.information, encoding.rgb.shape[:2]),
            f'<div class="legend">Eq. 3: bright is shape, dark is texture; {low:.2f} to {high:.2f} nats</div>',
            score_bars(encoding.scores, self.predictor.classes, self.predictor.colors),
        ]

    def mask(self, picture, opacity, confidence) -> tuple:
        """The network's mask over the photograph, and its legend."""
        if picture is None:
            return None, ""
        encoding = self.predictor.encode(picture)
        mask = self.predictor.mask(encoding, confidence)
        shown, names = self._drawn(encoding, mask, opacity)
        return (encoding.rgb, shown), names

    def pseudo(self, picture, present, alpha, steps, cutoff, background) -> tuple:
        """The pseudo mask over the photograph, and its legend."""
        if picture is None:
            return None, ""
        encoding = self.predictor.encode(picture)
        settings = {"alpha": alpha, "steps": steps, "object_cutoff": cutoff, "background_cutoff": background}
        return self._drawn(encoding, self.predictor.pseudo(encoding, present, **settings), _PSEUDO_OPACITY)

    def _drawn(self, encoding: Encoding, mask: np.ndarray, opacity: float) -> tuple[np.ndarray, str]:
        colors = self.predictor.colors
        return overlay(encoding.rgb, mask, colors, opacity), legend(mask, self.predictor.classes, colors)


def build(predictor: Predictor) -> None:
    """Lay out the tab and wire it, inside an open gr.Blocks."""
    answers = Answers(predictor)
    rgb = gr.State()  # the photograph as it is shown; its encoding stays in the predictor
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=320):
            controls = _controls(predictor)
        with gr.Column(scale=5, min_width=340):
            pictures = _pictures()

    refinement = [controls.alpha, controls.steps, controls.cutoff, controls.background]
    mask_inputs, mask_outputs = [pictures.opacity, pictures.confidence], [pictures.mask, pictures.mask_legend]
    pseudo_inputs, pseudo_outputs = [controls.present, *refinement], [pictures.pseudo, pictures.pseudo_legend]
    controls.photograph.change(
        in_words(answers.analyse),
        [controls.photograph, *mask_inputs, *refinement],
        [rgb, controls.present, *mask_outputs, *pseudo_outputs, *pictures[-3:]],
        api_name="analyse",
        api_visibility="undocumented",  # what the page says to itself; `endpoints` is for others
        concurrency_id="model",
        concurrency_limit=1,
    )
    _live(mask_inputs, answers.mask, [rgb, *mask_inputs], mask_outputs, "mask")
    _live(pseudo_inputs, answers.pseudo, [rgb, *pseudo_inputs], pseudo_outputs, "pseudo")
    config = predictor.config
    defaults = [config.alpha, config.refine_steps, config.object_cutoff, config.background_cutoff]
    controls.reset.click(lambda: defaults, None, refinement, api_visibility="private").then(
        in_words(answers.pseudo), [rgb, *pseudo_inputs], pseudo_outputs, api_visibility="private", **_LIVE
    )


def _controls(predictor: Predictor) -> Controls:
    config = predictor.config
    photograph = Photograph(label="Photograph", sources=["upload", "clipboard"], height=280)
    gr.Examples([str(path) for path in EXAMPLES], photograph, label="Examples")
    present = gr.CheckboxGroup(
        list(predictor.classes),
        label="Classes in the photograph",
        info="The weak label: the only thing that training is told. Ticked: what the network sees.",
    )
    with gr.Group():
        sliders = [
            _slider("alpha", config.alpha, "1: colors only; 0: classes only (Eq. 5)"),
            gr.Slider(0, MOST_STEPS, config.refine_steps, step=1, label="T", info="refinement steps (Eq. 6)"),
            _slider("threshold", config.object_cutoff, "share of its maximum that an object claims (Sec. 4.1.3)"),
            _slider("background threshold", config.background_cutoff, "the same for the background"),
        ]
    return Controls(photograph, present, *sliders, gr.Button("Reset to the checkpoint's settings", size="sm"))


def _pictures() -> Pictures:
    with gr.Row():
        with gr.Column(min_width=300):
            mask = gr.ImageSlider(label="Photograph | mask", max_height=480, **_PICTURE)
            mask_legend = gr.HTML()
            with gr.Row():
                opacity = _slider("opacity", 0.55, "of the mask")
                confidence = _slider("confidence", 0.0, "else unlabelled")
        with gr.Column(min_width=300):
            pseudo = gr.Image(label="Pseudo mask (SPR)", elem_classes="picture", **_PICTURE)
            pseudo_legend = gr.HTML()
    with gr.Row():
        with gr.Column(min_width=300):
            information = gr.Image(label="Self-information", elem_classes="picture", **_PICTURE)
            information_range = gr.HTML()
        with gr.Column(min_width=300):
            bars = gr.Plot(label="Class scores")
    return Pictures(mask, mask_legend, opacity, confidence, pseudo, pseudo_legend, information, information_range, bars)


def _slider(label: str, value: float, info: str | None = None) -> gr.Slider:
    return gr.Slider(0, 1, value, step=0.05, label=label, info=info, min_width=120)


def _live(
    controls: Sequence[gr.components.Component], fn: Callable, inputs: list, outputs: list, api_name: str
) -> None:
    """Call `fn` while any of the controls moves; the last position always counts. The first one carries the name."""
    for control in controls:
        is_first = control is controls[0]
        named = {"api_name": api_name, "api_visibility": "undocumented"} if is_first else {"api_visibility": "private"}
        control.input(in_words(fn), inputs, outputs, **named, **_LIVE)
