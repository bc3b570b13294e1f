"""The losses: of image-level classes (Eq. 2), of pixels (Eq. 7) and of regions (Eq. 8)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss import UNLABELLED, fused
from wsss.neighborhood import neighbors

LEAST_LOG_PROB = math.log(1e-4)
"""Below it Eq. 8 sees no difference, so that KL stays bounded; as in Ke et al.'s code."""


def classification_loss(image_scores: Tensor, labels: Tensor) -> Tensor:
    """Binary cross-entropy of image-level scores, mean over images and objects (Eq. 2).

    Args:
        image_scores: before the sigmoid, (B, K-1).
        labels: (B, K-1) in {0, 1}.
    """
    return F.binary_cross_entropy_with_logits(image_scores, labels)


def pixel_loss(logits: Tensor, pseudo: Tensor, labels: Tensor | None = None, *, balanced: bool = True) -> Tensor:
    """Cross-entropy with the pseudo mask (Eq. 7).

    Args:
        logits: (B, K, h, w).
        pseudo: (B, h, w) int64, 255 unlabelled.
        labels: (B, K-1). Given, an image counts only if each of its classes and the background claimed a pixel: a mask
            without the object would teach that there is none. None: every image counts.
        balanced: with n_c of an image's |V| labelled pixels in class c, a pixel of c weighs (|V| - n_c) / (1 + |V|), so
            that a large background does not drown a small object; False: each pixel weighs 1, so that the wrong ones
            around a small object are outvoted by those like them elsewhere.

    Returns:
        Mean over the batch of the mean over an image's labelled pixels; 0 where none is labelled.

    Source: Eq. 7; weights and the rule on missing classes from Araslanov and Roth's code.
    """
    num_classes = logits.shape[1]
    valid = pseudo != UNLABELLED
    target = pseudo.masked_fill(~valid, 0)
    one_hot = F.one_hot(target, num_classes).movedim(-1, 1) * valid[:, None]
    logits = logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits  # which cannot count pixels
    count = one_hot.sum((2, 3)).to(logits.dtype)  # (B, K)
    total = count.sum(1, keepdim=True)
    pixel_costs = F.cross_entropy(logits, target, reduction="none") * valid
    if balanced:
        pixel_costs = pixel_costs * _at((total - count) / (1 + total), target)
    image_costs = pixel_costs.sum((1, 2)) / total[:, 0].clamp(min=1)
    if labels is not None:
        claimed = (count[:, 1:] > 0) | (labels == 0)
        image_costs = image_costs * (claimed.all(1) & (count[:, 0] > 0))
    return image_costs.mean()


def _at(weight: Tensor, target: Tensor) -> Tensor:
    """weight (B, K) of the class of each pixel of target (B, h, w)."""
    return weight.gather(1, target.flatten(1)).view_as(target)


def region_loss(logits: Tensor, pseudo: Tensor, *, radius: int = 3, margin: float = 3.0) -> Tensor:
    """Neighbours of one pseudo class shall predict alike, neighbours of different classes apart (Eq. 8).

        l_ij = D(m_j || m_i)                    where i and j have the same pseudo class
        l_ij = max(0, margin - D(m_j || m_i))   where they have not

    Printed with a minus in the paper, which would push neighbours of one class apart; this is the sign of its text and
    of Ke et al. Pairs with an unlabelled end do not count.

    Args:
        logits: (B, K, h, w).
        pseudo: (B, h, w) int64, 255 unlabelled.
        radius: R3; the window has (2 radius + 1)^2 - 1 neighbours, fewer at the border.
        margin: gamma, in nats.

    Returns:
        Mean over a pixel's labelled neighbours, an image's labelled pixels and the batch; 0 where there are none.

    Source: Eq. 8; Ke et al., Adaptive Affinity Fields, ECCV 2018.
    """
    log_probs = F.log_softmax(logits.float(), 1).clamp(min=LEAST_LOG_PROB)
    valid = (pseudo != UNLABELLED).float()
    window = 2 * radius + 1
    count = F.avg_pool2d(valid[:, None], window, 1, radius, divisor_override=1)[:, 0] - valid
    share = valid / count.clamp(min=1) / valid.sum((1, 2), keepdim=True).clamp(min=1)  # 1 / (|V| |N_i|)
    if fused.usable(log_probs.detach(), share):
        return fused.RegionPairs.apply(log_probs, pseudo, share, radius, margin) / logits.shape[0]
    return pair_costs(log_probs, pseudo, share, radius, margin) / logits.shape[0]


def pair_costs(log_probs: Tensor, pseudo: Tensor, share: Tensor, radius: int, margin: float) -> Tensor:
    """The sum of l_ij of Eq. 8 over all pairs of a window, each weighed by its center.

    Args:
        log_probs: (B, K, h, w).
        pseudo: (B, h, w).
        share: weight of the pairs of a center, (B, h, w); 0 marks an unlabelled pixel, whose pairs do not count.
        radius, margin: as in `region_loss`.
    """
    reach = range(-radius, radius + 1)
    half = [(dy, dx) for dy in range(radius + 1) for dx in reach if dy or dx > 0]  # each pair once: it has two centers
    # (B, C, N, h, w): the pixels on one side of each pair, and those on the other
    near, far = log_probs.unsqueeze(2), neighbors(log_probs, half)[0]
    weight, inside = neighbors(share.unsqueeze(1), half)
    weights = share.unsqueeze(1), weight.squeeze(1)
    same = neighbors(pseudo.unsqueeze(1), half)[0].squeeze(1) == pseudo.unsqueeze(1)
    counts = (weights[0] > 0) & (weights[1] > 0) & inside
    divergences = (far.exp() * (far - near)).sum(1), (near.exp() * (near - far)).sum(1)
    loss = 0 * log_probs.sum()  # without any pair there is a gradient too: 0
    for divergence, center in zip(divergences, weights, strict=True):
        pair = torch.where(same, divergence, (margin - divergence).clamp(min=0))
        loss = loss + (pair * (counts * center)).sum()
    return loss
