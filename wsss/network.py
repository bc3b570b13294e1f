"""The shape-aware segmentation network, in the order of the paper's Fig. 2."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wsss import UserError
from wsss.config import Config
from wsss.deeplab import ASPP, RATES, Decoder
from wsss.encoders import Encoder, build_encoder
from wsss.shape_cue import ShapeCue


class Output(NamedTuple):
    """What the network says of a batch, in training and evaluation alike."""

    logits: Tensor  # (B, K, h, w), background first and constant
    probs: Tensor  # (B, K, h, w), their softmax over K: M of the paper
    image_scores: Tensor  # (B, K-1), of the image's classes, before the sigmoid

    def resized_logits(self, size: tuple[int, int]) -> Tensor:
        """Logits at another (height, width), bilinearly; the background stays exactly constant.

        Resized like the others it would vary by rounding, and Eq. 5 measures scores by their own deviation.
        """
        background = self.logits[:, :1, :1, :1].expand(-1, -1, *size)
        objects = F.interpolate(self.logits[:, 1:], size, mode="bilinear", align_corners=False)
        return torch.cat([background, objects], 1)

    def resized_probs(self, size: tuple[int, int]) -> Tensor:
        """Probs at another (height, width), bilinearly."""
        return F.interpolate(self.probs, size, mode="bilinear", align_corners=False)


class ShapeAwareNetwork(nn.Module):
    """Encoder, shape cue, atrous pyramid, decoder, constant background, pooling (Sec. 3.1)."""

    def __init__(
        self,
        encoder: Encoder,
        shape_cue: nn.Module | None,
        pyramid: ASPP,
        decoder: Decoder,
        *,
        shape_stage: int = 2,
        background_score: float = 1.0,
        focal_power: float = 0.0,
        focal_floor: float = 0.01,
    ) -> None:
        super().__init__()
        self.encoder, self.shape_cue, self.pyramid, self.decoder = encoder, shape_cue, pyramid, decoder
        self.shape_stage, self.background_score = shape_stage, background_score
        self.focal_power, self.focal_floor = focal_power, focal_floor

    def forward(self, image: Tensor, *, focal_gradient: bool = True) -> Output:
        """image (B, 3, H, W) in [0, 1] -> Output at the resolution of the shape stage.

        Without `focal_gradient` the focal penalty is a mere number, which pushes no object to grow.
        """
        features = self.encoder(image)
        shallow, deep = features[self.shape_stage], features[-1]
        shape = self.shape_cue(image, shallow) if self.shape_cue is not None else shallow[:, :0]
        objects = self.decoder(self.pyramid(deep), shape)
        logits = add_background(objects.float(), self.background_score)
        probs = logits.softmax(1)
        image_scores = pooled_scores(logits, probs)
        if self.focal_power:
            penalty = focal_penalty(probs, self.focal_power, self.focal_floor)
            image_scores = image_scores + (penalty if focal_gradient else penalty.detach())
        return Output(logits, probs, image_scores)


def add_background(objects: Tensor, score: float = 1.0) -> Tensor:
    """Prepend the background's constant score: (B, K-1, h, w) -> (B, K, h, w) (Sec. 3.1.1)."""
    return torch.cat([torch.full_like(objects[:, :1], score), objects], 1)


def pooled_scores(logits: Tensor, probs: Tensor, epsilon: float = 1.0) -> Tensor:
    """Normalised global weighted pooling: a class's mean score, weighted by its own probability (Eq. 1).

        v_c = sum_i m_ci s_ci / (epsilon + sum_i m_ci)

    Epsilon is 1, as in Araslanov and Roth's code: with a tiny one, a class without mass would score like its best pixel
    instead of about 0.

    Args:
        logits, probs: (B, K, h, w), background first.

    Returns:
        (B, K-1).
    """
    return ((logits * probs).sum((2, 3)) / (epsilon + probs.sum((2, 3))))[:, 1:]


def focal_penalty(probs: Tensor, power: float, floor: float) -> Tensor:
    """Lower the score of a class that covers little of the image, (B, K, h, w) -> (B, K-1).

        (1 - mean_i m_ci)^power * log(floor + mean_i m_ci)

    Not in the paper; Araslanov and Roth, CVPR 2020, Eq. 5.
    """
    share = probs.mean((2, 3))[:, 1:]
    return (1 - share) ** power * torch.log(floor + share)


def build(config: Config, num_classes: int, *, pretrained: bool = True) -> ShapeAwareNetwork:
    """The network that `config` describes, for `num_classes` classes with the background.

    `pretrained=False` leaves ImageNet weights out, for a network whose weights come from a checkpoint.

    Raises:
        UserError: the encoder or its weights cannot be had, or it has not the stages or the output stride asked for.
    """
    encoder = build_encoder(
        config.encoder,
        output_stride=config.output_stride,
        frozen_stages=config.frozen_stages,
        weights=config.encoder_weights if pretrained else "none",
    )
    if config.shape_stage >= len(encoder.channels):
        raise UserError(f"shape_stage is {config.shape_stage}, the encoder's last stage is {len(encoder.channels) - 1}")
    shape_channels = 0 if config.shape_cue == "none" else config.shape_channels
    # Made even where it is left out: the pyramid, made after it, would begin with other random weights.
    shape_cue = ShapeCue(
        encoder.channels[config.shape_stage],
        config.shape_channels,
        radius=config.info_radius,
        samples=config.info_samples,
        patch=config.info_patch,
        bandwidth=config.info_bandwidth,
        relative=config.info_relative,
        temperature=config.drop_temperature,
        drop_rate=config.network_drop_rate,
    )
    return ShapeAwareNetwork(
        encoder,
        shape_cue if shape_channels else None,
        ASPP(encoder.channels[-1], config.aspp_channels, RATES[config.output_stride], config.image_pooling),
        Decoder(config.aspp_channels + shape_channels, config.decoder_channels, num_classes - 1),
        shape_stage=config.shape_stage,
        background_score=config.background_score,
        focal_power=config.focal_power,
        focal_floor=config.focal_floor,
    )
