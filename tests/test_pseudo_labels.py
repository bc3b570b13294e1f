"""Masks of a training set: of which scales they are the mean, and where the commands' flags go."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from drawn import write_lively

from wsss import checkpoint, pseudo_labels, train, two_stage
from wsss.data.shapes import Shapes
from wsss.network import build
from wsss.objective import refined_probs
from wsss.presets import tiny
from wsss.probabilities import views
from wsss.pseudo_labels import MaskSettings, training_mask


def test_a_training_mask_of_several_scales_is_of_their_mean(tmp_path):
    source = Shapes(2, 1)
    write_lively(tmp_path / "model", source, test_refine_steps=0)
    network, config, _, _ = checkpoint.load(tmp_path / "model")
    config, rgb = replace(config, test_short_side=48), source.rgb(0)
    labels = torch.from_numpy(source.labels[0])[None]
    total = torch.zeros(1, 5, *rgb.shape[:2])
    with torch.no_grad():
        for image, is_mirrored in views(rgb, 48, multi_scale=True, device=torch.device("cpu")):
            grid = tuple(side // config.refine_stride for side in image.shape[-2:])
            maps = refined_probs(network(image), image, labels, grid, config, config.alpha)
            large = F.interpolate(maps, rgb.shape[:2], mode="bilinear", align_corners=False)
            total += large.flip(3) if is_mirrored else large
    found = training_mask(network, rgb, source.labels[0], config, MaskSettings(multi_scale=True))
    assert len(np.unique(found)) > 1
    assert (found == total[0].argmax(0).numpy()).mean() > 0.999


@pytest.mark.parametrize("flags", [["--multi-scale"], ["--crf"], ["--sure", "0.25"], ["--split", "val"]])
def test_each_flag_of_pseudo_labels_reaches_the_masks(flags, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(pseudo_labels, "require_crf", lambda: None)
    monkeypatch.setattr(
        pseudo_labels, "write_masks", lambda _, source, config, settings, out: seen.extend([len(source), settings]) or 0
    )
    config = replace(tiny(), encoder="test_efficientnet", encoder_weights="none")
    checkpoint.save(tmp_path / "one", build(config, 5).state_dict(), config, Shapes.classes)
    assert pseudo_labels.main(["--checkpoint", str(tmp_path / "one"), "--out", str(tmp_path / "masks"), *flags]) == 0
    count = 40 if "--split" in flags else 160
    settings = MaskSettings("--multi-scale" in flags, "--crf" in flags, 0.25 if "--sure" in flags else 0.0)
    assert seen == [count, settings]


def test_the_flags_of_two_stages_reach_the_commands_they_are_of(tmp_path, monkeypatch):
    told = []
    for command in (train, pseudo_labels):
        monkeypatch.setattr(command, "main", lambda argv: told.append(argv) or 0)
    monkeypatch.setattr(two_stage, "require_crf", lambda: None)
    flags = ["--preset", "tiny", "--out", str(tmp_path), "--data", "d", "--crf", "--multi-scale", "--sure", "0.5"]
    assert two_stage.main([*flags, "--skip-bad", "--device", "cpu", "--then", "--epochs", "1"]) == 0
    first, masks, second = told
    assert all({"--device", "cpu", "--data=d", "--skip-bad"} <= set(argv) for argv in told)
    assert {f"--checkpoint={tmp_path}/labels/model", "--crf", "--multi-scale", "--sure", "0.5"} <= set(masks)
    assert f"--masks={tmp_path}/masks" in second and "--epochs" not in first
