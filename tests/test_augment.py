"""Training views: deterministic, of the right size, and picture and mask always move together."""

import numpy as np
import pytest
import torch

from wsss import UNLABELLED, UserError
from wsss.data.augment import Reduced, TrainingViews, random_window, reduce
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
    assert view.index == 3


def test_without_masks_nothing_is_labelled():
    assert (views()[0].mask == UNLABELLED).all()


@pytest.mark.parametrize("epoch", range(8))
def test_the_mask_moves_with_the_picture(epoch):
    view = views(epoch=epoch, source=Echo(), with_masks=True, color_jitter=0.0)[0]
    agree = (view.image[0] > 100) == (view.mask == 1)
    assert agree.float().mean() > 0.97  # edges are blurred in the picture only


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
