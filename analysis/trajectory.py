"""How the refinement goes, step by step: what Fig. 4 and 9 show, as numbers."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.encoding import Encoding
from analysis.predictor import Predictor
from analysis.pseudo_settings import MOST_STEPS, PseudoSettings
from wsss import UNLABELLED
from wsss.metrics import confusion, mean_iou


@dataclass(frozen=True)
class Trajectory:
    """One number a step, from step 0 (nothing refined) to T."""

    change: np.ndarray  # (T+1,) mean absolute difference of the maps to the step before; NaN at step 0
    valid: np.ndarray  # (T+1,) share of the pixels that the pseudo mask labels
    boundary: np.ndarray  # (T+1,) length of its outlines in pixels of the photograph
    iou: np.ndarray | None  # (T+1,) mean IoU of the labelled pixels, where a ground truth was given; NaN without any


def trajectory(
    predictor: Predictor,
    encoding: Encoding,
    present: Sequence[str],
    settings: PseudoSettings,
    *,
    truth: np.ndarray | None = None,
) -> Trajectory:
    """Curves over all steps that the page can scrub through, of the very maps and pseudo masks that it shows.

    Args:
        truth: ground truth, (H, W) as encoding.rgb, 255 unlabelled.
        settings: all but T matter.

    Raises:
        UserError: a class is not the checkpoint's.
    """
    maps = predictor.iterates(encoding, present, settings)[:, predictor.indices(present)]
    masks = [predictor.pseudo(encoding, present, replace(settings, steps=t)) for t in range(MOST_STEPS + 1)]
    change = (maps[1:] - maps[:-1]).abs().mean((1, 2, 3)).cpu().numpy()
    num_classes = len(predictor.classes) + 1
    return Trajectory(
        np.concatenate([[np.nan], change]),
        np.array([(mask != UNLABELLED).mean() for mask in masks]),
        np.array([boundary_length(mask) for mask in masks]),
        None if truth is None else np.array([mean_iou(confusion(truth, mask, num_classes)) for mask in masks]),
    )


def boundary_length(mask: np.ndarray) -> int:
    """Number of pairs of adjacent pixels, of four neighbours each, whose labels differ; 255 is a label too."""
    return int(np.count_nonzero(mask[1:] != mask[:-1]) + np.count_nonzero(mask[:, 1:] != mask[:, :-1]))
