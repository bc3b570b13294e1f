"""The look at the shape cue: what is shown is what the network does."""

import math

import numpy as np
import pytest
import torch

from analysis.charts import information_histogram
from analysis.predictor import Predictor
from analysis.shape_cues import feature_energy, shallow_features, shape_cues
from wsss import UserError


@pytest.fixture(scope="module")
def predictor(shipped_or_fresh) -> Predictor:
    return Predictor.from_checkpoint(shipped_or_fresh)


def test_a_plain_photograph_has_no_information_and_drops_everywhere_alike():
    cues = shape_cues(np.full((300, 400, 3), 90, np.uint8), drop_rate=0.5)
    assert cues.information.shape == (256, 341) and cues.information.max() < 1e-5
    np.testing.assert_allclose(cues.drop, 1 - math.exp(-0.5), rtol=1e-4)


def test_with_the_checkpoints_settings_it_is_what_the_network_sees(predictor, cat):
    encoding, config = predictor.encode(cat), predictor.config
    settings = {
        "radius": config.info_radius,
        "bandwidth": config.info_bandwidth,
        "temperature": config.drop_temperature,
        "samples": config.info_samples,
        "patch": config.info_patch,
        "drop_rate": config.drop_rate,
        "relative": config.info_relative,
        "short_side": config.test_short_side,
    }
    stride = predictor.network.encoder.strides[config.shape_stage]
    cues = shape_cues(cat, **settings, stride=stride)
    np.testing.assert_allclose(cues.information, encoding.information, atol=1e-5)
    size = shallow_features(predictor, encoding).shape[-2:]
    expected = predictor.network.shape_cue.drop(torch.from_numpy(encoding.information)[None, None], size)
    np.testing.assert_allclose(cues.drop, expected[0, 0], atol=1e-5)


def test_a_seed_gives_one_draw_again_and_another_seed_another(cat):
    first, again, other = (shape_cues(cat, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first.dropped, again.dropped) and not np.array_equal(first.dropped, other.dropped)


def test_as_much_is_dropped_as_the_probability_says(cat):
    cues = shape_cues(cat)
    assert cues.dropped.mean() == pytest.approx(cues.drop.mean(), abs=0.01)
    likely = cues.drop > np.median(cues.drop)
    assert cues.dropped[likely].mean() == pytest.approx(cues.drop[likely].mean(), abs=0.01)


def test_a_drop_only_takes_energy_and_none_where_nothing_is_dropped(predictor, cat):
    features = shallow_features(predictor, predictor.encode(cat))
    before, after = feature_energy(features, shape_cues(cat).drop)
    assert before.shape == features.shape[-2:] and (after <= before).all() and after.sum() < before.sum()
    before, after = feature_energy(features, shape_cues(cat, drop_rate=0).drop)
    np.testing.assert_array_equal(before, after)


def test_a_position_of_the_features_survives_by_its_most_informative_pixel():
    drop = np.full((4, 4), 0.9, np.float32)
    drop[0, 1] = 0.5
    _, after = feature_energy(torch.ones(1, 3, 2, 2), drop)
    np.testing.assert_allclose(after, [[0.25, 0.01], [0.01, 0.01]], rtol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"radius": 0},
        {"radius": 65},
        {"bandwidth": 0},
        {"temperature": float("nan")},
        {"samples": -1},
        {"patch": 99},
        {"drop_rate": float("inf")},
        {"seed": -1},
        {"seed": "7"},
        {"radius": True},
    ],
)
def test_a_number_out_of_range_is_refused_in_words(cat, wrong):
    with pytest.raises(UserError, match="must be a number from"):
        shape_cues(cat, **wrong)


def test_an_even_patch_is_refused_in_words(cat):
    with pytest.raises(UserError, match="the patch must have an odd side, got 4"):
        shape_cues(cat, patch=4)


def test_the_histogram_counts_every_pixel(cat):
    figure = information_histogram(shape_cues(cat))
    assert [sum(bars.y) for bars in figure.data] == pytest.approx([100, 100], abs=0.1)
