"""Class activation maps: those of grad-cam, of a network that is given back as it was."""

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from analysis.gradcam import (
    METHODS,
    SIGNLESS_METHODS,
    SLOW_METHODS,
    VANILLA,
    Cam,
    coverage,
    estimated_seconds,
    explain,
    grad_cam,
    overlay,
    stages,
)
from analysis.predictor import Predictor
from wsss import UserError
from wsss.network import build
from wsss.presets import animals
from wsss.probabilities import to_image

CLASSES = ("cat", "dog", "cow")
STAGES = ["encoder", "shape cue", "decoder"]
GRADIENT_METHODS = [method for method in METHODS if method != "EigenCAM"]


def untrained(short_side: int = 64, **settings) -> Predictor:
    small = {"encoder": "test_efficientnet", "aspp_channels": 16, "decoder_channels": 16, "shape_channels": 16}
    config = replace(animals(), test_short_side=short_side, class_cutoff=0.0, **small | settings)
    torch.manual_seed(0)
    network = build(config, len(CLASSES) + 1, pretrained=False)
    with torch.no_grad():  # an untrained network sees nothing anywhere; this one sees something everywhere
        network.decoder.layers[-1].weight.mul_(30)
    return Predictor(network, config, CLASSES, {})


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    return untrained()


@pytest.fixture(scope="module")
def encoding(predictor, cat):
    return predictor.encode(cat)


class ImageScore(nn.Module):
    """The cat's score of the image, as grad-cam wants it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image):
        return self.network(image).image_scores[:, :1]


@pytest.mark.parametrize("method", METHODS)
def test_the_maps_are_those_of_grad_cam(predictor, encoding, method):
    from pytorch_grad_cam.utils.image import scale_cam_image

    image, size = to_image(encoding.rgb, 64), to_image(encoding.rgb, 64).shape[:-3:-1]
    for cam in explain(predictor, encoding, "cat", methods=[method])[1:]:
        network = copy.deepcopy(predictor.network)
        theirs = getattr(grad_cam(), method.replace("++", "PlusPlus"))(
            ImageScore(network), [stages(network)[cam.stage]]
        )
        expected = theirs(image, [torch.sum])
        theirs.activations_and_grads.release()

        def scaled(values, size=size):
            return scale_cam_image(scale_cam_image(values[None].clip(0, None), size))

        is_flipped = method in SIGNLESS_METHODS and abs(scaled(cam.values) - expected).max() > 0.1
        np.testing.assert_allclose(scaled(-cam.values if is_flipped else cam.values), expected, atol=2e-3)


@pytest.mark.parametrize("method", SIGNLESS_METHODS)
def test_a_principal_component_points_where_it_is_largest(predictor, encoding, method):
    for cam in explain(predictor, encoding, "cat", methods=[method])[1:]:
        assert cam.high >= -cam.low


def test_the_first_map_is_the_score_map(predictor, encoding):
    (vanilla,) = explain(predictor, encoding, "dog", methods=[])
    with torch.no_grad():
        logits = predictor.network(to_image(encoding.rgb, 64)).logits
    assert (vanilla.stage, vanilla.values.dtype) == (VANILLA, np.float32)
    np.testing.assert_allclose(vanilla.values, logits[0, 2], atol=1e-5)


def test_each_method_has_a_map_of_each_stage(predictor, encoding):
    cams = explain(predictor, encoding, "cat", methods=["LayerCAM", "GradCAM"])[1:]
    assert [(cam.method, cam.stage) for cam in cams] == [(m, s) for m in ("LayerCAM", "GradCAM") for s in STAGES]


def test_a_network_without_a_shape_cue_has_two_stages(cat):
    predictor = untrained(32, shape_cue="none")
    cams = explain(predictor, predictor.encode(cat), "cat")
    assert [cam.stage for cam in cams] == [VANILLA, "encoder", "decoder"]


def test_one_pixel_is_explained_by_itself_where_only_a_pointwise_convolution_follows(predictor, encoding):
    height, width = encoding.rgb.shape[:2]
    vanilla, *_, decoder = explain(
        predictor, encoding, "cat", methods=["HiResCAM"], target="pixel", pixel=(height - 1, width // 2)
    )
    rows, columns = decoder.values.shape
    at, elsewhere = (rows - 1, width // 2 * columns // width), decoder.values.copy()
    elsewhere[at] = 0
    assert not elsewhere.any()
    bias = predictor.network.decoder.layers[-1].bias[0].item()
    assert decoder.values[at] + bias == pytest.approx(vanilla.values[at], abs=1e-3)


def test_the_region_is_the_one_that_the_page_shows(shipped_or_fresh, cat):
    predictor = Predictor.from_checkpoint(shipped_or_fresh)
    encoding = predictor.encode(cat)
    region = predictor.mask(encoding) == 1 + predictor.classes.index("cat")
    decoder = explain(predictor, encoding, "cat", methods=["HiResCAM"], target="predicted region")[-1]
    reached = cv2.resize(np.abs(decoder.values), region.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    near = cv2.dilate(region.astype(np.uint8), np.ones((21, 21), np.uint8)) > 0  # a position is 9 pixels wide
    assert 0.1 < region.mean() < 0.9 and reached[region].mean() > 0.95 and not reached[~near].any()


def test_a_class_without_gradient_has_maps_of_zero(cat):
    predictor = untrained(32)
    nn.init.zeros_(predictor.network.decoder.layers[-1].weight)
    for cam in explain(predictor, predictor.encode(cat), "cat", methods=GRADIENT_METHODS)[1:]:
        assert not cam.values.any() and not cam.scaled().any()
        assert np.isnan(coverage(cam, np.ones((20, 20), bool))[1])


def test_frozen_weights_have_the_same_maps(predictor, encoding):
    frozen = copy.copy(predictor)
    frozen.network = copy.deepcopy(predictor.network).requires_grad_(False)
    for ours, theirs in zip(explain(frozen, encoding, "cat"), explain(predictor, encoding, "cat"), strict=True):
        np.testing.assert_allclose(ours.values, theirs.values, rtol=1e-4, atol=1e-7)


def condition(network: nn.Module) -> list:
    """Modes, hooks and gradients of everything in a network."""
    hooks = [
        (module.training, list(module._forward_hooks.values()), len(module._backward_hooks), list(module._modules))
        for module in network.modules()
    ]
    return [*hooks, *(None if p.grad is None else p.grad.tolist() for p in network.parameters())]


def failing(module: nn.Module, inputs: tuple, output: torch.Tensor) -> None:
    raise IndexError("this layer fails")


@pytest.fixture
def lent(cat) -> Predictor:
    """A network with a mode, a gradient and a hook of its own."""
    predictor = untrained(32)
    predictor.encode(cat)
    predictor.network.pyramid.train()
    last = predictor.network.decoder.layers[-1]
    last.weight.grad = torch.ones_like(last.weight)
    last.register_forward_hook(lambda *_: None)
    return predictor


def test_the_network_is_as_it_was_after_success(lent, cat):
    encoding, before = lent.encode(cat), condition(lent.network)
    explain(lent, encoding, "cat", methods=list(METHODS))
    assert condition(lent.network) == before


def test_no_hook_is_left_by_twenty_failures(lent, cat):
    encoding = lent.encode(cat)
    lent.network.decoder.layers[-1].register_forward_hook(failing)
    before = condition(lent.network)
    for _ in range(20):
        with pytest.raises(IndexError, match="this layer fails"):
            explain(lent, encoding, "cat")
    assert condition(lent.network) == before


def test_maps_beside_other_visitors_passes_are_the_same(predictor, encoding):
    def ask(_: int) -> list[np.ndarray]:
        return [cam.values for cam in explain(predictor, encoding, "cat", methods=["GradCAM", "LayerCAM"])]

    def look(seed: int) -> None:
        predictor.encode(np.random.default_rng(seed).integers(0, 255, (48, 64, 3), dtype=np.uint8))

    alone = ask(0)
    with ThreadPoolExecutor(4) as pool:
        others = [pool.submit(look, seed) for seed in range(20)]
        together = list(pool.map(ask, range(10)))
        [other.result() for other in others]
    for maps in together:
        for expected, values in zip(alone, maps, strict=True):
            np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-7)


def asked(**settings) -> Callable:
    return lambda predictor, encoding: explain(predictor, encoding, **{"name": "cat"} | settings)


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (asked(name="unicorn"), "no class 'unicorn'; the checkpoint knows cat, dog, cow"),
        (asked(methods=["PaintCAM"]), "no method 'PaintCAM'; choose from GradCAM"),
        (asked(target="mood"), "no target 'mood'; choose from image score"),
        (asked(target="pixel"), "pixel None does not lie in the photograph of 300 rows and 451 columns"),
        (asked(target="pixel", pixel=(300, 0)), r"pixel \(300, 0\) does not lie"),
        (asked(target="pixel", pixel=(-1, 0)), r"pixel \(-1, 0\) does not lie"),
    ],
)
def test_a_mistake_is_told_in_words(predictor, encoding, ask, words):
    with pytest.raises(UserError, match=words):
        ask(predictor, encoding)


def test_coverage_by_hand():
    cam = Cam("", "", np.float32([[4, 2, 1, -9]]))  # reaches half of its maximum in the left half
    region = np.array([[False, True, True, False]])
    assert coverage(cam, region) == (0.5, 0.5)
    assert np.isnan(coverage(cam, np.zeros((1, 4), bool))[0])


def test_a_common_scale_keeps_weak_maps_weak():
    cam = Cam("", "", np.float32([[1, -3], [0.5, 0]]))
    assert (cam.low, cam.high) == (-3, 1)
    np.testing.assert_array_equal(cam.scaled(), np.float32([[1, 0], [0.5, 0]]))
    np.testing.assert_array_equal(cam.scaled(most=2), np.float32([[0.5, 0], [0.25, 0]]))
    rgb = np.zeros((8, 8, 3), np.uint8)
    assert overlay(rgb, cam.scaled(2)).sum() < overlay(rgb, cam.scaled()).sum()
    assert not rgb.any()


@pytest.mark.slow
@pytest.mark.parametrize("method", SLOW_METHODS)
def test_slow_methods_answer_and_leave_the_network_alone(lent, cat, method):
    encoding, before = lent.encode(cat), condition(lent.network)
    cams = explain(lent, encoding, "cat", methods=[method])[1:]
    assert [cam.stage for cam in cams] == STAGES
    assert all(np.isfinite(cam.values).all() and cam.values.any() for cam in cams)
    assert condition(lent.network) == before
    assert estimated_seconds(lent, encoding, method) > 20 * estimated_seconds(lent, encoding, "GradCAM")
