"""Pictures of masks and maps."""

import numpy as np
import pytest

from analysis.figures import score_bars, score_path
from analysis.legends import legend
from analysis.render import black_and_white, captioned, film_strip, frame_width, heat, overlay
from wsss import UNLABELLED
from wsss.data.voc import VOC_PALETTE

COLORS = np.array([[0, 0, 0], [200, 0, 0], [0, 0, 200]], np.uint8)


def test_the_background_keeps_its_colors():
    rgb = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    assert np.array_equal(overlay(rgb, np.zeros((20, 30), np.uint8), COLORS, 0.5), rgb)


def test_opacity_mixes_linearly_inside_a_region():
    rgb, mask = np.full((20, 20, 3), 100, np.uint8), np.zeros((20, 20), np.uint8)
    mask[4:16, 4:16] = 1
    for opacity, red in ((0.0, 100), (0.5, 150), (1.0, 200)):
        assert overlay(rgb, mask, COLORS, opacity)[10, 10, 0] == red


def test_unlabelled_pixels_are_gray_and_hatched():
    shown = overlay(np.zeros((20, 20, 3), np.uint8), np.full((20, 20), UNLABELLED, np.uint8), COLORS, 0.5)
    assert (shown[..., 0] == shown[..., 1]).all() and len(np.unique(shown)) == 2


def test_the_photograph_is_not_written_to():
    rgb, mask = np.zeros((9, 9, 3), np.uint8), np.ones((9, 9), np.uint8)
    overlay(rgb, mask, COLORS, 1.0)
    assert not rgb.any()


def test_heat_runs_from_the_least_to_the_most():
    shown = heat(np.linspace(0, 1, 100, dtype=np.float32).reshape(1, 100), (10, 200)).sum(2)
    assert shown.shape == (10, 200) and shown[0, 0] < shown[0, 100] < shown[0, -1]


def test_a_flat_map_has_a_picture_too():
    assert heat(np.ones((4, 4), np.float32), (8, 8)).shape == (8, 8, 3)


def test_the_legend_tells_shares_and_escapes_names():
    mask = np.array([[0, 1], [1, UNLABELLED]], np.uint8)
    text = legend(mask, ("<b>cat</b>", "dog"), COLORS)
    assert "&lt;b&gt;cat&lt;/b&gt; 50 %" in text and "unlabelled 25 %" in text and "dog" not in text


def test_bars_show_each_class_once():
    figure = score_bars(np.array([0.25, 0.75]), ("cat", "dog"), COLORS)
    assert list(figure.data[0].x) == [0.25, 0.75] and list(figure.data[0].y) == ["cat", "dog"]
    assert figure.layout.height > 0


def luminance(color: np.ndarray) -> np.ndarray:
    """Relative, of sRGB (n, 3) in [0, 255] (WCAG 2)."""
    share = color / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)


@pytest.mark.parametrize("page", [(31, 41, 55), (255, 255, 255)], ids=["dark", "light"])
def test_the_line_of_each_class_shows_on_any_page(page):
    lines = score_path(np.zeros((2, 21)), [str(k) for k in range(21)], VOC_PALETTE[:21]).data
    shades = [line.line.color.replace("#888888", "rgb(136, 136, 136)") for line in lines]
    assert len(set(shades)) == 21
    colors = np.array([[int(value) for value in shade[4:-1].split(",")] for shade in shades])
    both = np.stack([luminance(colors), np.broadcast_to(luminance(np.array([page])), 21)]) + 0.05
    assert (both.max(0) / both.min(0)).min() > 1.8


@pytest.mark.parametrize("width", [24, 288, 451])
def test_a_caption_fits_in_the_width_of_its_picture(width):
    """A line that is cut off ends at the border, amid a letter."""
    lines = ["m" * 40, "short"]
    rgb = np.zeros((20, width, 3), np.uint8)
    text = captioned(rgb, lines)[20:]
    assert (text < 200).any() and (text[:, -3:] == 255).all() and text.shape[1] == max(240, width)


def test_captions_of_any_length_leave_pictures_of_one_size():
    rgb = np.zeros((20, 288, 3), np.uint8)
    assert captioned(rgb, ["m" * 80, ""]).shape == captioned(rgb, ["a", "b"]).shape


@pytest.mark.parametrize("size", [(90, 120), (375, 500), (64, 16)])
def test_the_frames_of_a_film_strip_lie_side_by_side(size):
    rgb = np.zeros((*size, 3), np.uint8)
    strip = film_strip(rgb, [np.zeros(size, np.uint8)] * 5, COLORS, ["t"] * 5)
    assert strip.shape[1] == 5 * frame_width(rgb)


def test_a_narrow_photograph_is_not_stretched_in_its_film_strip():
    rgb = np.zeros((200, 50, 3), np.uint8)
    strip = film_strip(rgb, [np.zeros((200, 50), np.uint8)], COLORS, [""])
    assert (strip[-1] == 0).all(1).sum() == 120 * 50 // 200


def test_a_draw_is_black_and_white_at_any_size():
    drawn = black_and_white(np.random.default_rng(0).random((20, 30)) < 0.5, (47, 71))
    assert drawn.shape == (47, 71, 3) and set(np.unique(drawn)) == {0, 255}
