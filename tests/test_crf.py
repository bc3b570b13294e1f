"""Dense CRF: what must hold of it, and what is said where it cannot run."""

import sys

import numpy as np
import pytest

from wsss import UserError
from wsss.crf import DEEPLAB, SSSS, available, crf

needs_package = pytest.mark.skipif(not available(), reason="pydensecrf2 is not installed")


def two_colors():
    """A reddish and a bluish half, their classes, and probabilities that err in every fourth pixel."""
    rng = np.random.default_rng(0)
    truth = np.zeros((32, 40), int)
    truth[:, 20:] = 1
    rgb = np.array([[200, 60, 50], [40, 70, 190]])[truth] + rng.integers(-5, 6, (32, 40, 3))
    wrong = rng.random(truth.shape) < 0.25
    object_probs = np.where(truth ^ wrong, 0.7, 0.3)
    return rgb.astype(np.uint8), truth, np.stack([1 - object_probs, object_probs]).astype(np.float32)


def scores(k=4, size=(12, 17), seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (*size, 3), np.uint8), rng.random((k, *size), np.float32)


@needs_package
@pytest.mark.parametrize("settings", [SSSS, DEEPLAB])
def test_a_noisy_picture_of_two_colors_becomes_its_two_regions(settings):
    rgb, truth, probs = two_colors()
    assert (probs.argmax(0) != truth).mean() > 0.2
    np.testing.assert_array_equal(crf(rgb, probs, settings=settings).argmax(0), truth)


@needs_package
def test_result_is_a_distribution_in_float32():
    refined = crf(*scores())
    assert refined.shape == (4, 12, 17)
    assert refined.dtype == np.float32
    assert refined.min() >= 0
    np.testing.assert_allclose(refined.sum(0), 1, atol=1e-5)


@needs_package
def test_no_steps_only_normalize():
    rgb, probs = scores()
    np.testing.assert_allclose(crf(rgb, probs, steps=0), probs / probs.sum(0), atol=1e-6)


@needs_package
def test_each_class_keeps_its_place():
    rgb, probs = scores()
    order = [2, 0, 3, 1]
    np.testing.assert_allclose(crf(rgb, probs[order]), crf(rgb, probs)[order], atol=1e-5)


@needs_package
def test_the_scale_of_the_scores_does_not_matter():
    rgb, probs = scores()
    np.testing.assert_allclose(crf(rgb, 7 * probs), crf(rgb, probs), atol=1e-5)


@needs_package
def test_a_mirrored_picture_gives_the_mirrored_result():
    rgb, _truth, probs = two_colors()
    mirrored = crf(rgb[:, ::-1], probs[:, :, ::-1], settings=SSSS)  # also: inputs need not be contiguous
    # The permutohedral lattice is an approximation that depends a little on where the pixels lie.
    np.testing.assert_allclose(mirrored[:, :, ::-1], crf(rgb, probs, settings=SSSS), atol=1e-3)


@needs_package
def test_zeros_and_ones_stay_finite():
    rgb, probs = scores()
    certain = (probs == probs.max(0)).astype(np.float32)
    certain[:, :3] = 0  # no class has a claim
    assert np.isfinite(crf(rgb, certain)).all()
    np.testing.assert_allclose(crf(rgb, certain, steps=0)[:, :3], 0.25, atol=1e-6)


@needs_package
def test_inputs_stay_as_they_were_and_may_be_read_only():
    rgb, probs = scores()
    before = rgb.copy(), probs.copy()
    rgb.flags.writeable = probs.flags.writeable = False
    crf(rgb, probs)
    np.testing.assert_array_equal(rgb, before[0])
    np.testing.assert_array_equal(probs, before[1])


@pytest.mark.parametrize(
    "rgb, probs, sentence",
    [
        (np.zeros((4, 5, 3), np.float32), np.ones((2, 4, 5)), "uint8"),
        (np.zeros((4, 5), np.uint8), np.ones((2, 4, 5)), "rgb must be"),
        (np.zeros((4, 5, 3), np.uint8), np.ones((2, 5, 4)), r"probs must be \(K, 4, 5\)"),
        (np.zeros((4, 5, 3), np.uint8), np.full((2, 4, 5), np.nan), "finite"),
        (np.zeros((4, 5, 3), np.uint8), np.full((2, 4, 5), -0.1), "not negative"),
    ],
)
def test_what_is_not_a_picture_with_probabilities_is_refused(rgb, probs, sentence):
    with pytest.raises(ValueError, match=sentence):
        crf(rgb, probs)


def test_a_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    assert not available()
    with pytest.raises(UserError) as error:
        crf(*scores())
    assert str(error.value) == (
        "the dense CRF needs the package pydensecrf2: pip install pydensecrf2 (a C++ compiler builds it)"
    )
