"""The objective: what its terms are computed of."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from test_train import SHORT

from wsss.losses import pixel_loss, region_loss
from wsss.network import Output
from wsss.objective import Schedule, loss_terms
from wsss.pseudo import pseudo_mask
from wsss.refinement import reduce_image, refine

COLORS = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([[1.0, 1, 0, 0], [0, 0, 1, 1]])


@pytest.fixture
def lively() -> Output:
    """Of two images of 64x64 pixels with 4 classes of objects: scores that vary, so that each setting matters."""
    generator = torch.Generator().manual_seed(0)
    objects = F.interpolate(4 * torch.randn(2, 4, 4, 4, generator=generator), (16, 16), mode="bicubic")
    logits = torch.cat([torch.ones(2, 1, 16, 16), objects], 1)
    return Output(logits, logits.softmax(1), torch.zeros(2, 4))


@pytest.mark.parametrize(("refine_source", "balance"), [("score", True), ("prob", False)])
def test_pseudo_masks_and_losses_are_those_of_the_settings_at_that_moment(lively, refine_source, balance):
    settings = {"alpha_start": 0.2, "alpha": 0.9, "object_cutoff_start": 0.3, "background_cutoff_start": 0.2}
    settings |= {"object_cutoff": 0.8, "background_cutoff": 0.9, "least_cutoff": 0.35, "refine_source": refine_source}
    settings |= {"region_radius": 2, "region_margin": 1.0, "balance_classes": balance, "warmup_epochs": 0}
    config, grid = replace(SHORT, background_affinity=False, **settings), (16, 16)
    now = Schedule(config, 10).at(5)
    terms = loss_terms(lively, lively, COLORS, LABELS, torch.zeros(2, 64, 64), config, now)
    logits, probs = lively.resized_logits(grid), lively.resized_probs(grid)
    scores, present = (logits if refine_source == "score" else probs), F.pad(LABELS, (1, 0), value=1) > 0
    colors = F.interpolate(COLORS, grid, mode="bilinear", antialias=True)
    refined = refine(colors, scores, probs, alpha=now.alpha, steps=config.refine_steps, present=present)
    cutoffs = {"object_cutoff": now.object_cutoff, "background_cutoff": now.background_cutoff}
    target = pseudo_mask(refined, LABELS, **cutoffs, least_cutoff=0.35)
    assert 0.2 < terms["labelled"] < 0.9
    assert terms["labelled"] == (target != 255).float().mean()
    assert terms["pixel"] == pixel_loss(logits, target, LABELS, balanced=balance)
    assert terms["region"] == region_loss(logits, target, radius=2, margin=1.0)


@pytest.mark.parametrize("balance", [True, False])
def test_an_image_whose_pseudo_mask_lacks_one_of_its_classes_has_no_pixel_loss(lively, balance):
    config = replace(SHORT, warmup_epochs=0, balance_classes=balance)
    logits = lively.logits.index_fill(1, torch.tensor([1, 3]), -9.0)  # a class of each image is nowhere
    output = Output(logits, logits.softmax(1), lively.image_scores)
    terms = loss_terms(output, output, COLORS, LABELS, torch.zeros(2, 64, 64), config, Schedule(config, 10).at(5))
    assert terms["labelled"] > 0 and terms["pixel"] == 0


def test_a_given_mask_is_trusted_and_looked_at_in_the_middle_of_each_cell(lively):
    config = replace(SHORT, supervision="masks", region_loss=False, balance_classes=True)
    mask = torch.zeros(2, 64, 64, dtype=torch.uint8)
    mask[:, 2::4, 2::4] = 3  # whatever the labels say; stride 4
    mask[:, :8] = 0
    terms = loss_terms(lively, lively, COLORS, LABELS, mask, config, Schedule(config, 10).at(5))
    target = torch.full((2, 16, 16), 3)
    target[:, :2] = 0
    torch.testing.assert_close(terms["pixel"], F.cross_entropy(lively.logits, target))


def test_the_refinement_sees_the_mean_color_of_each_cell():
    image = torch.zeros(1, 3, 32, 32)
    image[..., ::4, ::4] = 1
    assert reduce_image(image, (8, 8)).mean() == pytest.approx(1 / 16, rel=0.2)
