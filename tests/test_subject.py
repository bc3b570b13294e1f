"""What all tabs look at: what belongs to a photograph does not outlive it."""

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from analysis.library import Library
from analysis.render import recolored
from analysis.tabs import cams, inspect
from analysis.tabs.class_colors import parse
from analysis.tabs.subject import Scene, Subject, _again_if_moved, _noting
from wsss import UserError


@pytest.fixture(scope="module")
def subject(shipped_or_fresh) -> Subject:
    with gr.Blocks():
        return Subject(Library([shipped_or_fresh]))


@pytest.fixture
def scene(subject, cat) -> Scene:
    predictor = subject.default
    return Scene(predictor, predictor.encode(cat), ["cat"], None)


def accepted_truth(subject: Subject, rgb: np.ndarray, path) -> np.ndarray | None:
    return subject._accept(subject.library.names[0], rgb, str(path), "Inspect")[3]


def test_a_ground_truth_is_read_again_for_another_photograph(subject, cat, tmp_path):
    Image.fromarray(np.ones(cat.shape[:2], np.uint8)).save(path := tmp_path / "truth.png")
    assert accepted_truth(subject, cat, path).shape == cat.shape[:2]
    smaller = cat[::2, ::2].copy()
    assert accepted_truth(subject, smaller, path).shape == smaller.shape[:2]


def test_a_ground_truth_of_another_photograph_is_dropped_in_words(subject, cat, tmp_path):
    Image.fromarray(np.ones((40, 200), np.uint8)).save(path := tmp_path / "truth.png")
    with pytest.warns(UserWarning, match="not the photograph's proportions"):
        assert accepted_truth(subject, cat, path) is None


def test_a_clicked_pixel_does_not_outlive_its_photograph(scene):
    _, target, at, *_ = cams._show(scene, "cat", "pixel", ["GradCAM"], cams._SCALES[0], 0.5, (5, 7))
    assert target == "image score" and at is None


def test_the_target_pixel_asks_for_a_click(scene):
    with pytest.raises(UserError, match="click a pixel"):
        cams._pictured(scene, "cat", "pixel", ["GradCAM"], cams._SCALES[0], 0.5, None)


def test_a_control_that_is_moved_while_pictures_are_made_has_the_last_word():
    def answer(photograph, opacity, pixel):
        return f"{photograph} at {opacity}", pixel

    *_, shown = _noting(answer, 2, 2)("cat", 0.5, None)
    again = _again_if_moved(answer, 2, [0])  # the pixel is the tab's own: it follows from the photograph
    assert again(shown, "cat", 1.0, None) == ("cat at 1.0", None)
    assert again(shown, "cat", 0.5, (3, 4)) == [gr.skip()] * 2
    assert again(None, "cat", 1.0, None) == [gr.skip()] * 2  # a session that was forgotten


def test_a_ground_truth_tells_right_from_wrong(scene):
    mask = scene.predictor.mask(scene.encoding)
    truth = np.where(mask > 0, 1, 0).astype(np.uint8)  # the cat's; then all is right
    truth[0] = 255
    (_, right), *_ = inspect._mask(scene._replace(truth=truth), 1.0, 0.0, False, True, None)
    assert {tuple(color) for color in right[mask == 1]} <= {(60, 170, 90), *map(tuple, right[0])}
    assert (right[1:] != np.array((225, 60, 60))).any(-1).all()
    (_, wrong), *_ = inspect._mask(scene._replace(truth=np.where(mask > 0, 0, 1)), 1.0, 0.0, False, True, None)
    assert (wrong == np.array((225, 60, 60))).all()


def test_right_or_wrong_without_a_ground_truth_asks_for_one(scene):
    (_, shown), names, _ = inspect._mask(scene, 0.5, 0.0, False, True, None)
    (_, usual), *_ = inspect._mask(scene, 0.5, 0.0, False, False, None)
    assert np.array_equal(shown, usual) and "give one" in names


def test_a_class_has_the_visitors_color_where_one_was_chosen(scene):
    name = scene.predictor.classes[1]
    own = scene._replace(own_colors={name: (1, 2, 3), "of another checkpoint": (4, 5, 6)}).colors
    assert tuple(own[2]) == (1, 2, 3)
    assert np.array_equal(np.delete(own, 2, 0), np.delete(scene.predictor.colors, 2, 0))
    assert np.array_equal(recolored(own, scene.predictor.classes, {}), own)


@pytest.mark.parametrize(
    ("text", "color"),
    [("#00FF7f", (0, 255, 127)), ("rgb(1, 2, 3)", (1, 2, 3)), ("rgba(254.6, 0.2, 9, 0.5)", (255, 0, 9))],
)
def test_colors_are_read_as_browsers_write_them(text, color):
    assert parse(text) == color


@pytest.mark.parametrize(
    "text", ["", "red", "#12345", "rgb(256, 0, 0)", "rgb(1, 2)", "rgb(-1, 2, 3)", None, ["#000000"]]
)
def test_what_is_no_color_is_refused(text):
    with pytest.raises(UserError, match="not a color"):
        parse(text)
