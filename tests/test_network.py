"""The network: what must hold of its outputs, whatever its weights."""

import math
from dataclasses import replace

import pytest
import torch

from wsss.deeplab import ASPP
from wsss.network import ShapeAwareNetwork, add_background, build, focal_penalty, pooled_scores
from wsss.presets import tiny
from wsss.shape_cue import drop_texture


@pytest.fixture(scope="module")
def network() -> ShapeAwareNetwork:
    torch.manual_seed(0)
    return build(tiny(), num_classes=5)


def image(batch: int = 2, size: tuple[int, int] = (64, 96)) -> torch.Tensor:
    return torch.rand(batch, 3, *size, generator=torch.Generator().manual_seed(1))


def pooled_by_definition(logits: torch.Tensor, probs: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Eq. 1 with loops."""
    batch, classes, height, width = logits.shape
    out = torch.zeros(batch, classes - 1)
    for b in range(batch):
        for c in range(1, classes):
            weighted, mass = 0.0, epsilon
            for y in range(height):
                for x in range(width):
                    weighted += float(probs[b, c, y, x] * logits[b, c, y, x])
                    mass += float(probs[b, c, y, x])
            out[b, c - 1] = weighted / mass
    return out


def test_pooling_matches_its_definition():
    logits = 3 * torch.randn(2, 4, 3, 5)
    probs = logits.softmax(1)
    for epsilon in (1e-3, 1.0):
        torch.testing.assert_close(
            pooled_scores(logits, probs, epsilon), pooled_by_definition(logits, probs, epsilon), rtol=1e-4, atol=1e-5
        )


def test_pooling_by_hand():
    # Two pixels, scores 2 and 0 with probabilities 3/4 and 1/4: (2 * 3/4 + 0 * 1/4) / (1 + 3/4 + 1/4) = 3/4.
    logits = torch.tensor([0.0, 0.0, 2.0, 0.0]).view(1, 2, 1, 2)
    probs = torch.tensor([0.25, 0.75, 0.75, 0.25]).view(1, 2, 1, 2)
    assert pooled_scores(logits, probs).item() == pytest.approx(0.75)


def test_a_class_without_mass_scores_zero():
    logits = torch.tensor([50.0, -50.0]).view(1, 2, 1, 1).expand(1, 2, 4, 4)
    assert pooled_scores(logits, logits.softmax(1)).abs().max() < 1e-6


def test_the_focal_penalty_by_hand():
    # A class with a mean probability of 1/2: (1 - 1/2)^3 * log(0.01 + 1/2).
    probs = torch.full((1, 2, 3, 3), 0.5)
    assert focal_penalty(probs, 3, 0.01).item() == pytest.approx(0.125 * math.log(0.51))


def test_the_focal_penalty_spares_a_class_that_fills_the_image():
    probs = torch.zeros(1, 2, 3, 3)
    probs[:, 1] = 1
    assert focal_penalty(probs, 3, 0.01).item() == 0


def test_the_background_is_constant_and_first():
    logits = add_background(torch.randn(2, 3, 4, 4), 1.0)
    assert logits.shape == (2, 4, 4, 4)
    assert (logits[:, 0] == 1).all()


@pytest.mark.parametrize("training", [True, False])
def test_outputs_have_the_same_fields_in_training_and_evaluation(network, training):
    output = network.train(training)(image())
    assert output.logits.shape == output.probs.shape == (2, 5, 8, 12)
    assert output.image_scores.shape == (2, 4)
    torch.testing.assert_close(output.probs.sum(1), torch.ones(2, 8, 12))
    assert (output.logits[:, 0] == 1).all()


def test_two_images_at_once_are_as_two_alone(network):
    network.eval()
    with torch.no_grad():
        together = network(image())
        for i in range(2):
            alone = network(image()[i : i + 1])
            for a, b in zip(together, alone, strict=True):
                torch.testing.assert_close(a[i : i + 1], b, rtol=1e-3, atol=1e-4)


def test_evaluation_is_repeatable_and_training_is_not(network):
    with torch.no_grad():
        assert torch.equal(network.eval()(image()).logits, network(image()).logits)
        assert not torch.equal(network.train()(image()).logits, network(image()).logits)


def test_a_hook_on_every_part_fires(network):
    seen = []
    parts = [network.encoder, network.shape_cue, network.pyramid, network.decoder, *network.encoder.taps]
    handles = [part.register_forward_hook(lambda module, *_: seen.append(module)) for part in parts]
    network.eval()(image())
    for handle in handles:
        handle.remove()
    assert set(seen) == set(parts)


def test_every_learning_parameter_gets_a_gradient(network):
    network.train().zero_grad()
    output = network(image())
    (output.logits.square().mean() + output.image_scores.sum()).backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_without_a_shape_cue_the_decoder_keeps_its_resolution():
    network = build(replace(tiny(), shape_cue="none"), num_classes=3, pretrained=False).eval()
    assert network.shape_cue is None
    assert network(image()).logits.shape == (2, 3, 8, 12)


def test_an_identity_cue_drops_nothing():
    network = build(replace(tiny(), shape_cue="identity"), num_classes=3, pretrained=False).train()
    information = network.shape_cue.information(image())
    assert network.shape_cue.drop(information, (8, 12)).abs().max() == 0


def test_at_test_what_drops_nothing_needs_no_information(monkeypatch):
    cue = build(replace(tiny(), shape_cue="identity"), num_classes=3, pretrained=False).eval().shape_cue
    pictures, features = image(), torch.rand(2, cue.conv[0].in_channels, 8, 12)
    expected = cue.conv(drop_texture(features, cue.drop(cue.information(pictures), (8, 12)), stochastic=False))
    monkeypatch.setattr(cue, "information", None)
    assert torch.equal(cue(pictures, features), expected)


@pytest.mark.parametrize("size", [(64, 64), (33, 97), (250, 188)])
def test_any_size_of_image_fits(network, size):
    with torch.no_grad():
        assert network.eval()(image(1, size)).logits.isfinite().all()


def test_without_its_gradient_the_focal_penalty_is_a_mere_number():
    pictures, gradients = image(), {}
    network = build(replace(tiny(), focal_power=3.0), num_classes=5, pretrained=False).eval()
    scores = {}
    for pushes in (True, False):
        network.zero_grad()
        scores[pushes] = network(pictures, focal_gradient=pushes).image_scores
        scores[pushes].sum().backward()
        gradients[pushes] = network.decoder.layers[-1].weight.grad.clone()
    assert torch.equal(scores[True], scores[False])
    assert not torch.allclose(gradients[True], gradients[False])


@pytest.mark.parametrize("image_pooling", [True, False])
def test_only_image_pooling_lets_a_pixel_see_beyond_the_reach_of_the_atrous_branches(image_pooling):
    torch.manual_seed(0)
    pyramid = ASPP(4, 8, rates=(1, 2, 3), image_pooling=image_pooling).eval()
    features = torch.rand(1, 4, 12, 12)
    changed = features.clone()
    changed[:, :, -1, -1] += 1
    with torch.inference_mode():
        differs = (pyramid(changed) != pyramid(features)).any(1)[0]
    assert differs[-1, -1], "the changed position itself"
    assert differs[0, 0] == image_pooling
