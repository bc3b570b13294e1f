"""The programming interface: a picture and numbers in, masks and maps out. Of its callers nothing is kept."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import gradio as gr
import numpy as np

from analysis.affinity import probe
from analysis.contact_sheet import contact_sheet
from analysis.encoding import Encoding
from analysis.gradcam import METHODS, TARGETS, coverage, explain
from analysis.library import Library
from analysis.predictor import Predictor
from analysis.pseudo_settings import PseudoSettings
from analysis.render import heat, shares
from analysis.shape_cues import MOST_PATCH, MOST_RADIUS, shape_cues
from analysis.sweeps import AXES, Axis, SweptSettings
from analysis.sweeps import sweep as swept
from analysis.tabs.photograph import Photograph
from analysis.tabs.subject import MODEL
from analysis.tabs.words import in_words
from wsss import UserError


class Endpoints:
    """The questions. Their answers are about the photograph as the page shows it, reduced to a short side of 512."""

    def __init__(self, library: Library) -> None:
        self.library = library

    def segment(self, picture, threshold, crf) -> tuple:
        """The network's mask: class indices (0 is background, 255 unlabelled) as gray values of a PNG, and areas.

        Args:
            picture: a JPEG, PNG, WebP, GIF, BMP or TIFF file of at most 20 MB and 40 megapixels.
            threshold: pixels whose class has a probability below it are unlabelled; 0 to 1.
            crf: whether a dense CRF takes the place of the refinement.
        """
        predictor, encoding = self._encoded(picture)
        mask = predictor.mask(encoding, threshold, refined_by="CRF" if crf else "SPR")
        return mask, shares(mask, predictor.classes)

    def self_information(self, picture, radius, bandwidth, samples, patch) -> tuple:
        """The self-information of Eq. 3 in false colors, dark is least, with its least and greatest value in nats.

        Args:
            picture: as in /segment.
            radius: R1, in pixels at which the network looks.
            bandwidth: h, where colors lie in [0, 1].
            samples: neighbours drawn; 0 takes all.
            patch: side in pixels, odd.
        """
        predictor, encoding = self._encoded(picture)
        config = predictor.config
        nats = shape_cues(
            encoding.rgb,
            radius=radius,
            bandwidth=bandwidth,
            samples=samples,
            patch=patch,
            relative=config.info_relative,
            short_side=config.test_short_side,
        ).information
        return heat(nats, encoding.rgb.shape[:2]), {"least": float(nats.min()), "greatest": float(nats.max())}

    def refine(self, picture, present, alpha, steps, object_cutoff, background_cutoff, floor) -> tuple:
        """The pseudo mask of Sec. 3.2.1 as in /segment, and areas.

        Args:
            picture: as in /segment.
            present: names of the classes in the photograph; none: those that the network sees.
            alpha: Eq. 5, 1: colors only, 0: classes only.
            steps: T of Eq. 6, 0 to 30.
            object_cutoff: share of its maximum that an object claims, 0 to 1.
            background_cutoff: the same for the background.
            floor: least score that claims anything, 0 to 1.
        """
        predictor, encoding = self._encoded(picture)
        settings = replace(
            PseudoSettings.of(predictor.config),
            alpha=alpha,
            steps=steps,
            object_cutoff=object_cutoff,
            background_cutoff=background_cutoff,
            least_cutoff=floor,
        )
        mask = predictor.pseudo(encoding, present or predictor.present(encoding), settings)
        return mask, shares(mask, predictor.classes)

    def cam(self, picture, name, method, target, row, column) -> tuple:
        """Class activation maps of encoder, shape cue and decoder, from top to bottom, in false colors.

        With them, for each stage: the raw minimum and maximum, the share of the predicted object that the map covers at
        half of its maximum, and the share of the map that lies inside the object.

        Args:
            picture: as in /segment.
            name: of the class.
            method: GradCAM, GradCAM++, HiResCAM, LayerCAM, XGradCAM, EigenGradCAM, or EigenCAM, which asks of no class.
            target: image score, predicted region, or pixel.
            row, column: of the pixel, where that is the target.
        """
        predictor, encoding = self._encoded(picture)
        at = _pixel(row, column) if target == "pixel" else None
        _, *cams = explain(predictor, encoding, name, methods=(method,), target=target, pixel=at)
        region = predictor.mask(encoding) == predictor.index(name)
        size = encoding.rgb.shape[:2]
        facts = {}
        for cam in cams:
            covered, inside = (None if np.isnan(value) else value for value in coverage(cam, region))
            facts[cam.stage] = {"least": cam.low, "greatest": cam.high, "covered": covered, "inside": inside}
        return np.vstack([heat(cam.scaled(), size, limits=(0, 1)) for cam in cams]), facts

    def sweep(self, picture, present, axis, values) -> tuple:
        """The pseudo masks along one setting: a contact sheet, and the measures of each cell.

        Args:
            picture: as in /segment.
            present: as in /refine.
            axis: alpha, T, threshold, background threshold, floor, tau or R1.
            values: of the axis, numbers with commas between.
        """
        predictor, encoding = self._encoded(picture)
        rows = Axis.read(axis, values)
        settings = SweptSettings.of(predictor.config)
        cells = list(swept(predictor, encoding, present or predictor.present(encoding), rows, None, settings))
        measures = [
            {name: None if np.isnan(value) else value for name, value in cell.measures.items()} for cell in cells
        ]
        sheet = contact_sheet(cells, rows, None, encoding.rgb, predictor.colors)
        return sheet, dict(zip(map(str, rows.values), measures, strict=True))

    def affinity(self, picture, name, row, column, alpha) -> tuple:
        """The photograph as the page shows it, and the weights of a pixel's 48 neighbours in the refinement (Eq. 5).

        They are the neighbours' rows and columns, and their weights by color, by class, and joint.

        Args:
            picture: as in /segment.
            name: of the class whose score is refined, or background: among the objects that the network sees.
            row, column: of the pixel.
            alpha: as in /refine.
        """
        predictor, encoding = self._encoded(picture)
        present = predictor.present(encoding)
        settings = replace(PseudoSettings.of(predictor.config), alpha=alpha)
        seen = probe(predictor, encoding, _pixel(row, column), name, present, settings)
        weights = {kind: of_kind.tolist() for kind, of_kind in seen.weights.items()}
        return encoding.rgb, {"rows": seen.rows.tolist(), "columns": seen.columns.tolist()} | weights

    def _encoded(self, picture: np.ndarray | None) -> tuple[Predictor, Encoding]:
        """The picture as the first checkpoint sees it, which is read anew where its files have changed."""
        if picture is None:
            raise UserError("a picture is needed")
        predictor = self.library.current(self.library.names[0])
        return predictor, predictor.encode(picture)


def _pixel(row: object, column: object) -> tuple[int, int]:
    """Raises UserError unless both are whole numbers; whether the photograph has such a pixel is asked later."""
    for name, value in (("row", row), ("column", column)):
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value // 1:
            raise UserError(f"the {name} must be a whole number, got {str(value)[:40]!r}")
    return int(row), int(column)


def build(library: Library) -> None:
    """Add the endpoints to the open gr.Blocks. An endpoint is typed by components, which the page does not show."""
    ask = Endpoints(library)
    first = library[library.names[0]]
    config, names = first.config, list(first.classes)
    picture = Photograph(label="picture", visible=False)
    present = gr.CheckboxGroup(names, label="present", visible=False)
    name = gr.Textbox(names[0], label="name", visible=False)
    alpha, row, column = _number("alpha", config.alpha), _number("row", 0), _number("column", 0)
    cutoffs = [
        _number("object_cutoff", config.object_cutoff),
        _number("background_cutoff", config.background_cutoff),
        _number("floor", config.least_cutoff),
    ]
    information = [
        _number("radius", min(config.info_radius, MOST_RADIUS)),
        _number("bandwidth", config.info_bandwidth),
        _number("samples", config.info_samples),
        _number("patch", min(config.info_patch, MOST_PATCH)),
    ]
    method, target = _choice("method", METHODS), _choice("target", TARGETS)
    axis, values = _choice("axis", AXES), gr.Textbox("0, 0.5, 1", label="values", visible=False)
    _offer(ask.segment, [picture, _number("threshold", 0), gr.Checkbox(False, label="crf", visible=False)])
    _offer(ask.self_information, [picture, *information])
    _offer(ask.refine, [picture, present, alpha, _number("steps", PseudoSettings.of(config).steps), *cutoffs])
    _offer(ask.cam, [picture, name, method, target, row, column])
    _offer(ask.sweep, [picture, present, axis, values])
    _offer(ask.affinity, [picture, name, row, column, alpha])


def _offer(answer: Callable, inputs: list[gr.components.Component]) -> None:
    result = gr.Image(label="result", format="png", visible=False)
    facts = gr.JSON(label="facts", visible=False)
    gr.on([], in_words(answer), inputs, [result, facts], api_name=answer.__name__, **MODEL)


def _number(label: str, default: float) -> gr.Number:
    return gr.Number(default, label=label, visible=False)


def _choice(label: str, names: Sequence[str]) -> gr.Dropdown:
    return gr.Dropdown(list(names), value=next(iter(names)), label=label, visible=False)
