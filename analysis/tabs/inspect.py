"""What the network sees: its mask over the photograph, and what it thinks of a pixel."""

import html
from collections.abc import Sequence
from typing import NamedTuple

import gradio as gr
import numpy as np
import plotly.graph_objects as go

from analysis.encoding import cell_of
from analysis.exports import arrays_npz, mask_png
from analysis.figures import pixel_bars, score_bars, score_path
from analysis.legends import legend, line, swatches
from analysis.predictor import ways_to_refine
from analysis.pseudo_settings import PseudoSettings
from analysis.render import ERRORS, error_map, marked, overlay
from analysis.tabs import download
from analysis.tabs.events import PRIVATE
from analysis.tabs.pictures import moved, picture, pixel, slider, wipe
from analysis.tabs.scene import Scene
from analysis.tabs.subject import LIVE, Subject
from wsss.metrics import class_iou, confusion, mean_iou

_NO_TRUTH = "There is no ground-truth mask: give one at the top of the page."
MASK, JUDGED, TRUTH = VIEWS = "the mask", "right or wrong", "ground truth"
"""What may lie over the photograph."""


class Controls(NamedTuple):
    """What the visitor moves."""

    opacity: gr.Slider
    confidence: gr.Slider
    refined_by: gr.Radio
    view: gr.Radio


def build(subject: Subject) -> dict[str, gr.components.Component]:
    """Lay out the tab and wire it, inside open gr.Tabs. Returns its settings by name."""
    with gr.Tab("Inspect", id="Inspect") as tab:
        with gr.Row():
            with gr.Column(min_width=300):
                pair = wipe("Photograph | mask")
                names = gr.HTML()
            with gr.Column(min_width=300):
                pointed = picture("Mask: click a pixel")
                controls = _controls()
                download.build(subject, "mask", _files, controls, controls._fields)
        with gr.Row():
            scores = gr.Plot(label="Image-level probabilities")
            bars = gr.Plot(label="The pixel's probabilities, before a CRF")
            path = gr.Plot(label="The pixel's scores by T (Eq. 6)")
    pictures = [pair, names, pointed]
    subject.follow(tab, _show, controls, [*pictures, scores, bars, path])
    sliders = [control for control in controls if control is not controls.refined_by]
    subject.live(moved(sliders), _mask, controls, pictures, api_name="mask")
    # Others may use the network meanwhile: a CRF takes seconds, and leaves room between its steps.
    subject.then(controls.refined_by.input, _refined, controls, [*pictures, bars], LIVE | {"queue": True})
    _click(subject, pointed, controls, [pointed, bars, path])
    return controls._asdict()


def _controls() -> Controls:
    with gr.Row():
        opacity = slider("opacity", 0.55, "of the mask")
        confidence = slider("confidence", 0.0, "pixels below it are unlabelled")
    with gr.Row():
        refined_by = gr.Radio(
            ways_to_refine(),
            value="SPR",
            label="refined by",
            info="SPR: in as many steps as the checkpoint was tested with, maybe 0; none: as the paper tests",
            min_width=120,
        )
        view = gr.Radio(
            list(VIEWS), value=MASK, label="shown", info="all but the mask need a ground truth, above", min_width=120
        )
    return Controls(opacity, confidence, refined_by, view)


def _show(scene: Scene, *settings) -> tuple:
    """All that the tab shows of a new subject."""
    scores = score_bars(scene.encoding.image_probs, scene.predictor.classes, scene.colors)
    return *_mask(scene, *settings), scores, *_pixel(scene, *settings)


def _refined(scene: Scene, *settings) -> tuple:
    """What changes with the refinement."""
    bars, _ = _pixel(scene, *settings)
    return *_mask(scene, *settings), bars


def _mask(scene: Scene, opacity, confidence, refined_by, view) -> tuple:
    """What is shown over the photograph twice, once to wipe and once to click, and its legend.

    Without a ground truth it is the mask, whatever is asked for.
    """
    colors, rgb, classes = scene.colors, scene.encoding.rgb, scene.predictor.classes
    mask = scene.predictor.mask(scene.encoding, confidence, refined_by=refined_by)
    if view == JUDGED and scene.truth is not None:
        shown = error_map(rgb, scene.truth, mask, opacity)
        names = swatches(ERRORS) + _judgement(scene.truth, mask, classes)
    else:
        drawn = scene.truth if view == TRUTH and scene.truth is not None else mask
        shown, names = overlay(rgb, drawn, colors, opacity), legend(drawn, classes, colors)
        names += line(_NO_TRUTH) if view != MASK and scene.truth is None else ""
    cutoff = scene.predictor.config.class_cutoff
    if cutoff > scene.encoding.image_probs.max() and (view != TRUTH or scene.truth is None):
        names += line(f"no class is as probable as {100 * cutoff:.0f} %, so all is background")
    return (rgb, shown), names, marked(shown, scene.pixel)


def _judgement(truth: np.ndarray, mask: np.ndarray, classes: Sequence[str]) -> str:
    """IoU with the ground truth of each class in either, and their mean, over the pixels that both label."""
    counts = confusion(truth, mask, len(classes) + 1)
    if not counts.any():
        return line("no pixel has a label in both")
    parts = [f"mean IoU {100 * mean_iou(counts):.1f} %"]
    parts += [
        f"{html.escape(name)} {100 * iou:.1f} %"
        for name, iou in zip(("background", *classes), class_iou(counts), strict=True)
        if not np.isnan(iou)
    ]
    return line(*parts)


def _pixel(scene: Scene, opacity, confidence, refined_by, view) -> tuple[go.Figure, go.Figure]:
    """What the network thinks of the pixel, and what the refinement makes of it with the checkpoint's settings."""
    predictor, encoding, at = scene.predictor, scene.encoding, scene.pixel
    known = predictor.indices(scene.present)
    maps = predictor.iterates(encoding, scene.present, PseudoSettings.of(predictor.config))
    row, column = cell_of(at, encoding.rgb.shape[:2], maps.shape[2:])
    names = ("background", *predictor.classes)
    return (
        pixel_bars(
            predictor.probs_before_crf(encoding, refined_by)[:, at[0], at[1]], predictor.classes, scene.colors, at
        ),
        score_path(maps[:, known, row, column].cpu().numpy(), [names[k] for k in known], scene.colors[known]),
    )


def _files(scene: Scene, opacity, confidence, refined_by, view) -> dict[str, bytes]:
    predictor, encoding = scene.predictor, scene.encoding
    mask, probs = (
        predictor.mask(encoding, confidence, refined_by=refined_by),
        predictor.probs_before_crf(encoding, refined_by),
    )
    return {
        "mask.png": mask_png(mask, predictor.classes),
        "arrays.npz": arrays_npz(probs=probs, image_probs=encoding.image_probs, mask=mask),
    }


def _click(subject: Subject, pointed: gr.Image, controls: Controls, outputs: list[gr.components.Component]) -> None:
    """What a click into the mask does: the pixel is marked, its probabilities and its scores are shown."""

    def asked(scene: Scene, *settings) -> tuple:
        *_, shown = _mask(scene, *settings)
        return shown, *_pixel(scene, *settings)

    subject.then(pointed.select(pixel, None, subject.clicked, **PRIVATE).then, asked, controls, outputs)
