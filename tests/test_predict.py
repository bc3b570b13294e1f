"""Prediction: resizing, averaging and weighing of class probabilities."""

import numpy as np
import pytest
import torch

from wsss.config import tiny
from wsss.network import build
from wsss.predict import MULTI_SCALE, predict_probs, to_image, weigh


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build(tiny(), 4, pretrained=False).eval()


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (48, 80, 3), dtype=np.uint8)


@pytest.mark.parametrize(("short_side", "scale", "size"), [(0, 1, (48, 80)), (24, 1, (24, 40)), (24, 2, (48, 80))])
def test_an_image_has_the_size_that_is_asked_for(rgb, short_side, scale, size):
    image = to_image(rgb, short_side, scale)
    assert image.shape == (1, 3, *size)
    assert image.min() >= 0 and image.max() <= 1


@pytest.mark.parametrize("scales", [(1.0,), MULTI_SCALE])
@pytest.mark.parametrize("flip", [False, True])
def test_probabilities_have_the_photographs_size_and_sum_to_one(network, rgb, scales, flip):
    probs = predict_probs(network, rgb, scales=scales, flip=flip)
    assert probs.shape == (4, 48, 80)
    np.testing.assert_allclose(probs.sum(0), 1, atol=1e-5)


def test_with_flips_a_mirrored_photograph_gives_the_mirrored_masks(network, rgb):
    mirrored = predict_probs(network, np.ascontiguousarray(rgb[:, ::-1]), flip=True)
    np.testing.assert_allclose(mirrored[..., ::-1], predict_probs(network, rgb, flip=True), atol=1e-5)


def test_weighing_by_hand():
    probs = torch.tensor([0.5, 0.3, 0.2]).view(3, 1, 1)
    weighed = weigh(probs, torch.tensor([0.9, 0.1]), class_cutoff=0.3, background_power=2)
    torch.testing.assert_close(weighed.flatten(), torch.tensor([0.25, 0.3, 0.0]))


def test_by_default_nothing_is_weighed():
    probs = torch.rand(3, 4, 4)
    assert torch.equal(weigh(probs, torch.rand(2)), probs)
