"""Data in the classes of a checkpoint, matched by name: to judge a network on data that it was not made for."""

from dataclasses import dataclass, field

import numpy as np

from wsss import UNLABELLED, UserError
from wsss.data.item import Source


@dataclass(frozen=True)
class Translated:
    """A `Source` in other classes: what they do not name is background."""

    source: Source
    classes: tuple[str, ...]
    names: tuple[str, ...] = field(init=False)
    labels: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        known = self.source.classes
        columns = [
            self.source.labels[:, known.index(name)] if name in known else np.zeros(len(self.source), np.float32)
            for name in self.classes
        ]
        object.__setattr__(self, "names", self.source.names)
        object.__setattr__(self, "labels", np.stack(columns, 1))

    def __len__(self) -> int:
        return len(self.source)

    def rgb(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8."""
        return self.source.rgb(index)

    def mask(self, index: int) -> np.ndarray | None:
        """(H, W) uint8 of indices of `classes`, 255 unlabelled; None without a mask."""
        mask = self.source.mask(index)
        if mask is None:
            return None
        table = np.zeros(256, np.uint8)
        table[UNLABELLED] = UNLABELLED
        for k, name in enumerate(self.source.classes, 1):
            if name in self.classes:
                table[k] = 1 + self.classes.index(name)
        return table[mask]


def differences(data: tuple[str, ...], classes: tuple[str, ...]) -> list[str]:
    """What to know of the classes of data and those of a checkpoint: a sentence for each way in which they differ."""
    unknown = [name for name in data if name not in classes]
    missing = [name for name in classes if name not in data]
    return [
        *([f"not known to the checkpoint, so background: {', '.join(unknown)}"] if unknown else []),
        *([f"not in the data, so wrong wherever it is seen: {', '.join(missing)}"] if missing else []),
    ]


def translated(source: Source, classes: tuple[str, ...]) -> Source:
    """The source in these classes; itself where they are its own. Raises UserError where none of them is."""
    if tuple(source.classes) == tuple(classes):
        return source
    if not set(source.classes) & set(classes):
        raise UserError(
            f"the checkpoint knows {', '.join(classes)}, but the data hold {', '.join(source.classes)}: "
            "give data with classes of the checkpoint"
        )
    return Translated(source, tuple(classes))


def require_classes(source: Source, classes: tuple[str, ...]) -> None:
    """Raises UserError where the data's classes are not the checkpoint's."""
    if tuple(source.classes) != tuple(classes):
        raise UserError(
            f"the checkpoint knows {', '.join(classes)}, but the data hold {', '.join(source.classes)}: "
            "give data with the checkpoint's classes"
        )
