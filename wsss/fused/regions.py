"""The region loss (Eq. 8) and its gradient, block by block; its oracle is `wsss.losses.pair_costs`."""

from functools import partial

import numpy as np
import torch
from torch import Tensor

from wsss.fused.compiled import ONE, ZERO, array, compiled, shared


class RegionPairs(torch.autograd.Function):
    """`losses.pair_costs` and its gradient in one pass: apply(log_probs, pseudo, share, radius, margin)."""

    @staticmethod
    def forward(ctx, log_probs: Tensor, pseudo: Tensor, share: Tensor, radius: int, margin: float) -> Tensor:
        """The sum over all pairs, a number."""
        batch, classes, height, width = log_probs.shape

        def rows_apart(x: Tensor) -> np.ndarray:
            """One long row of each map: `radius` empty pixels part its rows, so that no window reaches around."""
            return array(torch.nn.functional.pad(x.float(), [0, radius]).flatten(-2))

        log, mask, weight = rows_apart(log_probs), rows_apart(pseudo), rows_apart(share)
        probs, gradient = rows_apart(log_probs.exp()), np.zeros_like(log)
        images = log, probs, mask, weight, width + radius, radius, np.float32(margin)
        pairs = log.size * (2 * radius + 1) ** 2
        costs = shared(partial(_region_images, *images, gradient), batch, pairs)
        gradient = torch.from_numpy(gradient).unflatten(-1, (height, width + radius))[..., :width]
        ctx.save_for_backward(gradient)
        return log_probs.new_tensor(sum(costs))

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, outer: Tensor) -> tuple[Tensor | None, ...]:
        """Of the logarithms only."""
        (gradient,) = ctx.saved_tensors
        return outer * gradient, None, None, None, None


_BLOCK = 2048  # pixels at a time: their maps stay in the cache closest to the core


@compiled
def _region_images(log, probs, mask, share, stride, radius, margin, gradient, first, last):
    """Costs of images first..last; log, probs, gradient (B, K, pixels), mask, share (B, pixels), 0 where unlabelled."""
    pixels = log.shape[2]
    costs = np.zeros(_BLOCK, np.float32)
    cost = 0.0
    for b in range(first, last):
        image = log[b], probs[b]
        for dy in range(radius + 1):
            for dx in range(-radius, radius + 1):
                shift = dy * stride + dx
                if shift <= 0:
                    continue  # each unordered pair once: it gives both of its directions
                for start in range(0, pixels - shift, _BLOCK):
                    here, there = start, start + shift
                    count = min(_BLOCK, pixels - there)
                    one, other = _slopes(image, mask[b], share[b], here, there, count, margin, costs)
                    _add_gradient(image, here, there, one, other, gradient[b])
        cost += costs.astype(np.float64).sum()
        costs[:] = ZERO
    return cost


@compiled
def _slopes(image, mask, share, here, there, count, margin, costs):
    """Adds what each pair of pixels costs; returns the slopes of D(there || here) and of D(here || there)."""
    log, probs = image
    one, other = np.zeros(count, np.float32), np.zeros(count, np.float32)
    for k in range(len(log)):
        lh, lt = log[k, here : here + count], log[k, there : there + count]
        ph, pt = probs[k, here : here + count], probs[k, there : there + count]
        for i in range(count):
            one[i] += pt[i] * (lt[i] - lh[i])
        for i in range(count):
            other[i] += ph[i] * (lh[i] - lt[i])
    mask_h, mask_t = mask[here : here + count], mask[there : there + count]
    share_h, share_t = share[here : here + count], share[there : there + count]
    alike = np.empty(count, np.float32)  # 1 for one class, -1 for two, 0 where an end is unlabelled
    for i in range(count):
        sign = ONE if mask_h[i] == mask_t[i] else -ONE
        alike[i] = sign if share_h[i] * share_t[i] > ZERO else ZERO
    _hinge(one, alike, share_h, margin, costs)
    _hinge(other, alike, share_t, margin, costs)
    return one, other


@compiled
def _hinge(divergence, alike, share, margin, costs):
    """Turns divergences into the slopes of their costs."""
    for i in range(len(divergence)):
        cost = divergence[i] if alike[i] > ZERO else margin - divergence[i]
        counts = alike[i] > ZERO or cost > ZERO
        slope = alike[i] * share[i] if counts else ZERO
        costs[i] += abs(slope) * cost
        divergence[i] = slope


@compiled
def _add_gradient(image, here, there, one, other, gradient):
    """d D(p || q) / d log p = p (log p - log q + 1) and d D(p || q) / d log q = -p, times the slopes."""
    log, probs = image
    count = len(one)
    for k in range(len(log)):
        lh, lt = log[k, here : here + count], log[k, there : there + count]
        ph, pt = probs[k, here : here + count], probs[k, there : there + count]
        out = gradient[k, there : there + count]
        for i in range(count):
            out[i] += one[i] * pt[i] * (ONE + lt[i] - lh[i]) - other[i] * ph[i]
        out = gradient[k, here : here + count]
        for i in range(count):
            out[i] += other[i] * ph[i] * (ONE + lh[i] - lt[i]) - one[i] * pt[i]
