"""Two checkpoints, or two settings, on one photograph or on many (Fig. 7)."""

import itertools
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import gradio as gr
import numpy as np
import pandas as pd

from analysis.charts import agreement_bars
from analysis.compare import DIFFERENCES, Comparison, compare, in_common, least_alike_first, renumbered
from analysis.exports import arrays_npz, identity, mask_png, picture_png
from analysis.legends import line, swatches
from analysis.library import Library
from analysis.predictor import Predictor, ways_to_refine
from analysis.pseudo_settings import PseudoSettings
from analysis.render import overlay
from analysis.tabs import download, side_by_side
from analysis.tabs.events import CLICK, PRIVATE
from analysis.tabs.pictures import moved, picture, slider, wipe
from analysis.tabs.reset import bring_settings
from analysis.tabs.scene import Scene
from analysis.tabs.subject import Subject
from analysis.tabs.words import in_words, sentence
from wsss import UserError
from wsss.data.picture import read_rgb
from wsss.metrics import confusion, mean_iou

MASKS = {"mask": "SPR", "mask with CRF": "CRF", "mask without SPR": "none"}
"""What of a checkpoint is compared besides pseudo masks, and what it is refined by."""

PSEUDO = "pseudo mask"

MOST_PHOTOGRAPHS = 100
"""In a folder that is compared."""


_MANY = PRIVATE | {"concurrency_id": "many", "concurrency_limit": 1, "trigger_mode": "always_last"}
"""Of what looks at many photographs: other questions are answered in between."""


class Side(NamedTuple):
    """One of the two."""

    checkpoint: gr.Dropdown
    kind: gr.Radio
    alpha: gr.Slider


class Pictures(NamedTuple):
    """What is shown of one photograph."""

    pair: gr.ImageSlider
    difference: gr.Image
    shares: gr.HTML
    bars: gr.Plot


def build(subject: Subject) -> dict[str, gr.components.Component]:
    """Lay out the tab and wire it, inside open gr.Tabs. Returns its settings by name."""
    with gr.Tab("Compare", id="Compare") as tab:
        with gr.Row():
            left, right = (_side(subject, name, kind) for name, kind in (("Left", "mask"), ("Right", PSEUDO)))
        sides = {"left": left, "right": right}
        with gr.Row():
            pair = wipe("Left | right")
            with gr.Column(min_width=300):
                difference = picture("Difference")
                shares = gr.HTML()
                names = [f"{name} {part}" for name in sides for part in Side._fields]
                download.build(subject, "comparison", _files_by(subject.library), [*left, *right], names)
        bars = gr.Plot(label="IoU between left and right, where both have a label")
        with gr.Accordion("Many photographs, those that differ most first", open=False):
            files = gr.File(label=f"Up to {MOST_PHOTOGRAPHS} photographs", file_count="multiple", height=120)
            table = gr.Dataframe(label="Click a line to look at its photograph", interactive=False, max_height=320)
            with gr.Row():
                again = gr.Button("Compare them", size="sm", min_width=110)
                stop = gr.Button("Stop", size="sm", min_width=70)
        several = side_by_side.build(subject)
    controls, pictures = [*left, *right], Pictures(pair, difference, shares, bars)
    shown = _shown_by(subject.library)

    def opened(scene: Scene, *controls) -> tuple:
        """As `shown`, with the checkpoints that have come since among the choices."""
        names = subject.library.names
        return *[gr.Dropdown(choices=names)] * 3, *shown(scene, *controls)

    subject.follow(tab, opened, controls, [left.checkpoint, right.checkpoint, several, *pictures])
    with subject.tools:  # not among the tabs, which are counted
        brought = gr.State()
    for side in sides.values():
        chosen, inputs = [side.checkpoint.input], [side.checkpoint, side.alpha]
        bring_settings(subject.library, chosen, inputs, lambda config: [config.alpha], brought)
    subject.live([*moved(controls), brought.change], shown, controls, pictures)
    tabulate = in_words(_table_by(subject.library))
    asked = gr.on([files.upload, again.click], tabulate, [files, *controls], table, **_MANY)
    stop.click(None, cancels=asked, api_visibility="private")
    # What was tabulated is of the pair before; another table takes long, so it is made when it is asked for.
    left_behind = [files.clear, *(control.change for control in controls)]
    once = PRIVATE | {"trigger_mode": "once", "queue": False}  # of a slider that is dragged, the first does it
    gr.on(left_behind, lambda: None, None, table, cancels=asked, **once)
    table.select(in_words(_photograph), files, subject.photograph, **CLICK)
    return {f"{name}_{part}": getattr(side, part) for name, side in sides.items() for part in Side._fields}


def _side(subject: Subject, name: str, kind: str) -> Side:
    library, config = subject.library, subject.default.config
    masks = [mask for mask, way in MASKS.items() if way in ways_to_refine()]
    with gr.Column(min_width=300), gr.Group():
        return Side(
            gr.Dropdown(library.names, value=library.names[0], label=f"{name}: checkpoint"),
            gr.Radio([*masks, PSEUDO], value=kind, label="mask"),
            slider("alpha", config.alpha, "of the pseudo mask (Eq. 5)"),
        )


def _mask(predictor: Predictor, rgb: np.ndarray, present: list[str] | None, kind: str, alpha: float) -> np.ndarray:
    """The chosen mask of a photograph, in the checkpoint's classes; present None: those that it sees itself."""
    encoding = predictor.encode(rgb)
    if kind in MASKS:
        return predictor.mask(encoding, refined_by=MASKS[kind])
    if kind != PSEUDO:
        raise UserError(f"there is no picture {kind!r}; choose from {', '.join([*MASKS, PSEUDO])}")
    known = predictor.present(encoding) if present is None else [name for name in present if name in predictor.classes]
    return predictor.pseudo(encoding, known, replace(PseudoSettings.of(predictor.config), alpha=alpha))


def _both(library: Library, scene: Scene, controls: tuple) -> tuple[list[Predictor], list[np.ndarray]]:
    """The predictor and the mask of each side."""
    sides = controls[:3], controls[3:]
    predictors = [library[checkpoint] for checkpoint, _, _ in sides]
    return predictors, [
        _mask(predictor, scene.encoding.rgb, scene.present, kind, alpha)
        for predictor, (_, kind, alpha) in zip(predictors, sides, strict=True)
    ]


def _compared(predictors: list[Predictor], masks: list[np.ndarray]) -> tuple[Comparison, list[str]]:
    """The comparison in the classes that both know, and their names."""
    classes = in_common(predictors[0].classes, predictors[1].classes)
    left, right = (renumbered(mask, side.classes, classes) for mask, side in zip(masks, predictors, strict=True))
    return compare(left, right, len(classes) + 1), classes


def _shown_by(library: Library) -> Callable:
    def shown(scene: Scene, *controls) -> tuple:
        """Both masks over the photograph, and where they differ, in the order of `Pictures`."""
        predictors, masks = _both(library, scene, controls)
        seen, classes = _compared(predictors, masks)
        pair = tuple(
            overlay(scene.encoding.rgb, mask, scene.colors_of(side), 0.55)
            for side, mask in zip(predictors, masks, strict=True)
        )
        colors = scene.colors_of(predictors[0])[predictors[0].indices(classes)]
        said = _differences(seen.shares) + _judgement(scene, predictors, masks)
        return pair, seen.picture, said, agreement_bars(seen, classes, colors)

    return shown


def _files_by(library: Library) -> Callable:
    def files(scene: Scene, *controls) -> dict[str, bytes]:
        predictors, masks = _both(library, scene, controls)
        left, right = (mask_png(mask, side.classes) for mask, side in zip(masks, predictors, strict=True))
        compared = dict(zip(("left", "right"), map(identity, predictors), strict=True))
        return {
            "left.png": left,
            "right.png": right,
            "difference.png": picture_png(_compared(predictors, masks)[0].picture),
            "arrays.npz": arrays_npz(left=masks[0], right=masks[1]),
            "checkpoints.json": json.dumps(compared, indent=1).encode(),
        }

    return files


def _differences(shares: dict[str, float]) -> str:
    seen = {name: share for name, share in shares.items() if share > 0}
    return swatches({f"{name} {100 * share:.0f} %": DIFFERENCES[name] for name, share in seen.items()})


def _judgement(scene: Scene, predictors: list[Predictor], masks: list[np.ndarray]) -> str:
    """Each side's mean IoU with the ground truth, over the pixels that both label; nothing without one."""
    if scene.truth is None:
        return ""
    classes = in_common(scene.predictor.classes, in_common(*(predictor.classes for predictor in predictors)))
    truth, said = renumbered(scene.truth, scene.predictor.classes, classes), []
    for side, predictor, mask in zip(("left", "right"), predictors, masks, strict=True):
        iou = mean_iou(confusion(truth, renumbered(mask, predictor.classes, classes), len(classes) + 1))
        said.append(f"{side} -" if np.isnan(iou) else f"{side} {100 * iou:.1f} %")
    return line(f"mean IoU with the ground truth, where labelled: {', '.join(said)}")


def _table_by(library: Library) -> Callable:
    def table(files, *controls) -> Iterator[pd.DataFrame]:
        """One line a photograph, those on which left and right agree least first, as they come."""
        files = files or []
        if len(files) > MOST_PHOTOGRAPHS:
            raise UserError(f"{len(files)} photographs are too many; {MOST_PHOTOGRAPHS} are allowed")
        sides = controls[:3], controls[3:]
        classes = in_common(*(library[checkpoint].classes for checkpoint, _, _ in sides))

        def masks(checkpoint, kind, alpha) -> Callable:
            predictor = library[checkpoint]
            return lambda rgb: renumbered(_mask(predictor, rgb, None, kind, alpha), predictor.classes, classes)

        photographs = _usable(library[controls[0]], _named(files))
        for lines in least_alike_first(photographs, *(masks(*side) for side in sides), classes):
            yield lines.round(3)

    return table


def _usable(predictor: Predictor, files: dict[str, str]) -> Iterator[tuple[str, np.ndarray]]:
    """The photographs as the page shows them, by their names; one that cannot be used is told of and left out."""
    for name, file in files.items():
        try:
            yield name, predictor.encode(read_rgb(Path(file))).rgb
        except UserError as error:
            gr.Warning(sentence(f"{name}: {str(error).replace(f'{file}: ', '')}"))


def _named(files: Sequence[str]) -> dict[str, str]:
    """The files by their names in the table; the second of a name is numbered "(2)", and so on."""
    named: dict[str, str] = {}
    for file in files:
        name = Path(file).name
        numbered = (f"{name} ({number})" if number > 1 else name for number in itertools.count(1))
        named[next(free for free in numbered if free not in named)] = file
    return named


def _photograph(files, event: gr.SelectData) -> str:
    """The file of the clicked line. Raises UserError when it was taken away."""
    name = str(event.row_value[0])
    file = _named(files or []).get(name)
    if file is None:
        raise UserError(f"{name} is no longer among the photographs")
    return file
