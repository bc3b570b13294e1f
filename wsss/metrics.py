"""How good masks are: confusion matrix, IoU and boundary IoU, summed over a data set.

A pixel is counted when the truth and the prediction both name a class; 255 on either side leaves it out. A network
names a class everywhere, a pseudo mask does not: its IoU speaks of the pixels that it claims, and `Scores.coverage`
tells how many these are. A number that is not defined (a class that is nowhere) is NaN, and no mean includes it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from wsss import UNLABELLED

BOUNDARY_RATIO = 0.05
"""Width of a boundary as a share of the image's diagonal (Sec. 4.2.4: d = 5 %); the public code's default is 2 %."""


def confusion(truth: np.ndarray, mask: np.ndarray, num_classes: int) -> np.ndarray:
    """Count the pixels of each pair of classes.

    Args:
        truth: classes, (H, W) or any shape, integers in [0, K) or 255.
        mask: prediction, as `truth`.
        num_classes: K, with background.

    Returns:
        (K, K) int64; the row is the truth, the column the prediction.

    Raises:
        ValueError: shapes differ, or a value is neither a class nor 255.
    """
    _check(truth, mask, num_classes)
    counted = _counted(truth, mask)
    pairs = truth[counted].astype(np.int64) * num_classes + mask[counted]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_iou(confusion: np.ndarray) -> np.ndarray:
    """Intersection over union of each class, (K,) in [0, 1]; NaN for a class absent from truth and prediction."""
    hits = np.diag(confusion)
    return _ratio(hits, confusion.sum(0) + confusion.sum(1) - hits)


def mean_iou(confusion: np.ndarray) -> float:
    """Mean of `class_iou` over the classes that occur, background included; NaN when nothing was counted."""
    return _mean(class_iou(confusion))


def pixel_accuracy(confusion: np.ndarray) -> float:
    """Share of the counted pixels whose class is right; NaN when nothing was counted."""
    return float(_ratio(np.trace(confusion), confusion.sum()))


def precision_recall(confusion: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Right pixels of each class among those predicted and among those true, each (K,) in [0, 1] or NaN."""
    hits = np.diag(confusion)
    return _ratio(hits, confusion.sum(0)), _ratio(hits, confusion.sum(1))


def boundary_width(size: tuple[int, ...], ratio: float = BOUNDARY_RATIO) -> int:
    """Width in pixels of the boundary in an image of `size` (H, W): a share of its diagonal, 31 at 375x500."""
    return max(1, round(ratio * float(np.hypot(*size))))


def boundary(mask: np.ndarray, width: int) -> np.ndarray:
    """Pixels of a region that lie within `width` of its outline.

    The distance is Chebyshev's, and beyond the image there is no region: a region that the image cuts off has its
    outline there.

    Args:
        mask: one region, (H, W) bool. Never a map of classes: eroding that one subtracts one class from another.
        width: in pixels, 1 or more.

    Returns:
        (H, W) bool, part of `mask`.

    Reference:
        Cheng et al., Boundary IoU, CVPR 2021; `mask_to_boundary` of bowenc0221/boundary-iou-api.
    """
    padded = np.pad(mask.astype(np.uint8), 1)
    # OpenCV fuses the 3x3 erosions into one separable rectangle; this is what makes wide boundaries cheap.
    eroded = cv2.erode(padded, np.ones((3, 3), np.uint8), iterations=width)
    return mask.astype(bool) & (eroded[1:-1, 1:-1] == 0)


def boundary_counts(truth: np.ndarray, mask: np.ndarray, num_classes: int, ratio: float = BOUNDARY_RATIO) -> np.ndarray:
    """Pixels in the intersection and in the union of the boundaries of each class, to be summed over a data set.

    The boundaries are those of the regions truth == k and mask == k; pixels with 255 on either side are left out
    afterwards. So a region ends where its void border begins, and the border itself is not judged. The public panoptic
    evaluation does the same with 255 in the truth; where the prediction has it, as pseudo masks do, that one goes on to
    count the truth's boundary, and scores lower. VOC's void borders put the ceiling below 1: prediction and truth
    measure the width from different outlines. Masks of VOC whose borders are filled with the nearest class score 0.93
    against themselves.

    Args:
        truth: classes, (H, W) integers in [0, K) or 255.
        mask: prediction, as `truth`.
        num_classes: K, with background.
        ratio: width of the boundary as a share of the diagonal.

    Returns:
        (2, K) int64: intersections, unions.

    Raises:
        ValueError: shapes differ, or a value is neither a class nor 255.
    """
    _check(truth, mask, num_classes)
    counted, width = _counted(truth, mask), boundary_width(truth.shape, ratio)
    counts = np.zeros((2, num_classes), np.int64)
    for k in np.union1d(truth[counted], mask[counted]):  # the other classes add nothing
        of_truth, of_mask = boundary(truth == k, width) & counted, boundary(mask == k, width) & counted
        counts[:, k] = np.count_nonzero(of_truth & of_mask), np.count_nonzero(of_truth | of_mask)
    return counts


@dataclass(frozen=True, eq=False)
class Scores:
    """Counts of one image or of many: `a + b` counts the images of both, in whatever order they come.

    All that is read from them (`miou` ...) is of the whole data set, not a mean over its images.
    """

    confusion: np.ndarray  # (K, K) int64, row truth, column prediction
    boundaries: np.ndarray  # (2, K) int64, intersections and unions
    unclaimed: int  # pixels of known truth whose prediction is 255

    @classmethod
    def none(cls, num_classes: int) -> "Scores":
        """Of no image: where a sum starts."""
        return cls(np.zeros((num_classes, num_classes), np.int64), np.zeros((2, num_classes), np.int64), 0)

    @classmethod
    def of(cls, truth: np.ndarray, mask: np.ndarray, num_classes: int, ratio: float = BOUNDARY_RATIO) -> "Scores":
        """Of one image. Arguments and errors are those of `confusion` and `boundary_counts`."""
        return cls(
            confusion(truth, mask, num_classes),
            boundary_counts(truth, mask, num_classes, ratio),
            int(np.count_nonzero((truth != UNLABELLED) & (mask == UNLABELLED))),
        )

    def __add__(self, other: "Scores") -> "Scores":
        return Scores(
            self.confusion + other.confusion, self.boundaries + other.boundaries, self.unclaimed + other.unclaimed
        )

    @property
    def iou(self) -> np.ndarray:
        """(K,) in [0, 1]; NaN for a class that is nowhere."""
        return class_iou(self.confusion)

    @property
    def miou(self) -> float:
        return mean_iou(self.confusion)

    @property
    def boundary_iou(self) -> np.ndarray:
        """(K,) in [0, 1]; NaN for a class that is nowhere."""
        return _ratio(*self.boundaries)

    @property
    def mean_boundary_iou(self) -> float:
        return _mean(self.boundary_iou)

    @property
    def accuracy(self) -> float:
        return pixel_accuracy(self.confusion)

    @property
    def coverage(self) -> float:
        """Share of the pixels of known truth whose prediction names a class: 1 for a network, less for pseudo masks."""
        claimed = self.confusion.sum()
        return float(_ratio(claimed, claimed + self.unclaimed))

    def as_dict(self, classes: Sequence[str]) -> dict[str, object]:
        """All numbers, ready for JSON: fractions in [0, 1], and None where one is not defined.

        Args:
            classes: names of the K-1 objects, as a `Source` has them; the background comes first by itself.

        Raises:
            ValueError: the number of names does not fit.
        """
        precision, recall = precision_recall(self.confusion)
        columns = {"iou": self.iou, "boundary_iou": self.boundary_iou, "precision": precision, "recall": recall}
        names = ("background", *classes)
        if len(names) != len(self.confusion):
            raise ValueError(f"{len(classes)} names of objects for {len(self.confusion)} classes with background")
        return {
            "miou": _or_none(self.miou),
            "mean_boundary_iou": _or_none(self.mean_boundary_iou),
            "accuracy": _or_none(self.accuracy),
            "coverage": _or_none(self.coverage),
            "classes": {
                name: {column: _or_none(values[k]) for column, values in columns.items()}
                for k, name in enumerate(names)
            },
            "confusion": self.confusion.tolist(),
        }


def _check(truth: np.ndarray, mask: np.ndarray, num_classes: int) -> None:
    if truth.shape != mask.shape:
        raise ValueError(f"truth is {truth.shape}, the prediction {mask.shape}")
    for name, values in (("truth", truth), ("the prediction", mask)):
        strange = values[((values < 0) | (values >= num_classes)) & (values != UNLABELLED)]
        if strange.size:
            raise ValueError(f"{name} holds {strange[0]}, which is neither a class (0 to {num_classes - 1}) nor 255")


def _counted(truth: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return (truth != UNLABELLED) & (mask != UNLABELLED)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, and NaN where there is no whole."""
    whole = np.asarray(whole, float)
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def _mean(values: np.ndarray) -> float:
    """Mean of the defined values; NaN, without numpy's warning, when there are none."""
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if defined.size else float("nan")


def _or_none(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
