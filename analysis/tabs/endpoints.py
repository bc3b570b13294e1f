"""The programming interface: a picture and numbers in, masks and maps out. Nothing is kept between two calls."""

import gradio as gr
import numpy as np

from analysis.predictor import Predictor
from analysis.render import heat, shares
from analysis.tabs.photograph import Photograph
from analysis.tabs.words import in_words
from wsss import UserError


def build(predictor: Predictor) -> None:
    """Add the endpoints `segment`, `self_information` and `refine` to the open gr.Blocks.

    They answer about the photograph as the page shows it, so every picture has the size of the photograph, reduced to a
    short side of at most 512 pixels.
    """
    config = predictor.config

    def segment(picture, threshold):
        """The network's mask: class indices (0 is background, 255 unlabelled) as gray values of a PNG, and areas.

        Args:
            picture: a JPEG, PNG, WebP, GIF, BMP or TIFF file of at most 20 MB and 40 megapixels.
            threshold: pixels whose best probability is below it are unlabelled; 0 to 1.
        """
        mask = predictor.mask(predictor.encode(_given(picture)), threshold)
        return mask, shares(mask, predictor.classes)

    def self_information(picture):
        """The self-information of Eq. 3 in false colors, dark is least, with its least and greatest value in nats.

        Args:
            picture: as in /segment.
        """
        encoding = predictor.encode(_given(picture))
        information = encoding.information
        return heat(information, encoding.rgb.shape[:2]), {
            "least": float(information.min()),
            "greatest": float(information.max()),
        }

    def refine(picture, present, alpha, steps, object_cutoff, background_cutoff):
        """The pseudo mask of Sec. 3.2.1 as in /segment, and areas.

        Args:
            picture: as in /segment.
            present: names of the classes in the photograph; none: those that the network sees.
            alpha: Eq. 5, 1: colors only, 0: classes only.
            steps: T of Eq. 6, 0 to 30.
            object_cutoff: share of its maximum that an object claims, 0 to 1.
            background_cutoff: the same for the background.
        """
        encoding = predictor.encode(_given(picture))
        mask = predictor.pseudo(
            encoding,
            present or predictor.present(encoding),
            alpha=alpha,
            steps=steps,
            object_cutoff=object_cutoff,
            background_cutoff=background_cutoff,
        )
        return mask, shares(mask, predictor.classes)

    # An endpoint is typed by components; the page does not show these.
    picture = Photograph(label="picture", visible=False)
    classes = gr.CheckboxGroup(list(predictor.classes), label="present", visible=False)
    threshold = _number("threshold", 0.0)
    numbers = [
        _number("alpha", config.alpha),
        _number("steps", config.refine_steps),
        _number("object_cutoff", config.object_cutoff),
        _number("background_cutoff", config.background_cutoff),
    ]
    result, facts = gr.Image(label="result", format="png", visible=False), gr.JSON(label="facts", visible=False)
    for answer, inputs in (
        (segment, [picture, threshold]),
        (self_information, [picture]),
        (refine, [picture, classes, *numbers]),
    ):
        gr.on(
            [],
            in_words(answer),
            inputs,
            [result, facts],
            api_name=answer.__name__,
            concurrency_id="model",
            concurrency_limit=1,
        )


def _number(label: str, default: float) -> gr.Number:
    return gr.Number(default, label=label, visible=False)


def _given(picture: np.ndarray | None) -> np.ndarray:
    if picture is None:
        raise UserError("a picture is needed")
    return picture
