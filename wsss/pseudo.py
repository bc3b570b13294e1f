"""Pseudo masks: refined scores and image-level labels become the target of the mask losses (Sec. 3.2.1, 4.1.3)."""

import torch
from torch import Tensor

from wsss import UNLABELLED


def with_background(labels: Tensor) -> Tensor:
    """Image-level labels (B, K-1) -> the classes present, (B, K) bool; the background always is."""
    return torch.cat([torch.ones_like(labels[:, :1]), labels], 1) > 0


def pseudo_mask(
    refined: Tensor,
    labels: Tensor,
    *,
    object_cutoff: float = 0.6,
    background_cutoff: float = 0.6,
    least_cutoff: float = 0.2,
) -> Tensor:
    """Give each pixel to the one class that claims it.

    A class of the image claims the pixels whose score exceeds a share (the cutoff) of the class's maximum over the
    image, and exceeds least_cutoff. Pixels that no class or more than one class claims stay unlabelled.

    Args:
        refined: scores, (B, K, H, W), background first.
        labels: (B, K-1) in {0, 1}.
        object_cutoff, background_cutoff: shares in [0, 1].
        least_cutoff: a score.

    Returns:
        (B, H, W) int64, 255 unlabelled.

    Source: Sec. 4.1.3 (60 % of the maximum, conflicts ignored); Araslanov and Roth's code for the floor.
    """
    share = refined.new_full((1, refined.shape[1], 1, 1), object_cutoff)
    share[:, 0] = background_cutoff
    threshold = (refined.amax((2, 3), keepdim=True) * share).clamp(min=least_cutoff)
    claims = (refined > threshold) & with_background(labels)[:, :, None, None]
    mask = claims.int().argmax(1)
    return mask.masked_fill(claims.sum(1) != 1, UNLABELLED)
