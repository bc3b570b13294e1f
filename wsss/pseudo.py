"""Pseudo masks: refined scores and image-level labels become the target of the mask losses (Sec. 3.2.1, 4.1.3)."""

import torch
from torch import Tensor

from wsss import UNLABELLED


def present_classes(labels: Tensor) -> Tensor:
    """Image-level labels (B, K-1) -> the classes present, (B, K) bool; the background always is."""
    return torch.cat([labels.new_ones(len(labels), 1), labels], 1) > 0


def claims(
    refined: Tensor,
    labels: Tensor,
    *,
    object_cutoff: float = 0.6,
    background_cutoff: float = 0.6,
    least_cutoff: float = 0.2,
) -> Tensor:
    """Which pixels each class claims, (B, K, H, W) bool.

    A class of the image claims the pixels whose score exceeds a share (the cutoff) of the class's maximum over the
    image, and exceeds least_cutoff.

    Args:
        refined: scores, (B, K, H, W), background first.
        labels: (B, K-1) in {0, 1}.
        object_cutoff, background_cutoff: shares in [0, 1].
        least_cutoff: a score.

    Source: Sec. 4.1.3 (60 % of the maximum, read as each class's own; floor of 0.2).
    """
    share = refined.new_full((1, refined.shape[1], 1, 1), object_cutoff)
    share[:, 0] = background_cutoff
    threshold = (refined.amax((2, 3), keepdim=True) * share).clamp(min=least_cutoff)
    return (refined > threshold) & present_classes(labels)[:, :, None, None]


def pseudo_mask(refined: Tensor, labels: Tensor, **cutoffs: float) -> Tensor:
    """Give each pixel to the one class that claims it; pixels that none or several claim stay unlabelled.

    Arguments as in `claims`.

    Returns:
        (B, H, W) int64, 255 unlabelled.

    Source: Sec. 4.1.3 (conflicts ignored).
    """
    return to_mask(claims(refined, labels, **cutoffs))


def to_mask(claimed: Tensor) -> Tensor:
    """Claims (B, K, H, W) -> mask (B, H, W) int64; 255 where not exactly one class claims a pixel."""
    claimed = claimed.byte()  # bytes overflow only in sums that are not looked at: K is below 255
    classes = torch.arange(claimed.shape[1], dtype=torch.uint8, device=claimed.device).view(1, -1, 1, 1)
    count = claimed.sum(1, dtype=torch.uint8)
    return (claimed * classes).sum(1, dtype=torch.uint8).masked_fill(count != 1, UNLABELLED).long()
