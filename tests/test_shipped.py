"""The checkpoints that are shipped: whole, small, and each with its manifest."""

from pathlib import Path

import pytest
import torch

from wsss import checkpoint

FOLDERS = sorted(path for path in (Path(__file__).parent.parent / "checkpoints").iterdir() if path.is_dir())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_shipped_checkpoint_opens_and_tells_how_it_was_made(folder):
    network, _, classes, facts = checkpoint.load(folder)
    with torch.inference_mode():
        output = network.eval()(torch.rand(1, 3, 64, 96))
    assert output.logits.shape[1] == len(classes) + 1 and output.logits.isfinite().all()
    assert {"data", "command", "commit", "val"} <= facts.keys()
    assert set(facts["val"]["classes"]) == {"background", *classes}
    assert (folder / "model.safetensors").stat().st_size < 12e6


def test_table_5_ships_one_network_of_each_line():
    made = {folder.name: checkpoint.load(folder).config for folder in FOLDERS if folder.name.startswith("table5-")}
    lines = {name: (config.shape_cue, config.alpha < 1) for name, config in made.items()}
    assert lines == {
        "table5-baseline": ("none", False),
        "table5-spr": ("none", True),
        "table5-scm": ("on", False),
        "table5-full": ("on", True),
    }


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_readme_of_the_checkpoints_names_each(folder):
    assert f"`{folder.name}`" in (folder.parent / "README.md").read_text()
