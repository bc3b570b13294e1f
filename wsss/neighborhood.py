"""The neighbours of all pixels at once, as PyTorch takes them: few and large operations, which a GPU wants."""

from collections.abc import Sequence

import torch
from torch import Tensor


def neighbors(x: Tensor, offsets: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """x as each of its pixels' neighbours see it; beyond the border it continues as at the border.

    Args:
        x: (B, C, H, W).
        offsets: (dy, dx) of the N neighbours.

    Returns:
        (B, C, N, H, W), and which of the neighbours lie within the border, (N, H, W) bool.
    """
    height, width = x.shape[-2:]
    # Without waiting for a GPU, which may still be at work on what came before.
    given = torch.tensor(offsets, dtype=torch.int64).view(-1, 2, 1, 1).to(x.device, non_blocking=True)
    dy, dx = given.unbind(1)
    rows = dy + torch.arange(height, device=x.device)[:, None]
    columns = dx + torch.arange(width, device=x.device)
    inside = ((rows >= 0) & (rows < height)) & ((columns >= 0) & (columns < width))
    places = rows.clamp(0, height - 1) * width + columns.clamp(0, width - 1)
    return x.flatten(2).index_select(2, places.flatten()).unflatten(2, places.shape), inside
