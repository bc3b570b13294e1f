"""What a photograph, a ground truth or a checkpoint that comes brings to the page."""

import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from analysis.encoding import Encoding
from analysis.legends import line
from analysis.predictor import Predictor
from analysis.tabs.photograph import decoded
from analysis.tabs.words import sentence
from analysis.truth import doubt, read_values
from wsss import UserError
from wsss.probabilities import to_image


def encoding_of(predictor: Predictor, path: str | None, known: np.ndarray | None) -> Encoding | None:
    """The encoding of a photograph, as it is known or from its file; None, and a warning, if it cannot be used."""
    if path is None:
        return None
    try:
        return predictor.encode(decoded(path) if known is None else known)
    except UserError as error:
        gr.Warning(sentence(str(error)))
    except gr.Error as error:
        gr.Warning(error.message)
    return None


def chips(predictor: Predictor, encoding: Encoding | None, present: Sequence[str] | None = None) -> gr.CheckboxGroup:
    """The classes with their scores; ticked are those present, unless given those that the network sees."""
    if encoding is None:
        return gr.CheckboxGroup(list(predictor.classes), value=[])
    named = [
        (f"{name} {100 * score:.0f} %", name)
        for name, score in zip(predictor.classes, encoding.image_probs, strict=True)
    ]
    seen = predictor.present(encoding) if present is None else [name for name in present if name in predictor.classes]
    return gr.CheckboxGroup(named, value=seen)


def truth_values(path: str | None, rgb: np.ndarray | None, classes: Sequence[str]) -> np.ndarray | None:
    """What a visitor's mask holds, (H, W) uint8 of the photograph as it is shown; None where there is none of either.

    None too, and a sentence to the visitor, where it does not fit; a sentence alone where it has none of the classes.
    """
    if path is None or rgb is None:
        return None
    try:
        values = read_values(Path(path), rgb.shape[:2])
    except UserError as error:
        gr.Warning(sentence(str(error)))
        return None
    if said := doubt(values, classes):
        gr.Warning(sentence(said))
    return values


def mask_put_away(truth_file: str | None) -> Any:
    """What becomes of the mask on the page when its photograph goes."""
    if truth_file is None:
        return gr.skip()
    gr.Info("The ground-truth mask belonged to the previous photograph. Upload it again if it fits this one.")
    return None


def about(predictor: Predictor, encoding: Encoding | None = None) -> str:
    """One line of HTML: the checkpoint, where it runs, and at which sizes the photograph is shown and looked at."""
    scores = predictor.facts.get("val") or {}
    parts = [html.escape(predictor.config.encoder), f"{len(predictor.classes)} classes"]
    if "miou" in scores:
        parts.append(f"{100 * scores['miou']:.1f} % mIoU on its validation photographs")
    parts.append(f"runs on {predictor.device}")
    if encoding is not None:
        height, width = encoding.rgb.shape[:2]
        rows, columns = to_image(encoding.rgb, predictor.config.test_short_side).shape[2:]
        parts.append(f"photograph shown at {width}x{height}, the network sees {columns}x{rows}")
    return line(*parts)
