"""The shape cue module (SCM): keeps informative positions (shape), drops the others (texture) (Sec. 3.1.2)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss import fused


def manhattan_offsets(radius: int) -> list[tuple[int, int]]:
    """(dy, dx) of all positions within the Manhattan distance, without the position itself: 112 for radius 7."""
    reach = range(-radius, radius + 1)
    return [(dy, dx) for dy in reach for dx in reach if 0 < abs(dy) + abs(dx) <= radius]


def sample_offsets(radius: int, samples: int, generator: torch.Generator | None = None) -> list[tuple[int, int]]:
    """`samples` neighbours within the Manhattan radius, drawn without replacement; all of them for samples = 0."""
    offsets = manhattan_offsets(radius)
    if samples == 0 or samples >= len(offsets):
        return offsets
    return [offsets[i] for i in torch.randperm(len(offsets), generator=generator)[:samples]]


def self_information(
    image: Tensor,
    offsets: list[tuple[int, int]],
    *,
    patch: int = 3,
    bandwidth: float = 1.0,
    relative: bool = False,
) -> Tensor:
    r"""Self-information of the patch around every pixel, estimated from neighbouring patches.

    A patch that resembles its neighbours (texture, a plain surface) carries little information; one that differs from
    them (a contour) carries much:

        I(p) = -log 1/|N| sum_{p' in N} exp(-||p - p'||^2 / 2h^2)

    The constant log(sqrt(2 pi) h) of Eq. 3 is left out: it cancels in Eq. 4, and without it a plain surface has 0. The
    border is replicated, and each image is measured on its own, never against its batch.

    Args:
        image: (B, C, H, W).
        offsets: (dy, dx) of the neighbouring patches N, shared by all pixels; from `sample_offsets`.
        patch: side of a patch in pixels, odd. ||p - p'||^2 sums over its pixels and channels.
        bandwidth: h, in the units of the image.
        relative: divide distances by their mean over the image (InfoDrop: over the batch), which makes h unit-free.

    Returns:
        I in nats, (B, 1, H, W), at least 0.

    Source: Eq. 3; Shi et al., Informative Dropout, ICML 2020.
    """
    if fused.usable(image) and not relative:
        return fused.self_information(image, offsets, patch=patch, bandwidth=bandwidth)
    height, width = image.shape[-2:]
    reach = max(max(abs(dy), abs(dx)) for dy, dx in offsets)
    margin = patch // 2
    padded = F.pad(image, [reach + margin] * 4, mode="replicate")

    def shifted(dy: int, dx: int) -> Tensor:
        top, left = reach + dy, reach + dx
        return padded[..., top : top + height + 2 * margin, left : left + width + 2 * margin]

    distances = torch.cat([(shifted(dy, dx) - shifted(0, 0)).square().sum(1, keepdim=True) for dy, dx in offsets], 1)
    distances = F.avg_pool2d(distances, patch, stride=1, divisor_override=1)  # (B, |N|, H, W)
    if relative:
        distances = distances / distances.mean((1, 2, 3), keepdim=True).clamp(min=1e-12)
    exponents = -distances / (2 * bandwidth**2)
    # logsumexp, since exp(-distance) is 0 in float32 between black and white patches
    return (math.log(len(offsets)) - exponents.logsumexp(1, keepdim=True)).clamp(min=0)


def drop_probability(information: Tensor, *, temperature: float = 0.5, drop_rate: float = 0.5) -> Tensor:
    """Probability that a position is dropped: large where there is little information.

        r = e^(-I / tau) / mean(e^(-I / tau)),    P = 1 - e^(-drop_rate * r)

    The paper gives r up to a constant. P is the probability that InfoDrop's drop_rate * H * W draws with replacement
    hit a position, in the limit of many positions; on an image of equal information it is 1 - e^-drop_rate everywhere.

    Args:
        information: (B, 1, h, w) in nats.
        temperature: tau; a small one drops the least informative positions only.
        drop_rate: mean number of hits of a position.

    Returns:
        (B, 1, h, w) in [0, 1].

    Source: Eq. 4; Shi et al., Informative Dropout, ICML 2020, Sec. 3.2.
    """
    lowest = information.amin((1, 2, 3), keepdim=True)  # the ratio does not change, and no exponential underflows
    weight = torch.exp((lowest - information) / temperature)
    return -torch.expm1(-drop_rate * weight / weight.mean((1, 2, 3), keepdim=True))


def information_of_positions(information: Tensor, size: tuple[int, int]) -> Tensor:
    """Self-information of every feature position, (B, 1, H, W) -> (B, 1, h, w) at `size`.

    A position covers many pixels and survives by its most informative one: InfoDrop's rule before a max-pooling.
    """
    return F.adaptive_max_pool2d(information, size)


def drop_texture(features: Tensor, drop: Tensor, stochastic: bool) -> Tensor:
    """Features without their texture: each channel of each position dropped at random, or the expectation of that.

    Args:
        features: (B, C, h, w).
        drop: probabilities, (B, 1, h, w) float32.
        stochastic: draw (training), or scale by the probability to survive (evaluation).

    Returns:
        (B, C, h, w).
    """
    survival = 1 - drop
    if stochastic:
        drawn = torch.rand_like(features, dtype=torch.float32)  # in bfloat16 a small probability would round to 0
        survival = drawn < survival
    return features * survival.to(features.dtype)


class ShapeCue(nn.Module):
    """The module of Fig. 3: drop texture from shallow features, then one convolution.

    Self-information is that of the photograph's colors, as Fig. 3 and 8 show it; InfoDrop's is that of the input of the
    layer that it drops from. Training draws neighbours and drops anew at each call; evaluation uses one fixed draw of
    neighbours and the expected drop, so that a photograph always gives the same result.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        radius: int = 7,
        samples: int = 9,
        patch: int = 3,
        bandwidth: float = 1.0,
        relative: bool = False,
        temperature: float = 0.5,
        drop_rate: float = 0.5,
    ) -> None:
        super().__init__()
        self.radius, self.samples, self.patch = radius, samples, patch
        self.bandwidth, self.relative = bandwidth, relative
        self.temperature, self.drop_rate = temperature, drop_rate
        self.conv = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True)
        )

    def forward(self, image: Tensor, features: Tensor) -> Tensor:
        """image (B, 3, H, W) and shallow features (B, C, h, w) -> shape features (B, channels, h, w)."""
        if not self.training and not self.drop_rate:  # nothing would be dropped
            return self.conv(features)
        drop = self.drop(self.information(image), features.shape[-2:])
        return self.conv(drop_texture(features, drop, stochastic=self.training))

    @torch.no_grad()
    def information(self, image: Tensor) -> Tensor:
        """Self-information of every pixel, (B, 1, H, W) float32."""
        generator = None if self.training else torch.Generator().manual_seed(0)
        offsets = sample_offsets(self.radius, self.samples, generator)
        with torch.autocast(image.device.type, enabled=False):
            return self_information(
                image.float(), offsets, patch=self.patch, bandwidth=self.bandwidth, relative=self.relative
            )

    @torch.no_grad()
    def drop(self, information: Tensor, size: tuple[int, int]) -> Tensor:
        """Drop probability of every feature position, (B, 1, h, w)."""
        pooled = information_of_positions(information, size)
        return drop_probability(pooled, temperature=self.temperature, drop_rate=self.drop_rate)
