"""What all tabs look at: what belongs to a photograph does not outlive it."""

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from analysis.library import Library
from analysis.tabs import cams
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
    assert again(None, "cat", 1.0, None) == [gr.skip()] * 2  # the pictures could not be made, and the visitor was told
