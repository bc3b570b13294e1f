"""The border between pictures and the method: uint8 arrays outside, tensors inside. Encode once, ask often."""

import hashlib
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from analysis.bounded import Bounded
from analysis.encoding import Encoding
from analysis.pseudo_settings import MOST_STEPS, PseudoSettings
from analysis.ranges import require_number
from wsss import UNLABELLED, UserError, checkpoint
from wsss.config import Config
from wsss.crf import available as crf_is_available
from wsss.crf import crf
from wsss.data.reduced import reduce
from wsss.data.voc import VOC_PALETTE, mask_values
from wsss.network import ShapeAwareNetwork
from wsss.probabilities import MOST_RATIO, PredictionSettings, predict_probs
from wsss.pseudo import claims, to_mask
from wsss.refinement import DILATIONS, affinity, kernel, spread, with_background_scores

REFINED_BY = ("SPR", "CRF", "none")
"""What a mask may be refined by: SPR as the checkpoint's test has it, a dense CRF in its place, or nothing.

The paper tests with nothing (Sec. 3.3).
"""

_SHOWN_SIDE = 512  # larger photographs are shown and asked about at this short side, so that a slider stays live
_LEAST_SIDE = 16
_KEPT_ENCODINGS = 8
_KEPT_ITERATES = 16
_KEPT_MASKS = 16
_KEPT_RAW = 4
_KEPT_KERNELS = 4
_KEPT_ANSWERS = 16
_KEPT_CUES = 4
_KEPT_FILMS = 4


def ways_to_refine() -> list[str]:
    """Those of `REFINED_BY` that this machine has: a CRF may not be installed."""
    return [way for way in REFINED_BY if way != "CRF" or crf_is_available()]


class Predictor:
    """A checkpoint that answers questions about photographs.

    Nothing that a visitor asks changes what another one sees: encodings are values, kept in a bounded cache by the
    photograph's digest, and a lock lets one question at a time use the network.
    """

    def __init__(
        self, network: ShapeAwareNetwork, config: Config, classes: Sequence[str], facts: dict[str, Any]
    ) -> None:
        self.network, self.config, self.classes, self.facts = network.eval(), config, tuple(classes), facts
        self.lock = threading.RLock()  # of the network: a forward pass beside another one's hooks gives wrong maps
        self._encodings = Bounded(_KEPT_ENCODINGS, self.lock)
        self._iterates = Bounded(_KEPT_ITERATES, self.lock)
        self._kernels = Bounded(_KEPT_KERNELS, self.lock)
        self._masks = Bounded(_KEPT_MASKS, self.lock)
        self._raw = Bounded(_KEPT_RAW, self.lock)
        self.kept = Bounded(_KEPT_ANSWERS, self.lock)  # of those who ask the network itself
        self.cues = Bounded(_KEPT_CUES, threading.RLock())  # Eq. 3 and 4 need no network, and may take seconds
        self.films = Bounded(_KEPT_FILMS, self.lock)  # of all steps; apart, as they must not crowd out slow answers

    @classmethod
    def from_checkpoint(cls, folder: Path) -> "Predictor":
        """Read a checkpoint folder. Raises UserError when it is missing or broken."""
        torch.set_flush_denormal(True)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        network, config, classes, facts = checkpoint.load(folder)
        return cls(network.to(device), config, classes, facts | {"name": folder.resolve().name})

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def colors(self) -> np.ndarray:
        """The color of each class, (K, 3) uint8: VOC's own where the classes are VOC's."""
        return VOC_PALETTE[list(mask_values(self.classes))]

    def rehearse(self) -> None:
        """Answer about a black picture, so that the first photograph need not wait for what is done but once.

        After an installation the kernels are compiled, which takes about ten seconds; later starts save half a second.
        """
        encoding = self.encode(np.zeros((64, 64, 3), np.uint8))
        self.iterates(encoding, self.classes[:1], PseudoSettings.of(self.config))

    def encode(self, rgb: np.ndarray) -> Encoding:
        """Run the network once on a photograph, (H, W, 3) uint8; the last few photographs are remembered.

        `encoding.rgb` is the photograph as it is shown, reduced where it was large. It stands for the whole: to encode
        it gives the same encoding, so that a page need not keep more of a visitor's photograph.

        Raises:
            UserError: a side has fewer than 16 pixels, or one is over 5 times the other.
        """
        height, width = rgb.shape[:2]
        if min(height, width) < _LEAST_SIDE or max(height, width) > MOST_RATIO * min(height, width):
            size = f"{width}x{height} pixels"
            least = f"a side needs {_LEAST_SIDE}, and one may be {MOST_RATIO} times the other at most"
            raise UserError(
                f"this image cannot be used: it has {size}, too small or too narrow to be looked at; {least}"
            )
        rgb = reduce(rgb, _SHOWN_SIDE)
        key = hashlib.sha1(rgb.tobytes() + str(rgb.shape).encode(), usedforsecurity=False).hexdigest()
        return self._encodings.get(key, lambda: Encoding.of(self.network, self.config, rgb, key))

    @property
    def drops(self) -> bool:
        """Whether the network has a shape cue that drops features."""
        return self.network.shape_cue is not None and self.network.shape_cue.drop_rate > 0

    def encode_by_drop(self, encoding: Encoding, temperature: float, radius: int) -> Encoding:
        """The photograph as the network with another drop sees it; the network is given back as it was.

        Args:
            temperature, radius: `drop_temperature` and `info_radius` of a Config; with the network's own, and where it
                drops nothing, the encoding is the same one.

        Raises:
            UserError: one is out of range.
        """
        # A Config knows the ranges and refuses what lies outside.
        asked = replace(self.config, drop_temperature=float(temperature), info_radius=int(radius))
        drop = asked.drop_temperature, asked.info_radius
        shape_cue = self.network.shape_cue
        with self.lock:
            if not self.drops or (shape_cue.temperature, shape_cue.radius) == drop:
                return encoding
            before = shape_cue.temperature, shape_cue.radius
            try:
                shape_cue.temperature, shape_cue.radius = drop
                key = f"{encoding.key} tau {drop[0]} R1 {drop[1]}"
                return Encoding.of(self.network, self.config, encoding.rgb, key)
            finally:
                shape_cue.temperature, shape_cue.radius = before

    def present(self, encoding: Encoding) -> list[str]:
        """The classes that the network sees in the photograph, at least the likeliest one.

        They are those of its mask; a network whose masks have any class sees those above a half.
        """
        seen = encoding.image_probs >= min(self.config.class_cutoff or 0.5, encoding.image_probs.max())
        return [name for name, is_seen in zip(self.classes, seen, strict=True) if is_seen]

    def mask(self, encoding: Encoding, threshold: float = 0.0, *, refined_by: str = "SPR") -> np.ndarray:
        """The network's mask, (H, W) uint8; pixels whose class is less probable than the threshold are unlabelled.

        Where a CRF refines, its mask is compared with the probabilities before it.

        Raises:
            UserError: the threshold is not a number in [0, 1], `refined_by` is none of REFINED_BY, or the CRF is not
                installed.
        """
        require_number("the threshold", threshold)
        probs = self.probs_before_crf(encoding, refined_by)
        # Without the lock: a CRF takes a second, between whose steps others may ask the network.
        mask = self._masks.get_unlocked((encoding.key, refined_by), lambda: _mask(encoding.rgb, probs, refined_by))
        if threshold == 0:
            return mask.copy()
        prob = np.take_along_axis(probs, mask[None].astype(np.int64), 0)[0]
        return np.where(prob < threshold, np.uint8(UNLABELLED), mask)

    def probs_before_crf(self, encoding: Encoding, refined_by: str) -> np.ndarray:
        """The class probabilities (K, H, W) float32 that such a mask is made of: for a CRF those that it smooths.

        Raises:
            UserError: `refined_by` is none of REFINED_BY.
        """
        if refined_by not in REFINED_BY:
            raise UserError(f"there is no refinement {refined_by!r}; choose from {', '.join(REFINED_BY)}")
        if refined_by == "SPR":
            return encoding.probs
        settings = PredictionSettings.of(self.config, refined=False)
        return self._raw.get(encoding.key, lambda: predict_probs(self.network, encoding.rgb, settings))

    def iterates(self, encoding: Encoding, present: Sequence[str], settings: PseudoSettings) -> Tensor:
        """All maps m_0 ... m_T of the refinement (Eq. 6), T = MOST_STEPS.

        Args:
            present: names of the objects in the photograph; only they and the background are refined.
            settings: of which alpha and what the kernels depend on matter.

        Returns:
            (T+1, K, g, g') float32; classes that are not present are 0.

        Raises:
            UserError: a class is not the checkpoint's.
        """
        key = encoding.key, tuple(self.indices(present)), settings.alpha, settings.kernel
        return self._iterates.get(key, lambda: self._refine(encoding, present, settings))

    def index(self, name: str) -> int:
        """Index of the class of that name. Raises UserError for an unknown one."""
        return self.indices([name])[-1]

    def indices(self, present: Sequence[str]) -> list[int]:
        """Indices of the classes of that name, the background's 0 first. Raises UserError for an unknown name."""
        if unknown := [name for name in present if name not in self.classes]:
            raise UserError(f"there is no class {unknown[0]!r}; the checkpoint knows {', '.join(self.classes)}")
        return [0, *(k for k, name in enumerate(self.classes, 1) if name in present)]

    def kernels(self, encoding: Encoding, present: Sequence[str], settings: PseudoSettings) -> tuple[Tensor, Tensor]:
        """The color kernel (1, N, g, g') and the class kernels (P, N, g, g') of Eq. 5.

        The latter are those of the background and the objects named, in the order of `indices`.

        Raises:
            UserError: a class is not the checkpoint's.
        """
        classes = self.indices(present)
        key = encoding.key, tuple(classes), settings.kernel
        return self._kernels.get(key, lambda: self._both_kernels(encoding, classes, *settings.kernel))

    @torch.inference_mode()
    def _both_kernels(
        self, encoding: Encoding, classes: list[int], dilations: tuple[int, ...], background_affinity: bool
    ) -> tuple[Tensor, Tensor]:
        scores = encoding.scores
        if background_affinity:
            present = torch.zeros(scores.shape[:2], dtype=torch.bool)
            present[:, classes] = True
            scores = with_background_scores(scores, present)
        color_kernel = encoding.color_kernel if dilations == DILATIONS else kernel(encoding.colors, dilations)
        return color_kernel, kernel(scores[0, classes].unsqueeze(1), dilations)

    @torch.inference_mode()
    def _refine(self, encoding: Encoding, present: Sequence[str], settings: PseudoSettings) -> Tensor:
        classes = self.indices(present)
        weights = affinity(*self.kernels(encoding, present, settings), settings.alpha)
        out = encoding.maps.new_zeros(MOST_STEPS + 1, *encoding.maps.shape)
        out[:, classes] = torch.stack(list(spread(encoding.maps[classes], weights, MOST_STEPS, settings.dilations)))
        return out

    @torch.inference_mode()
    def claims(
        self,
        encoding: Encoding,
        present: Sequence[str],
        settings: PseudoSettings,
        size: tuple[int, int] | None = None,
    ) -> Tensor:
        """Which pixels each class claims after T steps of refinement (Sec. 4.1.3), (K, H, W) bool.

        Args:
            present: as in `iterates`.
            size: (H, W) of the answer; None: the photograph's.

        Raises:
            UserError: a class is not the checkpoint's.
        """
        refined = self.iterates(encoding, present, settings)[int(settings.steps)]
        classes = self.indices(present)
        out = torch.zeros(len(refined), *(size or encoding.rgb.shape[:2]), dtype=torch.bool, device=refined.device)
        out[classes] = claims(
            _resize(refined[None, classes], out.shape[1:]),
            torch.ones(1, len(classes) - 1, device=refined.device),
            object_cutoff=settings.object_cutoff,
            background_cutoff=settings.background_cutoff,
            least_cutoff=settings.least_cutoff,
        )[0]
        return out

    def pseudo(
        self,
        encoding: Encoding,
        present: Sequence[str],
        settings: PseudoSettings,
        size: tuple[int, int] | None = None,
    ) -> np.ndarray:
        """The pseudo mask (Sec. 3.2.1, 4.1.3), (H, W) uint8, 255 unlabelled; arguments as in `claims`."""
        claimed = self.claims(encoding, present, settings, size)
        return to_mask(claimed[None])[0].to(torch.uint8).cpu().numpy()


def _resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=False)


def _mask(rgb: np.ndarray, probs: np.ndarray, refined_by: str) -> np.ndarray:
    return (crf(rgb, probs) if refined_by == "CRF" else probs).argmax(0).astype(np.uint8)
