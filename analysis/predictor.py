"""The border between pictures and the method: uint8 arrays outside, tensors inside. Encode once, ask often."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from wsss import UNLABELLED, UserError, checkpoint
from wsss.config import Config
from wsss.data.augment import reduce
from wsss.data.voc import VOC_PALETTE, voc_values
from wsss.network import ShapeAwareNetwork
from wsss.objective import reduce_image
from wsss.predict import to_image, weigh
from wsss.pseudo import pseudo_mask
from wsss.refinement import affinity, kernel, spread
from wsss.shape_cue import sample_offsets, self_information

MOST_STEPS = 30
"""Refinement steps that the page can scrub through."""

_SHOWN_SIDE = 512  # larger photographs are shown and asked about at this short side, so that a slider stays live
_LEAST_SIDE = 16
_MOST_RATIO = 5  # of the sides: the network would enlarge a narrower photograph to a gigabyte of maps
_KEPT_ENCODINGS = 8
_KEPT_ITERATES = 16


@dataclass(frozen=True)
class Encoding:
    """All that is computed once for a photograph; sliders only read it."""

    rgb: np.ndarray  # (H, W, 3) uint8
    scores: np.ndarray  # (K-1,) image-level probabilities
    probs: np.ndarray  # (K, H, W) float32, the network's, at the photograph's size
    information: np.ndarray  # (h, w) float32, self-information in nats at the network's size
    maps: Tensor  # (K, g, g') the probabilities on the grid of the refinement: m_0 of Eq. 6
    color: Tensor  # (1, N, g, g') color kernel of Eq. 5
    label: Tensor  # (K, N, g, g') class kernels of Eq. 5
    key: str  # digest of the photograph


class Predictor:
    """A checkpoint that answers questions about photographs.

    Nothing that a visitor asks changes what another one sees: encodings are values, kept in a bounded cache by the
    photograph's digest, and a lock lets one question at a time use the network.
    """

    def __init__(
        self, network: ShapeAwareNetwork, config: Config, classes: Sequence[str], facts: dict[str, Any]
    ) -> None:
        self.network, self.config, self.classes, self.facts = network.eval(), config, tuple(classes), facts
        self._lock = threading.RLock()
        self._encodings: OrderedDict[Hashable, Encoding] = OrderedDict()
        self._iterates: OrderedDict[Hashable, Tensor] = OrderedDict()

    @classmethod
    def from_checkpoint(cls, folder: Path) -> "Predictor":
        """Read a checkpoint folder. Raises UserError when it is missing or broken."""
        torch.set_flush_denormal(True)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network, config, classes, facts = checkpoint.load(folder)
        return cls(network.to(device), config, classes, facts | {"name": folder.name})

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def colors(self) -> np.ndarray:
        """The color of each class, (K, 3) uint8: VOC's own where the classes are VOC's."""
        return VOC_PALETTE[list(voc_values(self.classes) or range(len(self.classes) + 1))]

    def encode(self, rgb: np.ndarray) -> Encoding:
        """Run the network once on a photograph, (H, W, 3) uint8; the last few photographs are remembered.

        `encoding.rgb` is the photograph as it is shown, reduced where it was large. It stands for the whole: to encode
        it gives the same encoding, so that a page need not keep more of a visitor's photograph.

        Raises:
            UserError: a side has fewer than 16 pixels, or one is over 5 times the other.
        """
        height, width = rgb.shape[:2]
        if min(height, width) < _LEAST_SIDE or max(height, width) > _MOST_RATIO * min(height, width):
            size = f"{width}x{height} pixels"
            raise UserError(f"this image cannot be used: it has {size}, too small or too narrow to be looked at")
        rgb = reduce(rgb, _SHOWN_SIDE)
        key = hashlib.sha1(rgb.tobytes() + str(rgb.shape).encode(), usedforsecurity=False).hexdigest()
        return self._remembered(self._encodings, _KEPT_ENCODINGS, key, lambda: self._encode(rgb, key))

    @torch.inference_mode()
    def _encode(self, rgb: np.ndarray, key: str) -> Encoding:
        image = to_image(rgb, self.config.test_short_side).to(self.device)
        output = self.network(image)
        grid = tuple(max(1, side // self.config.refine_stride) for side in image.shape[-2:])
        logits, maps = output.resized(grid)
        source = logits if self.config.refine_source == "score" else maps
        return Encoding(
            rgb=rgb,
            scores=output.scores.sigmoid()[0].cpu().numpy(),
            probs=_resize(output.logits, rgb.shape[:2]).softmax(1)[0].cpu().numpy(),
            information=self._information(image)[0, 0].cpu().numpy(),
            maps=maps[0],
            color=kernel(reduce_image(image, grid)),
            label=kernel(source.transpose(0, 1)),
            key=key,
        )

    def _information(self, image: Tensor) -> Tensor:
        if self.network.shape_cue is not None:
            return self.network.shape_cue.information(image)
        return self_information(image, sample_offsets(self.config.info_radius, 0))

    def present(self, encoding: Encoding) -> list[str]:
        """The classes that the network sees in the photograph: those above a half, at least the best one."""
        seen = encoding.scores >= min(0.5, encoding.scores.max())
        return [name for name, is_seen in zip(self.classes, seen, strict=True) if is_seen]

    def mask(self, encoding: Encoding, threshold: float = 0.0) -> np.ndarray:
        """The network's mask, (H, W) uint8; pixels whose best probability is below the threshold are unlabelled.

        Raises:
            UserError: the threshold is not a number in [0, 1].
        """
        _require("the threshold", threshold)
        weighed = weigh(
            torch.from_numpy(encoding.probs),
            torch.from_numpy(encoding.scores),
            class_cutoff=self.config.class_cutoff,
            background_power=self.config.background_power,
        )
        mask = weighed.argmax(0).numpy().astype(np.uint8)
        mask[encoding.probs.max(0) < threshold] = UNLABELLED
        return mask

    def iterates(self, encoding: Encoding, present: Sequence[str], alpha: float) -> Tensor:
        """All maps m_0 ... m_T of the refinement (Eq. 6), T = MOST_STEPS.

        Args:
            present: names of the objects in the photograph; only they and the background are refined.
            alpha: balance of Eq. 5, in [0, 1].

        Returns:
            (T+1, K, g, g') float32; classes that are not present are 0.

        Raises:
            UserError: alpha is out of range, or a class is not the checkpoint's.
        """
        _require("alpha", alpha)
        if unknown := [name for name in present if name not in self.classes]:
            raise UserError(f"there is no class {unknown[0]!r}; the checkpoint knows {', '.join(self.classes)}")
        known = tuple(k for k, name in enumerate(self.classes, 1) if name in present)
        key = encoding.key, known, round(alpha, 4)
        return self._remembered(
            self._iterates, _KEPT_ITERATES, key, lambda: self._refine(encoding, torch.tensor((0, *known)), alpha)
        )

    @torch.inference_mode()
    def _refine(self, encoding: Encoding, classes: Tensor, alpha: float) -> Tensor:
        weights = affinity(encoding.color, encoding.label[classes], alpha)
        out = encoding.maps.new_zeros(MOST_STEPS + 1, *encoding.maps.shape)
        for step, maps in enumerate(spread(encoding.maps[classes], weights, MOST_STEPS)):
            out[step, classes] = maps
        return out

    @torch.inference_mode()
    def pseudo(
        self,
        encoding: Encoding,
        present: Sequence[str],
        *,
        alpha: float,
        steps: int,
        object_cutoff: float,
        background_cutoff: float,
    ) -> np.ndarray:
        """The pseudo mask of the photograph (Sec. 3.2.1, 4.1.3), (H, W) uint8, 255 unlabelled.

        Arguments as in `iterates` and `pseudo_mask`. Raises UserError when one is out of range.
        """
        _require("T", steps, MOST_STEPS)
        _require("the threshold", object_cutoff)
        _require("the background's threshold", background_cutoff)
        refined = self.iterates(encoding, present, alpha)[int(steps)]
        labels = torch.tensor([[float(name in present) for name in self.classes]], device=refined.device)
        return (
            pseudo_mask(
                _resize(refined[None], encoding.rgb.shape[:2]),
                labels,
                object_cutoff=object_cutoff,
                background_cutoff=background_cutoff,
                least_cutoff=self.config.least_cutoff,
            )[0]
            .to(torch.uint8)
            .cpu()
            .numpy()
        )

    def _remembered(self, cache: OrderedDict, size: int, key: Hashable, compute: Callable[[], Any]) -> Any:
        """The value of `key`, computed at most once while it is among the last `size` that were asked for."""
        with self._lock:
            if key not in cache:
                cache[key] = compute()
                while len(cache) > size:
                    cache.popitem(last=False)
            cache.move_to_end(key)
            return cache[key]


def _require(name: str, value: object, most: float = 1) -> None:
    """Raises UserError unless the value is a number from 0 to `most`; it came over the network and may be anything."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= most:
        raise UserError(f"{name} must be a number from 0 to {most:g}, got {value!r}")


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=False)
