"""Drawn pictures as a data folder, and a network that sees something in them without having been trained."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from wsss import checkpoint
from wsss.data.shapes import Shapes
from wsss.network import build
from wsss.presets import tiny
from wsss.probabilities import to_image


def write_pictures(root: Path, pictures: Shapes, splits: list[str]) -> None:
    """The pictures with their masks and labels as a data folder; each belongs to its split."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    rows = ["image,labels,split"]
    for index, (name, split) in enumerate(zip(pictures.names, splits, strict=True)):
        Image.fromarray(pictures.rgb(index)).save(root / "images" / f"{name}.png")
        Image.fromarray(pictures.mask(index)).save(root / "masks" / f"{name}.png")
        rows.append(f"{name}.png,{';'.join(np.array(pictures.classes)[pictures.labels[index] > 0])},{split}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    (root / "classes.txt").write_text("\n".join(pictures.classes) + "\n")


def write_lively(folder: Path, pictures: Shapes, test_refine_steps: int) -> None:
    """A checkpoint whose classes win by turns on the first picture, so that its masks hold several."""
    network_settings = {"encoder": "test_efficientnet", "encoder_weights": "none"}
    config = replace(tiny(), dataset="folder", **network_settings, test_refine_steps=test_refine_steps)
    torch.manual_seed(0)
    network = build(config, len(pictures.classes) + 1, pretrained=False).eval()
    last = network.decoder.layers[-1]
    with torch.no_grad():
        seen = network(to_image(pictures.rgb(0))).logits[0, 1:].flatten(1)
        last.weight.mul_(2 / seen.std(1)[:, None, None, None])
        last.bias.copy_(1 - 2 * (seen.mean(1) - last.bias) / seen.std(1))
    checkpoint.save(folder, network.state_dict(), config, pictures.classes, {"commit": "0123456789ab"})
