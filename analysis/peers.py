"""What the benchmark runs beside ours, each written from its description."""

import numpy as np
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import default_collate

from wsss.config import Config
from wsss.data.augment import TrainingViews, View
from wsss.data.item import Photographs, Source, item
from wsss.data.reduced import Reduced
from wsss.losses import LEAST_LOG_PROB
from wsss.metrics import Scores
from wsss.network import ShapeAwareNetwork
from wsss.objective import Moment, loss_terms, total_loss
from wsss.probabilities import to_image
from wsss.refinement import DILATIONS
from wsss.state import Learner


def pamr(image: Tensor, maps: Tensor, steps: int) -> Tensor:
    """PAMR as its authors built it: one-hot 3x3 convolutions, one for each dilation, of every class in every step."""
    one_hot = torch.eye(9, device=image.device).view(9, 1, 3, 3)
    neighbors = torch.cat([one_hot[:4], one_hot[5:]])

    def seen(x: Tensor, filters: Tensor) -> Tensor:
        flat = x.flatten(0, 1).unsqueeze(1)
        rings = [F.conv2d(F.pad(flat, [d] * 4, mode="replicate"), filters, dilation=d) for d in DILATIONS]
        return torch.cat(rings, 1).unflatten(0, x.shape[:2])

    sigma = seen(image, one_hot).std(2, keepdim=True)
    alike = -seen(image, neighbors - one_hot[4:5]).abs() / (1e-8 + 0.1 * sigma)
    weights = alike.mean(1, keepdim=True).softmax(2)
    for _ in range(steps):
        maps = (weights * seen(maps, neighbors)).sum(2)
    return maps


def region_loss_by_unfold(logits: Tensor, pseudo: Tensor, radius: int = 3, margin: float = 3.0) -> Tensor:
    """Eq. 8 with all windows spread out in memory."""
    window, batch = 2 * radius + 1, len(logits)

    def windows(x: Tensor) -> Tensor:
        return F.unfold(x, window, padding=radius).view(batch, x.shape[1], window**2, -1)

    log_probs = F.log_softmax(logits, 1).clamp(min=LEAST_LOG_PROB)
    valid = (pseudo != 255).float()[:, None]
    near, log_near = windows(log_probs.exp()), windows(log_probs)
    divergence = (near * (log_near - log_probs.flatten(2).unsqueeze(2))).sum(1)
    same = windows(pseudo[:, None].float())[:, 0] == pseudo.float().view(batch, 1, -1)
    both = windows(valid)[:, 0] * valid.view(batch, 1, -1)
    both[:, window**2 // 2] = 0
    pair = torch.where(same, divergence, (margin - divergence).clamp(min=0)) * both
    pixel = pair.sum(1) / both.sum(1).clamp(min=1)
    return (pixel.sum(1) / valid.sum((1, 2, 3)).clamp(min=1)).mean()


def with_convolutions_as_published(network: ShapeAwareNetwork, config: Config) -> None:
    """Give the network its encoder as timm makes it, of the same weights: convolutions and norms are torch's, apart."""
    ours = network.encoder.backbone
    theirs = timm.create_model(config.encoder, features_only=True, output_stride=config.output_stride)
    learns = [weight.requires_grad for weight in ours.parameters()]
    theirs.load_state_dict(ours.state_dict(keep_vars=True), assign=True)
    for weight, does in zip(theirs.parameters(), learns, strict=True):
        weight.requires_grad_(does)  # torch gives it what the module had before
    network.encoder.backbone = theirs


def straightforward_step(learner: Learner, photographs: Photographs, config: Config, now: Moment) -> None:
    """One training step on all `photographs` as one writes it at first: decoded here and now, float32, contiguous."""
    views = TrainingViews(
        Reduced(photographs, config.short_side, cache=False),
        crop=config.crop,
        least_scale=config.least_scale,
        color_jitter=config.color_jitter,
        seed=0,
        epoch=0,
    )
    view = View(*default_collate([views[i] for i in range(len(views))]))
    image = view.image.float() / 255
    output = learner.network.train()(image)
    terms = loss_terms(output, output, image, view.labels, view.mask, config, now)
    learner.optimiser.zero_grad()
    total_loss(terms, now.weights).backward()
    learner.optimiser.step()


@torch.no_grad()
def straightforward_evaluation(network: nn.Module, source: Source, short_side: int) -> Scores:
    """The scores of a network as one writes it at first: one photograph after the other in this process."""
    total = Scores.none(len(source.classes) + 1)
    for index in range(len(source)):
        _, rgb, _, truth = item(source, index)
        output = network(to_image(rgb, short_side))
        logits = F.interpolate(output.logits, truth.shape, mode="bilinear", align_corners=False)
        total += Scores.of(truth, logits.softmax(1)[0].argmax(0).numpy().astype(np.uint8), len(source.classes) + 1)
    return total
