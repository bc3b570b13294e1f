"""The look at the shape cue: what is shown is what the network does."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from analysis import shape_cues as view
from analysis.charts import information_histogram
from analysis.predictor import Predictor
from analysis.shape_cues import feature_energy, shallow_features
from analysis.tabs import shape_cues as shape_cues_tab
from wsss import UserError
from wsss.network import build
from wsss.presets import animals
from wsss.probabilities import to_image
from wsss.shape_cue import drop_texture

shape_cues = partial(view.shape_cues, short_side=256)


@pytest.fixture(scope="module")
def predictor(shipped_or_fresh) -> Predictor:
    return Predictor.from_checkpoint(shipped_or_fresh)


def test_a_plain_photograph_has_no_information_and_drops_everywhere_alike():
    cues = shape_cues(np.full((300, 400, 3), 90, np.uint8), drop_rate=0.5)
    assert cues.information.shape == (256, 341) and cues.information.max() < 1e-5
    np.testing.assert_allclose(cues.drop, 1 - math.exp(-0.5), rtol=1e-4)


def test_with_the_checkpoints_settings_it_is_what_the_network_sees(predictor, cat):
    config = predictor.config
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
    cues = shape_cues(cat, **settings)
    module, image = predictor.network.shape_cue, to_image(cat, config.test_short_side)
    information = module.information(image)
    np.testing.assert_allclose(cues.information, information[0, 0], atol=1e-5)
    features = shallow_features(predictor, predictor.encode(cat))
    _, after = feature_energy(
        features, cues.information, temperature=config.drop_temperature, drop_rate=config.drop_rate
    )
    drop = module.drop(information, features.shape[-2:])
    torch.manual_seed(0)
    draws = [drop_texture(features, drop, stochastic=True).square().mean().item() for _ in range(8)]
    assert after.mean() == pytest.approx(np.mean(draws), rel=0.01)


def test_a_seed_gives_one_draw_again_and_another_seed_another(cat):
    first, again, other = (shape_cues(cat, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(first.dropped, again.dropped) and not np.array_equal(first.dropped, other.dropped)


def test_as_much_is_dropped_as_the_probability_says(cat):
    cues = shape_cues(cat)
    assert cues.dropped.mean() == pytest.approx(cues.drop.mean(), abs=0.01)
    likely = cues.drop > np.median(cues.drop)
    assert cues.dropped[likely].mean() == pytest.approx(cues.drop[likely].mean(), abs=0.01)


def test_a_drop_only_takes_energy_and_none_where_nothing_is_dropped(predictor, cat):
    features, information = shallow_features(predictor, predictor.encode(cat)), shape_cues(cat).information
    before, after = feature_energy(features, information, temperature=0.5, drop_rate=0.5)
    assert before.shape == features.shape[-2:] and (after <= before).all() and after.sum() < before.sum()
    before, after = feature_energy(features, information, temperature=0.5, drop_rate=0)
    np.testing.assert_array_equal(before, after)


def test_a_network_without_a_shape_cue_shows_its_features_all_the_same(cat):
    config = replace(animals(), shape_cue="none", test_short_side=64)
    plain = Predictor(build(config, 3, pretrained=False), config, ("a", "b"), {})
    features = shallow_features(plain, plain.encode(cat))
    before, after = feature_energy(features, shape_cues(cat).information, temperature=0.5, drop_rate=0.5)
    assert 0 < after.sum() < before.sum()


def test_a_position_of_the_features_survives_by_its_most_informative_pixel():
    """Eq. 4 over positions: one of four has 3 nats, so that its weight is e^-6 of the others'."""
    information = np.zeros((4, 4), np.float32)
    information[0, 1] = 3.0
    _, after = feature_energy(torch.ones(1, 3, 2, 2), information, temperature=0.5, drop_rate=0.5)
    weights = np.array([[math.exp(-6), 1], [1, 1]])
    expected = np.exp(-0.5 * weights / weights.mean())
    np.testing.assert_allclose(after, expected, rtol=1e-4)


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


def test_relative_distances_that_would_fill_the_memory_are_refused(cat):
    assert shape_cues(cat, relative=True, samples=9, short_side=256).information.any()
    with pytest.raises(UserError, match="relative distances to 544 neighbours take too much memory"):
        shape_cues(cat, relative=True, samples=0, radius=16, short_side=256)


def test_the_histogram_counts_every_pixel(cat):
    figure = information_histogram(shape_cues(cat))
    assert [sum(bars.y) for bars in figure.data] == pytest.approx([100, 100], abs=0.1)


def test_bars_of_a_narrow_histogram_do_not_hide_each_other(cat):
    figure = information_histogram(shape_cues(cat, bandwidth=3, temperature=3, drop_rate=0.1))
    assert len(figure.data) == 2
    for bars in figure.data:
        assert np.diff(bars.x) == pytest.approx(bars.width, rel=1e-3)


@pytest.mark.parametrize(("shape_cue", "rate"), [("on", 0.5), ("identity", 0), ("none", 0)])
def test_the_checkpoints_settings_drop_what_its_network_drops(shape_cue, rate):
    assert shape_cues_tab._values(replace(animals(), shape_cue=shape_cue))[5] == rate
