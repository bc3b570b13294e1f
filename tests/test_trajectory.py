"""The curves of the refinement speak of the very masks that the page shows."""

from dataclasses import replace

import numpy as np
import pytest

from analysis.charts import trajectory_figure
from analysis.predictor import Predictor
from analysis.pseudo_settings import MOST_STEPS, PseudoSettings
from analysis.trajectory import boundary_length, trajectory
from wsss import UNLABELLED
from wsss.refinement import DILATIONS

SETTINGS = PseudoSettings(0.8, 10, 0.6, 0.7, 0.2, DILATIONS, True)


@pytest.fixture(scope="module")
def predictor(shipped_or_fresh) -> Predictor:
    return Predictor.from_checkpoint(shipped_or_fresh)


@pytest.fixture(scope="module")
def encoding(predictor, cat):
    return predictor.encode(cat)


def test_boundary_length_by_hand():
    assert boundary_length(np.zeros((4, 5), np.uint8)) == 0
    square = np.zeros((5, 5), np.uint8)
    square[1:3, 1:4] = 2
    assert boundary_length(square) == 10  # the outline of a rectangle of 2 by 3


def test_the_curves_are_those_of_the_pseudo_masks(predictor, encoding):
    truth = predictor.pseudo(encoding, ["cat"], replace(SETTINGS, steps=5))
    curves = trajectory(predictor, encoding, ["cat"], SETTINGS, truth=truth)
    assert curves.iou[5] == 1 and curves.iou.min() < 1
    assert curves.valid[5] == (truth != UNLABELLED).mean() and curves.boundary[5] == boundary_length(truth)
    maps = predictor.iterates(encoding, ["cat"], SETTINGS)[:, [0, 1]]
    assert curves.change[3] == pytest.approx((maps[3] - maps[2]).abs().mean().item(), rel=1e-5)
    assert all(len(curve) == MOST_STEPS + 1 for curve in (curves.change, curves.valid, curves.boundary, curves.iou))


def test_the_refinement_calms_down(predictor, encoding):
    change = trajectory(predictor, encoding, ["cat"], SETTINGS).change
    assert np.isnan(change[0]) and change[-1] < change[1] / 2


def test_other_classes_do_not_dilute_the_change(predictor, encoding):
    """Classes that are not refined stay 0; they are no part of the mean."""
    change = trajectory(predictor, encoding, ["cat"], SETTINGS).change[1]
    maps = predictor.iterates(encoding, ["cat"], SETTINGS)
    assert change > 3 * (maps[1] - maps[0]).abs().mean().item()


def test_without_a_ground_truth_there_is_no_iou(predictor, encoding):
    curves = trajectory(predictor, encoding, ["cat"], SETTINGS)
    assert curves.iou is None
    assert len(trajectory_figure(curves).data) == 3
