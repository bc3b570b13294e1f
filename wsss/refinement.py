"""Semantics-augmented pixel refinement (SPR): scores spread along color and class affinities (Sec. 3.2.1)."""

from collections import deque
from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss import fused
from wsss.neighborhood import neighbors

DILATIONS = (1, 2, 4, 8, 12, 24)
"""Distances of the eight neighbours that a pixel looks at, as in PAMR: 48 neighbours in all."""

_BANDWIDTH = 0.1  # Eq. 5 divides by sigma^2; PAMR, which SPR equals at alpha = 1, by a tenth of sigma
_EPSILON = 1e-8  # vanishes in float16, where a plain surface would be 0/0: hence float32 throughout
_LEAST_SCORE = -1e4  # below any score, and finite in float16


def refinement_grid(image: Tensor, stride: int) -> tuple[int, int]:
    """(h, w) at which (B, 3, H, W) is refined."""
    height, width = image.shape[-2:]
    return max(1, height // stride), max(1, width // stride)


def reduce_image(image: Tensor, size: tuple[int, int]) -> Tensor:
    """The colors that the refinement sees: (B, 3, H, W) -> (B, 3, h, w), smoothed so that no detail aliases."""
    return F.interpolate(image, size, mode="bilinear", antialias=True)


def neighbor_offsets(dilations: Sequence[int] = DILATIONS) -> list[tuple[int, int]]:
    """(dy, dx) of the N = 8 * len(dilations) neighbours, without the pixel itself, ring by ring."""
    ring = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if (dy, dx) != (0, 0)]
    return [(dy * dilation, dx * dilation) for dilation in dilations for dy, dx in ring]


def kernel(x: Tensor, dilations: Sequence[int] = DILATIONS) -> Tensor:
    """One of the two terms of Eq. 5: how alike a pixel and each of its neighbours are in x.

    The difference is measured in tenths of the local standard deviation, channel by channel, and averaged over the
    channels. The deviation is that of the surroundings: of all neighbours, and of the pixel itself once a ring.

    Args:
        x: colors or scores, (B, C, H, W) float32.

    Returns:
        (B, N, H, W), at most 0; 0 means alike. Where x is constant all neighbours are alike.

    Source: Eq. 5, read as PAMR does it (Araslanov and Roth, CVPR 2020): L1 by channel, sigma instead of its square.
    """
    if fused.usable(x):
        return fused.kernel(x, neighbor_offsets(dilations), _BANDWIDTH, _EPSILON)
    samples = 9 * len(dilations)
    seen, _ = neighbors(x, neighbor_offsets(dilations))
    difference = seen - x.unsqueeze(2)  # about the pixel itself, so that no large numbers cancel
    total, squares = difference.sum(2), difference.square().sum(2)
    deviation = (squares - total.square() / samples).clamp_(min=0).div_(samples - 1).sqrt_()
    scale = -1 / (x.shape[1] * (_EPSILON + _BANDWIDTH * deviation))
    return difference.abs().mul(scale.unsqueeze(2)).sum(1)


def affinity(color_kernel: Tensor, class_kernel: Tensor, alpha: float) -> Tensor:
    """The weights delta of a pixel's neighbours: their softmax of alpha * color_kernel + (1 - alpha) * class_kernel.

    Args:
        color_kernel, class_kernel: of the image and of one class's scores, (B, N, H, W); one of colors may serve all
            classes.
        alpha: 1 looks at colors only (PAMR), 0 at the class only.

    Returns:
        (B, N, H, W), sums to 1 over N.

    Source: Eq. 5 and the softmax below it.
    """
    fits = color_kernel.shape[1:] == class_kernel.shape[1:] and len(color_kernel) in (1, len(class_kernel))
    if fits and fused.usable(color_kernel, class_kernel):
        return fused.affinity(color_kernel, class_kernel, alpha)
    return torch.lerp(class_kernel, color_kernel, alpha).softmax(dim=1)


@torch.no_grad()
def propagate(maps: Tensor, weights: Tensor, dilations: Sequence[int] = DILATIONS) -> Tensor:
    """One step of Eq. 6: each pixel takes the weighted mean of its neighbours.

    Args:
        maps: (B, H, W).
        weights: of the neighbours, (B, N, H, W), from `affinity`.

    Returns:
        (B, H, W), within the range of maps.
    """
    seen, _ = neighbors(maps.unsqueeze(1), neighbor_offsets(dilations))
    return seen.squeeze(1).mul_(weights).sum(1)


def spread(maps: Tensor, weights: Tensor, steps: int, dilations: Sequence[int] = DILATIONS) -> Iterator[Tensor]:
    """m_0, m_1, ..., m_T: the maps (B, H, W) and what each step of Eq. 6 makes of them; `weights` as in `propagate`."""
    if fused.usable(maps, weights):
        yield from fused.spread(maps, weights, steps, neighbor_offsets(dilations))
        return
    yield maps
    for _ in range(steps):
        maps = propagate(maps, weights, dilations)
        yield maps


def with_background_scores(scores: Tensor, present: Tensor) -> Tensor:
    """The scores s of Eq. 5 with the background's replaced by the greatest of the objects in the photograph.

    The background's own score is constant (Sec. 3.1.1), so that its class term in Eq. 5 is 0/0: colors alone would move
    it, across edges where the class affinity holds the objects' maps. Where an object's score changes, so does the
    background's; what counts in Eq. 5 is the size of a change, not its sign.

    Args:
        scores: (B, K, H, W), background first.
        present: (B, K) bool, the classes of each photograph. One without objects has a constant.

    Returns:
        (B, K, H, W), in memory of its own.

    Source: ours; Eq. 5 leaves open what s is where it is constant. The log of results has its effect by alpha.
    """
    absent = ~present[:, 1:, None, None].to(scores.device, non_blocking=True)
    greatest = scores[:, 1:].masked_fill(absent, _LEAST_SCORE).amax(1, keepdim=True)
    return torch.cat([greatest, scores[:, 1:]], 1)


def refine(
    image: Tensor,
    scores: Tensor,
    probs: Tensor,
    *,
    alpha: float = 0.8,
    steps: int = 10,
    dilations: Sequence[int] = DILATIONS,
    present: Tensor | None = None,
) -> Tensor:
    """Spread class probabilities to the neighbours that look alike (color) and score alike (class).

    The affinities are computed once, from the image and the scores as they are given; only the maps are iterated. Each
    class has affinities of its own, so that below alpha = 1 the refined maps no longer sum to 1 over the classes: read
    them as scores. Always in float32; no gradient flows.

    Args:
        image: colors, (B, 3, H, W) in [0, 1].
        scores: s of Eq. 5, (B, K, H, W); a constant channel (the background's, unless
            `with_background_scores` has given it another) has no class affinity of its own.
        probs: m_0, the maps to refine, (B, K, H, W).
        alpha: balance of Eq. 5; 1 is PAMR.
        steps: T; 0 gives probs back.
        dilations: distances of the neighbours in pixels.
        present: (B, K) bool, the classes of each photograph with the background; the others become 0. None: all. In
            the host's memory even where the maps are on a GPU, the absent ones cost nothing.

    Returns:
        m_T, (B, K, H, W) float32.

    Raises:
        ValueError: shapes do not fit, alpha lies outside [0, 1], steps is negative, a dilation is not positive, or a
            value is not finite (looked at on a CPU alone).

    Source: Eq. 5 and 6.
    """
    _require(image, scores, probs, present, alpha, steps, dilations)
    image, scores, probs = (x.detach().float() for x in (image, scores, probs))
    if fused.usable(image, scores, probs) and (present is None or present.device.type == "cpu"):
        present = torch.ones(probs.shape[:2], dtype=torch.bool) if present is None else present
        offsets, scale = neighbor_offsets(dilations), {"bandwidth": _BANDWIDTH, "epsilon": _EPSILON}
        return fused.refine(image, scores, probs, present, offsets, alpha=alpha, steps=steps, **scale)
    # Only the classes of each photograph are refined: pairs (photograph, class) take the place of the batch. On a GPU
    # to count them is to wait for it; there all are refined, unless `present` lies in the host's memory.
    if present is not None and present.device.type == "cpu":
        photograph, of_class = (index.to(probs.device, non_blocking=True) for index in present.nonzero(as_tuple=True))
    else:
        all_of = (torch.arange(number, device=probs.device) for number in probs.shape[:2])
        photograph, of_class = torch.cartesian_prod(*all_of).unbind(1)
    with torch.no_grad(), torch.autocast(image.device.type, enabled=False):
        class_kernel = kernel(scores[photograph, of_class].unsqueeze(1), dilations)
        weights = affinity(kernel(image, dilations)[photograph], class_kernel, alpha)
        maps = deque(spread(probs[photograph, of_class], weights, steps, dilations), maxlen=1).pop()
        refined = torch.zeros_like(probs).index_put((photograph, of_class), maps)
    if present is None:
        return refined
    return refined.masked_fill_(~present.to(probs.device, non_blocking=True)[:, :, None, None], 0)


def _require(
    image: Tensor,
    scores: Tensor,
    probs: Tensor,
    present: Tensor | None,
    alpha: float,
    steps: int,
    dilations: Sequence[int],
) -> None:
    if scores.shape != probs.shape or image.shape[0] != probs.shape[0] or image.shape[-2:] != probs.shape[-2:]:
        raise ValueError(
            f"image {tuple(image.shape)}, scores {tuple(scores.shape)} and probs {tuple(probs.shape)} do not fit: "
            "they are (B, 3, H, W), (B, K, H, W) and (B, K, H, W)"
        )
    if present is not None and present.shape != probs.shape[:2]:
        raise ValueError(f"present is {tuple(present.shape)}, it must be (B, K) = {tuple(probs.shape[:2])}")
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must lie in [0, 1], got {alpha}")
    if steps < 0:
        raise ValueError(f"steps must not be negative, got {steps}")
    if not dilations or min(dilations) < 1:
        raise ValueError(f"dilations must be positive, got {tuple(dilations)}")
    # On a GPU the check would wait for the device at every step; a network that is its own teacher has a loss that is
    # not finite either.
    if image.device.type == "cpu" and not all(_is_finite(x) for x in (image, scores, probs)):
        raise ValueError("image, scores and probs must be finite")


def _is_finite(x: Tensor) -> bool:
    """Whether all of x is; what is not spoils the sum, which is found sooner than each number is looked at.

    By numpy: torch's threads would go on spinning where the fused kernels are about to compute.
    """
    numbers = x.detach().float().numpy()
    with np.errstate(all="ignore"):
        return bool(np.isfinite(numbers.sum())) or bool(np.isfinite(numbers).all())
