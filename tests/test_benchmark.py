"""The benchmark in short: ratios with wide margins, since a machine that runs tests is busy."""

from dataclasses import replace

import pandas as pd
import pytest
import torch

from analysis import benchmark, refinement_speed
from analysis.measuring import alternating
from analysis.peers import (
    pamr,
    region_loss_by_unfold,
    straightforward_evaluation,
    with_convolutions_as_published,
)
from wsss.convolution import Convolution
from wsss.data.shapes import Shapes
from wsss.evaluate import evaluate
from wsss.losses import region_loss
from wsss.network import build
from wsss.presets import tiny
from wsss.probabilities import PredictionSettings
from wsss.refinement import refine

pytest.importorskip("numba")


def test_the_peer_computes_the_same_as_we_do():
    image, scores, probs, _ = refinement_speed.scene(1, 3, (40, 50), 3)
    expected = pamr(image, probs, 10)
    torch.testing.assert_close(refine(image, scores, probs, alpha=1.0), expected, atol=1e-5, rtol=0)


def test_the_unfolded_region_loss_computes_the_same_as_ours():
    logits = torch.randn(2, 4, 12, 13, generator=torch.Generator().manual_seed(0))
    pseudo = torch.randint(0, 4, (2, 12, 13), generator=torch.Generator().manual_seed(0))
    pseudo[:, 3:5] = 255
    torch.testing.assert_close(region_loss_by_unfold(logits, pseudo), region_loss(logits, pseudo))


@pytest.mark.slow
@pytest.mark.alone
def test_refinement_is_many_times_faster_and_smaller_than_pamr():
    rows = list(refinement_speed.refinement_rows((94, 125), pairs=3))
    assert rows[0].ratio > 1.5
    (memory,) = (row.ratio for row in rows if row.work == "SPR, peak extra memory")
    assert memory < 2  # in affinity arrays
    assert refinement_speed.batch_row(4, 7, 56, pairs=3).ratio > 1.5


@pytest.mark.slow
@pytest.mark.alone
def test_the_region_loss_is_faster_than_its_unfolded_form():
    assert benchmark.region_row(4, pairs=3).ratio > 2


@pytest.mark.alone
def test_classes_that_are_absent_cost_next_to_nothing():
    few, many = (refinement_speed.scene(1, classes, (112, 112), 3) for classes in (3, 21))
    ours, theirs = alternating(
        lambda: refine(*few[:3], present=few[3]), lambda: refine(*many[:3], present=many[3]), pairs=7
    )
    assert theirs < 2.5 * ours  # not 7 times; the larger maps are still checked and returned


def test_the_tables_are_written_in_markdown():
    table = pd.DataFrame({"work": ["a"], "ratio": [12.3]})
    grown = pd.DataFrame({"varied": ["T"], "value": [5], "ms": [1.0]})
    text = benchmark.markdown(table, grown, 3)
    assert "| a | 12.3 |" in text
    assert "| T | 5 | 1 |" in text
    assert len(refinement_speed.figure(grown).data) == 1


def test_the_published_convolutions_compute_and_learn_the_same():
    torch.manual_seed(0)
    network = build(replace(tiny(), encoder="tf_efficientnet_lite0"), 5, pretrained=False).eval()
    image, before = torch.rand(1, 3, 64, 64), list(network.parameters())
    learns = [weight.requires_grad for weight in before]
    ours = network(image).logits
    with_convolutions_as_published(network, replace(tiny(), encoder="tf_efficientnet_lite0"))
    torch.testing.assert_close(network.eval()(image).logits, ours, rtol=1e-4, atol=1e-4)
    assert not any(isinstance(module, Convolution) for module in network.modules())
    assert all(a is b for a, b in zip(network.parameters(), before, strict=True))
    assert [weight.requires_grad for weight in before] == learns and not all(learns)


def test_the_straightforward_evaluation_gives_the_same_scores():
    torch.manual_seed(0)
    source, network = Shapes(4, 0), build(tiny(), 5, pretrained=False).eval()
    with torch.no_grad():  # classes win by turns
        network.decoder.layers[-1].weight.mul_(50)
    ours = evaluate(network, source, PredictionSettings(short_side=64))
    theirs = straightforward_evaluation(network, source, 64)
    assert ours.as_dict(source.classes)["miou"] == pytest.approx(theirs.as_dict(source.classes)["miou"])
