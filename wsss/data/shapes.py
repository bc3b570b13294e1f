"""Drawn animals: the difficulty of photographs in small, without any download.

Like a real animal, each has one part that tells its class at a glance, a small colored face, on a body that says little
by its color (gray, as the others') and much by its outline. A network that learns from image labels alone finds the
faces; to cover the bodies it must follow their contours.
"""

from collections.abc import Sequence
from copy import copy

import cv2
import numpy as np

from wsss import UserError

_ANGLES = np.linspace(0, 2 * np.pi, 80, endpoint=False)


def _polygon(sides: int) -> np.ndarray:
    step = 2 * np.pi / sides
    return np.cos(step / 2) / np.cos(_ANGLES % step - step / 2)


_OUTLINES = {
    "disk": np.ones_like(_ANGLES),
    "box": _polygon(4),
    "flower": 0.8 + 0.2 * np.cos(5 * _ANGLES),
    "star": 1 - 0.5 * np.abs(np.sin(2 * _ANGLES)),
}
"""The outline of each class's body: its radius along `_ANGLES`, 1 at the farthest point."""

_FACES = np.array([(225, 50, 50), (50, 100, 235), (240, 200, 40), (40, 190, 90)], np.float32)
"""The color of each class's face; `_pattern` draws on it."""

_SHARES = (0.3, 0.5)  # of the picture that one body covers alone, at least and at most
_FACE_RADIUS = 0.36  # in units of its body's; a star is 0.5 wide where it is thinnest
_LEAST_SIDE = 32  # of a picture; a face is not recognisable in a smaller one


class Shapes:
    """A `Source` of `count` pictures of `size` (height, width); each is a function of (seed, index) alone."""

    classes = tuple(_OUTLINES)

    def __init__(self, count: int, seed: int, size: tuple[int, int] = (96, 96)) -> None:
        if count < 1 or seed < 0 or min(size) < _LEAST_SIDE:
            raise UserError(f"shapes: need a picture or more, a seed of 0 or more and {_LEAST_SIDE} pixels a side")
        self.size, self.seed = size, seed
        self._numbers = range(count)
        self.names = tuple(f"shapes-{seed}-{number}" for number in self._numbers)
        self.labels = np.zeros((count, len(self.classes)), np.float32)
        for index in range(count):
            self.labels[index, _kinds(self._generator(index))] = 1

    def __len__(self) -> int:
        return len(self.names)

    def rgb(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8."""
        return self._draw(index)[0]

    def mask(self, index: int) -> np.ndarray:
        """(H, W) uint8, class index + 1 on a body with its face, 0 elsewhere; exact, so without 255."""
        return self._draw(index)[1]

    def faults(self, index: int, *, masks: bool) -> list[str]:
        """None: there are no files."""
        return []

    def subset(self, kept: Sequence[int]) -> "Shapes":
        """These pictures alone."""
        chosen = copy(self)
        chosen._numbers = [self._numbers[index] for index in kept]
        chosen.names, chosen.labels = tuple(self.names[index] for index in kept), self.labels[list(kept)]
        return chosen

    def _generator(self, index: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, self._numbers[index]))

    def _draw(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Picture and mask. The classes are drawn first, as `__init__` does, then places, then colors."""
        rng = self._generator(index)
        kinds = _kinds(rng)
        rgb = _background(rng, self.size)
        mask = np.zeros(self.size, np.uint8)
        for kind, center, radius in zip(kinds, *_places(rng, kinds, self.size), strict=True):
            _draw_animal(rgb, mask, kind, center, radius, rng)
        rgb += rng.normal(0, 4, self.size)[..., None]
        return rgb.clip(0, 255).astype(np.uint8), mask


def _kinds(rng: np.random.Generator) -> list[int]:
    """The classes of the one or two animals in a picture; two are of two classes."""
    count = 1 + int(rng.random() < 0.4)
    return rng.permutation(len(_OUTLINES))[:count].tolist()


def _places(rng: np.random.Generator, kinds: list[int], size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Centers (n, 2) as (y, x) and radii (n,) in pixels. Bodies stay inside the picture and off each other."""
    count = len(kinds)
    frame = np.array(size, np.float64)
    cells = np.zeros((count, 2))  # upper left corner of each animal's part of the picture
    if count == 2:
        axis = rng.integers(2)
        frame[axis] /= 2
        cells[1, axis] = frame[axis]
    areas = [np.sin(2 * np.pi / len(_ANGLES)) / 2 * (_OUTLINES[Shapes.classes[k]] ** 2).sum() for k in kinds]
    wanted = np.sqrt(rng.uniform(*_SHARES, count) * np.prod(size) / count / areas)
    radii = np.minimum(wanted, 0.48 * frame.min())
    freedom = frame - 2 * radii[:, None]
    return cells + radii[:, None] + rng.random((count, 2)) * freedom, radii


def _background(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) float32: blotches between two dull colors under a fine grid of stripes."""
    height, width = size
    blotches = cv2.resize(rng.random((4, 4), np.float32), (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    colors = rng.uniform(90, 165, 3) + rng.uniform(-40, 40, (2, 3))
    y, x = np.mgrid[:height, :width]
    slope = rng.uniform(0, 2 * np.pi)
    stripes = np.sin((y * np.sin(slope) + x * np.cos(slope)) * rng.uniform(0.5, 1.6))[..., None]
    return (colors[0] + (colors[1] - colors[0]) * blotches + rng.uniform(5, 25) * stripes).astype(np.float32)


def _draw_animal(rgb, mask, kind: int, center: np.ndarray, radius: float, rng: np.random.Generator) -> None:
    """Draws one animal into `rgb` (H, W, 3) float32 and `mask` (H, W) uint8."""
    turn = rng.uniform(0, 2 * np.pi)
    reach = radius * _OUTLINES[Shapes.classes[kind]]
    corners = np.stack([center[1] + reach * np.cos(_ANGLES + turn), center[0] + reach * np.sin(_ANGLES + turn)], 1)
    body = np.zeros_like(mask)
    cv2.fillPoly(body, [corners.round().astype(np.int32)], 1)
    contrast = rng.choice([-1, 1]) * rng.uniform(45, 80)
    rgb[body > 0] = rgb.mean() + contrast
    mask[body > 0] = kind + 1

    away = rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]].astype(np.float32)
    y = (y - center[0]) / radius - 0.12 * np.sin(away)
    x = (x - center[1]) / radius - 0.12 * np.cos(away)
    face = (x**2 + y**2 < _FACE_RADIUS**2) & (body > 0)
    rgb[face] = _FACES[kind] * _pattern(kind, x[face], y[face])[:, None]


def _pattern(kind: int, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Brightness in [0.35, 1] of a face at `x`, `y` in units of the body's radius: rings, stripes, checks, dots."""
    wave = 2 * np.pi / 0.28
    dark = (
        lambda: np.hypot(x, y) % 0.28 < 0.1,
        lambda: np.sin(wave * x) > 0.4,
        lambda: np.sin(wave * x / 1.4) * np.sin(wave * y / 1.4) > 0,
        lambda: np.sin(wave * x) * np.sin(wave * y) > 0.5,
    )[kind]()
    return np.where(dark, 0.35, 1).astype(np.float32)
