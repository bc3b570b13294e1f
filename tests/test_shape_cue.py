"""Shape cue module (Eq. 3 and 4): against slow definitions, by hand, and what must hold of it."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from wsss.shape_cue import (
    ShapeCue,
    drop_probability,
    drop_texture,
    manhattan_offsets,
    sample_offsets,
    self_information,
)

NEAR = [(0, 1), (1, 0), (-2, 1), (0, -1), (1, 2)]


def noise(*shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def distances_by_definition(image, offsets, patch):
    """||p - p'||^2 of every pixel's patch and each of its neighbouring patches, with loops: (H, W, |N|)."""
    image = image.double().numpy()
    _, height, width = image.shape

    def color(y, x):  # beyond the border the image continues as at the border
        return image[:, min(max(y, 0), height - 1), min(max(x, 0), width - 1)]

    margin = range(-(patch // 2), patch // 2 + 1)
    out = np.zeros((height, width, len(offsets)))
    for (y, x), (n, (dy, dx)) in itertools.product(np.ndindex(height, width), enumerate(offsets)):
        for py, px in itertools.product(margin, margin):
            out[y, x, n] += ((color(y + py, x + px) - color(y + dy + py, x + dx + px)) ** 2).sum()
    return out


def information_by_definition(image, offsets, patch, bandwidth, relative):
    """Eq. 3 as printed, for one image, less its constant log(sqrt(2 pi) h)."""
    distances = distances_by_definition(image, offsets, patch)
    if relative:
        distances /= distances.mean()
    density = np.exp(-distances / (2 * bandwidth**2)) / (math.sqrt(2 * math.pi) * bandwidth)
    information = -np.log(density.sum(-1) / len(offsets))
    return torch.from_numpy(information - math.log(math.sqrt(2 * math.pi) * bandwidth)).float()[None]


# --- Neighbours


@pytest.mark.parametrize(("radius", "number"), [(1, 4), (2, 12), (3, 24), (7, 112)])
def test_positions_within_the_manhattan_distance_are_counted(radius, number):
    offsets = manhattan_offsets(radius)
    assert len(offsets) == len(set(offsets)) == number
    assert {abs(dy) + abs(dx) for dy, dx in offsets} == set(range(1, radius + 1))


def test_neighbors_are_drawn_without_replacement():
    for seed in range(50):
        offsets = sample_offsets(7, 9, torch.Generator().manual_seed(seed))
        assert len(set(offsets)) == 9
        assert set(offsets) <= set(manhattan_offsets(7))
    assert sorted(sample_offsets(1, 3)) != sorted(manhattan_offsets(1))


def test_the_same_generator_draws_the_same_neighbors():
    draws = [sample_offsets(7, 9, torch.Generator().manual_seed(seed)) for seed in (3, 3, 4)]
    assert draws[0] == draws[1]
    assert draws[0] != draws[2]


def test_without_a_generator_each_draw_is_new():
    assert len({tuple(sample_offsets(7, 9)) for _ in range(5)}) > 1


def test_every_neighbor_is_drawn_equally_often():
    generator = torch.Generator().manual_seed(0)
    drawn = [offset for _ in range(1000) for offset in sample_offsets(2, 3, generator)]
    for offset in manhattan_offsets(2):
        assert drawn.count(offset) / 1000 == pytest.approx(3 / 12, abs=0.06)


@pytest.mark.parametrize("samples", [0, 12, 99])
def test_zero_or_too_many_samples_take_all_neighbors(samples):
    assert sample_offsets(2, samples) == manhattan_offsets(2)


# --- Self-information (Eq. 3)


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("bandwidth", [0.4, 1.0])
@pytest.mark.parametrize("patch", [1, 3, 5])
def test_matches_its_definition(patch, bandwidth, relative):
    images = noise(2, 3, 5, 6)
    information = self_information(images, NEAR, patch=patch, bandwidth=bandwidth, relative=relative)
    for image, result in zip(images, information, strict=True):
        torch.testing.assert_close(result, information_by_definition(image, NEAR, patch, bandwidth, relative))


def test_matches_its_definition_where_the_neighborhood_exceeds_the_image():
    image = noise(1, 2, 3, 4)
    offsets = manhattan_offsets(7)
    expected = information_by_definition(image[0], offsets, 3, 1.0, relative=False)
    torch.testing.assert_close(self_information(image, offsets)[0], expected)


def test_self_information_by_hand_on_three_pixels():
    image = torch.tensor([0.0, 0.0, 1.0]).view(1, 1, 1, 3)
    # The left pixel equals both neighbours (its left one is its own copy); the others equal one and miss one by 1.
    contour = -math.log((1 + math.exp(-1 / 2)) / 2)
    information = self_information(image, [(0, -1), (0, 1)], patch=1)
    torch.testing.assert_close(information.flatten(), torch.tensor([0, contour, contour]))


def test_self_information_by_hand_sums_over_patch_and_channels():
    image = torch.tensor([0.0, 0.0, 1.0]).view(1, 1, 1, 3).expand(1, 2, 1, 3)
    # Patches are the columns (0,0,0) (0,0,1) (0,1,1) in 3 equal rows and 2 equal channels. The middle one differs from
    # its left and its right neighbour in one column: 3 x 2 x 1 = 6.
    information = self_information(image, [(0, -1), (0, 1)], patch=3, bandwidth=2.0)
    assert information[0, 0, 0, 1].item() == pytest.approx(6 / (2 * 2.0**2), abs=1e-6)


@pytest.mark.parametrize("relative", [False, True])
def test_a_plain_image_carries_no_information(relative):
    information = self_information(torch.full((1, 3, 9, 8), 0.7), manhattan_offsets(3), relative=relative)
    assert information.abs().max() < 1e-6


def test_information_is_not_negative():
    plain = torch.full((1, 1, 2, 2), 0.7)
    for number in range(1, 60):  # for 7, 47 and 49 neighbours rounding alone would go below 0
        assert self_information(plain, manhattan_offsets(7)[:number]).min() >= 0


@pytest.mark.parametrize("relative", [False, True])
def test_a_contour_carries_more_than_either_side(relative):
    image = 0.02 * noise(1, 3, 12, 24)
    image[..., 12:] += 0.8
    information = self_information(image, manhattan_offsets(3), relative=relative)[0, 0]
    contour, left, right = information[:, 11:13], information[:, :7], information[:, 17:]
    assert contour.min() > max(left.max(), right.max())


def test_a_regular_texture_carries_less_than_an_object_on_it():
    image = torch.zeros(1, 1, 24, 24)
    image[..., 1::2] = 0.5  # stripes resemble their neighbours two pixels on
    image[..., 11:13, 11:13] = 1
    information = self_information(image, manhattan_offsets(7))[0, 0]
    assert information[11:13, 11:13].min() > 2 * information[:4, :4].max()


def test_the_border_is_no_contour():
    image = torch.full((1, 3, 10, 10), 0.9)  # zeros beyond the border would be one
    assert self_information(image, [(0, -3), (3, 0)]).abs().max() < 1e-6


@pytest.mark.parametrize("relative", [False, True])
def test_an_image_is_measured_on_its_own(relative):
    image = noise(1, 3, 8, 8)
    together = self_information(torch.cat([image, 100 * noise(3, 3, 8, 8, seed=1)]), NEAR, relative=relative)
    torch.testing.assert_close(together[:1], self_information(image, NEAR, relative=relative))


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("scale", [1e-12, 1e3, 1e6])
def test_stays_finite_for_extreme_values(scale, relative):
    information = self_information(scale * noise(1, 3, 8, 8), manhattan_offsets(7), relative=relative)
    assert information.isfinite().all()


def test_far_apart_patches_are_told_apart():
    """exp(-distance) is 0 in float32 for both, its logarithm is not."""
    image = torch.zeros(1, 1, 1, 9)
    image[..., 4] = 50.0
    image[..., 8] = 100.0
    information = self_information(image, [(0, -1)], patch=1).flatten()
    assert information[4].item() == pytest.approx(50**2 / 2)
    assert information[8].item() == pytest.approx(100**2 / 2)


def test_relative_information_has_no_unit():
    image = noise(2, 3, 8, 8)
    relative = self_information(image, NEAR, relative=True)
    torch.testing.assert_close(self_information(255 * image, NEAR, relative=True), relative)
    assert not torch.allclose(self_information(2 * image, NEAR), self_information(image, NEAR))


def test_bandwidth_has_the_unit_of_the_image():
    image = noise(2, 3, 8, 8)
    in_bytes = self_information(255 * image, NEAR, bandwidth=255 * 0.7)
    torch.testing.assert_close(in_bytes, self_information(image, NEAR, bandwidth=0.7))


def test_leaves_its_input_as_it_was():
    image = noise(1, 3, 8, 8)
    self_information(image, NEAR, relative=True)
    assert torch.equal(image, noise(1, 3, 8, 8))


# --- Drop probability (Eq. 4)


def drop_by_definition(information, temperature, drop_rate):
    weights = [math.exp(-i / temperature) for i in information]
    mean = sum(weights) / len(weights)
    return torch.tensor([1 - math.exp(-drop_rate * w / mean) for w in weights])


@pytest.mark.parametrize(("temperature", "drop_rate"), [(0.5, 0.5), (0.03, 1.5), (2.0, 0.1)])
def test_drop_probability_matches_its_definition(temperature, drop_rate):
    information = 2 * noise(2, 1, 4, 5)
    drop = drop_probability(information, temperature=temperature, drop_rate=drop_rate)
    for given, result in zip(information, drop, strict=True):
        expected = drop_by_definition(given.double().flatten().tolist(), temperature, drop_rate)
        torch.testing.assert_close(result.flatten(), expected)


def test_drop_probability_by_hand():
    # e^(-I / 0.5) is 1 and 1/2, of mean 3/4: the ratios are 4/3 and 2/3.
    information = torch.tensor([0.0, 0.5 * math.log(2)]).view(1, 1, 1, 2)
    drop = drop_probability(information, temperature=0.5, drop_rate=0.5)
    torch.testing.assert_close(drop.flatten(), torch.tensor([1 - math.exp(-2 / 3), 1 - math.exp(-1 / 3)]))


@pytest.mark.parametrize("level", [0.0, 3.0, 1e4])
@pytest.mark.parametrize("drop_rate", [0.1, 0.5, 1.5])
def test_equal_information_is_dropped_equally(drop_rate, level):
    drop = drop_probability(torch.full((1, 1, 5, 6), level), drop_rate=drop_rate)
    torch.testing.assert_close(drop, torch.full_like(drop, 1 - math.exp(-drop_rate)))


def test_less_information_is_dropped_more_often():
    information = noise(1, 1, 6, 6)
    order = information.flatten().argsort()
    assert drop_probability(information).flatten()[order].diff().lt(0).all()


@pytest.mark.parametrize("temperature", [1e-3, 0.5, 1e3])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e5])
def test_drop_probability_is_a_probability(scale, temperature):
    drop = drop_probability(scale * noise(1, 1, 6, 6), temperature=temperature)
    assert drop.min() >= 0  # NaN would fail both
    assert drop.max() <= 1


def test_a_high_temperature_makes_no_difference_between_positions():
    drop = drop_probability(noise(1, 1, 6, 6), temperature=1e6)
    torch.testing.assert_close(drop, torch.full_like(drop, 1 - math.exp(-0.5)))


def test_a_low_temperature_drops_the_least_informative_only():
    information = 1 + noise(1, 1, 4, 4)
    information[0, 0, 2, 3] = information[0, 0, 1, 1] = 0.5
    drop = drop_probability(information, temperature=1e-3)[0, 0]
    # Two of 16 positions share all weight: their ratio is 16/2.
    assert drop[2, 3].item() == drop[1, 1].item() == pytest.approx(1 - math.exp(-0.5 * 8))
    assert drop.gt(1e-6).sum() == 2


def test_no_rate_drops_nothing_and_a_huge_one_all():
    information = noise(1, 1, 4, 4)
    assert drop_probability(information, drop_rate=0.0).eq(0).all()
    assert drop_probability(information, drop_rate=1e4).eq(1).all()


def test_the_constant_of_the_estimate_cancels():
    information = noise(1, 1, 6, 6)
    with_constant = information + math.log(math.sqrt(2 * math.pi) * 3)
    torch.testing.assert_close(drop_probability(with_constant), drop_probability(information))


def test_drop_rate_is_the_mean_number_of_hits():
    """A position that is hit k times on average escapes with e^-k."""
    hits = -torch.log1p(-drop_probability(noise(2, 1, 9, 9), drop_rate=0.7))
    torch.testing.assert_close(hits.mean((1, 2, 3)), torch.full((2,), 0.7))


def test_drop_probability_of_an_image_does_not_depend_on_its_batch():
    information = 1000 + noise(1, 1, 6, 6)  # e^(-I / tau) is 0 beside images of little information
    together = drop_probability(torch.cat([information, noise(2, 1, 6, 6, seed=1)]))
    torch.testing.assert_close(together[:1], drop_probability(information))


def test_equals_the_draws_with_replacement_of_infodrop_in_the_mean():
    information = 2 * noise(1, 1, 16, 16)
    weights = torch.exp(-information.flatten() / 0.5)
    number = int(0.5 * 16 * 16)
    generator = torch.Generator().manual_seed(0)
    draws = torch.multinomial(weights.expand(10_000, -1), number, replacement=True, generator=generator)
    hit = torch.zeros(10_000, 256).scatter_(1, draws, 1).mean(0)
    drop = drop_probability(information, temperature=0.5, drop_rate=0.5).flatten()
    assert drop.min() < 0.05 < 0.6 < drop.max()
    assert (hit - drop).abs().max() < 0.025  # five times 0.5 / sqrt(10 000)
    assert (hit - drop).mean().abs() < 0.003


# --- Dropping


def test_the_mean_of_many_drops_is_what_evaluation_computes():
    torch.manual_seed(0)
    features, drop = noise(1, 3, 4, 5), noise(1, 1, 4, 5, seed=1)
    mean = drop_texture(features.expand(20_000, -1, -1, -1), drop, stochastic=True).mean(0)
    expected = drop_texture(features, drop, stochastic=False)[0]
    torch.testing.assert_close(expected, features[0] * (1 - drop[0]))
    assert (mean - expected).abs().max() < 5 * 0.5 / math.sqrt(20_000)


def test_a_survivor_keeps_its_value():
    torch.manual_seed(0)
    features = 1 + noise(2, 3, 20, 20)
    kept = drop_texture(features, torch.full((2, 1, 20, 20), 0.5), stochastic=True)
    survived = kept != 0
    assert 0.4 < survived.float().mean() < 0.6
    assert torch.equal(kept[survived], features[survived])


def test_channels_and_positions_and_images_are_dropped_independently():
    torch.manual_seed(0)
    kept = drop_texture(torch.ones(2, 2, 100, 100), torch.full((2, 1, 100, 100), 0.5), stochastic=True)
    for one, other in [
        (kept[:, 0], kept[:, 1]),
        (kept[0], kept[1]),
        (kept[..., :50], kept[..., 50:]),
        (kept[..., :50, :], kept[..., 50:, :]),
    ]:
        assert (one * other).mean().item() == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])  # of which random numbers are 0 once in 256
def test_certain_drops_are_certain(dtype):
    torch.manual_seed(0)
    drop = torch.tensor([0.0, 1.0], dtype=dtype).view(1, 1, 1, 2).expand(1, 1, 50, 2)
    for stochastic in (True, False):
        kept = drop_texture(torch.ones(1, 64, 50, 2, dtype=dtype), drop, stochastic)
        assert kept[..., 0].eq(1).all()
        assert kept[..., 1].eq(0).all()


def test_a_rare_drop_is_as_rare_in_half_precision():
    torch.manual_seed(0)
    drop = torch.full((1, 1, 500, 500), 0.0015)
    kept = drop_texture(torch.ones(1, 8, 500, 500, dtype=torch.bfloat16), drop, stochastic=True)
    assert kept.dtype == torch.bfloat16
    assert kept.eq(0).float().mean().item() == pytest.approx(0.0015, rel=0.1)  # 3000 of them, give or take 55


def test_dropping_leaves_its_input_as_it_was():
    features, drop = noise(1, 3, 4, 5), noise(1, 1, 4, 5, seed=1)
    for stochastic in (True, False):
        drop_texture(features, drop, stochastic)
    assert torch.equal(features, noise(1, 3, 4, 5))
    assert torch.equal(drop, noise(1, 1, 4, 5, seed=1))


# --- The module


def bare(**settings):
    """The module without its convolution: what reaches it are the features that survive."""
    module = ShapeCue(4, 4, **settings)
    module.conv = nn.Identity()
    return module


@pytest.mark.parametrize("train", [True, False])
def test_gives_as_many_channels_as_asked_at_the_size_of_the_features(train):
    module = ShapeCue(5, 7).train(train)
    assert module(noise(2, 3, 32, 24), noise(2, 5, 8, 6)).shape == (2, 7, 8, 6)


def test_evaluation_gives_the_same_result_twice():
    module = ShapeCue(4, 6).eval()
    given = noise(2, 3, 16, 16), noise(2, 4, 4, 4)
    torch.manual_seed(0)
    first = module(*given)
    torch.manual_seed(1)
    assert torch.equal(module(*given), first)


def test_evaluation_leaves_the_random_state_alone():
    module = bare().eval()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    module(noise(1, 3, 16, 16), noise(1, 4, 4, 4))
    assert torch.equal(torch.rand(3), expected)


def test_training_draws_neighbors_and_drops_anew():
    module, image = bare().train(), noise(1, 3, 16, 16)
    assert not torch.equal(module.information(image), module.information(image))
    plain, features = torch.full((1, 3, 16, 16), 0.5), torch.ones(1, 4, 4, 4)  # on which neighbours do not matter
    assert len({tuple(module(plain, features).flatten().tolist()) for _ in range(5)}) > 1


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"radius": 2, "patch": 1, "bandwidth": 0.3, "temperature": 0.2, "drop_rate": 1.5},
        {"radius": 3, "patch": 5, "relative": True},
    ],
)
def test_evaluation_is_the_expected_drop_of_the_information_of_all_neighbors(settings):
    image, features = noise(2, 3, 16, 12), noise(2, 4, 4, 3)
    settings = {
        "radius": 7,
        "patch": 3,
        "bandwidth": 1.0,
        "relative": False,
        "temperature": 0.5,
        "drop_rate": 0.5,
    } | settings
    estimate = {name: settings[name] for name in ("patch", "bandwidth", "relative")}
    information = self_information(image, manhattan_offsets(settings["radius"]), **estimate)
    best = information.view(2, 4, 4, 3, 4).amax((2, 4))  # the most informative pixel of each cell of 4 x 4
    drop = [drop_by_definition(x.flatten().tolist(), settings["temperature"], settings["drop_rate"]) for x in best]
    expected = features * (1 - torch.stack(drop).view(2, 1, 4, 3))
    torch.testing.assert_close(bare(samples=0, **settings).eval()(image, features), expected, atol=1e-5, rtol=1e-5)


def test_the_defaults_are_those_of_the_paper():
    image, features = noise(1, 3, 16, 16), noise(1, 4, 16, 16)
    offsets = sample_offsets(7, 9, torch.Generator().manual_seed(0))
    information = self_information(image, offsets, patch=3, bandwidth=1.0, relative=False)
    drop = drop_probability(information, temperature=0.5, drop_rate=0.5)
    torch.testing.assert_close(bare().eval()(image, features), features * (1 - drop))


def test_a_position_survives_by_its_most_informative_pixel():
    information = torch.zeros(1, 1, 8, 8)
    information[0, 0, 1, 6] = 5.0  # one pixel of the cell above right
    drop = bare().drop(information, (2, 2))
    expected = drop_probability(torch.tensor([[0.0, 5.0], [0.0, 0.0]]).view(1, 1, 2, 2))
    torch.testing.assert_close(drop, expected)
    assert drop[0, 0, 0, 1] < 1e-4


def test_a_contour_survives_more_often_than_plain_surface():
    torch.manual_seed(0)
    image = torch.zeros(1, 3, 32, 32)
    image[..., 16:] = 1
    module = bare().train()
    kept = torch.stack([module(image, torch.ones(1, 4, 8, 8)) for _ in range(50)]).mean((0, 1, 2, 3))  # by column
    assert kept[3:5].min() > 0.9
    assert kept[[0, 1, 6, 7]].max() < 0.7


def test_no_gradient_flows_through_the_drop():
    image = noise(1, 3, 16, 16).requires_grad_()
    features = noise(1, 4, 4, 4).requires_grad_()
    module = bare().eval()
    survival = (module(image, features) / features)[:, :1].detach()
    module(image, features).sum().backward()
    assert image.grad is None
    assert not module.information(image).requires_grad
    assert not module.drop(noise(1, 1, 16, 16).requires_grad_(), (4, 4)).requires_grad
    torch.testing.assert_close(features.grad, survival.expand(1, 4, 4, 4))


def test_a_photograph_is_treated_on_its_own():
    image, features = noise(3, 3, 16, 16), noise(3, 4, 4, 4)
    module = ShapeCue(4, 6).eval()
    torch.testing.assert_close(module(image, features)[:1], module(image[:1], features[:1]))


def test_information_is_computed_in_float32_under_autocast():
    module, image = bare().eval(), noise(1, 3, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(module.information(image), module.information(image).float())
        kept = module(image, noise(1, 4, 4, 4).bfloat16())
    assert torch.equal(module.information(image.bfloat16()), module.information(image.bfloat16().float()))
    assert module.information(image.bfloat16()).dtype == torch.float32
    assert kept.dtype == torch.bfloat16
