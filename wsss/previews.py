"""Pictures of how a run learns: the same few validation photographs after each epoch, their masks laid over."""

from pathlib import Path

import numpy as np
from PIL import Image

from wsss.checkpoint import write_folder
from wsss.config import Config
from wsss.data.item import Source
from wsss.data.voc import VOC_PALETTE, mask_values
from wsss.network import ShapeAwareNetwork
from wsss.predict import predict_probs, prediction_settings

_OPACITY = 0.6


def write_previews(folder: Path, network: ShapeAwareNetwork, source: Source, config: Config) -> None:
    """Write folder/NAME.png of `config.previews` photographs, spread evenly over the source.

    Raises:
        Unwritable: the disk is full or cannot be written.
        UserError: a photograph cannot be read.
    """
    pictures = {}
    for index in evenly(len(source), config.previews):
        rgb = source.rgb(index)
        mask = predict_probs(network, rgb, **prediction_settings(config)).argmax(0)
        pictures[f"{source.names[index]}.png"] = Image.fromarray(overlaid(rgb, mask, source.classes))
    write_folder(folder, {name: _saving(picture) for name, picture in pictures.items()})


def evenly(length: int, count: int) -> list[int]:
    """At most `count` indices, evenly over the first `length`: the same ones each time."""
    return sorted({length * i // count for i in range(count)}) if length else []


def overlaid(rgb: np.ndarray, mask: np.ndarray, classes: tuple[str, ...]) -> np.ndarray:
    """The photograph (H, W, 3) uint8 with a mask (H, W) of class indices in VOC's colors; the background stays."""
    values = mask_values(classes)
    colors = VOC_PALETTE[list(values)].astype(np.float32)
    mixed = rgb + _OPACITY * (mask > 0)[..., None] * (colors[mask] - rgb)
    return mixed.round().clip(0, 255).astype(np.uint8)


def _saving(picture: Image.Image):
    return lambda path: picture.save(path, format="PNG")
