"""A network that has learned nothing, for a page without any checkpoint: the shape cues need none."""

from pathlib import Path

from wsss import checkpoint
from wsss.network import build
from wsss.presets import animals

CLASSES = ("cat", "cow", "dog", "horse", "person", "sheep")


def untrained_checkpoint(folder: Path) -> Path:
    """Write folder/untrained, a checkpoint of the `animals` network at its random beginning, and return it.

    Raises:
        Unwritable: the folder cannot be written.
    """
    network = build(animals(), len(CLASSES) + 1, pretrained=False)
    checkpoint.save(folder / "untrained", network.state_dict(), animals(), CLASSES)
    return folder / "untrained"
