"""Weakly supervised semantic segmentation with shape cues (Kho et al., Pattern Recognition 2022).

Axes, wherever a shape is written:
    B batch · C feature channels · K classes with background (background is 0)
    H, W image · h, w feature map · N neighbours of a pixel · T refinement steps

Arrays:
    rgb     (H, W, 3) uint8          a picture from outside
    image   (B, 3, H, W) in [0, 1]   the same inside; an encoder standardises it itself
    labels  (B, K-1) in {0, 1}       image-level labels, objects only
    logits  (B, K, h, w)             class scores of pixels; the background's is constant
    probs   (B, K, h, w)             their softmax over K
    scores  (B, K, h, w)             s of Eq. 5, by which pixels are alike: the logits or the probs
    mask    (H, W) int               hard prediction; 255 is unlabelled

    image_scores (B, K-1)            class scores of images: Eq. 1, less the focal penalty where there is one;
                                     image_probs, their sigmoid
"""

import os
import sys
from contextlib import suppress

for _name in ("stdout", "stderr"):  # a daemon may have closed them; what is printed then goes nowhere
    if getattr(sys, _name) is None:
        setattr(sys, _name, open(os.devnull, "w"))  # noqa: SIM115  # as long as the process

with suppress(AttributeError):  # a notebook's
    sys.stdout.reconfigure(errors="backslashreplace")  # as Python's stderr is: a terminal may not have a class's name

# Before torch is loaded: how long its idle threads go on spinning. By default it is milliseconds, for which they keep
# the cores from the fused kernels: half of what the method adds to a training step.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")

UNLABELLED = 255
"""The mask value that no class owns: void borders, conflicts, unconfident pixels."""


class UserError(ValueError):
    """A mistake in what the user gave (a file, a flag, a label): one sentence that says what, where and what to do.

    The commands print it and leave with exit code 2; it is never shown with a traceback.
    """
