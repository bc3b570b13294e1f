"""What training minimises: the terms of Eq. 10 on a batch, and how their weights change over a run."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from wsss import UNLABELLED
from wsss.config import Config
from wsss.losses import classification_loss, pixel_loss, region_loss
from wsss.network import Output
from wsss.pseudo import present_classes, pseudo_mask
from wsss.refinement import reduce_image, refine, refinement_grid, with_background_scores


class Moment(NamedTuple):
    """What holds at one step of a training."""

    step: int
    has_mask_loss: bool  # a network that has just begun to classify has no masks to learn from
    has_focal_gradient: bool  # or the focal penalty is a mere number: after the warm-up it would melt small objects
    alpha: float  # of Eq. 5
    object_cutoff: float
    background_cutoff: float
    weights: dict[str, float]  # of the terms of Eq. 10


class Schedule:
    """What changes with the step: which losses act and their weights (Eq. 9, 10), alpha of Eq. 5, the cutoffs."""

    def __init__(self, config: Config, steps_per_epoch: int) -> None:
        self.config = config
        self.steps_per_epoch = steps_per_epoch
        self.steps = config.epochs * steps_per_epoch
        warmup_epochs = config.warmup_epochs if config.supervision == "labels" else 0
        self.warmup = min(warmup_epochs, config.epochs) * steps_per_epoch

    def at(self, step: int) -> Moment:
        """What holds at a step, from 0.

        Alpha and the cutoffs move linearly from where they start, when the mask losses begin, to their end. Lambda of
        Eq. 9, the weight of the regions, rises linearly from 0 (Sec. 3.2.2). The paper has no weight on the pixel loss;
        balancing its classes makes it a third of a plain cross-entropy.
        """
        config = self.config
        is_warm = step >= self.warmup
        region = config.region_weight * step / self.steps
        return Moment(
            step,
            has_mask_loss=is_warm and (config.pixel_loss or config.region_loss),
            has_focal_gradient=not (config.focal_warmup_only and is_warm),
            alpha=self._between(config.alpha_start, config.alpha, step),
            object_cutoff=self._between(config.object_cutoff_start, config.object_cutoff, step),
            background_cutoff=self._between(config.background_cutoff_start, config.background_cutoff, step),
            weights={"classification": 1.0, "pixel": config.pixel_weight, "region": region},
        )

    def _between(self, first: float, last: float, step: int) -> float:
        return first + max(0, step - self.warmup) / max(1, self.steps - self.warmup) * (last - first)


def loss_terms(
    output: Output, teacher: Output, image: Tensor, labels: Tensor, mask: Tensor, config: Config, now: Moment
) -> dict[str, Tensor]:
    """The terms of Eq. 10 before their weights, and the share of pixels that have a target ("labelled").

    Args:
        output: of the network on `image`.
        teacher: what the pseudo masks are made of: the same, or the output of the weights' average.
        image: (B, 3, H, W) in [0, 1].
        labels: (B, K-1) in {0, 1}; in the host's memory, so that no GPU is waited for to know which classes to refine.
        mask: (B, H, W) uint8, looked at only where the config says that masks supervise.
    """
    given = labels.to(image.device, non_blocking=True)
    terms = {"classification": classification_loss(output.image_scores, given)}
    if not now.has_mask_loss:
        return terms
    size = refinement_grid(image, config.refine_stride)
    by_masks = config.supervision == "masks"
    if by_masks:
        target = F.interpolate(mask[:, None].float(), size, mode="nearest-exact")[:, 0].long()
    else:
        target = pseudo_target(teacher, image, labels, size, config, now)
    logits = output.resized_logits(size)
    if config.pixel_loss:
        # A mask that is given is trusted: its pixels count alike, and need not be of all classes.
        trust = {"balanced": False} if by_masks else {"labels": given, "balanced": config.balance_classes}
        terms["pixel"] = pixel_loss(logits, target, **trust)
    if config.region_loss:
        terms["region"] = region_loss(logits, target, radius=config.region_radius, margin=config.region_margin)
    terms["labelled"] = (target != UNLABELLED).float().mean()
    return terms


def total_loss(terms: dict[str, Tensor], weights: dict[str, float]) -> Tensor:
    """L = L_cls + w L_pixel + lambda L_region (Eq. 9, 10, where w is 1); a term that is not there counts nothing."""
    return sum(weight * terms[name] for name, weight in weights.items() if name in terms)


@torch.no_grad()
def pseudo_target(
    output: Output, image: Tensor, labels: Tensor, size: tuple[int, int], config: Config, now: Moment
) -> Tensor:
    """The pseudo mask of a batch, (B, h, w) at `size`: probabilities, refined, each pixel claimed (Sec. 3.2.1)."""
    return pseudo_mask(
        refined_probs(output, image, labels, size, config, now.alpha),
        labels.to(image.device, non_blocking=True),
        object_cutoff=now.object_cutoff,
        background_cutoff=now.background_cutoff,
        least_cutoff=config.least_cutoff,
    )


def refined_probs(
    output: Output, image: Tensor, labels: Tensor, size: tuple[int, int], config: Config, alpha: float
) -> Tensor:
    """What SPR makes of a network's output, (B, K, h, w) at `size`; classes that `labels` deny are 0."""
    logits, probs = output.resized_logits(size), output.resized_probs(size)
    present = present_classes(labels)
    scores = logits if config.refine_source == "score" else probs
    if config.background_affinity:
        scores = with_background_scores(scores, present)
    return refine(reduce_image(image, size), scores, probs, alpha=alpha, steps=config.refine_steps, present=present)
