"""Metrics: worked by hand, against slow definitions, and what must hold of any sum over a data set."""

import json
import math

import cv2
import numpy as np
import pytest

from wsss.metrics import (
    Scores,
    boundary,
    boundary_counts,
    boundary_width,
    class_iou,
    confusion,
    mean_iou,
    pixel_accuracy,
    precision_recall,
)

TRUTH = np.array([[0, 1], [1, 2]], np.uint8)
MASK = np.array([[0, 1], [2, 2]], np.uint8)

# The rows "Ours" of Tables 3 (val) and 4 (test), in percent, without and with CRF, and their means (method.md, P11).
TABLES = {
    "val": (
        "89.9 75.6 21.5 78.4 64.2 65.6 80.0 74.0 86.0 30.1 73.9 43.8 82.2 74.2 64.0 70.0 43.8 78.5 39.1 73.3 61.9",
        65.24,
    ),
    "val, CRF": (
        "90.8 79.5 20.4 81.7 67.3 64.1 79.7 74.0 87.0 30.6 73.3 43.8 84.4 75.5 62.5 73.3 43.6 82.3 40.2 73.8 65.9",
        66.37,
    ),
    "test": (
        "90.2 77.7 22.2 73.7 55.6 65.1 81.3 77.7 83.9 28.7 74.3 49.2 80.1 78.8 72.0 68.9 45.1 77.0 44.7 74.0 56.9",
        65.58,
    ),
    "test, CRF": (
        "91.1 81.3 20.8 76.2 59.2 64.8 81.8 78.1 85.0 29.7 75.3 47.7 82.5 82.2 70.5 72.6 41.6 82.6 45.3 75.5 59.4",
        66.82,
    ),
}


def blobs(seed, size=(40, 53), levels=4):
    """A map of classes with wide, irregular regions that also touch the border of the image."""
    noise = np.random.default_rng(seed).random(size, np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 4)
    return np.digitize(smooth, np.quantile(smooth, np.arange(1, levels) / levels)).astype(np.uint8)


def boundary_by_erosion(mask, width):
    """The public definition, one 3x3 erosion after the other, in plain numpy."""
    eroded = np.pad(mask, 1)
    for _ in range(width):
        outside = np.pad(eroded, 1, constant_values=True)  # beyond the padding nothing erodes
        eroded = np.lib.stride_tricks.sliding_window_view(outside, (3, 3)).all((2, 3))
    return mask & ~eroded[1:-1, 1:-1]


def boundary_by_distance(mask, width):
    """Chebyshev distance to the nearest pixel outside of the region, where the image's surroundings are outside."""
    distance = cv2.distanceTransform(np.pad(mask.astype(np.uint8), 1), cv2.DIST_C, 3)[1:-1, 1:-1]
    return mask & (distance <= width)


def confusion_by_definition(truth, mask, num_classes):
    counts = np.zeros((num_classes, num_classes), np.int64)
    for t, m in zip(truth.ravel(), mask.ravel(), strict=True):
        if t != 255 and m != 255:
            counts[t, m] += 1
    return counts


# By hand


def test_three_classes_on_four_pixels_by_hand():
    counts = confusion(TRUTH, MASK, 3)
    assert counts.dtype == np.int64
    assert counts.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]  # the row is the truth
    assert class_iou(counts).tolist() == [1, 0.5, 0.5]
    assert mean_iou(counts) == pytest.approx(2 / 3)
    assert pixel_accuracy(counts) == 0.75
    precision, recall = precision_recall(counts)
    assert precision.tolist() == [1, 1, 0.5]
    assert recall.tolist() == [1, 0.5, 1]


def test_boundaries_on_four_pixels_by_hand():
    # In a picture of 2x2 every pixel of a region is its boundary.
    assert boundary_counts(TRUTH, MASK, 3).tolist() == [[1, 1, 1], [1, 2, 2]]


def test_a_region_ends_where_its_void_border_begins():
    truth, mask = np.zeros((2, 9, 9), np.uint8)
    truth[:, 4], truth[:, 5:] = 255, 1
    mask[:, 4:] = 1
    # Width 1. Class 1: the truth's frame of 9x4 has 22 pixels, the prediction's of 9x5 leaves 15 beside the void.
    assert boundary_counts(truth, mask, 2).tolist() == [[22, 15], [22, 22]]


def test_boundary_of_a_square_is_a_frame():
    square = np.zeros((9, 9), bool)
    square[1:8, 1:8] = True
    frame = square.copy()
    frame[3:6, 3:6] = False
    np.testing.assert_array_equal(boundary(square, 2), frame)


@pytest.mark.parametrize("row, mean", TABLES.values(), ids=TABLES)
def test_class_rows_of_the_paper_give_its_means(row, mean):
    permille = np.array([round(10 * float(value)) for value in row.split()])
    scores = Scores(np.zeros((21, 21), np.int64), np.stack([permille, np.full(21, 1000)]), 0)
    assert round(100 * scores.mean_boundary_iou, 2) == mean


# Against slow definitions


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.int64])
def test_confusion_matches_its_definition(dtype):
    rng = np.random.default_rng(0)
    values = np.array([*range(21), 255])
    truth, mask = rng.choice(values, (2, 13, 17)).astype(dtype)
    np.testing.assert_array_equal(confusion(truth, mask, 21), confusion_by_definition(truth, mask, 21))


@pytest.mark.parametrize("by_definition", [boundary_by_erosion, boundary_by_distance])
@pytest.mark.parametrize("width", [1, 2, 5, 31])
@pytest.mark.parametrize("seed", range(3))
def test_boundary_matches_its_definitions(by_definition, width, seed):
    classes = blobs(seed)
    for k in range(4):
        np.testing.assert_array_equal(boundary(classes == k, width), by_definition(classes == k, width))


def test_boundary_counts_match_their_definition():
    truth, mask = blobs(4), blobs(5)
    truth[8:12], mask[:, 20:24] = 255, 255
    counted, width = (truth != 255) & (mask != 255), boundary_width(truth.shape, 0.1)
    regions = [[boundary_by_erosion(classes == k, width) & counted for classes in (truth, mask)] for k in range(6)]
    expected = [[(a & b).sum() for a, b in regions], [(a | b).sum() for a, b in regions]]
    np.testing.assert_array_equal(boundary_counts(truth, mask, 6, ratio=0.1), expected)


@pytest.mark.parametrize("size, width", [((375, 500), 31), ((500, 375), 31), ((2, 2), 1), ((1, 1), 1)])
def test_boundary_width_is_five_percent_of_the_diagonal(size, width):
    assert boundary_width(size) == width


# What must hold


def test_a_perfect_prediction_scores_one():
    scores = Scores.of(blobs(0), blobs(0), 4)
    assert scores.miou == scores.mean_boundary_iou == scores.accuracy == scores.coverage == 1


def test_a_prediction_without_one_right_pixel_scores_zero():
    truth = blobs(0)
    scores = Scores.of(truth, (truth + 1) % 4, 4)
    assert scores.miou == scores.mean_boundary_iou == scores.accuracy == 0


def test_order_of_the_images_does_not_matter():
    masks = [np.where(blobs(seed) == seed, 255, blobs(seed + 10)) for seed in range(4)]  # each with unclaimed pixels
    images = [Scores.of(blobs(seed), mask, 5) for seed, mask in enumerate(masks)]
    forth, back = sum(images, Scores.none(5)), sum(images[::-1], Scores.none(5))
    assert forth.as_dict("abcd") == back.as_dict("abcd")
    assert ((images[0] + images[1]) + (images[2] + images[3])).as_dict("abcd") == forth.as_dict("abcd")


def test_a_sum_is_the_score_of_the_whole_set_and_not_the_mean_of_the_images():
    wide = Scores.of(np.zeros((10, 10), np.uint8), np.zeros((10, 10), np.uint8), 2)
    small = Scores.of(np.zeros((1, 2), np.uint8), np.ones((1, 2), np.uint8), 2)
    assert (wide + small).iou.tolist() == [100 / 102, 0]
    assert (wide + small).boundary_iou.tolist() == [36 / 38, 0]


def test_adding_leaves_both_terms_as_they_were():
    first, second = Scores.of(TRUTH, MASK, 3), Scores.of(MASK, TRUTH, 3)
    before = first.confusion.copy(), second.confusion.copy()
    first + second
    np.testing.assert_array_equal((first.confusion, second.confusion), before)


def test_void_pixels_of_the_truth_are_not_judged():
    truth = blobs(1)
    truth[10:14] = 255
    one, other = blobs(2), blobs(2)
    other[10:14] = 3 - other[10:14]
    np.testing.assert_array_equal(confusion(truth, one, 4), confusion(truth, other, 4))
    assert confusion(truth, one, 4).sum() == (truth != 255).sum()
    assert boundary_counts(np.full_like(truth, 255), one, 4).sum() == 0


def test_unlabelled_predictions_lower_the_coverage_and_nothing_else():
    truth = np.array([[0, 0, 1, 1], [0, 0, 1, 255]], np.uint8)
    mask = np.array([[0, 1, 1, 255], [0, 0, 255, 255]], np.uint8)
    scores = Scores.of(truth, mask, 2)
    assert scores.confusion.tolist() == [[3, 1], [0, 1]]
    assert scores.coverage == 5 / 7  # the void pixel is not among those to be claimed
    assert scores.boundaries.tolist() == [[3, 1], [4, 2]]


def test_an_absent_class_does_not_enter_the_mean():
    scores = Scores.of(TRUTH, MASK, 5)
    assert np.isnan(scores.iou[3:]).all()
    assert np.isnan(scores.boundary_iou[3:]).all()
    assert scores.miou == Scores.of(TRUTH, MASK, 3).miou
    assert scores.mean_boundary_iou == Scores.of(TRUTH, MASK, 3).mean_boundary_iou


def test_a_class_that_is_only_predicted_enters_the_mean_as_zero():
    truth, mask = np.zeros((2, 2), np.uint8), np.array([[0, 0], [0, 1]], np.uint8)
    assert class_iou(confusion(truth, mask, 3))[:2].tolist() == [0.75, 0]
    precision, recall = precision_recall(confusion(truth, mask, 3))
    assert precision[1] == 0
    assert math.isnan(recall[1])


def test_boundaries_never_invent_a_class():
    # Eroding the map of classes, as detectron2 does, turns the contact of 3 and 15 into class 15 - 3 = 12.
    truth = np.full((20, 20), 3, np.uint8)
    truth[:, 10:] = 15
    intersections, unions = boundary_counts(truth, truth, 21)
    assert np.flatnonzero(unions).tolist() == [3, 15]
    np.testing.assert_array_equal(intersections, unions)


@pytest.mark.filterwarnings("error")
def test_nothing_counted_is_nan_without_a_warning():
    scores = Scores.of(np.full((3, 3), 255, np.uint8), np.zeros((3, 3), np.uint8), 3)
    assert np.isnan([scores.miou, scores.mean_boundary_iou, scores.accuracy, scores.coverage]).all()


def test_as_dict_is_strict_json_and_names_the_background():
    scores = Scores.of(TRUTH, MASK, 4).as_dict(("bird", "boat", "bottle"))
    assert json.loads(json.dumps(scores, allow_nan=False)) == scores
    assert list(scores["classes"]) == ["background", "bird", "boat", "bottle"]
    assert scores["classes"]["bird"] == {"iou": 0.5, "boundary_iou": 0.5, "precision": 1, "recall": 0.5}
    assert scores["classes"]["bottle"] == dict.fromkeys(scores["classes"]["bird"])  # nowhere: None
    assert scores["miou"] == pytest.approx(2 / 3)


def test_as_dict_refuses_names_that_do_not_fit():
    with pytest.raises(ValueError, match="3 names of objects for 3 classes"):
        Scores.of(TRUTH, MASK, 3).as_dict(("background", "bird", "boat"))


@pytest.mark.parametrize("count", [confusion, boundary_counts])
@pytest.mark.parametrize(
    "truth, mask, sentence",
    [
        (TRUTH, MASK[:1], "truth is"),
        (TRUTH + 1, MASK, "truth holds 3"),
        (TRUTH, MASK.astype(int) - 1, "the prediction holds -1"),
    ],
)
def test_what_cannot_be_counted_is_refused(count, truth, mask, sentence):
    with pytest.raises(ValueError, match=sentence):
        count(truth, mask, 3)


def test_inputs_stay_as_they_were():
    truth, mask = blobs(0), blobs(1)
    before = truth.copy(), mask.copy()
    truth.flags.writeable = mask.flags.writeable = False
    Scores.of(truth, mask, 4)
    boundary(truth == 1, 3)
    np.testing.assert_array_equal((truth, mask), before)


def test_a_boundary_width_is_rounded():
    assert [boundary_width((side, side)) for side in (105, 107)] == [7, 8]  # 7.42 and 7.57


def test_scores_have_the_boundaries_of_the_ratio_that_is_asked_for():
    truth = np.zeros((60, 80), np.uint8)
    truth[10:50, 10:60] = 1
    mask = np.roll(truth, 2, 1)
    found = Scores.of(truth, mask, 2, ratio=0.02).boundaries
    np.testing.assert_array_equal(found, boundary_counts(truth, mask, 2, 0.02))
    assert not np.array_equal(found, boundary_counts(truth, mask, 2))
