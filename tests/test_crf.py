"""Dense CRF: what must hold of it, and what is said where it cannot run."""

import json
import sys

import numpy as np
import pytest
import torch
from drawn import write_lively, write_pictures
from PIL import Image

from wsss import UserError, checkpoint, evaluate, predict
from wsss.crf import available, crf
from wsss.data.shapes import Shapes
from wsss.probabilities import PredictionSettings, predict_probs

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
def test_a_noisy_picture_of_two_colors_becomes_its_two_regions():
    rgb, truth, probs = two_colors()
    assert (probs.argmax(0) != truth).mean() > 0.2
    np.testing.assert_array_equal(crf(rgb, probs).argmax(0), truth)


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
    mirrored = crf(rgb[:, ::-1], probs[:, :, ::-1])  # also: inputs need not be contiguous
    # The permutohedral lattice is an approximation that depends a little on where the pixels lie.
    np.testing.assert_allclose(mirrored[:, :, ::-1], crf(rgb, probs), atol=1e-2)


@needs_package
def test_zeros_and_ones_stay_finite():
    rgb, probs = scores()
    certain = (probs == probs.max(0)).astype(np.float32)
    certain[:, :3] = 0  # no class has a claim
    assert np.isfinite(crf(rgb, certain)).all()
    np.testing.assert_allclose(crf(rgb, certain, steps=0)[:, :3], 0.25, atol=1e-6)


@needs_package
def test_a_large_photograph_is_smoothed_at_a_bounded_side(monkeypatch):
    rgb, probs = scores()
    large = rgb.repeat(3, 0).repeat(3, 1), probs.repeat(3, 1).repeat(3, 2)
    smooth = torch.from_numpy(crf(rgb, probs))[None]
    monkeypatch.setattr("wsss.crf.MOST_SIDE", min(rgb.shape[:2]))
    expected = torch.nn.functional.interpolate(smooth, large[0].shape[:2], mode="bilinear")[0]
    np.testing.assert_allclose(crf(*large), expected, atol=1e-4)
    np.testing.assert_array_equal(crf(rgb, probs), smooth[0])


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


@pytest.fixture(scope="module")
def two_pictures(tmp_path_factory):
    """A data folder of two drawn pictures, and a checkpoint of a lively network that refines its masks at test."""
    root, pictures = tmp_path_factory.mktemp("drawn"), Shapes(2, 1, (64, 72))
    write_pictures(root, pictures, ["val", "val"])
    write_lively(root / "model", pictures, test_refine_steps=5)
    return root


@pytest.mark.parametrize(
    "flags",
    [
        [],
        ["--no-spr"],
        ["--multi-scale"],
        pytest.param(["--crf"], marks=needs_package),
        pytest.param(["--crf", "--multi-scale"], marks=needs_package),
    ],
    ids=" ".join,
)
def test_both_commands_write_the_masks_that_their_flags_ask_for(flags, two_pictures, tmp_path):
    network, config, _, _ = checkpoint.load(two_pictures / "model")
    pictures = sorted((two_pictures / "images").iterdir())
    rgbs = [np.asarray(Image.open(path)) for path in pictures]

    def differing(masks, refined, with_crf, multi_scale):
        """The share of pixels that are not as these flags ask for."""
        settings = PredictionSettings.of(config, refined=refined, multi_scale=multi_scale)
        shares = []
        for rgb, mask in zip(rgbs, masks, strict=True):
            probs = predict_probs(network, rgb, settings)
            shares.append(np.mean(mask != (crf(rgb, probs) if with_crf else probs).argmax(0)))
        return np.mean(shares)

    common = ["--checkpoint", str(two_pictures / "model"), *flags]
    predicted, evaluated, report = (tmp_path / name for name in ("predicted", "evaluated", "report.json"))
    assert predict.main([*map(str, pictures), *common, "--out", str(predicted)]) == 0
    given = ["--data", str(two_pictures), "--masks", str(evaluated), "--json", str(report)]
    assert evaluate.main([*common, *given]) == 0
    with_crf, multi_scale = "--crf" in flags, "--multi-scale" in flags
    refined = not with_crf and "--no-spr" not in flags
    told = json.loads(report.read_text())
    assert (told["photographs"], told["crf"], told["multi_scale"]) == (2, with_crf, multi_scale)
    assert told["refine_steps"] == (5 if refined else 0)
    for folder in (predicted, evaluated):
        masks = [np.asarray(Image.open(folder / path.name)) for path in pictures]
        # An evaluation's last digits are others: it is folded.
        assert differing(masks, refined, with_crf, multi_scale) < 0.005
        assert differing(masks, refined, with_crf, not multi_scale) > 0.05
        assert differing(masks, not refined, with_crf, multi_scale) > 0.05
        assert not available() or differing(masks, refined, not with_crf, multi_scale) > 0.05
