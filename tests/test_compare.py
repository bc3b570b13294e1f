"""Two masks side by side: by hand on a few pixels."""

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from analysis.charts import agreement_bars
from analysis.compare import DIFFERENCES, compare, in_common, least_alike_first, renumbered
from analysis.library import Library
from analysis.predictor import Predictor
from analysis.tabs import compare as compare_tab
from analysis.tabs import side_by_side
from analysis.tabs.scene import Scene
from wsss import UNLABELLED, UserError

LEFT = np.uint8([[0, 1, 1, 0, 1, 0, UNLABELLED, 1]])
RIGHT = np.uint8([[0, 1, 0, 2, 2, UNLABELLED, UNLABELLED, UNLABELLED]])


def test_each_pixel_is_of_one_kind():
    seen, kinds = compare(LEFT, RIGHT, 3), list(DIFFERENCES)
    assert [kinds[k] for k in seen.difference[0]] == [
        "both background",
        "agree on the object",
        "only left",
        "only right",
        "different objects",
        *["unlabelled in one or both"] * 3,
    ]
    assert sum(seen.shares.values()) == pytest.approx(1) and seen.shares["only left"] == 1 / 8


def test_the_iou_counts_the_pixels_that_both_name():
    seen = compare(LEFT, RIGHT, 3)
    np.testing.assert_allclose(seen.iou, [1 / 3, 1 / 3, 0])
    assert seen.mean == pytest.approx(2 / 9)


def test_two_sides_swapped_have_the_same_iou_and_the_mirrored_difference():
    seen, swapped = compare(LEFT, RIGHT, 3), compare(RIGHT, LEFT, 3)
    np.testing.assert_allclose(seen.iou, swapped.iou)
    assert seen.shares["only left"] == swapped.shares["only right"]


def test_a_mask_agrees_with_itself_and_an_absent_class_is_no_part_of_it():
    seen = compare(LEFT, LEFT, 3)
    assert seen.mean == 1 and np.isnan(seen.iou[2])
    agreement = {"both background", "agree on the object", "unlabelled in one or both"}
    assert {name for name, share in seen.shares.items() if share} == agreement


def test_the_picture_has_the_color_of_each_kind():
    seen = compare(LEFT, RIGHT, 3)
    assert seen.picture.dtype == np.uint8 and tuple(seen.picture[0, 2]) == DIFFERENCES["only left"]


def test_checkpoints_of_other_classes_meet_in_those_that_both_know():
    common = in_common(["cat", "cow", "dog"], ["dog", "bird", "cat"])
    assert common == ["cat", "dog"]
    mask = np.uint8([[0, 1, 2, 3, UNLABELLED]])
    assert renumbered(mask, ["dog", "bird", "cat"], common).tolist() == [[0, 2, UNLABELLED, 1, UNLABELLED]]


def test_where_a_side_has_no_label_the_sides_neither_agree_nor_disagree():
    """As in the IoU beside the difference map."""
    seen = compare(LEFT, RIGHT, 3)
    unlabelled = (LEFT == UNLABELLED) | (RIGHT == UNLABELLED)
    assert np.array_equal(seen.difference == list(DIFFERENCES).index("unlabelled in one or both"), unlabelled)


def test_the_worst_photograph_comes_first():
    masks = {"same": LEFT, "near": RIGHT, "far": np.uint8([[1, 0, 0, 1, 0, 1, 1, 0]])}
    photographs = [(name, np.full((1, 8, 3), i, np.uint8)) for i, name in enumerate(masks)]
    by_place = list(masks.values())

    def left(rgb: np.ndarray) -> np.ndarray:
        return LEFT

    def right(rgb: np.ndarray) -> np.ndarray:
        return by_place[rgb[0, 0, 0]]

    first, *_, table = least_alike_first(photographs, left, right, ["cat", "dog"])
    assert len(first) == 1
    assert list(table["photograph"]) == ["far", "near", "same"] and table["IoU"].iloc[-1] == 1
    assert set(DIFFERENCES) < set(table.columns)


def test_no_photographs_make_no_table():
    assert list(least_alike_first([], lambda rgb: LEFT, lambda rgb: LEFT, ["cat", "dog"])) == []


def test_bars_show_the_classes_that_are_in_either():
    colors = np.uint8([[0, 0, 0], [9, 9, 9], [99, 0, 0]])
    (bars,) = agreement_bars(compare(LEFT, LEFT, 3), ("cat", "dog"), colors).data
    assert list(bars.y) == ["background", "cat"]


def test_two_photographs_of_one_name_are_told_apart():
    files = ["/a/IMG_1.jpg", "/b/IMG_1.jpg", "/c/IMG_1.jpg (2)", "/d/cat.jpg"]
    named = compare_tab._named(files)
    assert list(named) == ["IMG_1.jpg", "IMG_1.jpg (2)", "IMG_1.jpg (2) (2)", "cat.jpg"]

    def clicked(name: str) -> gr.SelectData:
        return gr.SelectData(None, {"index": [0, 0], "value": name, "row_value": [name, 0.5]})

    assert [compare_tab._photograph(files, clicked(name)) for name in named] == files
    with pytest.raises(UserError, match="dog.jpg is no longer among the photographs"):
        compare_tab._photograph(files, clicked("dog.jpg"))


def test_with_a_ground_truth_each_side_is_judged(shipped_or_fresh, cat):
    predictor = Predictor.from_checkpoint(shipped_or_fresh)
    scene = Scene(predictor, predictor.encode(cat), ["cat"], None)
    right = predictor.mask(scene.encoding)
    wrong = np.where(right > 0, 0, 1).astype(np.uint8)
    assert compare_tab._judgement(scene, [predictor] * 2, [right, wrong]) == ""
    said = compare_tab._judgement(scene._replace(truth=right), [predictor] * 2, [right, wrong])
    assert "left 100.0 %, right 0.0 %" in said
    nothing = np.full_like(right, 255)
    assert "left -" in compare_tab._judgement(scene._replace(truth=nothing), [predictor] * 2, [right, wrong])


def test_masks_without_a_common_pixel_have_no_mean():
    seen = compare(LEFT, np.full_like(LEFT, UNLABELLED), 3)
    assert agreement_bars(seen, ("cat", "dog"), np.zeros((3, 3), np.uint8)).layout.title.text.endswith("mean -")


def test_a_photograph_that_cannot_be_used_is_named_and_left_out(shipped_or_fresh, tmp_path):
    sizes = {"narrow.png": (400, 12), "whole.png": (64, 64), "broken.png": None}
    for name, size in sizes.items():
        (tmp_path / name).write_text("no picture") if size is None else Image.new("RGB", size).save(tmp_path / name)
    files = {name: str(tmp_path / name) for name in sizes}
    with pytest.warns(UserWarning) as told:
        usable = dict(compare_tab._usable(Predictor.from_checkpoint(shipped_or_fresh), files))
    assert list(usable) == ["whole.png"]
    assert [str(warning.message).split(":")[0] for warning in told] == ["Narrow.png", "Broken.png"]


def test_several_checkpoints_stand_side_by_side_with_their_names(shipped_or_fresh, cat):
    library = Library([shipped_or_fresh])
    (name,) = library.names
    predictor = library[name]
    scene = Scene(predictor, predictor.encode(cat), ["cat"], None)
    shown = side_by_side._shown_by(library)
    one, two = (shown(scene, [name] * count, side_by_side.SCORE_MAP) for count in (1, 2))
    assert two.shape[1] == 2 * one.shape[1] and np.array_equal(two[:, : one.shape[1]], one)
    mask = shown(scene, [name], side_by_side.MASK)
    assert mask.shape == one.shape and not np.array_equal(mask, one)
    with pytest.raises(UserError, match="choose a checkpoint"):
        shown(scene, [], side_by_side.MASK)
