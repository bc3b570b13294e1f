"""Pixel refinement (Eq. 5 and 6): against PAMR, against slow definitions, and what must hold of it."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from wsss.refinement import (
    DILATIONS,
    affinity,
    kernel,
    neighbor_offsets,
    propagate,
    refine,
    with_background_scores,
)


def scene(size=(9, 11), classes=3, batch=2, seed=0):
    """Image, scores and their softmax, all noise."""
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(batch, 3, *size, generator=generator)
    scores = 2 * torch.randn(batch, classes, *size, generator=generator)
    return image, scores, scores.softmax(1)


def picture(size=(33, 40), seed=0):
    """A photograph in 8 bits, with plain surfaces where no color deviates: (1, 3, H, W) in [0, 1]."""
    coarse = torch.randint(0, 256, (1, 3, 2, 3), generator=torch.Generator().manual_seed(seed)) / 255
    image = F.interpolate(coarse, size, mode="nearest")
    image[..., : size[0] // 4, : size[1] // 4] = scene(size)[0][:1, :, : size[0] // 4, : size[1] // 4]
    return image


def pamr(image, maps, steps, dilations=DILATIONS):
    """PAMR as published: fixed one-hot 3x3 convolutions, one for each dilation, over a replicated border.

    Sigma is the unbiased deviation of all 6 x 9 samples, so that the centre counts six times; the mean is over the
    colors; one softmax joins the 48 neighbours of all dilations; only the maps are iterated.
    """
    one_hot = torch.eye(9, dtype=image.dtype).view(9, 1, 3, 3)
    center, neighbors = one_hot[4:5], one_hot[[0, 1, 2, 3, 5, 6, 7, 8]]

    def seen(x, filters):
        flat = x.flatten(0, 1).unsqueeze(1)
        rings = [F.conv2d(F.pad(flat, [d] * 4, mode="replicate"), filters, dilation=d) for d in dilations]
        return torch.cat(rings, 1).unflatten(0, x.shape[:2])  # (B, C, samples, H, W)

    sigma = seen(image, one_hot).std(2, keepdim=True)
    alike = -seen(image, neighbors - center).abs() / (1e-8 + 0.1 * sigma)
    weights = alike.mean(1, keepdim=True).softmax(2)
    for _ in range(steps):
        maps = (weights * seen(maps, neighbors)).sum(2)
    return maps


def refined_by_definition(image, scores, maps, alpha, steps, dilations):
    """Eq. 5 and 6 with loops over the pixels of one photograph: slow, and too plain to be wrong."""
    image, scores, maps = (x.double().numpy() for x in (image, scores, maps))
    height, width = image.shape[-2:]
    ring = [(-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1)]

    def alike(channel, y, x, near):
        samples = [channel[j] for j in near] + len(dilations) * [channel[y, x]]
        sigma = np.std(samples, ddof=1)
        return np.array([-abs(channel[y, x] - channel[j]) / (1e-8 + 0.1 * sigma) for j in near])

    deltas = []
    for y, x in np.ndindex(height, width):
        offsets = [(d * dy, d * dx) for d in dilations for dy, dx in ring]
        near = [(min(max(y + dy, 0), height - 1), min(max(x + dx, 0), width - 1)) for dy, dx in offsets]
        color = sum(alike(channel, y, x, near) for channel in image) / len(image)
        for c, channel in enumerate(scores):
            k = np.exp(alpha * color + (1 - alpha) * alike(channel, y, x, near))
            deltas.append((c, y, x, near, k / k.sum()))
    for _ in range(steps):
        before, maps = maps, np.empty_like(maps)
        for c, y, x, near, delta in deltas:
            maps[c, y, x] = sum(weight * before[c][j] for weight, j in zip(delta, near, strict=True))
    return torch.from_numpy(maps).float()


# --- Against slow definitions


@pytest.mark.parametrize("size", [(31, 34), (9, 7), (1, 12), (6, 1), (1, 1)])
def test_at_alpha_one_it_is_pamr(size):
    image, scores, probs = scene(size, classes=2)
    expected = pamr(image.double(), probs.double(), steps=10).float()
    torch.testing.assert_close(refine(image, scores, probs, alpha=1.0, steps=10), expected, atol=1e-5, rtol=0)


def test_at_alpha_one_it_is_pamr_on_plain_surfaces_too():
    image = picture()
    _, scores, probs = scene(image.shape[-2:], batch=1)
    expected = pamr(image, probs, steps=10)
    torch.testing.assert_close(refine(image, scores, probs, alpha=1.0, steps=10), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("alpha", [0.0, 0.35, 0.8, 1.0])
@pytest.mark.parametrize(
    ("size", "dilations"),
    [((5, 7), (1, 2)), ((7, 5), (1, 3)), ((5, 4), DILATIONS), ((1, 6), DILATIONS), ((5, 1), (2,)), ((1, 1), (1, 24))],
)
def test_matches_its_definition(alpha, size, dilations):
    image, scores, probs = scene(size, classes=2)
    refined = refine(image, scores, probs, alpha=alpha, steps=3, dilations=dilations)
    for given, result in zip(zip(image, scores, probs, strict=True), refined, strict=True):
        expected = refined_by_definition(*given, alpha, 3, dilations)
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("alpha", [0.0, 0.8, 1.0])
def test_equals_repeated_multiplication_by_the_dense_matrix(alpha):
    image, scores, probs = scene((5, 5), classes=2, batch=1)
    dilations = (1, 2)
    refined = refine(image, scores, probs, alpha=alpha, steps=10, dilations=dilations)
    for c in range(2):
        weights = affinity(kernel(image, dilations), kernel(scores[:, c : c + 1], dilations), alpha)[0]
        matrix = np.zeros((25, 25))
        for n, (dy, dx) in enumerate(neighbor_offsets(dilations)):
            for y, x in np.ndindex(5, 5):
                matrix[5 * y + x, 5 * min(max(y + dy, 0), 4) + min(max(x + dx, 0), 4)] += weights[n, y, x]
        expected = np.linalg.matrix_power(matrix, 10) @ probs[0, c].double().numpy().ravel()
        np.testing.assert_allclose(refined[0, c].numpy().ravel(), expected, atol=1e-5)


# --- Worked by hand: three pixels in a row see themselves above and below, for the border is replicated

LEFT, ITSELF, RIGHT = [0, 3, 5], [1, 6], [2, 4, 7]  # which of the eight neighbours of the middle pixel they are


def row(*values):
    return torch.tensor(values, dtype=torch.float32).view(1, 1, 1, -1)


def test_neighbors_are_eight_at_each_distance_without_the_pixel_itself():
    offsets = neighbor_offsets()
    assert len(offsets) == len(set(offsets)) == 48
    assert (0, 0) not in offsets
    assert [max(abs(dy), abs(dx)) for dy, dx in offsets] == [d for d in (1, 2, 4, 8, 12, 24) for _ in range(8)]
    assert {(dy % d, dx % d) for (dy, dx), d in zip(offsets, np.repeat(DILATIONS, 8), strict=True)} == {(0, 0)}


def test_kernel_by_hand_on_three_pixels():
    # Around the middle pixel lie 3 x (0, 0, 1): mean 1/3, squared deviations 6/9 + 3 x 4/9 = 2, sigma^2 = 2 / (9 - 1).
    sigma = math.sqrt(2 / 8)
    k = kernel(row(0, 0, 1), dilations=(1,))[0, :, 0, 1]
    torch.testing.assert_close(k[RIGHT], torch.full((3,), -1 / (0.1 * sigma)))  # -20
    assert k[LEFT + ITSELF].eq(0).all()


def test_kernel_counts_the_pixel_itself_once_a_ring():
    # Seen at distance 1 and at 2 alike: 18 samples, 6 of them 1; squared deviations 4, and sigma^2 = 4 / 17.
    k = kernel(row(0, 0, 1), dilations=(1, 2))[0, :, 0, 1]
    torch.testing.assert_close(k[RIGHT], torch.full((3,), -10 / math.sqrt(4 / 17)))


def test_kernel_averages_over_the_colors():
    image = torch.cat([row(0, 0, 1), row(4, 4, 4), row(3, 0, 0)], 1)
    k = kernel(image, dilations=(1,))[0, :, 0, 1]
    torch.testing.assert_close(k[LEFT], torch.full((3,), -20 / 3))
    torch.testing.assert_close(k[RIGHT], torch.full((3,), -20 / 3))
    assert k[ITSELF].eq(0).all()


def test_one_step_by_hand_on_three_pixels():
    # The color differs on the right, the score on the left, each by 20 tenths of sigma (above). With alpha = 0.9:
    left, right = math.exp(-0.1 * 20), math.exp(-0.9 * 20)
    expected = (3 * left * 0.7 + 2 * 0.4 + 3 * right * 0.1) / (3 * left + 2 + 3 * right)
    refined = refine(
        row(0, 0, 1).expand(1, 3, 1, 3), row(5, 2, 2), row(0.7, 0.4, 0.1), alpha=0.9, steps=1, dilations=(1,)
    )
    assert refined[0, 0, 0, 1].item() == pytest.approx(expected, abs=1e-6)


def test_where_all_looks_and_scores_alike_each_pixel_takes_the_plain_mean_by_hand():
    plain = torch.full((1, 3, 1, 3), 0.3)
    refined = refine(plain, row(1, 1, 1), row(0, 0, 8), steps=1, dilations=(1,))
    # The middle sees 8 three times of eight; the right pixel also in its two copies above and below.
    torch.testing.assert_close(refined, row(0, 3, 5))


# --- Limit cases


@pytest.mark.parametrize("alpha", [0.0, 0.8, 1.0])
def test_no_steps_change_nothing(alpha):
    image, scores, probs = scene()
    assert torch.equal(refine(image, scores, probs, alpha=alpha, steps=0), probs)


@pytest.mark.parametrize("alpha", [0.0, 0.8, 1.0])
def test_a_constant_mask_stays_constant(alpha):
    image, scores, _ = scene()
    constant = torch.tensor([0.1, 0.3, 0.6]).view(1, 3, 1, 1).expand_as(scores)
    torch.testing.assert_close(refine(image, scores, constant, alpha=alpha), constant)


def test_at_alpha_one_the_scores_do_not_matter():
    image, scores, probs = scene()
    others = scores.flip(1) ** 3
    assert torch.equal(refine(image, scores, probs, alpha=1.0), refine(image, others, probs, alpha=1.0))
    assert not torch.allclose(refine(image, scores, probs, alpha=0.8), refine(image, others, probs, alpha=0.8))


def test_at_alpha_zero_the_image_does_not_matter():
    image, scores, probs = scene()
    assert torch.equal(refine(image, scores, probs, alpha=0.0), refine(image**3, scores, probs, alpha=0.0))
    assert not torch.allclose(refine(image, scores, probs, alpha=0.2), refine(image**3, scores, probs, alpha=0.2))


def test_at_alpha_one_the_classes_still_sum_to_one():
    refined = refine(*scene(), alpha=1.0)
    torch.testing.assert_close(refined.sum(1), torch.ones_like(refined[:, 0]))


def test_below_alpha_one_the_classes_no_longer_sum_to_one():
    assert (refine(*scene(), alpha=0.8).sum(1) - 1).abs().max() > 0.01


def test_a_constant_background_flattens_its_color_kernel():
    """Its class term is 0 everywhere: alpha * color remains, as in PAMR with a wider bandwidth."""
    image, scores, probs = scene()
    scores[:, 0] = 1.0
    assert kernel(scores[:, :1]).eq(0).all()
    weights = (0.8 * kernel(image)).softmax(1)
    expected = probs[:, 0]
    for _ in range(10):
        expected = propagate(expected, weights)
    torch.testing.assert_close(refine(image, scores, probs, alpha=0.8)[:, 0], expected)


def test_the_background_moves_as_the_one_object_does():
    """Both have the same weights then: what one loses the other gains, and the maps sum to 1 at any alpha."""
    image, scores, _ = scene(classes=2)
    scores[:, 0] = 1.0
    given = with_background_scores(scores, torch.ones(2, 2, dtype=torch.bool))
    torch.testing.assert_close(kernel(given[:, :1]), kernel(scores[:, 1:]))
    refined = refine(image, given, scores.softmax(1), alpha=0.8)
    torch.testing.assert_close(refined.sum(1), torch.ones_like(refined[:, 0]))


def test_the_background_has_the_greatest_score_of_the_objects_that_are_present():
    _, scores, _ = scene(classes=4)
    present = torch.tensor([[True, True, False, True], [True, False, True, False]])
    given = with_background_scores(scores, present)
    assert torch.equal(given[0, 0], torch.maximum(scores[0, 1], scores[0, 3]))
    assert torch.equal(given[1, 0], scores[1, 2])
    assert torch.equal(given[:, 1:], scores[:, 1:])


def test_without_an_object_the_background_favors_no_neighbor():
    image, scores, probs = scene()
    present = torch.tensor([[True, False, False], [True, True, False]])
    given = with_background_scores(scores, present)
    assert kernel(given[:1, :1]).eq(0).all() and kernel(given[1:, :1]).lt(0).any()
    assert refine(image, given, probs, present=present).isfinite().all()


# --- Properties


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_weights_are_a_distribution_over_the_neighbors(alpha):
    image, scores, _ = scene()
    weights = affinity(kernel(image), kernel(scores[:, :1]), alpha)
    assert weights.shape == (2, 48, 9, 11)
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(1), torch.ones(2, 9, 11))


@pytest.mark.parametrize("alpha", [0.0, 0.8, 1.0])
def test_each_step_stays_within_the_range_of_the_one_before(alpha):
    steps = [refine(*scene(), alpha=alpha, steps=count) for count in range(11)]
    for before, after in zip(steps, steps[1:], strict=False):
        assert (after.amin((2, 3)) >= before.amin((2, 3)) - 1e-6).all()
        assert (after.amax((2, 3)) <= before.amax((2, 3)) + 1e-6).all()


@pytest.mark.parametrize(
    "turn", [lambda x: x.flip(-1), lambda x: x.flip(-2), lambda x: x.transpose(-1, -2)], ids=["x", "y", "diagonal"]
)
def test_a_mirrored_photograph_is_refined_to_the_mirror_image(turn):
    given = scene()
    mirrored = refine(*(turn(x) for x in given), alpha=0.6)
    torch.testing.assert_close(mirrored, turn(refine(*given, alpha=0.6)), atol=1e-5, rtol=0)


def test_units_of_the_image_do_not_matter():
    image, scores, probs = scene()
    in_bytes = refine(255 * image, scores, probs)
    torch.testing.assert_close(in_bytes, refine(image, scores, probs), atol=1e-5, rtol=0)


def test_scale_and_level_of_the_scores_do_not_matter():
    image, scores, probs = scene()
    others = 16 * scores + 8
    torch.testing.assert_close(refine(image, others, probs), refine(image, scores, probs), atol=1e-4, rtol=0)


def halves(channels):
    """Left 0, right 1: (1, channels, 12, 40)."""
    x = torch.zeros(1, channels, 12, 40)
    x[..., 20:] = 1
    return x


@pytest.mark.parametrize("alpha", [0.5, 0.8, 1.0])
def test_across_a_sharp_color_edge_little_leaks(alpha):
    constant = torch.ones(1, 1, 12, 40)
    edge, plain = (refine(image, constant, halves(1), alpha=alpha) for image in (halves(3), torch.zeros(1, 3, 12, 40)))
    assert (edge - halves(1)).abs().max() < 1e-3
    assert (plain - halves(1)).abs().max() > 0.3  # without the edge the same map spreads far


def test_across_an_edge_of_the_class_scores_little_leaks_either():
    plain = torch.zeros(1, 3, 12, 40)
    assert (refine(plain, halves(1), halves(1), alpha=0.0) - halves(1)).abs().max() < 1e-4
    assert (refine(plain, halves(1), halves(1), alpha=0.8) - halves(1)).abs().max() < 0.05


def test_a_speck_takes_the_value_of_its_surface():
    """What refinement is for: one wrong pixel in each plain half is outvoted by pixels of its own color."""
    image, truth = halves(3), halves(1)
    noisy = truth.clone()
    noisy[..., 6, 19], noisy[..., 5, 20] = 1, 0
    refined = refine(image, torch.ones_like(truth), noisy)
    assert torch.equal(refined.round(), truth)


# --- Classes, batch, iterations


def test_absent_classes_are_zero():
    present = torch.tensor([[True, False, True], [True, True, False]])
    refined = refine(*scene(), present=present)
    assert refined[~present].eq(0).all()
    assert refined[present].amin() > 0


def test_present_classes_do_not_depend_on_absent_ones():
    image, scores, probs = scene()
    present = torch.tensor([[True, False, True], [True, True, False]])
    refined = refine(image, scores, probs, present=present)
    torch.testing.assert_close(refined[present], refine(image, scores, probs)[present])
    absent = ~present[:, :, None, None]
    others = refine(image, scores + 9 * absent, probs * ~absent, present=present)
    assert torch.equal(others, refined)


def test_a_photograph_without_any_class_becomes_zero():
    present = torch.tensor([[False, False, False], [True, True, True]])
    refined = refine(*scene(), present=present)
    assert refined[0].eq(0).all()
    torch.testing.assert_close(refined[1], refine(*scene())[1])


def test_a_photograph_is_refined_on_its_own():
    image, scores, probs = scene(batch=3)
    present = torch.tensor([[True, True, False], [True, False, False], [True, True, True]])
    together = refine(image, scores, probs, present=present)
    for i in range(3):
        alone = refine(image[i : i + 1], scores[i : i + 1], probs[i : i + 1], present=present[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone)


def test_no_step_gives_the_maps_back_and_two_are_twice_one():
    image, scores, probs = scene()
    assert torch.equal(refine(image, scores, probs, steps=0), probs)
    once = refine(image, scores, probs, alpha=0.6, steps=1)
    twice = refine(image, scores, once, alpha=0.6, steps=1)
    torch.testing.assert_close(refine(image, scores, probs, alpha=0.6, steps=2), twice, rtol=0, atol=1e-5)


# --- Number formats, gradient, inputs


def test_computes_in_float32_under_autocast():
    given = scene()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        refined = refine(*given)
    assert refined.dtype == torch.float32
    assert torch.equal(refined, refine(*given))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_any_float_format_is_taken_and_float32_given(dtype):
    given = [x.to(dtype) for x in (picture((12, 16)), *scene((12, 16), batch=1)[1:])]  # plain surfaces: 0/0 in float16
    refined = refine(*given)
    assert refined.dtype == torch.float32
    assert torch.equal(refined, refine(*(x.float() for x in given)))


def test_no_gradient_flows():
    given = [x.requires_grad_() for x in scene()]
    assert not refine(*given).requires_grad


def test_the_defaults_are_those_of_the_paper():
    image, scores, probs = scene()
    explicit = refine(image, scores, probs, alpha=0.8, steps=10, dilations=(1, 2, 4, 8, 12, 24), present=None)
    assert torch.equal(refine(image, scores, probs), explicit)


def test_leaves_its_inputs_as_they_were():
    given = scene()
    before = [x.clone() for x in given]
    present = torch.tensor([[True, False, True], [True, True, False]])
    refine(*given, present=present)
    refine(*given, steps=0)
    assert all(torch.equal(x, y) for x, y in zip(given, before, strict=True))
    assert present.tolist() == [[True, False, True], [True, True, False]]


def test_result_without_steps_is_not_the_given_tensor():
    image, scores, probs = scene()
    refine(image, scores, probs, steps=0).zero_()
    assert probs.amin() > 0


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("which", range(3))
def test_values_that_are_not_finite_are_refused(which, bad):
    given = scene()
    given[which][0, 0, 0, 0] = bad
    with pytest.raises(ValueError, match="finite"):
        refine(*given)


@pytest.mark.parametrize(
    ("image", "scores", "probs"),
    [
        ((2, 3, 8, 9), (2, 4, 8, 9), (2, 5, 8, 9)),  # classes
        ((2, 3, 8, 9), (2, 4, 9, 8), (2, 4, 8, 9)),  # height and width exchanged
        ((2, 3, 16, 18), (2, 4, 8, 9), (2, 4, 8, 9)),  # the image at another size
        ((1, 3, 8, 9), (2, 4, 8, 9), (2, 4, 8, 9)),  # batch
        ((2, 8, 9, 3), (2, 4, 8, 9), (2, 4, 8, 9)),  # channels last
    ],
)
def test_shapes_that_do_not_fit_are_refused(image, scores, probs):
    with pytest.raises(ValueError, match="do not fit"):
        refine(torch.zeros(image), torch.zeros(scores), torch.zeros(probs))


def test_labels_in_the_place_of_present_classes_are_refused():
    with pytest.raises(ValueError, match="present"):
        refine(*scene(), present=torch.ones(2, 2))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"alpha": 1.01}, "alpha"),
        ({"alpha": -0.1}, "alpha"),
        ({"alpha": math.nan}, "alpha"),
        ({"steps": -1}, "steps"),
        ({"dilations": ()}, "dilations"),
        ({"dilations": (1, 0)}, "dilations"),
    ],
)
def test_settings_out_of_range_are_refused(setting, words):
    with pytest.raises(ValueError, match=words):
        refine(*scene(), **setting)


def test_scores_whose_sum_is_too_large_for_float32_are_finite_all_the_same():
    scores = torch.full((1, 2, 5, 5), 3e38)
    assert torch.isfinite(refine(torch.rand(1, 3, 5, 5), scores, torch.rand(1, 2, 5, 5), steps=1)).all()
