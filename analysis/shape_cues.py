"""What the shape cue does to a photograph: self-information, drop probability, a drop, the features' energy (Fig. 3).

All but the energy needs no checkpoint: Eq. 3 and 4 look at colors only.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from analysis.encoding import Encoding
from analysis.predictor import Predictor
from analysis.ranges import require_number
from wsss import UserError
from wsss.probabilities import to_image
from wsss.shape_cue import drop_probability, information_of_positions, sample_offsets, self_information

MOST_RADIUS = 16
"""Of R1, so that a slider stays live even where all neighbours are taken."""

MOST_PATCH = 15
"""Pixels on a side, for the same reason."""

_MOST_DISTANCES = 2**25
"""Relative ones that are in memory at once, of which there are some copies: half a gigabyte."""


@dataclass(frozen=True)
class ShapeCues:
    """Eq. 3 and 4 for one photograph."""

    information: np.ndarray  # (h, w) float32, nats
    drop: np.ndarray  # (h, w) float32, the probability that a position is dropped, in [0, 1]
    dropped: np.ndarray  # (h, w) bool, one draw from it


@torch.inference_mode()
def shape_cues(
    rgb: np.ndarray,
    *,
    radius: int = 7,
    bandwidth: float = 1.0,
    temperature: float = 0.5,
    samples: int = 9,
    patch: int = 3,
    drop_rate: float = 0.5,
    relative: bool = False,
    seed: int = 0,
    short_side: int,
) -> ShapeCues:
    """Self-information, drop probability and one drop of a photograph.

    With a checkpoint's settings, its test_short_side and seed 0, the information is that which its network uses. The
    drop is that of each pixel; the network's, of the coarser positions of its features, is in `feature_energy`.

    Args:
        rgb: (H, W, 3) uint8.
        radius: R1, Manhattan, in pixels.
        bandwidth: h of Eq. 3, where colors lie in [0, 1].
        temperature: tau of Eq. 4.
        samples: neighbours drawn for Eq. 3; 0 takes all.
        patch: side of a patch in pixels, odd.
        drop_rate, relative: as in `wsss.shape_cue`.
        seed: of the drawn neighbours and of the drop.
        short_side: the photograph is resized to it; 0 keeps its size.

    Raises:
        UserError: a number is out of its range, or too many relative distances are asked for.
    """
    _require(radius, bandwidth, temperature, samples, patch, drop_rate, seed)
    offsets = sample_offsets(int(radius), int(samples), torch.Generator().manual_seed(int(seed)))
    image = to_image(rgb, short_side)
    most = _MOST_DISTANCES // image[0, 0].numel()
    if relative and len(offsets) > most:  # no fast kernel takes these: all distances are there at once
        raise UserError(f"relative distances to {len(offsets)} neighbours take too much memory: take at most {most}")
    information = self_information(image, offsets, patch=int(patch), bandwidth=bandwidth, relative=relative)
    drop = drop_probability(information, temperature=temperature, drop_rate=drop_rate)[0, 0]
    # The draw of wsss.shape_cue takes torch's global generator, which all visitors share.
    dropped = torch.bernoulli(drop, generator=torch.Generator().manual_seed(int(seed))) > 0
    return ShapeCues(information[0, 0].numpy(), drop.numpy(), dropped.numpy())


@torch.inference_mode()
def shallow_features(predictor: Predictor, encoding: Encoding) -> Tensor:
    """The features that the shape cue reads, (1, C, h, w): once a photograph, sliders only read them."""
    image = to_image(encoding.rgb, predictor.config.test_short_side).to(predictor.device)
    with predictor.lock:
        return predictor.network.encoder(image)[predictor.network.shape_stage].cpu()


@torch.inference_mode()
def feature_energy(
    features: Tensor, information: np.ndarray, *, temperature: float, drop_rate: float
) -> tuple[np.ndarray, np.ndarray]:
    """Mean square over the channels at each position, and what a drop leaves of it on average, each (h, w) float32.

    Args:
        features: (1, C, h, w), from `shallow_features`.
        information: of every pixel, (H, W).
        temperature, drop_rate: as in `shape_cues`.
    """
    pooled = information_of_positions(torch.from_numpy(information)[None, None], features.shape[-2:])
    drop = drop_probability(pooled, temperature=temperature, drop_rate=drop_rate)
    energy = features.square().mean(1)[0]
    return energy.numpy(), (energy * (1 - drop[0, 0])).numpy()


def _require(
    radius: float, bandwidth: float, temperature: float, samples: float, patch: float, drop_rate: float, seed: float
) -> None:
    """Raises UserError unless each number lies in its range; they came over the network and may be anything."""
    for name, value, least, most in (
        ("R1", radius, 1, MOST_RADIUS),
        ("the bandwidth", bandwidth, 0.001, 1000),
        ("tau", temperature, 0.001, 1000),
        ("the number of samples", samples, 0, 10_000),
        ("the patch", patch, 1, MOST_PATCH),
        ("the drop rate", drop_rate, 0, 100),
        ("the seed", seed, 0, 2**31 - 1),
    ):
        require_number(name, value, most, least)
    if patch % 2 != 1:
        raise UserError(f"the patch must have an odd side, got {patch:g}")
