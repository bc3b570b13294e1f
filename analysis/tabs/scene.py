"""What a tab's functions get of the subject."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from analysis.encoding import Encoding
from analysis.predictor import Predictor
from analysis.render import recolored


class Scene(NamedTuple):
    """A checkpoint, a photograph, and what a visitor has said of them."""

    predictor: Predictor
    encoding: Encoding
    present: list[str]  # names of the classes that the visitor says are there, in the order of the checkpoint's
    truth: np.ndarray | None  # (H, W) uint8 class indices, 255 unlabelled; where the visitor gave a mask
    own_colors: Mapping[str, tuple[int, int, int]] = MappingProxyType({})  # by class, where the visitor chose one
    clicked: tuple[int, int] | None = None  # (row, column) of the pixel that the visitor chose, on whatever tab

    @property
    def pixel(self) -> tuple[int, int]:
        """The clicked pixel, or that in the middle."""
        height, width = self.encoding.rgb.shape[:2]
        return tuple(self.clicked or (height // 2, width // 2))

    @property
    def likeliest(self) -> str:
        """The class in the photograph that the network is surest of; of all classes where none is said to be there."""
        probs = dict(zip(self.predictor.classes, self.encoding.image_probs, strict=True))
        return max(self.present or probs, key=probs.__getitem__)

    @property
    def colors(self) -> np.ndarray:
        """The color of each of the predictor's classes, (K, 3) uint8."""
        return self.colors_of(self.predictor)

    def colors_of(self, predictor: Predictor) -> np.ndarray:
        """The same for another checkpoint."""
        return recolored(predictor.colors, predictor.classes, self.own_colors)
