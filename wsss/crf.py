"""Dense CRF: class probabilities are smoothed along the colors of the photograph.

The package `pydensecrf` does the work. It must be compiled and is not needed for anything else here, so it is imported
when it is asked for.
"""

from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F

from wsss import UserError
from wsss.data.reduced import reduce

_GAUSSIAN = {"sxy": 1, "compat": 1}
_BILATERAL = {"sxy": 121, "srgb": 5, "compat": 4}
"""Reach in pixels and gray levels of 255 (standard deviations), and what disagreement costs.

Those of DeepLab-style evaluations such as ToCo's, CVPR 2023 (tools/infer_seg_voc.py); the paper gives none. They make
masks of training photographs of 80.3 % mIoU, those of its parent (Araslanov and Roth, CVPR 2020: 3, 3, 80, 13, 10) of
78.3 % (by an `animals` of 75.8 %).
"""

MOST_SIDE = 512
"""Short side at which a larger photograph is smoothed: VOC's have up to 500, 12 megapixels would take minutes."""

LEAST_PROBABILITY = 1e-5
"""No class is taken as more impossible than this; `unary_from_softmax` of pydensecrf has the same number."""


def require_crf() -> None:
    """Raises UserError, with what to install, unless `crf` can run here."""
    _densecrf()


def available() -> bool:
    """Whether `crf` can run here."""
    try:
        require_crf()
    except UserError:
        return False
    return True


def crf(rgb: np.ndarray, probs: np.ndarray, *, steps: int = 10) -> np.ndarray:
    """Smooth class probabilities so that near pixels, above all those of like color, tend to agree.

    The scores of a pixel are first made to sum to one; a pixel without any score is undecided between all classes.

    Args:
        rgb: (H, W, 3) uint8.
        probs: (K, H, W), not negative, finite. The sum over K need not be one.
        steps: mean-field steps; 0 only normalizes.

    Returns:
        Probabilities, (K, H, W) float32, sum one over K.

    Raises:
        UserError: the package pydensecrf2 is not installed.
        ValueError: `rgb` is not (H, W, 3) uint8, or `probs` is of another size, negative or not finite.

    Reference:
        Kraehenbuehl and Koltun, Efficient Inference in Fully Connected CRFs, NIPS 2011.
    """
    _check(rgb, probs)
    size = probs.shape[1:]
    rgb = reduce(rgb, MOST_SIDE)
    probs = _resized(probs, rgb.shape[:2], mode="area")
    k, h, w = probs.shape
    model = _densecrf().DenseCRF2D(w, h, k)
    model.setUnaryEnergy(-np.log(_normalized(probs)).reshape(k, h * w))
    model.addPairwiseGaussian(**_GAUSSIAN)
    # pydensecrf refuses arrays that it could not write to.
    model.addPairwiseBilateral(**_BILATERAL, rgbim=np.require(rgb, requirements=["C", "W"]))
    belief, *spare = model.startInference()
    for _ in range(steps):  # one by one: each holds Python's lock, for which the page's other visitors wait
        model.stepInference(belief, *spare)
    smooth = np.array(belief, np.float32).reshape(k, h, w)
    return _resized(smooth, size, mode="bilinear")


def _resized(probs: np.ndarray, size: tuple[int, int], mode: str) -> np.ndarray:
    if probs.shape[1:] == size:
        return probs
    return F.interpolate(torch.from_numpy(probs)[None], size, mode=mode)[0].numpy()


def _densecrf() -> ModuleType:
    try:
        from pydensecrf import densecrf
    except ImportError:
        raise UserError(
            "the dense CRF needs the package pydensecrf2: pip install pydensecrf2 (a C++ compiler builds it)"
        ) from None
    return densecrf


def _check(rgb: np.ndarray, probs: np.ndarray) -> None:
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f"rgb must be (H, W, 3) uint8, got {rgb.shape} {rgb.dtype}")
    if probs.ndim != 3 or probs.shape[1:] != rgb.shape[:2]:
        raise ValueError(f"probs must be (K, {rgb.shape[0]}, {rgb.shape[1]}), got {probs.shape}")
    if not np.isfinite(probs).all() or probs.min() < 0:
        raise ValueError("probs must be finite and not negative")


def _normalized(probs: np.ndarray) -> np.ndarray:
    """(K, H, W) float32, contiguous, in [1e-5, 1]."""
    total = probs.sum(0, dtype=np.float32)
    share = probs / np.where(total > 0, total, 1)
    return np.ascontiguousarray(share.clip(LEAST_PROBABILITY, 1), np.float32)
