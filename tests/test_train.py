"""Training: it learns, it is repeatable, it can be interrupted, and many processes do what one does."""

import json
import math
import os
import resource
import shutil
import signal
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from wsss import UNLABELLED, UserError, checkpoint, pseudo_labels, records, step, two_stage
from wsss.beginning import require_at_once
from wsss.crf import available as crf_is_available
from wsss.crf import crf
from wsss.data.augment import View
from wsss.data.shapes import Shapes
from wsss.data.source import read, with_masks
from wsss.distributed import Group
from wsss.evaluate import evaluate
from wsss.exits import NotFinite
from wsss.loading import batches, loader
from wsss.mask_files import overlaid
from wsss.network import build
from wsss.objective import Schedule, loss_terms, refined_probs, total_loss
from wsss.optimiser import build_optimiser, moving_average, set_poly_lr
from wsss.preflight import photograph_faults
from wsss.presets import tiny, voc
from wsss.probabilities import PredictionSettings, predict_probs, to_image
from wsss.pseudo import present_classes
from wsss.pseudo_labels import MaskSettings, training_mask
from wsss.refinement import reduce_image, refine, with_background_scores
from wsss.state import load_state, newest_whole
from wsss.step import take_step
from wsss.train import start, train

ROOT = Path(__file__).parent.parent
ALONE = Group(0, 1, torch.device("cpu"))
SHORT = replace(
    tiny(),
    **{"encoder": "test_efficientnet", "encoder_weights": "none", "aspp_channels": 8, "decoder_channels": 8},
    **{"epochs": 2, "warmup_epochs": 1, "batch": 4, "crop": 32, "precision": "float32"},
    **{"log_steps": 1, "eval_epochs": 0, "save_steps": 100, "previews": 0},
    **{"shape_channels": 8, "info_radius": 2, "refine_steps": 2},
)


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "wsss.train", "--preset", "tiny", *arguments]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return checkpoint.read_weights(folder, checkpoint.read_config(folder)["sha256"])


def assert_same_weights(a: Path, b: Path) -> None:
    first, second = weights(a), weights(b)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def children_seconds() -> float:
    """CPU time of the processes that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


@pytest.mark.slow
def test_tiny_trains_in_a_minute_and_gains_twenty_points(tmp_path):
    validation = read("shapes", None, "val")
    torch.manual_seed(0)
    before = evaluate(build(tiny(), len(validation.classes) + 1).eval(), validation, PredictionSettings()).miou
    begun = children_seconds()
    result = subprocess.run(command("--out", str(tmp_path)), cwd=ROOT, capture_output=True, text=True, check=False)
    seconds = children_seconds() - begun
    assert result.returncode == 0, result.stderr
    after = checkpoint.read_config(tmp_path / "model")["val"]["miou"]
    print(f"tiny: mIoU {100 * before:.1f} -> {100 * after:.1f} in {seconds:.0f} s")
    assert after > before + 0.20
    assert seconds < 120  # of a core, whoever else uses it: a minute of two


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """A run that nobody interrupts: 2 epochs of 3 steps."""
    out = tmp_path_factory.mktemp("whole")
    assert train(SHORT, Shapes(12, 0), Shapes(2, 1), out, group=ALONE) == 0
    return out


def test_an_interrupted_run_ends_like_one_that_was_not(whole_run, tmp_path, monkeypatch):
    """Interrupted within an epoch; where every seed counts, so do those of the same run from its beginning."""
    import wsss.train

    def interrupt(*arguments, **more):
        terms = take_step(*arguments, **more)
        if arguments[3].step + 1 == 4:
            os.kill(os.getpid(), signal.SIGTERM)
        return terms

    with monkeypatch.context() as patch:
        patch.setattr(wsss.train, "take_step", interrupt)
        assert train(SHORT, Shapes(12, 0), Shapes(2, 1), tmp_path, group=ALONE) == 143
    state = newest_whole(tmp_path / "states")
    assert train(SHORT, Shapes(12, 0), Shapes(2, 1), tmp_path, group=ALONE, before=state) == 0
    assert_same_weights(whole_run / "model", tmp_path / "model")
    losses = [[row.get("total") for row in records.read(out / "metrics.jsonl")] for out in (whole_run, tmp_path)]
    assert losses[0] == losses[1]


def test_a_run_that_begins_with_anothers_state_has_settings_of_its_own(whole_run, tmp_path):
    state = newest_whole(whole_run / "states")
    begun = checkpoint.read_config(state)["step"]
    still = replace(SHORT, epochs=3, lr=1e-9, encoder_lr=1e-9, teacher="network", ema_decay=0.0)
    assert train(still, Shapes(12, 0), Shapes(2, 1), tmp_path, group=ALONE, before=state) == 0
    assert records.read(tmp_path / "metrics.jsonl")[0]["step"] == begun + 1
    trained, before = weights(tmp_path / "model"), weights(state)
    for name in dict(build(SHORT, 5, pretrained=False).named_parameters()):
        torch.testing.assert_close(trained[name], before[name], atol=1e-6, rtol=0)


def test_a_full_memory_does_not_make_a_state_broken(tmp_path, monkeypatch):
    train(SHORT, Shapes(4, 0), None, tmp_path, group=ALONE, until=0)
    monkeypatch.setattr(torch, "load", no_memory)
    learner = start(SHORT, 5, ALONE.device, pretrained=False)
    with pytest.raises(MemoryError):
        load_state(newest_whole(tmp_path / "states"), learner, Shapes(4, 0), SHORT)


def no_memory(*_, **__):
    raise MemoryError


def test_a_run_that_ends_early_tells_the_time_to_its_own_end(tmp_path, capsys):
    train(SHORT, Shapes(4, 0), None, tmp_path, group=ALONE, until=1)
    assert "epoch 1/1" in capsys.readouterr().out


def test_an_average_that_the_state_lacks_begins_with_the_networks_weights(tmp_path):
    source, plain = Shapes(12, 0), replace(SHORT, teacher="network", ema_decay=0.0)
    train(plain, source, Shapes(2, 1), tmp_path, group=ALONE, until=1)
    learner = start(replace(plain, ema_decay=0.9), 5, ALONE.device, pretrained=False)
    load_state(newest_whole(tmp_path / "states"), learner, source, plain)
    ours, kept = learner.network.state_dict(), learner.shipped.state_dict()
    assert learner.shipped is not learner.network and all(torch.equal(ours[name], kept[name]) for name in ours)


@pytest.mark.parametrize(
    ("folder", "change", "words"),
    [
        ("model", {}, "a checkpoint, not a state"),
        ("states", {"batch": 2}, "begin with that --batch"),
        ("states", {"frozen_stages": 0}, "--frozen-stages"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(whole_run, tmp_path, folder, change, words):
    state = whole_run / "model" if folder == "model" else newest_whole(whole_run / "states")
    with pytest.raises(UserError, match=words):
        train(replace(SHORT, **change), Shapes(12, 0), Shapes(2, 1), tmp_path, group=ALONE, before=state)


def test_a_state_beyond_the_end_of_the_run_is_refused(whole_run, tmp_path):
    state = newest_whole(whole_run / "states")
    with pytest.raises(UserError, match="has taken 6 steps already, this run ends after 3"):
        train(SHORT, Shapes(12, 0), Shapes(2, 1), tmp_path, group=ALONE, before=state, until=1)
    assert not list(tmp_path.iterdir())
    with pytest.raises(UserError, match="has taken 6 steps already, this run ends after 3"):
        train(SHORT, Shapes(12, 0), Shapes(2, 1), whole_run, group=ALONE, before=state, until=1)


def test_a_run_that_ends_early_leaves_a_checkpoint_too(tmp_path):
    config = replace(SHORT, eval_epochs=5, previews=0)
    assert train(config, Shapes(4, 0), Shapes(2, 1), tmp_path, group=ALONE, until=1) == 0
    assert checkpoint.read_config(tmp_path / "model")["step"] == 1


@pytest.mark.parametrize("until", [-1, 3])
def test_an_end_that_is_no_epoch_is_refused(tmp_path, until):
    with pytest.raises(UserError, match=f"--until {until}: give the number of an epoch, of which there are 2"):
        train(SHORT, Shapes(12, 0), Shapes(2, 1), tmp_path, group=ALONE, until=until)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_names_the_classes_that_were_trained_on(tmp_path):
    validation = Shapes(2, 1)
    validation.classes = ("one", "two", "three", "four")
    config = replace(SHORT, epochs=1, encoder="test_efficientnet", encoder_weights="none", previews=0)
    assert train(config, Shapes(4, 0), validation, tmp_path, group=ALONE) == 0
    content = checkpoint.read_config(tmp_path / "model")
    assert content["classes"] == list(Shapes.classes)
    assert set(Shapes.classes) <= content["val"]["classes"].keys()


def test_an_epoch_covers_every_photograph_whatever_the_number_of_processes():
    photographs, config = Shapes(13, 0), replace(SHORT, batch=4)
    for epoch in range(2):
        alone = [view.name for view in loader(photographs, config, epoch, ALONE)]
        assert {name for batch in alone for name in batch} == set(photographs.names)
        ranks = [loader(photographs, config, epoch, Group(rank, 2, torch.device("cpu"))) for rank in (0, 1)]
        for batch, *shares in zip(alone, *ranks, strict=True):
            assert sorted(batch) == sorted(name for share in shares for name in share.name)


def test_epochs_differ_in_their_order_and_skipping_goes_on_where_it_stopped():
    assert batches(20, 4, seed=0, epoch=0) != batches(20, 4, seed=0, epoch=1)
    photographs = Shapes(13, 0)
    rest = [view.name for view in loader(photographs, SHORT, 0, ALONE, skip=2)]
    assert rest == [tuple(photographs.names[i] for i in batch) for batch in batches(13, 4, SHORT.seed, 0)[2:]]


def test_two_processes_need_a_batch_that_they_can_share(tmp_path):
    with pytest.raises(UserError, match="cannot be shared by 3 processes"):
        train(SHORT, Shapes(4, 0), Shapes(2, 1), tmp_path, group=Group(0, 3, torch.device("cpu")))


def views(config, num_classes: int, size: int, batch: int) -> View:
    generator = torch.Generator().manual_seed(0)
    labels = torch.zeros(batch, num_classes - 1)
    labels[torch.arange(batch), torch.arange(batch)] = 1
    image = torch.randint(0, 256, (batch, 3, size, size), generator=generator, dtype=torch.uint8)
    return View(image, labels, torch.full((batch, size, size), 255), ("first", "second")[:batch])


def test_the_loss_on_one_batch_falls():
    # The labels alone: pseudo masks would move as it learns.
    config = replace(SHORT, warmup_epochs=1, teacher="network", ema_decay=0.0)
    source = Shapes(4, 0)
    learner, schedule = start(config, 5, ALONE.device, pretrained=True), Schedule(config, 1000)
    learner.network.train()
    view = next(loader(source, config, 0, ALONE))
    losses = []
    for _ in range(20):
        set_poly_lr(learner.optimiser, 0, 100, 0.9)
        terms = take_step(learner, view, config, schedule.at(0), ALONE)
        losses.append(float(terms["total"]))
    assert sum(losses[-3:]) < 0.6 * sum(losses[:3])


def test_a_loss_that_is_not_finite_stops_before_the_weights(monkeypatch):
    config = replace(SHORT, warmup_epochs=0, teacher="network", ema_decay=0.0)
    learner, schedule = start(config, 5, ALONE.device, pretrained=False), Schedule(config, 10)
    view = views(config, 5, 32, 2)
    with torch.no_grad():
        learner.network.decoder.layers[-1].bias[0] = float("nan")
    before = {name: value.clone() for name, value in learner.network.pyramid.named_parameters()}
    with pytest.raises(NotFinite, match="the classification loss is nan at step 1; the photographs were first, second"):
        take_step(learner, view, config, schedule.at(0), ALONE)
    assert all(torch.equal(value, before[name]) for name, value in learner.network.pyramid.named_parameters())


def test_a_teacher_that_is_not_finite_stops_the_run():
    """The average is normalised by other numbers than the network, which may be sound meanwhile."""
    config = replace(SHORT, warmup_epochs=0, teacher="average", ema_decay=0.9)
    learner, schedule = start(config, 5, ALONE.device, pretrained=False), Schedule(config, 10)
    with torch.no_grad():
        learner.average.module.decoder.layers[-1].bias[0] = float("nan")
    with pytest.raises(NotFinite, match="the teacher loss is nan at step 2"):
        take_step(learner, views(config, 5, 32, 2), config, schedule.at(1), ALONE)


def test_a_gradient_that_no_scale_of_float16_makes_finite_stops_before_the_weights():
    config = replace(SHORT, warmup_epochs=0, teacher="network", ema_decay=0.0)
    learner, schedule = start(config, 5, ALONE.device, pretrained=False), Schedule(config, 10)
    learner.scaler = torch.amp.GradScaler("cpu", init_scale=2.0)  # torch begins with 65,536
    weight = learner.network.decoder.layers[-1].weight
    weight.register_hook(lambda gradient: gradient * float("inf"))
    before, view = weight.detach().clone(), views(config, 5, 32, 2)
    take_step(learner, view, config, schedule.at(0), ALONE)
    with pytest.raises(NotFinite, match="the gradient is not finite at step 2, however small it is scaled"):
        take_step(learner, view, config, schedule.at(1), ALONE)
    assert torch.equal(weight, before)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_run_in_half_precision_learns_like_one_in_float32(precision, tmp_path):
    losses = []
    for name in ("float32", precision):
        config = replace(SHORT, precision=name, epochs=1, warmup_epochs=0)
        assert train(config, Shapes(8, 0), None, tmp_path / name, group=ALONE) == 0
        losses.append([row["total"] for row in records.read(tmp_path / name / "metrics.jsonl") if "total" in row])
    assert len(losses[0]) == 2 and losses[0] != losses[1]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.1)
    kept = weights(tmp_path / precision / "model").values()
    assert {value.dtype for value in kept if value.is_floating_point()} == {torch.float32}


def test_a_step_waits_for_no_value_of_the_device(monkeypatch):
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())  # there is none of this device
    nowhere = Group(0, 1, torch.device("meta"))  # a device without values: to ask for one is an error
    config = replace(SHORT, warmup_epochs=0)
    learner = start(config, 5, nowhere.device, pretrained=False)
    view = views(config, 5, 32, 2)
    terms = step._terms(learner.network, learner, view, config, Schedule(config, 10).at(1), nowhere)
    terms["total"].backward()
    learner.optimiser.step()
    assert {"classification", "pixel", "region", "labelled", "total"} == terms.keys()
    assert all(value.device.type == "meta" for value in (*terms.values(), step._gradient_norm(learner)))


@pytest.mark.parametrize(("teacher", "labelled"), [("network", True), ("average", False)])
def test_the_pseudo_masks_are_of_the_teacher_that_the_config_names(teacher, labelled):
    config = replace(SHORT, warmup_epochs=0, teacher=teacher)
    learner = start(config, 7, ALONE.device, pretrained=True)
    last = learner.average.module.decoder.layers[-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.ones_(last.bias)  # 1/7 each: no class claims a pixel
    terms = step._terms(learner.network, learner, views(config, 7, 32, 2), config, Schedule(config, 10).at(1), ALONE)
    assert (terms["labelled"] > 0) == labelled


def test_a_log_is_read_without_its_torn_and_foreign_lines(tmp_path):
    lines = '{"step": 1, "total": 2.5}', "[1]", '{"total": 3}', '{"step": 2, "total": 2}', '{"step": 3, "tot'
    (tmp_path / "log").write_text("\n".join(lines))
    assert [row["step"] for row in records.read(tmp_path / "log")] == [1, 2]


def test_a_cache_that_several_processes_would_each_hold_is_told_to_be_none(capsys):
    require_at_once(replace(tiny(), workers=2, encoder_weights="none"), has_state=False)
    assert "--cache needs --workers 0: 2 processes would each hold a copy" in capsys.readouterr().err


@pytest.mark.slow
def test_the_papers_network_takes_one_full_step():
    config = replace(voc(), encoder_weights="none", batch=2, crop=64, warmup_epochs=0, precision="float32")
    learner, schedule = start(config, 21, ALONE.device, pretrained=True), Schedule(config, 10)
    learner.network.train()
    before = learner.network.decoder.layers[-1].weight.clone()
    set_poly_lr(learner.optimiser, 1, schedule.steps, config.poly_power)
    view = views(config, 21, 64, 2)
    terms = take_step(learner, view, config, schedule.at(1), ALONE)
    assert {"classification", "pixel", "region", "labelled", "total"} == terms.keys()
    assert all(map(math.isfinite, terms.values()))
    assert not torch.equal(learner.network.decoder.layers[-1].weight, before)


def test_masks_supervise_where_they_are_asked_to():
    config = replace(SHORT, supervision="masks")
    network = build(config, 5, pretrained=False).train()
    view = views(config, 5, 32, 2)
    image, mask = view.image.float() / 255, torch.zeros(2, 32, 32, dtype=torch.long)
    mask[:, 8:24, 8:24] = 1
    output = network(image)
    terms = loss_terms(output, output, image, view.labels, mask, config, Schedule(config, 10).at(0))
    assert terms["labelled"] == 1 and terms["pixel"] > 0


@pytest.mark.parametrize("flag", [False, True])
def test_the_class_affinity_of_the_background_is_a_setting(flag):
    config = replace(SHORT, background_affinity=flag)
    network, view = build(config, 5, pretrained=False).eval(), views(config, 5, 32, 2)
    image, size = view.image.float() / 255, (8, 8)
    with torch.no_grad():
        output = network(image)
    logits, probs = output.resized_logits(size), output.resized_probs(size)
    present = present_classes(view.labels)
    scores = with_background_scores(logits, present) if flag else logits
    colors, steps = reduce_image(image, size), config.refine_steps
    expected = refine(colors, scores, probs, alpha=0.3, steps=steps, present=present)
    assert torch.equal(refined_probs(output, image, view.labels, size, config, 0.3), expected)


@pytest.mark.parametrize(
    ("pixel", "region", "terms"),
    [
        (False, False, {"classification"}),
        (True, False, {"classification", "pixel", "labelled"}),
        (False, True, {"classification", "region", "labelled"}),
        (True, True, {"classification", "pixel", "region", "labelled"}),
    ],
)
def test_each_row_of_table_8_has_its_losses(pixel, region, terms):
    config = replace(SHORT, pixel_loss=pixel, region_loss=region, warmup_epochs=0)
    network = build(config, 5, pretrained=False).train()
    view = views(config, 5, 32, 2)
    image = view.image.float() / 255
    output = network(image)
    found = loss_terms(output, output, image, view.labels, view.mask, config, Schedule(config, 10).at(0))
    assert found.keys() == terms


def test_the_total_is_eq_9_and_10():
    terms = {"classification": torch.tensor(1.0), "pixel": torch.tensor(2.0), "region": torch.tensor(4.0)}
    schedule = Schedule(replace(tiny(), pixel_weight=3, region_weight=0.5), 10)
    weights = schedule.at(schedule.steps).weights
    assert total_loss(terms, weights) == 1 + 3 * 2 + 0.5 * 4
    assert total_loss({"classification": terms["classification"]}, weights) == 1


def test_schedules_by_hand():
    config = replace(tiny(), epochs=10, warmup_epochs=2, alpha_start=1.0, alpha=0.8, region_weight=1.0)
    config = replace(
        config, object_cutoff_start=0.8, object_cutoff=0.6, background_cutoff_start=0.7, background_cutoff=0.8
    )
    schedule = Schedule(config, steps_per_epoch=10)
    assert [schedule.at(step).has_mask_loss for step in (0, 19, 20, 99)] == [False, False, True, True]
    for name, expected in (
        ("alpha", [1, 1, 0.9, 0.8]),
        ("object_cutoff", [0.8, 0.8, 0.7, 0.6]),
        ("background_cutoff", [0.7, 0.7, 0.75, 0.8]),
    ):
        assert [getattr(schedule.at(step), name) for step in (0, 20, 60, 100)] == pytest.approx(expected)
    assert [schedule.at(step).weights["region"] for step in (0, 50, 100)] == pytest.approx([0, 0.5, 1])


def test_the_focal_penalty_pushes_during_the_warm_up_alone_if_asked_to():
    config = replace(tiny(), warmup_epochs=2, epochs=4, focal_warmup_only=True)
    assert [Schedule(config, 10).at(step).has_focal_gradient for step in (0, 19, 20, 39)] == [True, True, False, False]
    assert Schedule(replace(config, focal_warmup_only=False), 10).at(39).has_focal_gradient
    alone = Schedule(replace(config, pixel_loss=False, region_loss=False), 10)  # a line of Table 8
    assert alone.at(19).has_focal_gradient and not alone.at(20).has_focal_gradient


def test_the_learning_rate_decays_and_biases_learn_twice_as_fast():
    network = build(tiny(), 5, pretrained=False)
    optimiser = build_optimiser(network, lr=1.0, encoder_lr=0.1, momentum=0.9, weight_decay=1e-4)
    assert set_poly_lr(optimiser, 50, 100, 0.9) == pytest.approx(0.5**0.9)
    rates = sorted({round(group["lr"] / 0.5**0.9, 6) for group in optimiser.param_groups})
    assert rates == [0.1, 1.0, 2.0]
    assert all(group["momentum"] == 0.9 for group in optimiser.param_groups)
    decays = {group["lr"] / 0.5**0.9: group["weight_decay"] for group in optimiser.param_groups}
    assert decays[2.0] == 0
    held = sum(len(group["params"]) for group in optimiser.param_groups)
    assert held == sum(parameter.requires_grad for parameter in network.parameters())


def test_the_moving_average_by_hand():
    averaged, update = [torch.tensor([0.0])], moving_average(0.5)
    update(averaged, [torch.tensor([10.0])], torch.tensor(0))  # keeps 1/10 of the old value
    assert averaged[0].item() == pytest.approx(9)
    update(averaged, [torch.tensor([1.0])], torch.tensor(1000))  # keeps a half
    assert averaged[0].item() == pytest.approx(5)


def test_a_torn_log_line_is_dropped_and_later_steps_are_written_once(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "total": 1.0}\n{"step": 5, "total": 2.0}\n{"step": 6, "to')
    log = records.Records(tmp_path, step=3)
    log.add({"step": 4, "total": 3.0})
    assert [row["step"] for row in records.read(tmp_path / "metrics.jsonl")] == [1, 4]
    assert len((tmp_path / "metrics.csv").read_text().splitlines()) == 3
    json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])


@pytest.fixture(scope="module")
def two_stages(tmp_path_factory):
    """The two-stage command on drawn shapes, cut to a few seconds."""
    out = tmp_path_factory.mktemp("two") / "stages"
    flags = {"encoder": "test_efficientnet", "encoder-weights": "none", "epochs": 2, "warmup-epochs": 0, "crop": 32}
    flags |= {"batch": 40, "aspp-channels": 8, "decoder-channels": 8, "previews": 2, "precision": "float32"}
    flags |= {"eval-epochs": 0, "background-power": 10}  # so soon, the masks would be background alone
    arguments = ["--preset", "tiny", *(text for name, value in flags.items() for text in (f"--{name}", str(value)))]
    arguments += ["--out", str(out), "--then", "--epochs", "1", "--lr=0.02"]
    assert two_stage.main(arguments) == 0
    (out / "arguments").write_text("\n".join(arguments))
    return out


@pytest.mark.slow
def test_two_stages_train_a_plain_network_on_masks_of_the_first(two_stages):
    source = read("shapes", None, "train")
    assert len(list((two_stages / "masks").glob("*.png"))) == len(source)
    first, second = (checkpoint.load(two_stages / stage / "model").config for stage in ("labels", "segmentation"))
    assert (second.supervision, second.shape_cue, second.region_loss) == ("masks", "none", False)
    assert (first.epochs, second.epochs) == (2, 1), "what follows --then is of the second alone"
    assert {"pixel", "labelled"} <= records.read(two_stages / "segmentation" / "metrics.jsonl")[0].keys()


@pytest.mark.slow
def test_two_stages_go_on_where_they_stopped(two_stages):
    of_first, of_second = (two_stages / stage / "metrics.csv" for stage in ("labels", "segmentation"))
    before, trained = of_first.read_text(), of_second.read_text().splitlines()
    shutil.rmtree(of_second.parent)
    assert two_stage.main((two_stages / "arguments").read_text().split("\n")) == 0
    assert of_first.read_text() == before, "the first stage is not trained again, which would take another time"
    assert len(of_second.read_text().splitlines()) == len(trained)


@pytest.mark.slow
def test_a_training_mask_holds_only_classes_that_the_labels_name(two_stages):
    source = with_masks(read("shapes", None, "train"), two_stages / "masks")
    assert not photograph_faults(source, masks=True)
    for index in range(0, len(source), 20):
        assert source.mask(index).shape == source.rgb(index).shape[:2]
        assert set(np.unique(source.mask(index))) <= {0, *(np.flatnonzero(source.labels[index]) + 1)}


@pytest.mark.slow
def test_previews_are_the_same_photographs_each_epoch_with_the_mask_laid_over(two_stages):
    run, source = two_stages / "labels", read("shapes", None, "val")
    first, last = (sorted((run / "previews" / epoch).iterdir()) for epoch in ("epoch_01", "epoch_02"))
    assert [path.name for path in first] == [path.name for path in last] == ["shapes-1-0.png", "shapes-1-20.png"]
    network, config, classes, _ = checkpoint.load(run / "model")
    for path, index in zip(last, (0, 20), strict=True):
        rgb = source.rgb(index)
        mask = predict_probs(network, rgb, PredictionSettings.of(config)).argmax(0)
        with Image.open(path) as picture:
            differs = (np.array(picture) != overlaid(rgb, mask, classes)).any(2)
        assert mask.any() and differs.mean() < 0.01  # where two classes are as probable, rounding may decide


def test_a_preview_leaves_the_background_as_it_is():
    rgb = np.full((2, 2, 3), 100, np.uint8)
    over = overlaid(rgb, np.array([[0, 1], [0, 0]]), ("cat",))
    assert (over[0, 0] == 100).all() and (over[1] == 100).all()
    assert over[0, 1].tolist() == [round(0.4 * 100 + 0.6 * color) for color in (64, 0, 0)]  # VOC's color of a cat


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        *(
            (f"{flag}=x", f"{flag} is what the second stage sets")
            for flag in ("--region-loss", "--supervision", "--masks")
        ),
        ("--begin-with=x", "--begin-with is of one training alone"),
        *((flag, f"{flag} is of one training alone") for flag in ("--until", "--resume")),
        ("--shape-cue=on", "give it after --then"),
        ("--then --masks=x", "--masks is what the second stage sets"),
        ("--then --epoch 3", "unrecognized arguments: --epoch"),
        ("--then --alpha 3", "alpha must lie between 0 and 1"),
        ("--then --encoder nope", "there is no encoder 'nope'"),
        ("--then --shape-stage 8", "shape_stage is 8, the encoder's last stage is 4"),
        *((f"--then {flag} x", f"{flag} is of both stages") for flag in ("--device", "--dataset", "--val-split")),
        ("--then --train-split=x", "--train-split is of both stages"),
        ("--then 3", "'3' does not belong to a flag"),
        ("--crf", "the dense CRF needs the package pydensecrf2: pip install pydensecrf2"),
    ],
)
def test_two_stages_refuse_what_cannot_work_before_the_first_begins(flag, words, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    with pytest.raises(SystemExit) as ended:
        two_stage.main(["--preset", "tiny", "--out", str(tmp_path / "x"), *flag.split()])
    assert ended.value.code == 2 and words in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_two_stages_refuse_a_folder_whose_name_no_config_can_hold(tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        two_stage.main(["--preset", "tiny", "--out", str(tmp_path / "a\u00a0b")])
    assert ended.value.code == 2 and "printable characters" in capsys.readouterr().err


def test_two_stages_under_torchrun_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit) as ended:
        two_stage.main(["--preset", "tiny", "--out", str(tmp_path / "x")])
    assert ended.value.code == 2 and "the two stages run in one process" in capsys.readouterr().err


def test_a_training_mask_is_made_as_in_training():
    config, source = replace(tiny(), encoder="test_efficientnet", encoder_weights="none"), Shapes(2, 0)
    network = build(config, 5, pretrained=False).eval()
    rgb, given = source.rgb(0), torch.from_numpy(source.labels[0])[None]
    image = to_image(rgb, config.test_short_side)
    grid = tuple(side // config.refine_stride for side in image.shape[-2:])
    with torch.no_grad():
        expected = refined_probs(network(image), image, given, grid, config, config.alpha)
    large = torch.nn.functional.interpolate(expected, rgb.shape[:2], mode="bilinear", align_corners=False)
    assert (training_mask(network, rgb, source.labels[0], config, MaskSettings()) == large[0].argmax(0).numpy()).all()


@pytest.mark.skipif(not crf_is_available(), reason="pydensecrf is not installed")
def test_a_training_mask_by_a_crf_is_not_refined_too():
    config, source = replace(tiny(), encoder="test_efficientnet", encoder_weights="none"), Shapes(2, 0)
    network = build(config, 5, pretrained=False).eval()
    rgb, labels = source.rgb(0), source.labels[0]
    image = to_image(rgb, config.test_short_side)
    with torch.no_grad():
        probs = network(image).resized_probs(tuple(side // config.refine_stride for side in image.shape[-2:]))
    large = torch.nn.functional.interpolate(probs, rgb.shape[:2], mode="bilinear", align_corners=False)[0].numpy()
    known = np.array([0, *(np.flatnonzero(labels) + 1)])
    expected = known[crf(rgb, large[known]).argmax(0)]
    assert (training_mask(network, rgb, labels, config, MaskSettings(with_crf=True)) == expected).all()


def test_a_training_mask_leaves_out_exactly_the_pixels_it_is_not_sure_of():
    config, source = replace(tiny(), encoder="test_efficientnet", encoder_weights="none"), Shapes(2, 0)
    network = build(config, 5, pretrained=False).eval()
    rgb, labels = source.rgb(0), source.labels[0]
    image = to_image(rgb, config.test_short_side)
    grid = tuple(side // config.refine_stride for side in image.shape[-2:])
    with torch.no_grad():
        refined = refined_probs(network(image), image, torch.from_numpy(labels)[None], grid, config, config.alpha)
    large = torch.nn.functional.interpolate(refined, rgb.shape[:2], mode="bilinear", align_corners=False)[0].numpy()
    share = large.max(0) / large.sum(0)
    sure = float(np.quantile(share, 0.3))
    every, some = (training_mask(network, rgb, labels, config, MaskSettings(sure=least)) for least in (0.0, sure))
    clear = np.abs(share - sure) > 1e-6  # not so near that rounding decides
    assert (some[clear & (share > sure)] == every[clear & (share > sure)]).all() and UNLABELLED not in every
    assert (some[clear & (share < sure)] == UNLABELLED).all() and (clear & (share < sure)).any()


@pytest.mark.parametrize("share", ["1.5", "-1", "nan", "much"])
def test_a_share_that_is_none_is_refused_before_anything_is_made(share, tmp_path, capsys):
    with pytest.raises(SystemExit) as ended:
        two_stage.main(["--preset", "tiny", "--sure", share, "--out", str(tmp_path / "x")])
    assert ended.value.code == 2 and "--sure" in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    """Training masks of drawn shapes, and the words of the command that has made them."""
    folder = tmp_path_factory.mktemp("pseudo")
    config = replace(tiny(), encoder="test_efficientnet", encoder_weights="none", refine_steps=1)
    for seed, name in enumerate(("one", "other")):
        torch.manual_seed(seed)
        checkpoint.save(folder / name, build(config, 5).state_dict(), config, read("shapes", None, "val").classes)
    flags = ["--split", "val", "--out", str(folder / "masks"), "--sure", "0.5"]
    assert pseudo_labels.main(["--checkpoint", str(folder / "one"), *flags]) == 0
    return folder, flags


@pytest.mark.parametrize(
    ("name", "more", "words"),
    [
        ("other", [], "another --checkpoint;"),
        ("one", ["--multi-scale", "--sure", "0.25"], "another --multi-scale and --sure;"),
    ],
)
def test_masks_that_were_made_otherwise_are_not_mixed(masks, name, more, words, capsys):
    folder, flags = masks
    (first, *_), before = (folder / "masks").glob("*.png"), len(list((folder / "masks").iterdir()))
    first.unlink()
    assert pseudo_labels.main(["--checkpoint", str(folder / name), *flags, *more]) == 2
    assert words in capsys.readouterr().err and len(list((folder / "masks").iterdir())) == before - 1
    assert pseudo_labels.main(["--checkpoint", str(folder / "one"), *flags]) == 0
    assert len(list((folder / "masks").iterdir())) == before


def test_masks_of_photographs_whose_labels_have_changed_are_not_kept(masks, monkeypatch, capsys):
    folder, flags = masks
    corrected = read("shapes", None, "val")
    corrected.labels[0, 0] = 1 - corrected.labels[0, 0]
    monkeypatch.setattr("wsss.data.source.Shapes", lambda *_: corrected)
    assert pseudo_labels.main(["--checkpoint", str(folder / "one"), *flags]) == 2
    assert "its masks were made of other photographs or labels" in capsys.readouterr().err


def test_masks_without_a_note_of_how_they_were_made_are_taken_as_they_are(masks, tmp_path, capsys):
    folder, flags = masks
    shutil.copytree(folder / "masks", tmp_path / "older")
    (tmp_path / "older" / "settings.json").unlink()
    assert pseudo_labels.main(["--checkpoint", str(folder / "other"), *flags, "--out", str(tmp_path / "older")]) == 0
    assert capsys.readouterr().out.startswith("0 masks written")


def test_a_missing_training_mask_is_named(tmp_path):
    (tmp_path / "masks").mkdir()
    source = with_masks(Shapes(3, 0), tmp_path / "masks")
    assert photograph_faults(source, masks=True)[1] == ["shapes-0-1: has no mask, which is needed here"]
    with pytest.raises(UserError, match="no such folder of masks"):
        with_masks(Shapes(3, 0), tmp_path / "nothing")
