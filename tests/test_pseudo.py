"""Pseudo masks (Sec. 4.1.3): by hand, against a slow definition, and what must hold of them."""

import numpy as np
import pytest
import torch

from wsss.pseudo import present_classes, pseudo_mask


def claims(background, *objects):
    """Maps of one image, background first, as (1, K, H, W)."""
    return torch.tensor([background, *objects]).unsqueeze(0)


def noise(batch=2, classes=4, size=(7, 9), seed=0):
    return torch.rand(batch, classes, *size, generator=torch.Generator().manual_seed(seed))


def mask_by_definition(scores, labels, object_cutoff, background_cutoff, least_cutoff):
    """The rule with loops, for one image."""
    scores, labels = scores.double().numpy(), labels.tolist()
    mask = np.full(scores.shape[1:], 255)
    present = [0] + [c for c in range(1, len(scores)) if labels[c - 1]]
    for y, x in np.ndindex(mask.shape):
        owners = []
        for c in present:
            share = background_cutoff if c == 0 else object_cutoff
            if scores[c, y, x] > share * scores[c].max() and scores[c, y, x] > least_cutoff:
                owners.append(c)
        if len(owners) == 1:
            mask[y, x] = owners[0]
    return mask


@pytest.mark.parametrize("cutoffs", [(0.6, 0.6, 0.2), (0.6, 0.7, 0.2), (0.9, 0.5, 0.0), (0.3, 0.3, 0.8)])
def test_matches_its_definition(cutoffs):
    scores = noise(batch=3)
    labels = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1]])
    names = ("object_cutoff", "background_cutoff", "least_cutoff")
    mask = pseudo_mask(scores, labels, **dict(zip(names, cutoffs, strict=True)))
    assert mask.dtype == torch.int64
    for given, label, result in zip(scores, labels, mask, strict=True):
        np.testing.assert_array_equal(result, mask_by_definition(given, label, *cutoffs))


def test_by_hand_on_four_pixels():
    background = [[1.0, 0.5], [0.7, 0.1]]  # claims above 60 % of 1.0
    object_ = [[0.2, 0.9], [0.7, 0.5]]  # claims above 60 % of 0.9 = 0.54
    mask = pseudo_mask(claims(background, object_), torch.tensor([[1]]))
    assert mask.tolist() == [[[0, 1], [255, 255]]]  # below: both claim, none claims


def test_labels_get_a_background_that_is_always_present():
    labels = torch.tensor([[0, 1, 0], [0, 0, 0]])
    expected = [[True, False, True, False], [True, False, False, False]]
    for dtype in (torch.int64, torch.float32, torch.bool, torch.uint8):
        present = present_classes(labels.to(dtype))
        assert present.dtype == torch.bool
        assert present.tolist() == expected


def test_a_class_absent_from_the_labels_is_never_given():
    scores = noise(classes=4)
    scores[:, 2] += 10
    mask = pseudo_mask(scores, torch.tensor([[1, 0, 1], [1, 0, 0]]))
    assert set(mask[0].flatten().tolist()) <= {0, 1, 3, 255}
    assert set(mask[1].flatten().tolist()) <= {0, 1, 255}
    assert (mask == 1).any()


def test_an_absent_class_takes_no_part_in_conflicts():
    scores = noise(classes=4)
    labels = torch.tensor([[1, 0, 1], [1, 0, 0]])
    before = pseudo_mask(scores, labels)
    scores[:, 2] = 10
    assert torch.equal(pseudo_mask(scores, labels), before)


def test_an_image_without_objects_has_background_only():
    mask = pseudo_mask(noise(), torch.zeros(2, 3))
    assert set(mask.flatten().tolist()) == {0, 255}


def test_two_claims_on_one_pixel_leave_it_unlabelled():
    one, other = [[0.9, 0.9, 0.1]], [[0.1, 0.8, 0.8]]
    for scores in (claims([[0.0] * 3], one, other), claims([[0.0] * 3], other, one)):
        assert pseudo_mask(scores, torch.tensor([[1, 1]]))[0, 0, 1] == 255
    mask = pseudo_mask(claims(one, other, [[0.0] * 3]), torch.tensor([[1, 1]]))  # background and object
    assert mask.tolist() == [[[0, 255, 1]]]


def test_three_claims_leave_it_unlabelled_too():
    assert pseudo_mask(torch.ones(1, 3, 1, 1), torch.ones(1, 2)).item() == 255


def test_the_stronger_of_two_claims_does_not_win():
    mask = pseudo_mask(claims([[0.0, 0.0]], [[1.0, 1.0]], [[0.3, 0.0]]), torch.tensor([[1, 1]]))
    assert mask.tolist() == [[[255, 1]]]


def test_below_the_floor_nothing_is_claimed():
    weak = claims([[0.0, 0.0]], [[0.19, 0.01]])
    assert pseudo_mask(weak, torch.tensor([[1]])).tolist() == [[[255, 255]]]
    assert pseudo_mask(weak, torch.tensor([[1]]), least_cutoff=0.1).tolist() == [[[1, 255]]]


def test_the_floor_acts_where_the_share_of_the_maximum_lies_below_it():
    scores = claims([[0.0, 0.0, 0.0]], [[0.3, 0.19, 0.21]])  # 60 % of 0.3 is 0.18
    assert pseudo_mask(scores, torch.tensor([[1]])).tolist() == [[[1, 255, 1]]]


def test_the_background_has_a_cutoff_of_its_own():
    scores = claims([[1.0, 0.65, 0.0, 0.0]], [[0.0, 0.0, 1.0, 0.65]])
    label = torch.tensor([[1]])
    assert pseudo_mask(scores, label).tolist() == [[[0, 0, 1, 1]]]
    assert pseudo_mask(scores, label, background_cutoff=0.7).tolist() == [[[0, 255, 1, 1]]]
    assert pseudo_mask(scores, label, object_cutoff=0.7).tolist() == [[[0, 0, 1, 255]]]


def test_exactly_the_share_of_the_maximum_is_not_enough():
    scores = claims([[0.0] * 3], [[1.0, 0.5, 0.50001]])
    assert pseudo_mask(scores, torch.tensor([[1]]), object_cutoff=0.5).tolist() == [[[1, 255, 1]]]


def test_exactly_the_floor_is_not_enough():
    scores = claims([[0.0] * 3], [[0.26, 0.25, 0.24]])
    mask = pseudo_mask(scores, torch.tensor([[1]]), object_cutoff=0.5, least_cutoff=0.25)
    assert mask.tolist() == [[[1, 255, 255]]]


def test_the_share_is_of_the_maximum_of_the_class_in_the_image():
    strong, weak = [[0.9, 0.5, 0.0, 0.0]], [[0.0, 0.0, 0.4, 0.25]]
    mask = pseudo_mask(claims([[0.0] * 4], strong, weak), torch.tensor([[1, 1]]))
    assert mask.tolist() == [[[1, 255, 2, 2]]]  # 0.5 is too little of 0.9, 0.25 is enough of 0.4


def test_the_scale_of_a_class_does_not_matter_above_the_floor():
    scores, labels = noise(), torch.ones(2, 3)
    scaled = scores * torch.tensor([1.0, 3.0, 0.5, 8.0]).view(1, 4, 1, 1)  # refined maps do not sum to 1
    assert torch.equal(pseudo_mask(scaled, labels, least_cutoff=0), pseudo_mask(scores, labels, least_cutoff=0))


def test_a_mask_does_not_depend_on_the_batch():
    scores, labels = noise(batch=3), torch.tensor([[1, 0, 1], [0, 1, 0], [1, 1, 1]])
    scores[1] *= 7
    together = pseudo_mask(scores, labels)
    for i in range(3):
        assert torch.equal(together[i : i + 1], pseudo_mask(scores[i : i + 1], labels[i : i + 1]))


def test_an_empty_map_is_unlabelled():
    assert pseudo_mask(torch.zeros(1, 3, 4, 4), torch.ones(1, 2), least_cutoff=0).eq(255).all()


def test_leaves_its_inputs_as_they_were():
    scores, labels = noise(), torch.tensor([[1, 0, 1], [0, 1, 0]])
    pseudo_mask(scores, labels)
    assert torch.equal(scores, noise())
    assert labels.tolist() == [[1, 0, 1], [0, 1, 0]]
