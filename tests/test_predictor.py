"""The border: what the page shows is what `wsss` computes, and no visitor changes what another one sees."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from analysis import predictor as border
from analysis.encoding import Encoding
from analysis.predictor import Predictor
from analysis.pseudo_settings import MOST_STEPS, PseudoSettings
from wsss import UNLABELLED, UserError
from wsss.crf import available as crf_is_available
from wsss.crf import crf
from wsss.network import build
from wsss.presets import animals
from wsss.probabilities import PredictionSettings, predict_probs, to_image
from wsss.pseudo import pseudo_mask
from wsss.refinement import DILATIONS, reduce_image, refine, with_background_scores

CLASSES = ("cat", "cow", "dog", "horse", "person", "sheep")
SETTINGS = PseudoSettings(0.8, 10, 0.6, 0.7, 0.2, DILATIONS, True)


@pytest.fixture(scope="module")
def predictor() -> Predictor:
    config = replace(animals(), test_short_side=96, class_cutoff=0.3, background_power=2.0)
    torch.manual_seed(0)
    network = build(config, len(CLASSES) + 1, pretrained=False)
    with torch.no_grad():  # an untrained network sees nothing anywhere; this one sees something everywhere
        network.decoder.layers[-1].weight.mul_(30)
    return Predictor(network, config, CLASSES, {})


@pytest.fixture(scope="module")
def encoding(predictor, cat):
    return predictor.encode(cat)


def test_the_mask_is_that_of_the_command(predictor, encoding, cat):
    probs = predict_probs(predictor.network, cat, PredictionSettings.of(predictor.config))
    assert np.array_equal(predictor.mask(encoding), probs.argmax(0))


@pytest.mark.skipif(not crf_is_available(), reason="pydensecrf is not installed")
def test_a_crf_smooths_what_the_network_itself_says(predictor, encoding, cat):
    settings = PredictionSettings.of(predictor.config, refined=False)
    expected = crf(cat, predict_probs(predictor.network, cat, settings)).argmax(0)
    assert np.array_equal(predictor.mask(encoding, refined_by="CRF"), expected)
    assert not np.array_equal(predictor.mask(encoding), expected)


def test_the_networks_own_answer_can_be_seen_beside_the_refined_one(predictor, encoding, cat):
    settings = PredictionSettings.of(predictor.config, refined=False)
    expected = predict_probs(predictor.network, cat, settings)
    assert np.array_equal(predictor.probs_before_crf(encoding, "none"), expected)
    assert np.array_equal(predictor.mask(encoding, refined_by="none"), expected.argmax(0))
    assert not np.array_equal(predictor.mask(encoding), expected.argmax(0))
    sure = predictor.mask(encoding, 0.9, refined_by="none")
    assert np.array_equal(sure == UNLABELLED, expected.max(0) < np.float32(0.9)) and (sure == UNLABELLED).any()


def test_a_refinement_that_there_is_not_is_refused(predictor, encoding):
    with pytest.raises(UserError, match="choose from SPR, CRF, none"):
        predictor.mask(encoding, refined_by="magic")


def test_a_threshold_takes_the_least_confident_pixels_away(predictor, encoding):
    every, sure = (predictor.mask(encoding, threshold) for threshold in (0.0, 0.5))
    assert (every != UNLABELLED).all() and (sure == UNLABELLED).any()
    prob = np.take_along_axis(encoding.probs, every[None].astype(int), 0)[0]
    assert np.array_equal(sure == UNLABELLED, prob < 0.5)


def test_a_class_that_the_mask_leaves_out_has_no_probability_and_is_not_ticked(predictor, cat):
    config = replace(predictor.config, test_refine_steps=0)
    scores = predictor.encode(cat).image_probs
    cutoff = float(np.sort(scores)[-2:].mean())  # between the likeliest class and the next
    for steps in (0, 10):
        config = replace(config, class_cutoff=cutoff, test_refine_steps=steps)
        other = Predictor(predictor.network, config, CLASSES, {})
        seen = other.encode(cat)
        assert seen.probs[1:][scores < cutoff].max() == 0 and seen.probs[1:][scores >= cutoff].max() > 0
        assert other.present(seen) == [CLASSES[scores.argmax()]]


def test_the_background_may_be_held_by_the_objects_or_by_colors(predictor, encoding):
    ways = {flag: replace(SETTINGS, background_affinity=flag) for flag in (False, True)}
    given = {flag: predictor.iterates(encoding, ("cat",), settings) for flag, settings in ways.items()}
    assert torch.equal(given[False][:, 1], given[True][:, 1])
    assert not torch.allclose(given[False][10, 0], given[True][10, 0], atol=1e-3)


@pytest.mark.parametrize("alpha", [0.0, 0.8, 1.0])
def test_the_iterates_are_those_of_refine(predictor, encoding, cat, alpha):
    image = to_image(cat, 96)
    with torch.no_grad():
        output = predictor.network(image)
    grid = encoding.maps.shape[-2:]
    logits, probs = (
        F.interpolate(x, grid, mode="bilinear", align_corners=False) for x in (output.logits, output.probs)
    )
    present = torch.tensor([[True, True, False, True, False, False, False]])
    iterates = predictor.iterates(encoding, ("cat", "dog"), replace(SETTINGS, alpha=alpha))
    assert len(iterates) == MOST_STEPS + 1
    for steps in (0, 1, 10):
        scores = with_background_scores(logits, present)
        expected = refine(reduce_image(image, grid), scores, probs, alpha=alpha, steps=steps, present=present)
        torch.testing.assert_close(iterates[steps], expected[0], rtol=1e-4, atol=1e-5)


def test_the_pseudo_mask_is_that_of_the_rule(predictor, encoding):
    refined = predictor.iterates(encoding, ("cat",), SETTINGS)[10][None]
    refined = F.interpolate(refined, encoding.rgb.shape[:2], mode="bilinear", align_corners=False)
    labels = torch.tensor([[1.0, 0, 0, 0, 0, 0]])
    expected = pseudo_mask(refined, labels, object_cutoff=0.6, background_cutoff=0.7, least_cutoff=0.2)[0]
    assert np.array_equal(predictor.pseudo(encoding, ("cat",), SETTINGS), expected.numpy())


def test_only_ticked_classes_appear(predictor, encoding):
    mask = predictor.pseudo(encoding, ("cow", "sheep"), SETTINGS)
    assert set(np.unique(mask)) <= {0, 2, 6, UNLABELLED}
    assert set(np.unique(predictor.pseudo(encoding, (), SETTINGS))) <= {0, UNLABELLED}


def test_the_network_always_sees_a_class(predictor, encoding):
    assert CLASSES[encoding.image_probs.argmax()] in predictor.present(encoding)


def test_a_photograph_is_encoded_once(predictor, cat, monkeypatch):
    first = predictor.encode(cat)
    monkeypatch.setattr(predictor.network, "forward", None)
    assert predictor.encode(cat.copy()) is first


def test_two_visitors_at_once_see_their_own_photographs(predictor, cat, astronaut):
    alone = [predictor.mask(predictor.encode(rgb)) for rgb in (cat, astronaut)]
    fresh = Predictor(predictor.network, predictor.config, CLASSES, {})
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda rgb: fresh.mask(fresh.encode(rgb)), [cat, astronaut] * 4))
    for i, mask in enumerate(together):
        assert np.array_equal(mask, alone[i % 2])


def test_memory_is_bounded(predictor):
    random = np.random.default_rng(0)
    for _ in range(border._KEPT_ENCODINGS + 3):
        encoding = predictor.encode(random.integers(0, 255, (32, 40, 3), dtype=np.uint8))
        for alpha in (0.1, 0.2, 0.3):
            predictor.iterates(encoding, (), replace(SETTINGS, alpha=alpha))
    assert len(predictor._encodings) == border._KEPT_ENCODINGS
    assert len(predictor._iterates) == border._KEPT_ITERATES


@pytest.mark.parametrize("size", [(8, 30), (20, 101), (1, 1)])
def test_a_sliver_is_refused_in_words(predictor, size):
    with pytest.raises(UserError, match="too small or too narrow"):
        predictor.encode(np.zeros((*size, 3), np.uint8))


def test_a_large_photograph_is_reduced_and_what_is_shown_stands_for_it(predictor):
    encoding = predictor.encode(np.zeros((1200, 1600, 3), np.uint8))
    assert encoding.rgb.shape == (512, 683, 3)
    assert predictor.encode(encoding.rgb) is encoding


@pytest.mark.parametrize("name", ["alpha", "steps", "object_cutoff", "background_cutoff", "least_cutoff"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -0.1, 31, True, "0.5", None, [0.5]])
def test_a_number_that_is_none_or_out_of_range_is_refused_in_words(name, value):
    with pytest.raises(UserError, match=r"must be a number from 0 to (1|30), got"):
        replace(SETTINGS, **{name: value})


def test_other_dilations_are_refused_in_words_and_their_order_does_not_matter():
    for given in ((), (3,)):
        with pytest.raises(UserError, match="dilations must be some of 1, 2, 4, 8, 12, 24, got"):
            replace(SETTINGS, dilations=given)
    assert replace(SETTINGS, dilations=[4, 1]) == replace(SETTINGS, dilations=(1, 4))


def test_alphas_that_differ_by_little_are_not_taken_for_each_other(predictor, encoding):
    one, other = (predictor.iterates(encoding, ("cat",), replace(SETTINGS, alpha=a)) for a in (0.80001, 0.80004))
    assert not torch.equal(one, other)


def test_a_threshold_that_is_no_number_is_refused_in_words(predictor, encoding):
    with pytest.raises(UserError, match="must be a number from 0 to 1, got nan"):
        predictor.mask(encoding, float("nan"))


def test_an_unknown_class_is_refused_with_those_that_are_known(predictor, encoding):
    with pytest.raises(UserError, match="no class 'unicorn'; the checkpoint knows cat, cow"):
        predictor.pseudo(encoding, ("unicorn",), SETTINGS)


def remembered(predictor: Predictor) -> int:
    """Bytes of all arrays and tensors that the caches hold."""
    caches = (predictor._encodings, predictor._iterates, predictor._kernels, predictor._masks)
    found, todo = {}, [value for c in (*caches, predictor.kept, predictor.films) for value in c._values.values()]
    while todo:
        value = todo.pop()
        if isinstance(value, np.ndarray | torch.Tensor):
            found[id(value)] = value.nbytes
        elif isinstance(value, Encoding):
            todo += vars(value).values()
        elif isinstance(value, tuple | list):
            todo += value
    return sum(found.values())


def test_what_is_remembered_of_many_photographs_is_bounded(predictor):
    random, sizes = np.random.default_rng(0), []
    for _ in range(20):  # more than any of the caches keeps
        encoding = predictor.encode(random.integers(0, 255, (96, 128, 3), dtype=np.uint8))
        predictor.mask(encoding)
        for alpha in (0.5, 0.8):
            predictor.pseudo(encoding, ["cat"], replace(SETTINGS, alpha=alpha, dilations=(1, 2)))
        sizes.append(remembered(predictor))
    assert sizes[-1] == sizes[17] < 2 * sizes[10] and sizes[-1] < 100 * 2**20


COMPILED_BY = """
import sys
from dataclasses import replace
from pathlib import Path
import numpy as np
from analysis.predictor import Predictor
from analysis.pseudo_settings import PseudoSettings
from wsss.fused import compiled, information, neighborhood, refinement

kernels = {f for module in (compiled, information, neighborhood, refinement) for f in vars(module).values()
           if hasattr(f, "signatures")}
predictor = Predictor.from_checkpoint(Path(sys.argv[1]))
predictor.rehearse()
rehearsed = {f: len(f.signatures) for f in kernels}
encoding = predictor.encode(np.random.default_rng(0).integers(0, 256, (300, 451, 3), np.uint8))
settings = PseudoSettings.of(predictor.config)
predictor.iterates(encoding, predictor.classes[:2], replace(settings, alpha=0.5))
predictor.pseudo(encoding, predictor.classes[:2], replace(settings, alpha=0.8, steps=5))
predictor.mask(encoding, 0.5)
late = [f.__name__ for f in kernels if len(f.signatures) > rehearsed[f]]
sys.exit(f"compiled for the photograph: {late}" if late or not any(rehearsed.values()) else 0)
"""


def test_a_rehearsal_compiles_all_that_a_photograph_needs(shipped_or_fresh):
    command = [sys.executable, "-c", COMPILED_BY, str(shipped_or_fresh)]
    ended = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_a_pixels_probabilities_and_its_class_are_those_of_the_command(predictor, cat):
    """Also where the background's is raised to a power."""
    encoding = predictor.encode(cat)
    expected = predict_probs(predictor.network, cat, PredictionSettings.of(predictor.config))
    np.testing.assert_allclose(encoding.probs, expected, atol=1e-5)
    assert np.array_equal(expected.argmax(0), predictor.mask(encoding))
    unweighed = predict_probs(
        predictor.network, cat, PredictionSettings.of(predictor.config)._replace(background_power=1.0)
    )
    assert not np.array_equal(unweighed.argmax(0), predictor.mask(encoding))
