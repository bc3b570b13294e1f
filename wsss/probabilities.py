"""What a network says of a photograph: the probability of each class at each of its pixels."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss.config import Config
from wsss.network import Output, ShapeAwareNetwork
from wsss.pseudo import present_classes
from wsss.refinement import reduce_image, refine, refinement_grid

MULTI_SCALE = (0.75, 1.0, 1.25)
"""What a test averages over, each also flipped.

An `animals` of 75.8 % mIoU has 77.0 % so; at Araslanov and Roth's scales, 0.5 to 2, 76.6 %.
"""

MULTI_SCALE_HELP = f"mean over scales {', '.join(f'{scale:g}' for scale in MULTI_SCALE)} and flips"
"""Of the flag in every command that has it, and of its box on the page."""

MOST_RATIO = 5
"""Of the sides of an image that is enlarged: a narrower one would take gigabytes."""

MOST_ENLARGED = 2.25
"""How many times a small photograph is enlarged for the network at most, at scale 1.

Photographs reduced to a short side of 64 lose less so than where they are enlarged to the 288 of `animals`.
"""


def to_image(rgb: np.ndarray, short_side: int = 0, scale: float = 1.0) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, h, w) in [0, 1], resized to `short_side` (0 keeps the size) times `scale`.

    One that is narrower than 1 to 5 is enlarged until its long side is 5 times `short_side`, if that is larger; none
    is enlarged more than `MOST_ENLARGED` times before it is scaled.
    """
    height, width = rgb.shape[:2]
    factor = 1.0
    if short_side:
        factor = min(short_side / min(height, width), max(1.0, MOST_RATIO * short_side / max(height, width)))
        factor = min(factor, MOST_ENLARGED)
    factor *= scale
    size = max(1, round(height * factor)), max(1, round(width * factor))
    if size != (height, width):
        rgb = cv2.resize(rgb, size[::-1], interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))[None].float() / 255


def views(
    rgb: np.ndarray, short_side: int, *, multi_scale: bool, device: torch.device
) -> Iterator[tuple[Tensor, bool]]:
    """The images (1, 3, h, w) of a photograph that a test averages over, and whether each is mirrored."""
    for scale in MULTI_SCALE if multi_scale else (1.0,):
        image = to_image(rgb, short_side, scale).to(device)
        yield image, False
        if multi_scale:
            yield image.flip(3), True


class PredictionSettings(NamedTuple):
    """How a photograph is predicted; as they stand here, by the network alone at the photograph's own size."""

    short_side: int = 0  # of the photograph at scale 1, in pixels; 0 keeps its own
    multi_scale: bool = False  # mean over `MULTI_SCALE` and flips
    class_cutoff: float = 0.0  # objects below it in every view are nowhere (Araslanov and Roth's code: 0.1)
    background_power: float = 1.0  # of `with_background_power`
    refine_steps: int = 0  # T of Eq. 6
    alpha: float = 1.0  # of Eq. 5
    refine_stride: int = 2  # the refinement works at the image's size over it

    @classmethod
    def of(cls, config: Config, *, refined: bool = True, multi_scale: bool = False) -> "PredictionSettings":
        """Those of a config.

        Not refined, the answer is the network's own, as the paper tests it. A CRF takes that: to spread probabilities
        twice costs more than it brings (table crf).
        """
        return cls(
            short_side=config.test_short_side,
            multi_scale=multi_scale,
            class_cutoff=config.class_cutoff,
            background_power=config.background_power,
            refine_steps=config.test_refine_steps if refined else 0,
            alpha=config.alpha,
            refine_stride=config.test_refine_stride,
        )


@torch.inference_mode()
def predict_probs(network: ShapeAwareNetwork, rgb: np.ndarray, settings: PredictionSettings) -> np.ndarray:
    """Class probabilities of every pixel.

    Args:
        network: in evaluation mode.
        rgb: (H, W, 3) uint8.

    Returns:
        (K, H, W) float32; sums to 1 over K unless a class was left out, raised to a power, or refined.
    """
    device = next(network.parameters()).device
    looks = [
        Look(view, is_flipped, network(view))
        for view, is_flipped in views(rgb, settings.short_side, multi_scale=settings.multi_scale, device=device)
    ]
    return mean_probs(looks, rgb.shape[:2], settings).cpu().numpy()


class Look(NamedTuple):
    """A view of a photograph, and what the network says of it."""

    view: Tensor  # (1, 3, h, w) in [0, 1]
    is_flipped: bool
    output: Output


def mean_probs(looks: Sequence[Look], size: tuple[int, int], settings: PredictionSettings) -> Tensor:
    """The probabilities (K, H, W) of a photograph of that (height, width), the mean over its looks.

    Objects whose image-level probability is below the class cutoff in every view get 0 everywhere. Each view is refined
    on its own.
    """
    scores = torch.stack([look.output.image_scores.sigmoid() for look in looks]).amax(0)
    total = torch.zeros((), device=scores.device)
    for view, is_flipped, output in looks:
        probs = pixel_probs(
            output,
            view,
            size,
            refine_steps=settings.refine_steps,
            alpha=settings.alpha,
            refine_stride=settings.refine_stride,
            objects=scores >= settings.class_cutoff,
        )
        total = total + (probs.flip(3) if is_flipped else probs)
    return with_background_power(total[0] / len(looks), settings.background_power)


def pixel_probs(
    output: Output,
    image: Tensor,
    size: tuple[int, int],
    *,
    refine_steps: int = 0,
    alpha: float = 1.0,
    refine_stride: int = 2,
    objects: Tensor | None = None,
) -> Tensor:
    """What the network says of an image, at another size, along the image's edges if asked to.

    Args:
        output: of the network on `image`.
        image: (B, 3, H, W) in [0, 1].
        size: (height, width) of the answer.
        refine_steps, alpha: T of Eq. 6 and alpha of Eq. 5; with 0 steps the logits are merely enlarged.
        refine_stride: the refinement works at the image's size over it.
        objects: which ones there are, (B, K-1) bool, all unless given; the others' answer is 0.

    Returns:
        (B, K, height, width).

    Source: the paper refines in training alone (Sec. 3.3). Here the scores are the logits and the background's is its
    constant, whatever a config asks for in training: neither probabilities nor `with_background_scores` brought more.
    """
    present = present_classes(torch.ones_like(output.image_scores) if objects is None else objects)
    if not refine_steps:
        probs = F.interpolate(output.logits, size, mode="bilinear", align_corners=False).softmax(1)
        return probs * present[:, :, None, None]
    grid = refinement_grid(image, refine_stride)
    logits, probs = output.resized_logits(grid), output.resized_probs(grid)
    refined = refine(reduce_image(image, grid), logits, probs, alpha=alpha, steps=refine_steps, present=present)
    return F.interpolate(refined, size, mode="bilinear", align_corners=False)


def with_background_power(probs: Tensor, power: float) -> Tensor:
    """Probabilities (K, H, W), background first, that of the background raised to a power: above 1, objects grow.

    The largest is the class, they no longer sum to 1. Source: the test of Araslanov and Roth's code (there 3).
    """
    return torch.cat([probs[:1] ** power, probs[1:]])
