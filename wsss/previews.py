"""Pictures of how a run learns: the same few validation photographs after each epoch, their masks laid over."""

from pathlib import Path

from PIL import Image

from wsss.checkpoint import write_folder
from wsss.config import Config
from wsss.data.item import Source
from wsss.mask_files import overlaid
from wsss.network import ShapeAwareNetwork
from wsss.probabilities import PredictionSettings, predict_probs


def write_previews(folder: Path, network: ShapeAwareNetwork, source: Source, config: Config) -> None:
    """Write folder/NAME.png of `config.previews` photographs, spread evenly over the source.

    Raises:
        Unwritable: the disk is full or cannot be written.
        UserError: a photograph cannot be read.
    """
    pictures = {}
    for index in evenly(len(source), config.previews):
        rgb = source.rgb(index)
        mask = predict_probs(network, rgb, PredictionSettings.of(config)).argmax(0)
        pictures[f"{source.names[index]}.png"] = Image.fromarray(overlaid(rgb, mask, source.classes))
    write_folder(folder, {name: _saving(picture) for name, picture in pictures.items()})


def evenly(length: int, count: int) -> list[int]:
    """At most `count` indices, evenly over the first `length`: the same ones each time."""
    return sorted({length * i // count for i in range(count)}) if length else []


def _saving(picture: Image.Image):
    return lambda path: picture.save(path, format="PNG")
