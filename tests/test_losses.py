"""The losses (Eq. 2, 7 and 8): by hand, against slow definitions, and what must hold of them."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

from wsss.losses import classification_loss, pixel_loss, region_loss

LN2 = math.log(2)


def noise(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def pseudo_of(*shape, classes=3, unlabelled=0.3, seed=0):
    """A random pseudo mask, a part of it 255."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.randint(0, classes, shape, generator=generator)
    return mask.masked_fill(torch.rand(shape, generator=generator) < unlabelled, 255)


def logits_of(*pixels):
    """Logits (1, K, 1, number of pixels) whose softmax is the given distribution of each pixel."""
    return torch.tensor(pixels).log().T[None, :, None]


# --- Classification (Eq. 2)


def test_classification_by_hand():
    scores, labels = torch.tensor([[0.0, math.log(3)]]), torch.tensor([[1.0, 0.0]])
    # sigma(0) = 1/2 for a present class, sigma(ln 3) = 3/4 for an absent one: -ln(1/2) and -ln(1 - 3/4).
    assert classification_loss(scores, labels).item() == pytest.approx((LN2 + 2 * LN2) / 2)


def test_classification_matches_its_definition():
    scores, labels = 3 * noise(4, 5), (noise(4, 5, seed=1) > 0).float()
    total = 0
    for score, label in zip(scores.flatten().tolist(), labels.flatten().tolist(), strict=True):
        y = 1 / (1 + math.exp(-score))
        total -= label * math.log(y) + (1 - label) * math.log(1 - y)
    assert classification_loss(scores, labels).item() == pytest.approx(total / 20, rel=1e-5)


def test_classification_is_the_mean_over_the_images():
    scores, labels = noise(3, 5), (noise(3, 5, seed=1) > 0).float()
    single = [classification_loss(scores[i : i + 1], labels[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(classification_loss(scores, labels), sum(single) / 3)


def test_a_right_classification_costs_nothing_and_a_wrong_one_stays_finite():
    labels = torch.tensor([[1.0, 0.0]])
    right = torch.tensor([[1e4, -1e4]], requires_grad=True)
    assert classification_loss(right, labels).item() == 0
    wrong = (-right).detach().requires_grad_()
    loss = classification_loss(wrong, labels)
    loss.backward()
    assert loss.item() == pytest.approx(1e4)
    assert wrong.grad.tolist() == [[-0.5, 0.5]]


def test_gradient_of_the_classification_is_right():
    labels = (noise(2, 3, seed=1) > 0).double()
    scores = noise(2, 3, dtype=torch.float64).requires_grad_()
    assert gradcheck(classification_loss, (scores, labels))


# --- Pixels (Eq. 7)


def pixel_by_definition(logits, pseudo, labels=None):
    """Eq. 7 with loops; classes weigh (|V| - n_c) / (1 + |V|) within each image."""
    losses = []
    for n, (logit, mask) in enumerate(zip(logits.double().numpy(), pseudo.numpy(), strict=True)):
        valid = [i for i in np.ndindex(mask.shape) if mask[i] != 255]
        found = {mask[i] for i in valid}
        loss = 0.0
        for i in valid:
            size = sum(mask[j] == mask[i] for j in valid)
            probability = np.exp(logit[:, *i]) / np.exp(logit[:, *i]).sum()
            loss -= (len(valid) - size) / (1 + len(valid)) * np.log(probability[mask[i]]) / len(valid)
        if labels is not None and not {0, *(labels[n].nonzero().flatten() + 1).tolist()} <= found:
            loss = 0.0
        losses.append(loss)
    return sum(losses) / len(losses)


def test_a_mask_that_is_trusted_costs_the_mean_surprise_of_its_labelled_pixels_be_they_of_one_class():
    logits = logits_of([0.5, 0.5], [0.25, 0.75], [0.9, 0.1])
    found = pixel_loss(logits, torch.tensor([[[1, 1, 255]]]), balanced=False)
    assert found.item() == pytest.approx((LN2 - math.log(0.75)) / 2)
    assert pixel_loss(logits, torch.full((1, 1, 3), 255), balanced=False).item() == 0


@pytest.mark.parametrize("loss", [pixel_loss, partial(pixel_loss, balanced=False), region_loss])
def test_a_batch_costs_the_mean_of_its_parts_which_processes_share(loss):
    random = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 3, 8, 8, generator=random)
    mask = torch.randint(3, (4, 8, 8), generator=random)
    mask[:2, 1:] = 255  # the first part has fewer labelled pixels
    parts = [loss(logits[half], mask[half]) for half in (slice(2), slice(2, 4))]
    torch.testing.assert_close(loss(logits, mask), sum(parts) / 2)


@pytest.mark.parametrize("unlabelled", [0.0, 0.4, 0.95])
def test_pixel_loss_matches_its_definition(unlabelled):
    logits, pseudo = noise(3, 4, 5, 6), pseudo_of(3, 5, 6, classes=4, unlabelled=unlabelled)
    assert pixel_loss(logits, pseudo).item() == pytest.approx(pixel_by_definition(logits, pseudo), rel=1e-5)


def test_pixel_loss_matches_its_definition_with_labels():
    logits, pseudo = noise(4, 4, 5, 6), pseudo_of(4, 5, 6, classes=3)  # class 3 claimed no pixel
    labels = torch.tensor([[1, 1, 0], [1, 1, 1], [0, 0, 1], [0, 0, 0]])
    expected = pixel_by_definition(logits, pseudo, labels)
    assert 0 < expected < pixel_by_definition(logits, pseudo)
    assert pixel_loss(logits, pseudo, labels).item() == pytest.approx(expected, rel=1e-5)


def test_without_balance_the_pixel_loss_is_the_mean_over_the_labelled_pixels():
    logits, pseudo = noise(1, 3, 6, 5, seed=7), pseudo_of(1, 6, 5)
    expected = torch.nn.functional.cross_entropy(logits, pseudo, ignore_index=255)
    torch.testing.assert_close(pixel_loss(logits, pseudo, balanced=False), expected)


def test_pixel_loss_by_hand_on_four_pixels():
    logits = logits_of([1 / 2, 1 / 2], [1 / 2, 1 / 2], [1 / 2, 1 / 2], [3 / 4, 1 / 4])
    pseudo = torch.tensor([[[0, 0, 0, 1]]])
    # |V| = 4. The three of background weigh (4 - 3) / 5 and cost ln 2, the one of the object (4 - 1) / 5 and 2 ln 2.
    expected = (3 * 1 / 5 * LN2 + 3 / 5 * 2 * LN2) / 4
    assert pixel_loss(logits, pseudo).item() == pytest.approx(expected)


def test_pixel_loss_by_hand_with_an_unlabelled_pixel():
    logits = logits_of([1 / 2, 1 / 2], [1 / 2, 1 / 2], [1 / 100, 99 / 100], [3 / 4, 1 / 4])
    pseudo = torch.tensor([[[0, 0, 255, 1]]])
    # |V| = 3: the two of background weigh (3 - 2) / 4, the object's one (3 - 1) / 4.
    expected = (2 * 1 / 4 * LN2 + 2 / 4 * 2 * LN2) / 3
    assert pixel_loss(logits, pseudo).item() == pytest.approx(expected)


@pytest.mark.parametrize("labels", [None, torch.tensor([[1, 1]])])
def test_an_unlabelled_pixel_contributes_nothing_not_even_gradient(labels):
    logits = noise(1, 3, 6, 6).requires_grad_()
    pseudo = pseudo_of(1, 6, 6)
    loss = pixel_loss(logits, pseudo, labels)
    loss.backward()
    unlabelled = (pseudo == 255).unsqueeze(1).expand_as(logits)
    assert logits.grad[unlabelled].eq(0).all()
    assert logits.grad[~unlabelled].ne(0).all()
    others = torch.where(unlabelled, 50 * noise(1, 3, 6, 6, seed=1), logits)
    torch.testing.assert_close(pixel_loss(others, pseudo, labels), loss)


def test_a_perfect_prediction_beats_any_other():
    pseudo = pseudo_of(1, 6, 6)
    perfect = torch.full((1, 3, 6, 6), -30.0).scatter_(1, pseudo.masked_fill(pseudo == 255, 0).unsqueeze(1), 30.0)
    assert pixel_loss(perfect, pseudo).item() == pytest.approx(0, abs=1e-6)
    for seed in range(5):
        assert pixel_loss(perfect + 60 * noise(1, 3, 6, 6, seed=seed), pseudo) > 0.1


def test_a_large_background_does_not_drown_a_small_object():
    """All background is no better than all object, although background has nine pixels of ten."""
    pseudo = torch.zeros(1, 1, 10, dtype=torch.long)
    pseudo[..., 0] = 1
    background = logits_of(*[[0.9, 0.1]] * 10)
    torch.testing.assert_close(pixel_loss(background, pseudo), pixel_loss(background.flip(1), pseudo))


def test_an_image_counts_only_when_each_of_its_classes_claimed_a_pixel():
    logits = noise(1, 3, 2, 2)
    both, first, objects = ([[[0, 1], [2, 255]]], [[[0, 1], [1, 0]]], [[[1, 2], [2, 255]]])
    for mask, labels, counts in [
        (both, [1, 1], True),
        (both, [1, 0], True),  # a class too many does not hurt
        (first, [1, 1], False),  # class 2 claimed none
        (first, [1, 0], True),
        (objects, [1, 1], False),  # the background claimed none
    ]:
        mask = torch.tensor(mask)
        expected = pixel_loss(logits, mask) if counts else torch.tensor(0.0)
        for dtype in (torch.int64, torch.float32):
            loss = pixel_loss(logits, mask, torch.tensor([labels], dtype=dtype))
            torch.testing.assert_close(loss, expected)


def test_an_image_that_does_not_count_stays_in_the_mean_and_gets_no_gradient():
    logits = noise(2, 3, 2, 2).requires_grad_()
    pseudo = torch.tensor([[[0, 1], [2, 255]], [[0, 0], [1, 255]]])
    loss = pixel_loss(logits, pseudo, torch.ones(2, 2))
    torch.testing.assert_close(loss, pixel_loss(logits[:1], pseudo[:1]) / 2)
    loss.backward()
    assert logits.grad[1].eq(0).all()


@pytest.mark.parametrize("labels", [None, torch.ones(2, 2)])
def test_where_nothing_is_labelled_the_pixel_loss_is_zero_and_its_gradient_finite(labels):
    logits = noise(2, 3, 4, 4).requires_grad_()
    loss = pixel_loss(logits, torch.full((2, 4, 4), 255), labels)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.eq(0).all()


def test_pixel_loss_is_the_mean_over_the_images():
    logits, pseudo = noise(3, 3, 5, 5), pseudo_of(3, 5, 5)
    single = [pixel_loss(logits[i : i + 1], pseudo[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(pixel_loss(logits, pseudo), sum(single) / 3)


def test_pixel_loss_stays_finite_at_extreme_logits():
    logits = (1e4 * noise(2, 3, 4, 4)).requires_grad_()
    loss = pixel_loss(logits, pseudo_of(2, 4, 4))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize("labels", [None, torch.tensor([[1, 1], [1, 1]])])
def test_gradient_of_the_pixel_loss_is_right(labels):
    logits = noise(2, 3, 3, 3, dtype=torch.float64).requires_grad_()
    pseudo = pseudo_of(2, 3, 3, unlabelled=0.2)
    assert gradcheck(lambda x: pixel_loss(x, pseudo, labels), logits)


# --- Regions (Eq. 8)


def region_by_definition(logits, pseudo, radius, margin):
    """Eq. 8 with loops over all pixels and their windows, with the sign of its text; in float64, differentiable."""
    probs = logits.double().softmax(1)
    loss = 0.0
    for image, mask in zip(probs, pseudo.tolist(), strict=True):
        height, width = len(mask), len(mask[0])
        valid = [(y, x) for y in range(height) for x in range(width) if mask[y][x] != 255]
        for i in valid:
            near = [j for j in valid if j != i and abs(j[0] - i[0]) <= radius and abs(j[1] - i[1]) <= radius]
            for j in near:
                m_i, m_j = image[:, *i], image[:, *j]
                divergence = (m_j * (m_j / m_i).log()).sum()
                same = mask[i[0]][i[1]] == mask[j[0]][j[1]]
                pair = divergence if same else (margin - divergence).clamp(min=0)
                loss = loss + pair / len(near) / len(valid) / len(probs)
    return loss


@pytest.mark.parametrize("size", [(5, 6), (1, 7), (6, 1), (2, 2)])
@pytest.mark.parametrize(("radius", "margin"), [(1, 3.0), (2, 0.5), (3, 3.0)])
def test_region_loss_and_its_gradient_match_the_definition(size, radius, margin):
    logits, pseudo = noise(2, 3, *size), pseudo_of(2, *size)
    given, expected = logits.clone().requires_grad_(), logits.double().requires_grad_()
    loss = region_loss(given, pseudo, radius=radius, margin=margin)
    slow = region_by_definition(expected, pseudo, radius, margin)
    loss.backward()
    slow.backward()
    assert loss.item() == pytest.approx(slow.item(), rel=1e-5)
    torch.testing.assert_close(given.grad, expected.grad.float(), atol=1e-6, rtol=1e-4)


def test_a_window_may_exceed_the_image():
    logits, pseudo = noise(1, 3, 3, 3), pseudo_of(1, 3, 3)
    expected = region_by_definition(logits, pseudo, 4, 3.0).item()
    assert region_loss(logits, pseudo, radius=4).item() == pytest.approx(expected, rel=1e-5)


P, Q = [1 / 2, 1 / 2], [3 / 4, 1 / 4]
D_PQ = 1 / 2 * math.log((1 / 2) / (3 / 4)) + 1 / 2 * math.log((1 / 2) / (1 / 4))  # D(p || q), 0.144
D_QP = 3 / 4 * math.log((3 / 4) / (1 / 2)) + 1 / 4 * math.log((1 / 4) / (1 / 2))  # D(q || p), 0.131


def test_region_loss_by_hand_on_two_pixels_of_one_class():
    # Each pixel has one neighbour: D(q || p) for the first, D(p || q) for the second.
    assert region_loss(logits_of(P, Q), torch.tensor([[[1, 1]]])).item() == pytest.approx((D_QP + D_PQ) / 2)


def test_region_loss_by_hand_on_two_pixels_of_different_classes():
    expected = ((3 - D_QP) + (3 - D_PQ)) / 2
    assert region_loss(logits_of(P, Q), torch.tensor([[[0, 1]]])).item() == pytest.approx(expected)


def test_divergence_is_of_the_neighbor_from_the_pixel_by_hand():
    pseudo = torch.tensor([[[1, 1, 0]]])
    logits = logits_of(P, Q, [1 / 4, 3 / 4])
    # Radius 1 and no margin: only the pair of one class costs. It is the only pair of the first pixel, D(q || p), and
    # one of two of the second, D(p || q) / 2; the third has nothing to pay.
    loss = region_loss(logits, pseudo, radius=1, margin=0.0)
    assert loss.item() == pytest.approx((D_QP + D_PQ / 2 + 0) / 3)


def test_both_directions_of_a_divergence_are_counted():
    margin = (D_PQ + D_QP) / 2  # lies between the two: the hinge of one direction is shut
    assert D_QP < margin < D_PQ
    loss = region_loss(logits_of(P, Q), torch.tensor([[[0, 1]]]), margin=margin)
    assert loss.item() == pytest.approx((margin - D_QP) / 2, rel=1e-4)


def test_the_default_window_and_margin_of_a_region_are_3():
    logits, pseudo = noise(1, 3, 9, 9), pseudo_of(1, 9, 9)
    assert torch.equal(region_loss(logits, pseudo), region_loss(logits, pseudo, radius=3, margin=3.0))


def test_bringing_neighbors_of_one_class_closer_lowers_the_loss():
    """The printed minus of Eq. 8 would raise it."""
    pseudo = torch.ones(1, 4, 4, dtype=torch.long)
    logits = 2 * noise(1, 3, 4, 4)
    mean = logits.mean((2, 3), keepdim=True)
    losses = [region_loss(torch.lerp(logits, mean, share), pseudo).item() for share in (0, 0.25, 0.5, 0.75, 1)]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] > 0.1
    assert losses[-1] == pytest.approx(0, abs=1e-6)


def test_moving_neighbors_of_different_classes_apart_lowers_the_loss_up_to_the_margin():
    pseudo = torch.tensor([[[0, 1]]])
    losses = [
        region_loss(logits_of([0.5 + d, 0.5 - d], [0.5 - d, 0.5 + d]), pseudo).item()
        for d in (0, 0.2, 0.4, 0.49, 0.499)
    ]
    assert losses[0] == pytest.approx(3)
    assert losses[0] > losses[1] > losses[2] > losses[3]
    assert losses[3] == losses[4] == 0


def test_a_step_down_the_gradient_lowers_the_region_loss():
    logits, pseudo = noise(2, 3, 6, 6).requires_grad_(), pseudo_of(2, 6, 6)
    loss = region_loss(logits, pseudo)
    loss.backward()
    assert region_loss(logits.detach() - 0.1 * logits.grad, pseudo) < loss


def test_a_confident_prediction_that_agrees_costs_nothing():
    pseudo = pseudo_of(2, 6, 6)
    perfect = torch.full((2, 3, 6, 6), -20.0).scatter_(1, pseudo.masked_fill(pseudo == 255, 0).unsqueeze(1), 20.0)
    assert region_loss(perfect, pseudo).item() == pytest.approx(0, abs=1e-6)


def test_a_uniform_prediction_costs_the_margin_at_boundaries_only():
    plain = torch.zeros(1, 3, 5, 5)
    assert region_loss(plain, torch.ones(1, 5, 5, dtype=torch.long)).item() == pytest.approx(0, abs=1e-6)
    pseudo = torch.zeros(1, 1, 2, dtype=torch.long)
    pseudo[..., 1] = 2
    assert region_loss(plain[..., :1, :2], pseudo, margin=1.7).item() == pytest.approx(1.7)


def test_an_unlabelled_pixel_has_no_part_in_any_region():
    logits = noise(2, 3, 6, 6).requires_grad_()
    pseudo = pseudo_of(2, 6, 6)
    loss = region_loss(logits, pseudo)
    loss.backward()
    unlabelled = (pseudo == 255).unsqueeze(1).expand_as(logits)
    assert logits.grad[unlabelled].eq(0).all()
    others = torch.where(unlabelled, 50 * noise(2, 3, 6, 6, seed=1), logits)
    torch.testing.assert_close(region_loss(others, pseudo), loss)


def test_unlabelled_pixels_are_no_class_of_their_own_nor_background():
    logits = logits_of(P, Q, P)
    assert region_loss(logits, torch.tensor([[[255, 0, 255]]])).item() == 0
    alone = region_loss(logits[..., :2], torch.tensor([[[0, 0]]]))
    torch.testing.assert_close(region_loss(logits, torch.tensor([[[0, 0, 255]]])), alone)


@pytest.mark.parametrize("labelled", [0, 1, 2])
def test_without_a_valid_pair_the_region_loss_is_zero_and_its_gradient_finite(labelled):
    pseudo = torch.full((1, 5, 5), 255)
    pseudo[0, 0, 0] = 0 if labelled > 0 else 255
    pseudo[0, 4, 4] = 1 if labelled > 1 else 255  # too far from the other
    logits = noise(1, 3, 5, 5).requires_grad_()
    loss = region_loss(logits, pseudo)
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.eq(0).all()


def test_an_image_without_a_valid_pair_stays_in_the_mean():
    logits = logits_of(P, Q).repeat(2, 1, 1, 1)
    pseudo = torch.tensor([[[1, 1]], [[255, 1]]])
    assert region_loss(logits, pseudo).item() == pytest.approx((D_QP + D_PQ) / 2 / 2)


def test_region_loss_is_the_mean_over_the_images():
    logits, pseudo = noise(3, 3, 5, 5), pseudo_of(3, 5, 5)
    single = [region_loss(logits[i : i + 1], pseudo[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(region_loss(logits, pseudo), sum(single) / 3)


@pytest.mark.parametrize("turn", [lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: x.transpose(-1, -2)])
def test_a_mirrored_image_has_the_same_region_loss(turn):
    logits, pseudo = noise(2, 3, 5, 7), pseudo_of(2, 5, 7)
    torch.testing.assert_close(region_loss(turn(logits), turn(pseudo)), region_loss(logits, pseudo))


@pytest.mark.parametrize("scale", [1e2, 1e4, 1e8])
def test_region_loss_stays_finite_at_extreme_logits(scale):
    logits = (scale * noise(2, 3, 5, 5)).requires_grad_()
    loss = region_loss(logits, pseudo_of(2, 5, 5))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


def test_the_divergence_of_certain_opposites_is_bounded_by_hand():
    logits = torch.tensor([[50.0, -50.0], [-50.0, 50.0]])[None, :, None]
    # Probabilities count as at least 1e-4: D = 1 ln(1 / 1e-4) + 1e-4 ln(1e-4 / 1).
    bound = (1 - 1e-4) * math.log(1e4)
    assert region_loss(logits, torch.tensor([[[1, 1]]])).item() == pytest.approx(bound, rel=1e-4)


def test_region_loss_is_computed_in_float32_under_autocast():
    logits, pseudo = noise(1, 3, 5, 5), pseudo_of(1, 5, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = region_loss(logits, pseudo)
        rounded = region_loss(logits.bfloat16(), pseudo)
    torch.testing.assert_close(loss, region_loss(logits, pseudo))
    torch.testing.assert_close(rounded, region_loss(logits.bfloat16().float(), pseudo))


@pytest.mark.parametrize("loss", [pixel_loss, region_loss])
def test_losses_leave_their_inputs_as_they_were(loss):
    logits, pseudo = noise(2, 3, 5, 5), pseudo_of(2, 5, 5)
    loss(logits, pseudo)
    assert torch.equal(logits, noise(2, 3, 5, 5))
    assert torch.equal(pseudo, pseudo_of(2, 5, 5))
