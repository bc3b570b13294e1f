"""What is computed once for a photograph, so that a slider only reads it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from wsss import UserError
from wsss.config import Config
from wsss.network import ShapeAwareNetwork
from wsss.probabilities import Look, PredictionSettings, mean_probs, to_image
from wsss.refinement import kernel, reduce_image, refinement_grid


@dataclass(frozen=True)
class Encoding:
    """A photograph as a network sees it."""

    rgb: np.ndarray  # (H, W, 3) uint8
    image_probs: np.ndarray  # (K-1,), of the photograph's classes
    probs: np.ndarray  # (K, H, W) float32, at the photograph's size, refined and weighed as at test
    maps: Tensor  # (K, g, g') the probabilities on the grid of the refinement: m_0 of Eq. 6
    colors: Tensor  # (1, 3, g, g') of Eq. 5, in [0, 1]
    scores: Tensor  # (1, K, g, g') s of Eq. 5
    color_kernel: Tensor  # (1, N, g, g') of Eq. 5
    key: str  # tells it from others: a digest of the photograph, and the drop where it is another one

    @classmethod
    @torch.inference_mode()
    def of(cls, network: ShapeAwareNetwork, config: Config, rgb: np.ndarray, key: str) -> "Encoding":
        """Run the network, in evaluation mode, once on a photograph (H, W, 3) uint8."""
        settings = PredictionSettings.of(config)
        image = to_image(rgb, settings.short_side).to(next(network.parameters()).device)
        output = network(image)
        grid = refinement_grid(image, config.refine_stride)
        logits, maps = output.resized_logits(grid), output.resized_probs(grid)
        colors = reduce_image(image, grid)
        return cls(
            rgb=rgb,
            image_probs=output.image_scores.sigmoid()[0].cpu().numpy(),
            probs=mean_probs([Look(image, False, output)], rgb.shape[:2], settings).cpu().numpy(),
            maps=maps[0],
            colors=colors,
            scores=logits if config.refine_source == "score" else maps,
            color_kernel=kernel(colors),
            key=key,
        )


def require_pixel(pixel: tuple[int, int] | None, size: Sequence[int]) -> None:
    """Raises UserError unless the pixel (row, column) lies in a photograph of this size (H, W)."""
    if pixel is None or not all(0 <= place < side for place, side in zip(pixel, size, strict=True)):
        raise UserError(f"the pixel {pixel} does not lie in the photograph of {size[0]} rows and {size[1]} columns")


def cell_of(pixel: tuple[int, int], size: Sequence[int], grid: Sequence[int]) -> tuple[int, int]:
    """Where a pixel of a photograph of size (H, W) lies on a grid (g, g') over it."""
    row, column = (place * cells // side for place, side, cells in zip(pixel, size, grid, strict=True))
    return row, column
