"""Each setting reaches what it is a setting of."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from drawn import write_lively
from test_train import ALONE, SHORT, views

import wsss.epoch
from wsss import checkpoint, records, step
from wsss.data.shapes import Shapes
from wsss.evaluate import evaluate
from wsss.loading import loader
from wsss.network import build
from wsss.objective import Schedule
from wsss.optimiser import build_optimiser
from wsss.presets import tiny
from wsss.probabilities import PredictionSettings
from wsss.train import start, train


def test_the_network_is_built_of_the_settings():
    """Each has another value than its default, so that none may be forgotten."""
    config = replace(
        tiny(),
        **{"info_radius": 5, "info_samples": 4, "info_patch": 5, "info_bandwidth": 0.3, "info_relative": True},
        **{"drop_temperature": 0.7, "drop_rate": 0.9, "background_score": 1.5, "focal_power": 2.0, "focal_floor": 0.05},
        **{"shape_channels": 7, "shape_stage": 1},
    )
    network = build(config, 5, pretrained=False)
    cue = network.shape_cue
    assert (cue.radius, cue.samples, cue.patch, cue.bandwidth, cue.relative) == (5, 4, 5, 0.3, True)
    assert (cue.temperature, cue.drop_rate, cue.conv[0].out_channels) == (0.7, 0.9, 7)
    found = network.background_score, network.focal_power, network.focal_floor, network.shape_stage
    assert found == (1.5, 2.0, 0.05, 1)


def test_weights_decay_and_biases_do_not():
    network = build(tiny(), 5, pretrained=False)
    optimiser = build_optimiser(network, lr=1.0, encoder_lr=0.1, momentum=0.9, weight_decay=1e-4)
    decays = {id(p): group["weight_decay"] for group in optimiser.param_groups for p in group["params"]}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            assert decays[id(parameter)] == (0 if name.endswith("bias") else 1e-4), name


def test_a_learner_begins_with_the_settings():
    config = replace(SHORT, momentum=0.5, weight_decay=1e-3, lr=0.3, encoder_lr=0.02, ema_decay=0.9)
    learner = start(config, 5, ALONE.device, pretrained=False)
    groups = learner.optimiser.param_groups
    assert {group["momentum"] for group in groups} == {0.5}
    assert {group["weight_decay"] for group in groups} == {0, 1e-3}
    assert {0.02, 0.3, 0.6} <= {group["initial_lr"] for group in groups}
    other = start(replace(config, seed=1), 5, ALONE.device, pretrained=False)
    assert not torch.equal(learner.network.decoder.layers[-1].weight, other.network.decoder.layers[-1].weight)


def test_the_average_is_of_the_statistics_of_batch_norm_too():
    learner = start(replace(SHORT, ema_decay=0.9), 5, ALONE.device, pretrained=False)
    for value in (7, 9):
        for buffer in learner.network.buffers():
            buffer.fill_(value)
        learner.average.update_parameters(learner.network)
    buffers = [buffer for buffer in learner.average.module.buffers() if buffer.is_floating_point()]
    assert buffers and all(((buffer > 7) & (buffer < 9)).all() for buffer in buffers)


def test_the_learning_rate_falls_by_the_power_of_the_settings(tmp_path):
    config = replace(SHORT, poly_power=2.0, epochs=2, warmup_epochs=1)
    assert train(config, Shapes(8, 0), None, tmp_path, group=ALONE, until=1) == 0
    found = [row["lr"] for row in records.read(tmp_path / "metrics.jsonl") if "lr" in row]
    assert found == pytest.approx([config.lr, config.lr * 0.75**2])


@pytest.mark.parametrize("change", [{"seed": 1}, {"color_jitter": 0.9}, {"least_scale": 0.05}, {"crop": 48}])
def test_the_batches_follow_the_settings(change):
    config = replace(SHORT, least_scale=1.0, color_jitter=0.0, seed=0)
    one, two = (next(loader(Shapes(4, 0), c, 0, ALONE)) for c in (config, replace(config, **change)))
    one, two = (view.image[np.argsort(view.name)] for view in (one, two))  # in whatever order
    assert not torch.equal(one, two)


def test_the_order_of_an_epoch_follows_from_the_seed():
    one, two = (next(loader(Shapes(16, 0), replace(SHORT, seed=s), 0, ALONE)).name for s in (0, 1))
    assert one != two


def test_with_image_labels_no_class_is_seen_that_they_deny(tmp_path):
    source = Shapes(1, 1)
    write_lively(tmp_path / "model", source, test_refine_steps=0)
    network, masks = checkpoint.load(tmp_path / "model").network, {}
    for flag in (False, True):
        evaluate(
            *(network, source, PredictionSettings()),
            with_labels=flag,
            each=lambda _, scores, mask, flag=flag: masks.update({flag: mask}),
        )
    denied = np.flatnonzero(source.labels[0] == 0) + 1
    assert np.isin(masks[False], denied).any() and not np.isin(masks[True], denied).any()


def test_an_epoch_is_judged_as_a_test_is(tmp_path, monkeypatch):
    config = replace(SHORT, epochs=1, test_short_side=40, class_cutoff=0.2, background_power=2.0, test_refine_steps=1)
    seen = []

    def noted(network, source, settings, **more):
        seen.append((network.training, settings))
        return evaluate(network, source, settings, **more)

    monkeypatch.setattr(wsss.epoch, "evaluate", noted)
    assert train(config, Shapes(4, 0), Shapes(2, 1), tmp_path, group=ALONE) == 0
    assert seen == [(False, PredictionSettings.of(config))]


@pytest.mark.parametrize(("epochs", "expected"), [(3, [2, 3]), (4, [2, 4])])
def test_each_second_epoch_and_the_last_are_judged(epochs, expected, tmp_path):
    config = replace(SHORT, epochs=epochs, eval_epochs=2)
    assert train(config, Shapes(4, 0), Shapes(2, 1), tmp_path, group=ALONE) == 0
    assert [row["epoch"] for row in records.read(tmp_path / "metrics.jsonl") if "miou" in row] == expected


def test_the_random_numbers_of_a_step_follow_from_the_seed():
    terms = {}
    for seed in (0, 0, 1):
        config = replace(SHORT, warmup_epochs=1, seed=seed)
        learner = start(replace(config, seed=0), 5, ALONE.device, pretrained=False)
        learner.network.train()
        given = learner.network, learner, views(config, 5, 32, 2), config, Schedule(config, 10).at(3), ALONE
        terms.setdefault(seed, []).append(step._terms(*given)["total"].item())
    assert terms[0][0] == terms[0][1] != terms[1][0]


def test_a_step_begins_without_the_gradient_of_the_one_before():
    config = replace(SHORT, warmup_epochs=1)
    learner = start(config, 5, ALONE.device, pretrained=False)
    for group in learner.optimiser.param_groups:
        group["lr"] = 0
    learner.network.train()
    weight, gradients = learner.network.decoder.layers[-1].weight, []
    for _ in range(2):
        step.take_step(learner, views(config, 5, 32, 2), config, Schedule(config, 10).at(3), ALONE)
        gradients.append(weight.grad.clone())
    assert gradients[0].any() and torch.equal(*gradients)


@pytest.mark.parametrize("warm", [False, True])
def test_the_penalty_has_its_gradient_at_the_moments_that_the_schedule_says(warm, monkeypatch):
    config = replace(SHORT, focal_warmup_only=True, warmup_epochs=1)
    learner = start(config, 5, ALONE.device, pretrained=False)
    asked, forward = [], learner.network.forward

    def asks(image, **more):
        asked.append(more)
        assert 0.9 < image.max() <= 1, "of what was up to 255"
        return forward(image, **more)

    monkeypatch.setattr(learner.network, "forward", asks)
    now = Schedule(config, 10).at(10 if warm else 9)
    step._terms(learner.network, learner, views(config, 5, 32, 2), config, now, ALONE)
    assert asked == [{"focal_gradient": not warm}]


def test_the_teacher_looks_without_the_random_drop():
    config = replace(SHORT, warmup_epochs=0, teacher="average")
    learner = start(config, 5, ALONE.device, pretrained=False)
    learner.network.train(), learner.average.train()
    image = torch.rand(2, 3, 32, 32)
    looks = [step._look(learner.average, image).logits for _ in range(2)]
    assert torch.equal(*looks)
