"""Training views: deterministic, of the right size, and picture and mask always move together."""

import numpy as np
import pytest
import torch

from wsss import UNLABELLED, UserError
from wsss.data.augment import TrainingViews, jitter, random_window
from wsss.data.reduced import Reduced, reduce, reduced_size
from wsss.data.shapes import Shapes

SETTINGS = {"crop": 48, "least_scale": 0.5, "color_jitter": 0.2}


class Echo:
    """Photographs whose red channel repeats the mask."""

    classes, names, labels = ("thing",), ("a", "b"), np.ones((2, 1), np.float32)

    def __len__(self) -> int:
        return 2

    def mask(self, index: int) -> np.ndarray:
        mask = np.zeros((40, 60), np.uint8)
        mask[10:25, 5:30] = 1
        return mask

    def rgb(self, index: int) -> np.ndarray:
        return np.repeat(self.mask(index)[..., None] * 200, 3, 2)


def views(seed: int = 0, epoch: int = 0, source=None, **more) -> TrainingViews:
    return TrainingViews(source or Shapes(6, 0), seed=seed, epoch=epoch, **{**SETTINGS, **more})


def test_a_view_is_a_function_of_seed_epoch_and_index():
    for index in (0, 5):
        assert torch.equal(views()[index].image, views()[index].image)
    assert not torch.equal(views()[0].image, views(epoch=1)[0].image)
    assert not torch.equal(views()[0].image, views(seed=1)[0].image)


def test_a_view_has_the_promised_form():
    view = views()[3]
    assert view.image.shape == (3, 48, 48) and view.image.dtype == torch.uint8
    assert view.labels.shape == (4,) and view.labels.dtype == torch.float32
    assert view.name == Shapes(6, 0).names[3]


def test_without_masks_nothing_is_labelled():
    assert (views()[0].mask == UNLABELLED).all()


@pytest.mark.parametrize("epoch", range(8))
def test_the_mask_moves_with_the_picture(epoch):
    view = views(epoch=epoch, source=Echo(), with_masks=True, color_jitter=0.0)[0]
    agree = (view.image[0] > 100) == (view.mask == 1)
    assert agree.float().mean() > 0.97  # edges are blurred in the picture only


def test_reducing_moves_a_mask_to_neither_side():
    """What is symmetric stays so; picking the upper left pixel of several would move it by half of one."""

    class Symmetric(Echo):
        def mask(self, index: int) -> np.ndarray:
            mask = np.zeros((45, 63), np.uint8)
            mask[9:-9, 13:-13] = 1
            return mask

    mask = Reduced(Symmetric(), short_side=20, cache=False).mask(0)
    assert mask.shape == (20, 28) and mask.any()
    assert (mask == mask[:, ::-1]).all() and (mask == mask[::-1]).all()


def test_an_enlarged_crop_is_smooth():
    class Ramp(Echo):
        def rgb(self, index: int) -> np.ndarray:
            return np.repeat(np.repeat(np.arange(0, 240, 4, dtype=np.uint8)[None], 40, 0)[..., None], 3, 2)

    row = views(source=Ramp(), crop=240, color_jitter=0.0)[0].image[0, 100].int()
    assert row.diff().abs().max() <= 2  # pixels that are merely repeated would jump by 4


def test_masks_that_are_asked_for_must_exist():
    source = Echo()
    rgb = source.rgb(0)
    source.rgb, source.mask = lambda index: rgb, lambda index: None
    with pytest.raises(UserError, match="a: has no mask"):
        views(source=source, with_masks=True)[0]


def test_a_mask_of_another_size_is_refused():
    source = Echo()
    source.rgb = lambda index: np.zeros((40, 80, 3), np.uint8)
    with pytest.raises(UserError, match=r"a: the mask is \(20, 30\), the photograph \(20, 40\)"):
        views(source=Reduced(source, 20, cache=False), with_masks=True)[0]


@pytest.mark.parametrize("size", [(375, 500), (500, 375), (10, 400), (1, 1)])
def test_a_window_lies_within_the_image_and_takes_its_share(size):
    random = np.random.default_rng(0)
    for _ in range(50):
        rows, columns = random_window(size, 0.6, random)
        assert 0 <= rows.start < rows.stop <= size[0] and 0 <= columns.start < columns.stop <= size[1]
        if max(size) < 2 * min(size):
            share = (rows.stop - rows.start) * (columns.stop - columns.start) / (size[0] * size[1])
            assert 0.55 < share <= 1


def test_reducing_keeps_proportions_and_small_pictures():
    rgb = np.zeros((300, 450, 3), np.uint8)
    assert reduce(rgb, 100).shape == (100, 150, 3)
    assert reduce(rgb, 0) is rgb and reduce(rgb, 300) is rgb


@pytest.mark.parametrize("short_side", [0, 7, 20, 39, 50])
def test_a_reduced_mask_has_the_size_of_its_photograph_which_is_not_decoded_for_it(short_side):
    source = Echo()
    size = Reduced(source, short_side, cache=False).rgb(0).shape[:2]
    source.rgb = None
    assert Reduced(source, short_side, cache=False).mask(0).shape == size


def test_a_cache_decodes_once():
    source = Echo()
    reads = []
    original = source.rgb
    source.rgb = lambda index: (reads.append(index), original(index))[1]
    for cached, expected in ((True, 1), (False, 3)):
        reads.clear()
        reduced = Reduced(source, 20, cache=cached)
        for _ in range(3):
            assert reduced.rgb(0).shape == (20, 30, 3)
        assert len(reads) == expected


class Grid(Echo):
    """A photograph of fine stripes whose mask has classes far apart."""

    def mask(self, index: int) -> np.ndarray:
        mask = np.zeros((40, 60), np.uint8)
        mask[10:25, 5:30] = 20
        mask[8:27, 3:5] = UNLABELLED
        return mask

    def rgb(self, index: int) -> np.ndarray:
        return np.repeat(np.tile(np.uint8([0, 200]), (40, 30))[..., None], 3, 2)


class Ramp(Echo):
    """Brighter from left to right."""

    def rgb(self, index: int) -> np.ndarray:
        return np.repeat(np.repeat(np.arange(0, 240, 4, dtype=np.uint8)[None], 40, 0)[..., None], 3, 2)


def test_views_are_mirrored_about_every_second_time():
    rows = [views(epoch=epoch, source=Ramp(), color_jitter=0.0)[0].image[0, 24].int() for epoch in range(40)]
    assert 10 < sum(bool(row[0] > row[-1]) for row in rows) < 30


def test_two_photographs_of_an_epoch_have_windows_of_their_own():
    both = views(source=Ramp(), color_jitter=0.0)
    assert not torch.equal(both[0].image, both[1].image)  # the pictures are the same


def test_the_color_jitter_is_a_setting():
    plain, again, strong = (views(source=Ramp(), color_jitter=strength)[0].image for strength in (0.0, 0.0, 0.9))
    assert torch.equal(plain, again) and not torch.equal(plain, strong)


@pytest.mark.parametrize("size", [7, 48, 100])
def test_a_mask_has_no_classes_between_those_of_its_neighbors(size):
    view = views(source=Grid(), crop=size, with_masks=True)[0]
    assert set(view.mask.unique().tolist()) <= {0, 20, UNLABELLED}
    assert set(np.unique(Reduced(Grid(), 15, cache=False).mask(0))) <= {0, 20, UNLABELLED}


def test_what_is_shrunk_is_averaged():
    """Stripes of one pixel become gray; a pixel in five alone would be black or white."""
    view = views(source=Grid(), crop=8, least_scale=1.0, color_jitter=0.0)[0].image.float()
    assert ((view - 100).abs() < 50).all()
    assert (np.abs(reduce(Grid().rgb(0), 8).astype(int) - 100) < 50).all()


class Draws:
    """Stands for a generator that draws given numbers."""

    def __init__(self, *numbers) -> None:
        self.numbers = numbers

    def uniform(self, low, high, size=None):
        return np.array(self.numbers) if size else self.numbers[0]


def test_jitter_by_hand():
    rgb = np.uint8([[[100, 100, 100], [200, 100, 60]]])
    for draws, expected in (
        ((0.5, 1, 1), rgb * 0.5),
        ((1, 0.5, 1), (rgb - 110.0) * 0.5 + 110),
        ((1, 1, 0), [[[100] * 3, [120] * 3]]),
        ((2, 1, 1), [[[200] * 3, [255, 200, 120]]]),
    ):
        np.testing.assert_allclose(jitter(rgb, 0.5, Draws(*draws)), expected, atol=1)


def test_where_no_window_fits_it_is_the_middle():
    assert random_window((10, 400), 1.0, np.random.default_rng(0)) == (slice(0, 10), slice(193, 206))


def test_the_windows_take_all_shares_from_the_least_to_the_whole():
    random = np.random.default_rng(0)
    windows = [random_window((300, 400), 0.4, random) for _ in range(200)]
    shares = [(r.stop - r.start) * (c.stop - c.start) / 120_000 for r, c in windows]
    assert 0.39 < min(shares) < 0.45 and max(shares) > 0.9
    aspects = [(c.stop - c.start) / (r.stop - r.start) for r, c in windows]
    assert 0.74 < min(aspects) < 0.85 and 1.2 < max(aspects) < 1.35


def test_a_side_that_is_reduced_is_rounded():
    assert reduced_size((300, 451), 200) == (200, 301)  # 300.67
    assert reduced_size((452, 300), 200) == (301, 200)  # 301.33
