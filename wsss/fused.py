"""The fused CPU kernels: pixel refinement, self-information and region loss, row by row within the cache.

Each repeats an equation that `refinement`, `shape_cue` or `losses` states in plain PyTorch, which is its oracle and
takes its place where `usable` says no. Inner loops run along a row and store into one array or two, so that LLVM
vectorises them. Weights lie as (photograph, row, neighbour, column): a step of Eq. 6 reads memory from end to end.

Threads are Python's own, as many as torch's, and only for the time of a call: the kernels hold no lock of the
interpreter, any number of callers may run side by side, and a forked process lacks no pool. numba's own threads allow
neither.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from torch import Tensor

try:
    import numba
except ImportError:  # everything is computed by plain PyTorch instead
    numba = None

_ZERO, _HALF, _ONE = np.float32(0), np.float32(0.5), np.float32(1)


def usable(*tensors: Tensor) -> bool:
    """Whether the kernels take these tensors: float32 in the CPU's memory, without a gradient, numba installed."""
    needs_gradient = torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    fits = all(x.dtype == torch.float32 and x.device.type == "cpu" for x in tensors)
    return numba is not None and fits and not needs_gradient


def _compiled(function: Callable) -> Callable:
    """Compiled when first called, then kept on disk. Products and sums may be fused; NaN keeps its meaning."""
    if numba is None:
        return function
    settings = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
    try:
        return numba.njit(cache=True, **settings)(function)
    except RuntimeError:  # there is no folder to keep it in
        return numba.njit(**settings)(function)


_LEAST_CELLS = 2**20  # a thread must start and end: fewer numbers than these are done sooner without one


def _shared(work: Callable[[int, int], object], rows: int, cells: int) -> list:
    """work(first, last) on equal parts of range(rows), one part a thread; what each part returned.

    `cells` is how many numbers the work reads.
    """
    threads = max(1, min(torch.get_num_threads(), rows, cells // _LEAST_CELLS))
    if threads == 1:
        return [work(0, rows)]
    bounds = [rows * i // threads for i in range(threads + 1)]
    parts = list(zip(bounds, bounds[1:], strict=False))
    with ThreadPoolExecutor(threads - 1) as pool:
        others = [pool.submit(work, *part) for part in parts[1:]]
        return [work(*parts[0]), *(other.result() for other in others)]


# --- Pixel refinement (Eq. 5 and 6)


def kernel(x: Tensor, offsets: Sequence[tuple[int, int]], bandwidth: float, epsilon: float) -> Tensor:
    """`refinement.kernel`: (B, C, H, W) -> (B, N, H, W), a view of memory that lies as (B, H, N, W)."""
    near = _Neighborhood(offsets)
    batch, _, height, width = x.shape
    padded = near.padded(_array(x))
    out = np.empty((batch, height, len(offsets), width), np.float32)
    scale = np.float32(bandwidth), np.float32(epsilon)
    _shared(partial(_kernel_rows, padded, *near, *scale, out), batch * height, out.size)
    return torch.from_numpy(out).transpose(1, 2)


def affinity(color: Tensor, label: Tensor, alpha: float) -> Tensor:
    """`refinement.affinity` of label (B, N, H, W) and color, the same or of batch 1; laid out as `kernel`."""
    color, label = (_array(x.transpose(1, 2)) for x in (color, label))
    out = np.empty_like(label)
    flat = [x.reshape(-1, *x.shape[2:]) for x in (color, label, out)]
    _shared(partial(_affinity_rows, *flat[:2], np.float32(alpha), flat[2]), len(flat[2]), out.size)
    return torch.from_numpy(out).transpose(1, 2)


def propagate(maps: Tensor, weights: Tensor, offsets: Sequence[tuple[int, int]]) -> Tensor:
    """`refinement.propagate`: maps (P, H, W) and weights (P, N, H, W) -> (P, H, W)."""
    near = _Neighborhood(offsets)
    before, weights = near.padded(_array(maps)), _array(weights.transpose(1, 2))
    after = np.empty_like(before)
    _shared(partial(_step_rows, before, weights, *near, 1, after), maps.shape[0] * maps.shape[1], weights.size)
    return torch.from_numpy(near.inner(after).copy())


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
    photographs than threads are shared by rows.
    """
    image, scores, probs, present = (_array(x) for x in (image, scores, probs, present))
    near = _Neighborhood(offsets)
    out = np.zeros_like(probs)
    settings = np.float32(alpha), np.float32(bandwidth), np.float32(epsilon)
    most, (height, width) = int(present.sum(1).max(initial=0)), image.shape[-2:]

    def photographs(first: int, last: int, share: Callable = lambda work, rows, cells: work(0, rows)) -> None:
        """Eq. 5 and 6 of photographs [first, last) of the batch: their (K, H, W) of `out` are written."""
        space = np.empty((most, height, len(offsets), width), np.float32)
        for i in range(first, last):
            classes = np.flatnonzero(present[i])
            colors, labels, maps = (near.padded(x) for x in (image[i], scores[i, classes], probs[i, classes]))
            weights, other = space[: len(classes)], np.empty_like(maps)
            cells, rows = weights.size, len(classes) * height
            share(partial(_weight_rows, colors, labels, *near, *settings, weights), height, cells)
            for first_step in range(0, steps, _AT_ONCE):
                count = min(_AT_ONCE, steps - first_step)
                share(partial(_step_rows, maps, weights, *near, count, other), rows, cells)
                maps, other = other, maps
            out[i, classes] = near.inner(maps)

    if len(image) >= torch.get_num_threads():
        _shared(photographs, len(image), len(offsets) * probs.size)
    else:
        photographs(0, len(image), _shared)
    return torch.from_numpy(out)


class _Neighborhood:
    """The offsets of a pixel's neighbours as the compiled code takes them: an array, and how far they reach."""

    def __init__(self, offsets: Sequence[tuple[int, int]]) -> None:
        self.offsets = np.array(offsets, np.int64)
        self.reach = int(np.abs(self.offsets).max())

    def __iter__(self) -> Iterator:
        return iter((self.offsets, self.reach))

    def padded(self, x: np.ndarray, margin: int = 0) -> np.ndarray:
        """x (..., H, W) with the border continued as far as any neighbour looks, and `margin` farther."""
        reach = self.reach + margin
        return np.pad(x, [(0, 0)] * (x.ndim - 2) + [(reach, reach)] * 2, mode="edge")

    def inner(self, padded: np.ndarray) -> np.ndarray:
        """Without the border: a view."""
        height, width = padded.shape[-2:]
        return padded[..., self.reach : height - self.reach, self.reach : width - self.reach]


def _array(x: Tensor) -> np.ndarray:
    return x.detach().contiguous().numpy()


@_compiled
def _exp(x):
    """e^x for x <= 0, within 2e-7 of it; below e^-80 it stays there. Cephes' polynomial, which LLVM vectorises."""
    x = x if x > np.float32(-80) else np.float32(-80)
    # Adding 1.5 * 2^23 rounds to a whole number and leaves it in the lowest bits.
    shifted = x * np.float32(1.44269504088896341) + np.float32(12582912)
    power = shifted - np.float32(12582912)
    r = x - power * np.float32(0.693359375) + power * np.float32(2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + _ONE
    bits = np.float32(p).view(np.int32) + np.int32(np.float32(shifted).view(np.int32) << 23)
    return np.int32(bits).view(np.float32)


@_compiled
def _scale_row(padded, offsets, reach, factor, bandwidth, epsilon, y, scale):
    """-factor / (epsilon + bandwidth * sigma) along row y of one padded channel: what differences are measured in."""
    width, samples = len(scale), np.float32(len(offsets) + len(offsets) // 8)
    center = padded[reach + y, reach : reach + width]
    total, squares = np.zeros(width, np.float32), np.zeros(width, np.float32)
    for n in range(len(offsets)):
        left = reach + offsets[n, 1]
        near = padded[reach + y + offsets[n, 0], left : left + width]
        for x in range(width):
            difference = near[x] - center[x]
            total[x] += difference
            squares[x] += difference * difference
    for x in range(width):
        variance = (squares[x] - total[x] * total[x] / samples) / (samples - _ONE)
        deviation = np.sqrt(variance if variance > _ZERO else _ZERO)
        scale[x] = -factor / (epsilon + bandwidth * deviation)


@_compiled
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
                row[:] = _ZERO
            for x in range(width):
                row[x] += abs(near[x] - center[x]) * scale[x]


@_compiled
def _softmax_row(row, most):
    """The softmax over N of (N, W), in its place; `most` (W,) is the greatest of each column."""
    count, width = row.shape
    total = np.zeros(width, np.float32)
    for n in range(count):
        values = row[n]
        for x in range(width):
            value = _exp(values[x] - most[x])
            values[x] = value
            total[x] += value
    for x in range(width):
        total[x] = _ONE / total[x]
    for n in range(count):
        values = row[n]
        for x in range(width):
            values[x] *= total[x]


@_compiled
def _affinity_row(color, label, alpha, out):
    """Kernels (N, W) -> weights (N, W), softmax over N."""
    count, width = out.shape
    beta, most = _ONE - alpha, np.full(width, np.float32(-np.inf))
    for n in range(count):
        a, b, row = color[n], label[n], out[n]
        for x in range(width):
            value = alpha * a[x] + beta * b[x]
            row[x] = value
            most[x] = value if value > most[x] else most[x]
    _softmax_row(out, most)


@_compiled
def _weight_row(color, scores, offsets, reach, beta, bandwidth, epsilon, y, out):
    """Row y of a class's weights (N, W), of alpha times the color kernel (N, W) and padded scores: no class kernel."""
    count, width = out.shape
    scale, most = np.empty(width, np.float32), np.full(width, np.float32(-np.inf))
    _scale_row(scores, offsets, reach, beta, bandwidth, epsilon, y, scale)
    center = scores[reach + y, reach : reach + width]
    for n in range(count):
        left = reach + offsets[n, 1]
        near = scores[reach + y + offsets[n, 0], left : left + width]
        given, row = color[n], out[n]
        for x in range(width):
            value = given[x] + abs(near[x] - center[x]) * scale[x]
            row[x] = value
            most[x] = value if value > most[x] else most[x]
    _softmax_row(out, most)


@_compiled
def _kernel_rows(padded, offsets, reach, bandwidth, epsilon, out, first, last):
    height = out.shape[1]
    for i in range(first, last):
        row = out[i // height, i % height]
        _kernel_row(padded[i // height], offsets, reach, _ONE, bandwidth, epsilon, i % height, row)


@_compiled
def _affinity_rows(color, label, alpha, out, first, last):
    for i in range(first, last):
        _affinity_row(color[i % len(color)], label[i], alpha, out[i])  # one color for all classes, or one each


@_compiled
def _weight_rows(image, scores, offsets, reach, alpha, bandwidth, epsilon, out, first, last):
    """Rows of the weights of a photograph: image (C, ...), scores (P, ...) padded -> out (P, H, N, W)."""
    color, beta = np.empty(out.shape[2:], np.float32), _ONE - alpha
    for y in range(first, last):
        _kernel_row(image, offsets, reach, alpha, bandwidth, epsilon, y, color)
        for p in range(len(scores)):
            _weight_row(color, scores[p], offsets, reach, beta, bandwidth, epsilon, y, out[p, y])


_AT_ONCE = 3  # steps of Eq. 6 in one pass over the weights


@_compiled
def _step_rows(before, weights, offsets, reach, steps, after, first, last):
    """Rows of `steps` steps of Eq. 6: before, after (P, ...) padded, weights (P, H, N, W). Fills the border of `after`.

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
                    _step_row(here, weights[p, y], offsets, reach, y, height, there)


@_compiled
def _step_row(before, weights, offsets, reach, y, height, after):
    """Row y of one step of Eq. 6 of one class: before, after padded, weights (N, W)."""
    count, width = weights.shape
    whole = after[reach + y]
    out = whole[reach : reach + width]
    out[:] = _ZERO
    for n in range(count):
        left, top = reach + offsets[n, 1], reach + y + offsets[n, 0]
        weight, near = weights[n], before[top, left : left + width]
        for x in range(width):
            out[x] += weight[x] * near[x]
    whole[:reach] = whole[reach]
    whole[reach + width :] = whole[reach + width - 1]
    if y == 0:
        for k in range(reach):
            after[k] = whole
    if y == height - 1:
        for k in range(reach):
            after[reach + height + k] = whole


# --- Self-information (Eq. 3)


def self_information(image: Tensor, offsets: Sequence[tuple[int, int]], *, patch: int, bandwidth: float) -> Tensor:
    """`shape_cue.self_information` in absolute units: (B, C, H, W) -> (B, 1, H, W)."""
    near = _Neighborhood(offsets)
    batch, _, height, width = image.shape
    padded = near.padded(_array(image), patch // 2)
    out = np.empty((batch, 1, height, width), np.float32)
    scale = np.float32(0.5 / bandwidth**2)
    _shared(partial(_information_rows, padded, *near, patch, scale, out), batch * height, out.size * len(offsets))
    return torch.from_numpy(out)


@_compiled
def _information_rows(padded, offsets, reach, patch, scale, out, first, last):
    """Rows of padded (B, C, H + 2 margin, W + 2 margin), margin = reach + patch // 2, -> out (B, 1, H, W)."""
    _, _, height, width = out.shape
    count, wide = len(offsets), width + patch - 1
    column = np.empty(wide, np.float32)  # squared differences, summed over channels and the patch's rows
    distance = np.empty((count, width), np.float32)
    least, total = np.empty(width, np.float32), np.empty(width, np.float32)
    for i in range(first, last):
        b, y = i // height, i % height
        least[:], total[:] = np.float32(np.inf), _ZERO
        for n in range(count):
            column[:] = _ZERO
            left = reach + offsets[n, 1]
            for c in range(padded.shape[1]):
                for k in range(patch):
                    here = padded[b, c, reach + y + k, reach : reach + wide]
                    there = padded[b, c, reach + y + k + offsets[n, 0], left : left + wide]
                    for x in range(wide):
                        difference = there[x] - here[x]
                        column[x] += difference * difference
            row = distance[n]
            row[:] = _ZERO
            for k in range(patch):
                shifted = column[k : k + width]
                for x in range(width):
                    row[x] += shifted[x]
            for x in range(width):
                least[x] = row[x] if row[x] < least[x] else least[x]
        for n in range(count):
            row = distance[n]
            for x in range(width):
                total[x] += _exp((least[x] - row[x]) * scale)
        for x in range(width):
            value = least[x] * scale + np.float32(math.log(np.float32(count) / total[x]))
            out[b, 0, y, x] = _ZERO if value < _ZERO else value


# --- Region loss (Eq. 8)


class RegionPairs(torch.autograd.Function):
    """`losses.pair_costs` and its gradient in one pass: apply(log_probs, pseudo, share, radius, margin)."""

    @staticmethod
    def forward(ctx, log_probs: Tensor, pseudo: Tensor, share: Tensor, radius: int, margin: float) -> Tensor:
        """The sum over all pairs, a number."""
        batch, classes, height, width = log_probs.shape

        def rows_apart(x: Tensor) -> np.ndarray:
            """One long row of each map: `radius` empty pixels part its rows, so that no window reaches around."""
            return _array(torch.nn.functional.pad(x.float(), [0, radius]).flatten(-2))

        log, mask, weight = rows_apart(log_probs), rows_apart(pseudo), rows_apart(share)
        probs, gradient = rows_apart(log_probs.exp()), np.zeros_like(log)
        images = log, probs, mask, weight, width + radius, radius, np.float32(margin)
        pairs = log.size * (2 * radius + 1) ** 2
        costs = _shared(partial(_region_images, *images, gradient), batch, pairs)
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


@_compiled
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
        costs[:] = _ZERO
    return cost


@_compiled
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
        sign = _ONE if mask_h[i] == mask_t[i] else -_ONE
        alike[i] = sign if share_h[i] * share_t[i] > _ZERO else _ZERO
    _hinge(one, alike, share_h, margin, costs)
    _hinge(other, alike, share_t, margin, costs)
    return one, other


@_compiled
def _hinge(divergence, alike, share, margin, costs):
    """Turns divergences into the slopes of their costs."""
    for i in range(len(divergence)):
        cost = divergence[i] if alike[i] > _ZERO else margin - divergence[i]
        counts = alike[i] > _ZERO or cost > _ZERO
        slope = alike[i] * share[i] if counts else _ZERO
        costs[i] += abs(slope) * cost
        divergence[i] = slope


@_compiled
def _add_gradient(image, here, there, one, other, gradient):
    """d D(p || q) / d log p = p (log p - log q + 1) and d D(p || q) / d log q = -p, times the slopes."""
    log, probs = image
    count = len(one)
    for k in range(len(log)):
        lh, lt = log[k, here : here + count], log[k, there : there + count]
        ph, pt = probs[k, here : here + count], probs[k, there : there + count]
        out = gradient[k, there : there + count]
        for i in range(count):
            out[i] += one[i] * pt[i] * (_ONE + lt[i] - lh[i]) - other[i] * ph[i]
        out = gradient[k, here : here + count]
        for i in range(count):
            out[i] += other[i] * ph[i] * (_ONE + lh[i] - lt[i]) - one[i] * pt[i]
