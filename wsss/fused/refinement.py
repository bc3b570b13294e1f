"""Pixel refinement (Eq. 5 and 6), row by row; its oracle is `wsss.refinement`."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from wsss.fused.compiled import ONE, ZERO, array, compiled, exp, shared
from wsss.fused.neighborhood import Neighborhood


def kernel(x: Tensor, offsets: Sequence[tuple[int, int]], bandwidth: float, epsilon: float) -> Tensor:
    """`refinement.kernel`: (B, C, H, W) -> (B, N, H, W), a view of memory that lies as (B, H, N, W).

    `offsets` in the order of `neighbor_offsets`: rings of eight.
    """
    near = Neighborhood(offsets)
    batch, _, height, width = x.shape
    padded = near.padded(array(x))
    out = np.empty((batch, height, len(offsets), width), np.float32)
    scale = np.float32(bandwidth), np.float32(epsilon)
    shared(partial(_kernel_rows, padded, *near, *scale, out), batch * height, out.size)
    return torch.from_numpy(out).transpose(1, 2)


def affinity(color_kernel: Tensor, class_kernel: Tensor, alpha: float) -> Tensor:
    """`refinement.affinity` of class kernels (B, N, H, W) and as many of color, or one; laid out as `kernel`."""
    color, of_class = (array(x.transpose(1, 2)) for x in (color_kernel, class_kernel))
    out = np.empty_like(of_class)
    flat = [x.reshape(-1, *x.shape[2:]) for x in (color, of_class, out)]
    shared(partial(_affinity_rows, *flat[:2], np.float32(alpha), flat[2]), len(flat[2]), out.size)
    return torch.from_numpy(out).transpose(1, 2)


def spread(maps: Tensor, weights: Tensor, steps: int, offsets: Sequence[tuple[int, int]]) -> Tensor:
    """What `refinement.spread` yields of maps (P, H, W), weights (P, N, H, W) that sum to 1: (steps + 1, P, H, W)."""
    near = Neighborhood(offsets)
    before, weights = near.padded(array(maps)), array(weights.transpose(1, 2))
    after, total = np.empty_like(before), np.ones(maps.shape, np.float32)
    out = np.empty((steps + 1, *maps.shape), np.float32)
    out[0] = near.inner(before)
    for first_step in range(0, steps, _AT_ONCE):
        made = out[first_step + 1 : first_step + 1 + _AT_ONCE]
        work = partial(_step_rows, before, weights, total, *near, len(made), after, made)
        shared(work, maps.shape[0] * maps.shape[1], weights.size)
        before, after = after, before
    return torch.from_numpy(out)


def refine(
    image: Tensor,
    scores: Tensor,
    probs: Tensor,
    present: Tensor,
    offsets: Sequence[tuple[int, int]],
    *,
    alpha: float,
    steps: int,
    bandwidth: float,
    epsilon: float,
) -> Tensor:
    """`refinement.refine` of sound arguments. No kernel is stored, and the weights of few photographs at a time.

    A batch is shared by photographs, so that the weights of a small one stay in the cache for all its steps; fewer
    photographs than threads are shared by rows. `offsets` as in `kernel`.
    """
    image, scores, probs, present = (array(x) for x in (image, scores, probs, present))
    near = Neighborhood(offsets)
    out = np.zeros_like(probs)
    settings = np.float32(alpha), np.float32(bandwidth), np.float32(epsilon)
    most, (height, width) = int(present.sum(1).max(initial=0)), image.shape[-2:]

    def photographs(first: int, last: int, share: Callable = lambda work, rows, cells: work(0, rows)) -> None:
        """Eq. 5 and 6 of photographs [first, last) of the batch: their (K, H, W) of `out` are written."""
        space = np.empty((most, height, len(offsets), width), np.float32)
        sums = np.empty((most, height, width), np.float32)
        for i in range(first, last):
            classes = np.flatnonzero(present[i])
            colors, labels, maps = (near.padded(x) for x in (image[i], scores[i, classes], probs[i, classes]))
            weights, total, other = space[: len(classes)], sums[: len(classes)], np.empty_like(maps)
            cells, rows = weights.size, len(classes) * height
            share(partial(_weight_rows, colors, labels, *near, *settings, weights, total), height, cells)
            for first_step in range(0, steps, _AT_ONCE):
                count = min(_AT_ONCE, steps - first_step)
                share(partial(_step_rows, maps, weights, total, *near, count, other, _NOTHING), rows, cells)
                maps, other = other, maps
            out[i, classes] = near.inner(maps)

    if len(image) >= torch.get_num_threads():
        shared(photographs, len(image), len(offsets) * probs.size)
    else:
        photographs(0, len(image), shared)
    return torch.from_numpy(out)


@compiled
def _scale_row(padded, offsets, reach, factor, bandwidth, epsilon, y, scale):
    """-factor / (epsilon + bandwidth * sigma) along row y of one padded channel: what differences are measured in."""
    width, samples = len(scale), np.float32(len(offsets) + len(offsets) // 8)
    center = padded[reach + y, reach : reach + width]
    total, squares = np.zeros(width, np.float32), np.zeros(width, np.float32)
    for n in range(0, len(offsets), 8):  # a ring and the pixel itself: three rows of three
        dilation = offsets[n + 7, 0]
        for dy in (-dilation, 0, dilation):
            whole = padded[reach + y + dy]
            left, right = whole[reach - dilation :][:width], whole[reach + dilation :][:width]
            middle = whole[reach:][:width]
            for x in range(width):
                a, b, c = left[x] - center[x], middle[x] - center[x], right[x] - center[x]
                total[x] += a + b + c
                squares[x] += a * a + b * b + c * c
    for x in range(width):
        variance = (squares[x] - total[x] * total[x] / samples) / (samples - ONE)
        deviation = np.sqrt(variance if variance > ZERO else ZERO)
        scale[x] = -factor / (epsilon + bandwidth * deviation)


@compiled
def _kernel_row(padded, offsets, reach, factor, bandwidth, epsilon, y, out):
    """Row y of the kernel of padded (C, H + 2 reach, W + 2 reach), times a factor: out (N, W)."""
    channels, (count, width) = padded.shape[0], out.shape
    scale = np.empty(width, np.float32)
    for c in range(channels):
        _scale_row(padded[c], offsets, reach, factor / np.float32(channels), bandwidth, epsilon, y, scale)
        center = padded[c, reach + y, reach : reach + width]
        for n in range(count):
            left = reach + offsets[n, 1]
            near = padded[c, reach + y + offsets[n, 0], left : left + width]
            row = out[n]
            if c == 0:
                row[:] = ZERO
            for x in range(width):
                row[x] += abs(near[x] - center[x]) * scale[x]


@compiled
def _softmax_row(row, most):
    """The softmax over N of (N, W), in its place; `most` (W,) is the greatest of each column."""
    count, width = row.shape
    total = np.zeros(width, np.float32)
    for n in range(count):
        values = row[n]
        for x in range(width):
            value = exp(values[x] - most[x])
            values[x] = value
            total[x] += value
    for x in range(width):
        total[x] = ONE / total[x]
    for n in range(count):
        values = row[n]
        for x in range(width):
            values[x] *= total[x]


@compiled
def _affinity_row(color, label, alpha, out):
    """Kernels (N, W) -> weights (N, W), softmax over N."""
    count, width = out.shape
    beta, most = ONE - alpha, np.full(width, np.float32(-np.inf))
    for n in range(count):
        a, b, row = color[n], label[n], out[n]
        for x in range(width):
            value = alpha * a[x] + beta * b[x]
            row[x] = value
            most[x] = value if value > most[x] else most[x]
    _softmax_row(out, most)


@compiled
def _weight_row(color, scores, offsets, reach, beta, bandwidth, epsilon, y, out, total):
    """Row y of a class's weights (N, W), of alpha times the color kernel (N, W) and padded scores: no class kernel.

    They are the softmax's numerators, `total` (W,) its denominators: a step of Eq. 6 divides once a pixel. The greatest
    need not be subtracted: neighbours are at most 3.2 deviations away on average, so that `total` is at least e^-32,
    and what `exp` cuts off at e^-80 does not count beside it.
    """
    count, width = out.shape
    scale = np.empty(width, np.float32)
    total[:] = ZERO
    _scale_row(scores, offsets, reach, beta, bandwidth, epsilon, y, scale)
    center = scores[reach + y, reach : reach + width]
    for n in range(count):
        left = reach + offsets[n, 1]
        near = scores[reach + y + offsets[n, 0], left : left + width]
        given, row = color[n], out[n]
        for x in range(width):
            value = exp(given[x] + abs(near[x] - center[x]) * scale[x])
            row[x] = value
            total[x] += value


@compiled
def _kernel_rows(padded, offsets, reach, bandwidth, epsilon, out, first, last):
    height = out.shape[1]
    for i in range(first, last):
        row = out[i // height, i % height]
        _kernel_row(padded[i // height], offsets, reach, ONE, bandwidth, epsilon, i % height, row)


@compiled
def _affinity_rows(color, label, alpha, out, first, last):
    for i in range(first, last):
        _affinity_row(color[i % len(color)], label[i], alpha, out[i])  # one color for all classes, or one each


@compiled
def _weight_rows(image, scores, offsets, reach, alpha, bandwidth, epsilon, out, total, first, last):
    """Rows of a photograph's weights: image (C, ...), scores (P, ...) padded -> out (P, H, N, W), total (P, H, W)."""
    color, beta = np.empty(out.shape[2:], np.float32), ONE - alpha
    for y in range(first, last):
        _kernel_row(image, offsets, reach, alpha, bandwidth, epsilon, y, color)
        for p in range(len(scores)):
            _weight_row(color, scores[p], offsets, reach, beta, bandwidth, epsilon, y, out[p, y], total[p, y])


_AT_ONCE = 5  # steps of Eq. 6 in one pass over the weights
_NOTHING = np.empty((0, 0, 0, 0), np.float32)


@compiled
def _step_rows(before, weights, total, offsets, reach, steps, after, made, first, last):
    """Rows of `steps` steps of Eq. 6: before, after (P, ...) padded, weights (P, H, N, W) of a sum `total` (P, H, W).

    Fills the border of `after`, and `made` (steps, P, H, W), unless it is empty, with what each step makes.

    All steps in one pass over the weights: each follows the one before it as closely as its neighbours let it, while
    the weights of these rows are still in the cache. What a step needs beyond the given rows is computed here as well.
    """
    height = weights.shape[1]
    between = np.empty((steps - 1, *before.shape[1:]), np.float32)
    for p in range(first // height, (last - 1) // height + 1):
        top, bottom = max(0, first - p * height), min(height, last - p * height)
        for now in range(max(0, top - (steps - 1) * reach), bottom + (steps - 1) * (reach + 1)):
            for step in range(steps):
                y, margin = now - step * (reach + 1), (steps - 1 - step) * reach
                if max(0, top - margin) <= y < min(height, bottom + margin):
                    here = before[p] if step == 0 else between[step - 1]
                    there = after[p] if step == steps - 1 else between[step]
                    _step_row(here, weights[p, y], total[p, y], offsets, reach, y, height, there)
                    if len(made) and top <= y < bottom:
                        made[step, p, y] = there[reach + y, reach : reach + made.shape[3]]


@compiled
def _step_row(before, weights, total, offsets, reach, y, height, after):
    """Row y of one step of Eq. 6 of one class: before, after padded, weights (N, W) of a sum `total` (W,)."""
    count, width = weights.shape
    whole = after[reach + y]
    out = whole[reach : reach + width]
    out[:] = ZERO
    for n in range(count):
        left, top = reach + offsets[n, 1], reach + y + offsets[n, 0]
        weight, near = weights[n], before[top, left : left + width]
        for x in range(width):
            out[x] += weight[x] * near[x]
    for x in range(width):
        out[x] /= total[x]
    whole[:reach] = whole[reach]
    whole[reach + width :] = whole[reach + width - 1]
    if y == 0:
        for k in range(reach):
            after[k] = whole
    if y == height - 1:
        for k in range(reach):
            after[reach + height + k] = whole
