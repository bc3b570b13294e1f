"""The first tab: a photograph, what the network sees in it, and the pseudo mask that would train it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import gradio as gr
import numpy as np

from analysis.figures import score_bars
from analysis.predictor import MOST_STEPS, Predictor
from analysis.render import heat, legend, overlay
from analysis.tabs.photograph import Photograph
from wsss import UserError

EXAMPLES = sorted(Path(__file__).parent.parent.joinpath("examples").glob("*.jpg"))
_LIVE = {"trigger_mode": "always_last", "show_progress": "hidden", "concurrency_id": "model", "concurrency_limit": 1}
_PICTURE = {"interactive": False, "format": "jpeg", "buttons": ["download", "fullscreen"]}


def build(predictor: Predictor) -> None:
    """Lay out the tab and wire it, inside an open gr.Blocks."""
    config = predictor.config
    rgb = gr.State()
    with gr.Row(equal_height=False):
        with gr.Column(scale=2, min_width=320):
            photograph = Photograph(label="Photograph", sources=["upload", "clipboard"], height=280)
            gr.Examples([str(path) for path in EXAMPLES], photograph, label="Examples")
            present = gr.CheckboxGroup(
                list(predictor.classes),
                label="Classes in the photograph",
                info="The weak label: the only thing that training is told. Ticked: what the network sees.",
            )
            with gr.Group():
                alpha = gr.Slider(
                    0, 1, config.alpha, step=0.05, label="alpha", info="1: colors only; 0: classes only (Eq. 5)"
                )
                steps = gr.Slider(
                    0, MOST_STEPS, config.refine_steps, step=1, label="T", info="refinement steps (Eq. 6)"
                )
                cutoff = gr.Slider(
                    0,
                    1,
                    config.object_cutoff,
                    step=0.05,
                    label="threshold",
                    info="share of its maximum an object claims",
                )
                background = gr.Slider(
                    0,
                    1,
                    config.background_cutoff,
                    step=0.05,
                    label="background threshold",
                    info="the same for background",
                )
            reset = gr.Button("Reset to the checkpoint's settings", size="sm")
        with gr.Column(scale=5, min_width=340):
            with gr.Row():
                with gr.Column(min_width=300):
                    mask_picture = gr.ImageSlider(label="Photograph | mask", max_height=600, **_PICTURE)
                    mask_legend = gr.HTML()
                    with gr.Row():
                        opacity = gr.Slider(0, 1, 0.55, step=0.05, label="opacity", min_width=120)
                        confidence = gr.Slider(0, 1, 0, step=0.05, label="least confidence", min_width=120)
                with gr.Column(min_width=300):
                    pseudo_picture = gr.Image(label="Pseudo mask (SPR)", **_PICTURE)
                    pseudo_legend = gr.HTML()
            with gr.Row():
                with gr.Column(min_width=300):
                    information = gr.Image(label="Self-information", **_PICTURE)
                    information_range = gr.HTML()
                with gr.Column(min_width=300):
                    bars = gr.Plot(label="Class scores")

    refinement = [rgb, present, alpha, steps, cutoff, background]
    mask_outputs = [mask_picture, mask_legend]
    pseudo_outputs = [pseudo_picture, pseudo_legend]

    def analyse(picture, opacity, confidence, alpha, steps, cutoff, background):
        """Everything that the page shows of a photograph."""
        if picture is None:
            return [None, gr.CheckboxGroup(value=[])] + [None, ""] * 3 + [None]
        encoding = _encode(predictor, picture)
        seen = predictor.present(encoding)
        low, high = encoding.information.min(), encoding.information.max()
        return [
            picture,
            gr.CheckboxGroup(value=seen),
            *draw_mask(picture, opacity, confidence),
            *draw_pseudo(picture, seen, alpha, steps, cutoff, background),
            heat(encoding.information, encoding.rgb.shape[:2]),
            f'<div class="legend">Eq. 3: bright is shape, dark is texture; {low:.2f} to {high:.2f} nats</div>',
            score_bars(encoding.scores, predictor.classes, predictor.colors),
        ]

    def draw_mask(picture, opacity, confidence):
        """The network's mask over the photograph, and its legend."""
        if picture is None:
            return None, ""
        encoding = _encode(predictor, picture)
        mask = predictor.mask(encoding, confidence)
        shown = overlay(encoding.rgb, mask, predictor.colors, opacity)
        return (encoding.rgb, shown), legend(mask, predictor.classes, predictor.colors)

    def draw_pseudo(picture, present, alpha, steps, cutoff, background):
        """The pseudo mask over the photograph, and its legend."""
        if picture is None:
            return None, ""
        encoding = _encode(predictor, picture)
        mask = predictor.pseudo(
            encoding, present, alpha=alpha, steps=int(steps), object_cutoff=cutoff, background_cutoff=background
        )
        return overlay(encoding.rgb, mask, predictor.colors, 0.55), legend(mask, predictor.classes, predictor.colors)

    photograph.change(
        analyse,
        [photograph, opacity, confidence, *refinement[2:]],
        [rgb, present, *mask_outputs, *pseudo_outputs, information, information_range, bars],
        api_name="analyse",
        concurrency_id="model",
        concurrency_limit=1,
    )
    _live([opacity, confidence], draw_mask, [rgb, opacity, confidence], mask_outputs, "mask")
    _live(refinement[1:], draw_pseudo, refinement, pseudo_outputs, "pseudo")
    defaults = [config.alpha, config.refine_steps, config.object_cutoff, config.background_cutoff]
    reset.click(lambda: defaults, None, refinement[2:], api_visibility="private").then(
        draw_pseudo, refinement, pseudo_outputs, api_visibility="private", **_LIVE
    )


def _live(
    controls: Sequence[gr.components.Component], fn: Callable, inputs: list, outputs: list, api_name: str
) -> None:
    """Call `fn` while any of the controls moves; the last position always counts. It is one endpoint of the API."""
    for control in controls:
        is_first = control is controls[0]
        named = {"api_name": api_name} if is_first else {"api_visibility": "private"}
        control.input(fn, inputs, outputs, **named, **_LIVE)


def _encode(predictor: Predictor, picture: np.ndarray):
    try:
        return predictor.encode(picture)
    except UserError as error:
        raise gr.Error(f"This image cannot be used: {error}.") from None
