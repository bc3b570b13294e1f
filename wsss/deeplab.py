"""DeepLabV3's atrous spatial pyramid, and the decoder behind it (Sec. 3.1.1, 4.1.2)."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

RATES = {16: (6, 12, 18), 8: (12, 24, 36)}
"""Atrous rates by output stride (Chen et al., DeepLabV3, 2017)."""


class ASPP(nn.Module):
    """Atrous spatial pyramid pooling: context of several reaches, fused by a 1x1 convolution.

    The branches are a 1x1, three atrous 3x3 and image pooling. (B, C, h, w) -> (B, channels, h, w). Batch norms take
    the batch's statistics, as DeepLabV3's; Araslanov and Roth's code fixes them at mean 0 and variance 1. Image pooling
    has none: a pooled position is one sample an image, too few for statistics.

    Args:
        rates: of the atrous branches, in positions of the features.
        image_pooling: False leaves that branch out. It tells every pixel what the whole image shows: with masks that
            is context, with image labels alone it lets the surroundings answer for the object.
    """

    def __init__(self, in_channels: int, channels: int, rates: Sequence[int], image_pooling: bool = True) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            [_conv(in_channels, channels, 1)] + [_conv(in_channels, channels, 3, rate) for rate in rates]
        )
        self.pool = _image_pooling(in_channels, channels) if image_pooling else None
        count = len(self.branches) + image_pooling
        self.fuse = nn.Sequential(_conv(channels * count, channels, 1), nn.Dropout(0.5))

    def forward(self, features: Tensor) -> Tensor:
        context = [branch(features) for branch in self.branches]
        if self.pool is not None:
            context.append(self.pool(features).expand(-1, -1, *features.shape[-2:]))
        return self.fuse(torch.cat(context, 1))


class Decoder(nn.Module):
    """Four convolutions from context and shape features to object scores, at the resolution of the shape features.

    Context (B, C, h', w') and shape features (B, S, h, w), or their absence, -> (B, K-1, h, w).
    """

    def __init__(self, in_channels: int, channels: int, num_objects: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _conv(in_channels, channels, 3),
            _conv(channels, channels, 3),
            nn.Dropout(0.5),
            _conv(channels, channels, 3),
            nn.Dropout(0.1),
            nn.Conv2d(channels, num_objects, 1),
        )

    def forward(self, context: Tensor, shape_features: Tensor) -> Tensor:
        context = F.interpolate(context, shape_features.shape[-2:], mode="bilinear", align_corners=False)
        return self.layers(torch.cat([context, shape_features], 1))


def _image_pooling(in_channels: int, channels: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(in_channels, channels, 1), nn.ReLU(inplace=True))


def _conv(in_channels: int, channels: int, size: int, rate: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, channels, size, padding=rate * (size // 2), dilation=rate, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )
