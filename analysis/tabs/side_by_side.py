"""Several checkpoints on one photograph, as Fig. 7 has the four networks of Table 5."""

from collections.abc import Callable, Sequence

import gradio as gr
import numpy as np

from analysis.experiments import TRAINED
from analysis.gradcam import explain
from analysis.gradcam import overlay as cam_overlay
from analysis.library import Library
from analysis.predictor import Predictor
from analysis.render import captioned, grid, overlay
from analysis.tabs.events import PRIVATE
from analysis.tabs.pictures import picture
from analysis.tabs.scene import Scene
from analysis.tabs.subject import QUIET, Subject
from wsss import UserError

SCORE_MAP, MASK = "score map", "mask"

_MOST = 4
"""Beside those of the page and of Compare they are the ones that the library keeps open."""

_OPACITY = 0.6


def build(subject: Subject) -> gr.Dropdown:
    """Add an accordion to the open tab. Returns its choice of checkpoints."""
    names = subject.library.names
    networks = [name for variant in TRAINED["5"].variants if (name := f"table5-{variant.name}") in names]
    with gr.Accordion("Several checkpoints side by side, as in Fig. 7", open=False):
        with gr.Row():
            chosen = gr.Dropdown(
                names, value=networks or names[:1], multiselect=True, max_choices=_MOST, label="Checkpoints"
            )
            kind = gr.Radio(
                [SCORE_MAP, MASK], value=SCORE_MAP, label="picture", info="score map: of the likeliest class in it"
            )
        button = gr.Button("Show them", size="sm")
        strip = picture("Side by side", "film")
    asked = {"show_progress": "full", "show_progress_on": [strip]}
    subject.then(button.click, _shown_by(subject.library), [chosen, kind], [strip], QUIET | asked)
    subject.path.change(lambda: None, None, strip, **PRIVATE)  # of the photograph before, once all wait for the next
    return chosen


def _shown_by(library: Library) -> Callable:
    def side_by_side(scene: Scene, names: Sequence[str], kind: str) -> np.ndarray:
        """One column a checkpoint, in the order in which they were chosen."""
        if not names:
            raise UserError("choose a checkpoint")
        return grid([[_drawn(scene, name, library[name], kind) for name in names]])

    return side_by_side


def _drawn(scene: Scene, name: str, predictor: Predictor, kind: str) -> np.ndarray:
    encoding = predictor.encode(scene.encoding.rgb)
    if kind == MASK:
        mask = predictor.mask(encoding)
        return captioned(overlay(encoding.rgb, mask, scene.colors_of(predictor), _OPACITY), [name])
    if scene.likeliest not in predictor.classes:
        return captioned(encoding.rgb, [f"{name}: knows no {scene.likeliest}"])
    cam, *_ = explain(predictor, encoding, scene.likeliest, methods=())
    return captioned(cam_overlay(encoding.rgb, cam.scaled(), _OPACITY), [f"{name}: {scene.likeliest}"])
