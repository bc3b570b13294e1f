"""Drawn shapes: always the same, exact, and with labels that tell the truth."""

import numpy as np
import pytest

from wsss import UserError
from wsss.data.item import item
from wsss.data.shapes import Shapes
from wsss.data.source import read, with_masks
from wsss.mask_files import save_mask
from wsss.preflight import photograph_faults


def test_a_picture_is_a_function_of_seed_and_index_alone():
    few, many = Shapes(3, seed=5), Shapes(30, seed=5)
    many.rgb(7)
    np.testing.assert_array_equal(few.rgb(2), many.rgb(2))
    np.testing.assert_array_equal(few.mask(2), many.mask(2))
    np.testing.assert_array_equal(few.labels, many.labels[:3])


def test_no_picture_of_one_seed_is_another_seeds():
    one, other = Shapes(20, seed=0), Shapes(20, seed=1)
    pictures = {source.rgb(i).tobytes() for source in (one, other) for i in range(20)}
    assert len(pictures) == 40
    assert not set(one.names) & set(other.names)


def test_labels_are_the_classes_of_the_mask():
    source = Shapes(60, seed=3)
    for index in range(len(source)):
        drawn = set(np.unique(source.mask(index))) - {0}
        assert drawn == set(np.flatnonzero(source.labels[index]) + 1)


def test_there_are_pictures_with_one_class_and_with_two_and_all_classes_are_met():
    source = Shapes(60, seed=0)
    assert set(source.labels.sum(1)) == {1, 2}
    assert source.labels.sum(0).min() > 5


@pytest.mark.parametrize("size", [(96, 96), (48, 80), (32, 32)])
def test_pictures_and_masks_have_the_size_asked_for(size):
    rgb, mask = item(Shapes(2, seed=0, size=size), 1)[1::2]
    assert rgb.shape == (*size, 3) and rgb.dtype == np.uint8
    assert mask.shape == size and mask.dtype == np.uint8


def test_objects_fill_a_good_part_of_the_picture_and_never_all_of_it():
    source = Shapes(60, seed=2)
    shares = [(source.mask(index) > 0).mean() for index in range(len(source))]
    assert min(shares) > 0.15 and max(shares) < 0.55


def test_bodies_are_gray_and_only_the_small_faces_are_colored():
    source = Shapes(40, seed=4)
    for index in range(len(source)):
        colored = np.ptp(source.rgb(index).astype(int), axis=2) > 15
        assert 0.03 < colored[source.mask(index) > 0].mean() < 0.5


def test_an_index_behind_the_end_is_refused():
    with pytest.raises(IndexError):
        Shapes(3, seed=0).rgb(3)


@pytest.mark.parametrize("wrong", [(0, 0, (96, 96)), (1, -1, (96, 96)), (1, 0, (96, 8))])
def test_what_cannot_be_drawn_is_refused(wrong):
    with pytest.raises(UserError, match="shapes: need"):
        Shapes(*wrong)


def test_training_and_validation_share_no_picture_and_are_sound():
    train, val = read("shapes", None, "train"), read("shapes", None, "val")
    assert train.seed != val.seed
    assert not photograph_faults(train, masks=True) and not photograph_faults(val, masks=True)


def test_an_unknown_split_is_refused():
    with pytest.raises(UserError, match="no split 'test'"):
        read("shapes", None, "test")


def test_a_mask_from_a_file_must_have_the_size_of_its_drawn_picture(tmp_path):
    for name, height in (("shapes-0-0", 96), ("shapes-0-1", 90)):
        save_mask(tmp_path / f"{name}.png", np.ones((height, 96), np.uint8), Shapes.classes)
    faults = [fault for (fault,) in photograph_faults(with_masks(Shapes(2, seed=0), tmp_path), masks=True).values()]
    assert faults == ["shapes-0-1: the mask is (90, 96), the photograph (96, 96) (height, width)"]
