"""The affinity probe shows the weights with which the refinement works."""

from dataclasses import replace

import numpy as np
import pytest

from analysis.affinity import DIRECTIONS, KINDS, Probe, draw, probe
from analysis.charts import affinity_bars
from analysis.predictor import Predictor
from analysis.pseudo_settings import PseudoSettings
from wsss import UserError
from wsss.refinement import DILATIONS, affinity

PIXEL = 150, 200
PRESENT = ("cat", "dog")
SETTINGS = PseudoSettings(0.8, 10, 0.6, 0.7, 0.2, DILATIONS, True)


@pytest.fixture(scope="module")
def predictor(shipped_or_fresh) -> Predictor:
    return Predictor.from_checkpoint(shipped_or_fresh)


@pytest.fixture(scope="module")
def encoding(predictor, cat):
    return predictor.encode(cat)


def test_the_weights_are_those_of_the_refinement(predictor, encoding):
    seen = probe(predictor, encoding, PIXEL, "dog", PRESENT, SETTINGS)
    grid = encoding.maps.shape[-2:]
    row, column = (place * cells // side for place, cells, side in zip(PIXEL, grid, (300, 451), strict=True))
    color, (_, label) = predictor.kernels(encoding, ["dog"], SETTINGS)
    for kind, alpha in zip(KINDS, (1.0, 0.0, 0.8), strict=True):
        expected = affinity(color, label[None], alpha)[0, :, row, column]
        np.testing.assert_allclose(seen.weights[kind], expected, rtol=1e-4, atol=1e-7)
        assert seen.weights[kind].sum() == pytest.approx(1, abs=1e-5)


def test_a_step_of_the_refinement_is_the_weighted_mean_of_these_neighbors(predictor, encoding):
    """The places are right too, not only the weights."""
    seen = probe(predictor, encoding, PIXEL, "cat", PRESENT, SETTINGS)
    before, after = predictor.iterates(encoding, ["cat"], SETTINGS)[:2, 1].numpy()
    grid, size = before.shape, encoding.rgb.shape[:2]
    rows, columns = (
        places * cells // side for places, cells, side in zip((seen.rows, seen.columns), grid, size, strict=True)
    )
    at = tuple(place * cells // side for place, cells, side in zip(seen.at, grid, size, strict=True))
    assert after[at] == pytest.approx((seen.weights["joint"] * before[rows, columns]).sum(), abs=1e-5)


def test_neighbors_are_named_by_ring_and_direction(predictor, encoding):
    seen = probe(predictor, encoding, PIXEL, "cat", PRESENT, SETTINGS)
    assert len(seen.weights["joint"]) == 48 and sorted(set(seen.dilations)) == [1, 2, 4, 8, 12, 24]
    assert set(seen.directions) == set(DIRECTIONS.values())
    right = [n for n, arrow in enumerate(seen.directions) if arrow == "→"]
    assert (seen.rows[right] == seen.at[0]).all() and (seen.columns[right] > seen.at[1]).all()
    assert (
        len(probe(predictor, encoding, PIXEL, "cat", PRESENT, replace(SETTINGS, dilations=(1, 4))).weights["joint"])
        == 16
    )


@pytest.mark.parametrize("pixel", [(0, 0), (299, 450), (0, 450)])
def test_at_the_border_all_neighbors_lie_in_the_photograph(predictor, encoding, pixel):
    seen = probe(predictor, encoding, pixel, "cat", PRESENT, SETTINGS)
    assert seen.rows.min() >= 0 and seen.rows.max() < 300 and seen.columns.min() >= 0 and seen.columns.max() < 451
    for within in (None, 1, 24):
        assert min(draw(encoding.rgb, seen, within=within).shape[:2]) >= 600


def test_a_constant_background_score_favors_no_neighbor_and_that_of_the_objects_does(predictor, encoding):
    own = {}
    for flag in (False, True):
        settings = replace(SETTINGS, background_affinity=flag)
        own[flag] = probe(predictor, encoding, PIXEL, "background", ["cat"], settings).weights["class"]
    np.testing.assert_allclose(own[False], 1 / 48, rtol=1e-4)
    of_cat = probe(predictor, encoding, PIXEL, "cat", ["cat"], SETTINGS).weights["class"]
    np.testing.assert_allclose(own[True], of_cat, rtol=1e-4)


def test_the_drawing_is_a_picture_of_its_own(predictor, encoding):
    seen, before = probe(predictor, encoding, PIXEL, "cat", PRESENT, SETTINGS), encoding.rgb.copy()
    pictures = [draw(encoding.rgb, seen, kind) for kind in KINDS]
    assert np.array_equal(encoding.rgb, before)
    assert not np.array_equal(pictures[0], pictures[1])
    assert all(picture.dtype == np.uint8 and picture.shape == (640, 962, 3) for picture in pictures)


def test_the_area_and_the_brightness_of_a_circle_are_the_weight():
    weights = np.float32([0.8, 0.2])
    places = np.array([20, 20]), np.array([20, 80])
    seen = Probe((50, 50), *places, np.array([1, 1]), ("↖", "↗"), {"joint": weights})
    drawn = draw(np.zeros((100, 100, 3), np.uint8), seen)
    heavy, light = drawn[:250, :320], drawn[:250, 320:]
    areas = [np.count_nonzero(circle.any(2)) for circle in (heavy, light)]
    assert areas[0] / areas[1] == pytest.approx(4, rel=0.3)  # the white outlines are of one width
    at = int(20.5 * 6.4)
    assert heavy[at, at].sum() > light[at, int(80.5 * 6.4) - 320].sum()


def test_bars_show_each_neighbor_three_times(predictor, encoding):
    figure = affinity_bars(probe(predictor, encoding, PIXEL, "cat", PRESENT, SETTINGS), 0.8)
    assert [len(bars.y) for bars in figure.data] == [48, 48, 48]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"pixel": (300, 0)}, "does not lie in the photograph of 300 rows and 451 columns"),
        ({"pixel": (0, -1)}, "does not lie in the photograph"),
        ({"name": "unicorn"}, "no class 'unicorn'"),
    ],
)
def test_a_mistake_is_told_in_words(predictor, encoding, wrong, words):
    with pytest.raises(UserError, match=words):
        probe(predictor, encoding, **{"pixel": PIXEL, "name": "cat", "present": PRESENT, "settings": SETTINGS} | wrong)
