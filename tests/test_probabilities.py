"""Class probabilities of a photograph: resizing, averaging, and which of them count."""

import numpy as np
import pytest
import torch

from wsss.network import build
from wsss.presets import tiny
from wsss.probabilities import PredictionSettings, predict_probs, to_image, views
from wsss.refinement import reduce_image, refine


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build(tiny(), 4, pretrained=False).eval()


@pytest.fixture(scope="module")
def rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (48, 80, 3), dtype=np.uint8)


def predicted(network, rgb, **settings) -> np.ndarray:
    return predict_probs(network, rgb, PredictionSettings(**settings))


@pytest.mark.parametrize(("short_side", "scale", "size"), [(0, 1, (48, 80)), (24, 1, (24, 40)), (24, 2, (48, 80))])
def test_an_image_has_the_size_that_is_asked_for(rgb, short_side, scale, size):
    image = to_image(rgb, short_side, scale)
    assert image.shape == (1, 3, *size)
    assert image.min() >= 0 and image.max() <= 1


@pytest.mark.parametrize(
    ("size", "seen"), [((24, 240), (24, 240)), ((8, 160), (12, 240)), ((1, 4000), (1, 4000)), ((24, 60), (48, 120))]
)
def test_a_narrow_photograph_is_not_enlarged_to_gigabytes(size, seen):
    assert to_image(np.zeros((*size, 3), np.uint8), 48).shape[2:] == seen


def test_a_small_photograph_is_enlarged_to_nine_quarters_of_it(rgb):
    assert to_image(rgb, 100).shape[2:] == (100, 167)
    assert to_image(rgb, 200).shape[2:] == (108, 180)
    assert to_image(rgb, 200, 0.5).shape[2:] == (54, 90)


def test_a_photograph_of_one_row_has_a_mask(network):
    probs = predicted(network, np.zeros((1, 4000, 3), np.uint8), short_side=96, refine_steps=2)
    assert probs.shape == (4, 1, 4000) and np.isfinite(probs).all()


@pytest.mark.parametrize("multi_scale", [False, True])
def test_probabilities_have_the_photographs_size_and_sum_to_one(network, rgb, multi_scale):
    probs = predicted(network, rgb, multi_scale=multi_scale)
    assert probs.shape == (4, 48, 80)
    np.testing.assert_allclose(probs.sum(0), 1, atol=1e-5)


def test_with_flips_a_mirrored_photograph_gives_the_mirrored_masks(network, rgb):
    mirrored = predicted(network, np.ascontiguousarray(rgb[:, ::-1]), multi_scale=True)
    np.testing.assert_allclose(mirrored[..., ::-1], predicted(network, rgb, multi_scale=True), atol=1e-5)


def test_the_backgrounds_probability_is_raised_to_its_power(network, rgb):
    plain, raised = predicted(network, rgb), predicted(network, rgb, background_power=2)
    np.testing.assert_allclose(raised[0], plain[0] ** 2, rtol=1e-6)
    np.testing.assert_array_equal(raised[1:], plain[1:])


def test_the_refinement_of_a_mask_is_that_of_training(network, rgb):
    image = to_image(rgb)
    with torch.no_grad():
        output = network(image)
    logits, probs = output.resized_logits((12, 20)), output.resized_probs((12, 20))
    expected = refine(reduce_image(image, (12, 20)), logits, probs, alpha=0.5, steps=3)
    enlarged = torch.nn.functional.interpolate(expected, (48, 80), mode="bilinear", align_corners=False)
    found = predicted(network, rgb, refine_steps=3, alpha=0.5, refine_stride=4)
    torch.testing.assert_close(torch.from_numpy(found), enlarged[0])


def test_an_object_counts_in_every_view_when_one_of_them_is_sure_of_it(network, rgb):
    looks = views(rgb, 0, multi_scale=True, device=torch.device("cpu"))
    with torch.no_grad():
        scores = torch.cat([network(view).image_scores.sigmoid() for view, _ in looks])
    least, most = scores.min(0).values, scores.max(0).values
    k = int((most - least).argmax())
    settings = {"multi_scale": True, "refine_steps": 2}
    gated = predicted(network, rgb, class_cutoff=float(least[k] + most[k]) / 2, **settings)
    np.testing.assert_allclose(gated[k + 1], predicted(network, rgb, **settings)[k + 1], atol=1e-6)


def test_an_object_below_the_cutoff_is_not_refined(network, rgb):
    found = predicted(network, rgb, refine_steps=3, class_cutoff=1.0)
    assert not found[1:].any() and found[0].any()


def test_a_photograph_that_is_shrunk_for_the_network_is_averaged():
    rgb = np.zeros((96, 96, 3), np.uint8)
    rgb[::8, ::8] = 255
    assert to_image(rgb, 12).mean() == pytest.approx(1 / 64, rel=0.1)
