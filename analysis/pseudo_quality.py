"""How good the pseudo masks are that a network would learn from (Table 6)."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from wsss import UNLABELLED
from wsss.config import Config
from wsss.data.item import Source, item
from wsss.metrics import confusion, mean_iou
from wsss.network import ShapeAwareNetwork
from wsss.objective import refined_probs
from wsss.probabilities import to_image
from wsss.pseudo import pseudo_mask
from wsss.refinement import refinement_grid


@torch.inference_mode()
def pseudo_quality(
    network: ShapeAwareNetwork, source: Source, config: Config, alphas: Sequence[float]
) -> dict[float, dict[str, float]]:
    """Pseudo masks of photographs whose image-level labels are known, against the true masks, by alpha.

    The refinement and the cutoffs are those of the end of training, at the size of the test.

    Returns:
        By alpha, in percent: "refined map mIoU", of the refined maps' largest class; "pseudo mask mIoU" over the pixels
        that one class claims, and "labelled", their share.
    """
    num_classes = len(source.classes) + 1
    largest, claimed = ({alpha: np.zeros((num_classes,) * 2, np.int64) for alpha in alphas} for _ in range(2))
    labelled = dict.fromkeys(alphas, 0.0)
    for index in range(len(source)):
        _, rgb, labels, truth = item(source, index)
        image, present = to_image(rgb, config.test_short_side), torch.from_numpy(labels)[None]
        grid = refinement_grid(image, config.refine_stride)
        output = network(image)
        for alpha in alphas:
            refined = refined_probs(output, image, present, grid, config, alpha)
            refined = torch.nn.functional.interpolate(refined, truth.shape, mode="bilinear", align_corners=False)
            mask = _array(
                pseudo_mask(
                    refined,
                    present,
                    object_cutoff=config.object_cutoff,
                    background_cutoff=config.background_cutoff,
                    least_cutoff=config.least_cutoff,
                )
            )
            largest[alpha] += confusion(truth, _array(refined.argmax(1)), num_classes)
            known = mask != UNLABELLED
            claimed[alpha] += confusion(np.where(known, truth, UNLABELLED), np.where(known, mask, 0), num_classes)
            labelled[alpha] += known.mean()
    return {
        alpha: {
            "refined map mIoU": 100 * mean_iou(largest[alpha]),
            "pseudo mask mIoU": 100 * mean_iou(claimed[alpha]),
            "labelled": 100 * labelled[alpha] / len(source),
        }
        for alpha in alphas
    }


def _array(mask: Tensor) -> np.ndarray:
    return mask[0].cpu().numpy().astype(np.uint8)
