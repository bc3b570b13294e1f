"""The paper's tables as experiments: what each line trains and what the paper reports for it."""

from typing import NamedTuple

_NO_SHAPE = ("--shape-cue", "none")
_COLOR_ALONE = ("--alpha", "1", "--alpha-start", "1")  # Sec. 4.3.1: the baseline has the conventional refinement
_PLAIN_TEST = ("--test-refine-steps", "0")  # so that a table tells what training has learned

ALPHAS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
"""Of Table 6."""


class Variant(NamedTuple):
    """One line of a table of trained networks."""

    name: str
    network: tuple[str, ...]  # flags of `wsss.train`, after those of the preset, that matter from the first step on
    later: tuple[str, ...]  # those that change nothing while the network only classifies
    paper: tuple[float, float]  # mIoU and boundary IoU on VOC's val, in percent

    @property
    def flags(self) -> tuple[str, ...]:
        """All of them."""
        return self.network + self.later


class Table(NamedTuple):
    """A table of trained networks, in the paper's order."""

    title: str
    variants: tuple[Variant, ...]


_FULL = Variant("full", (), _PLAIN_TEST, (65.2, 46.6))

TRAINED = {
    "5": Table(
        "Table 5: what the shape cue module (SCM) and the refinement (SPR) add",
        (
            Variant("baseline", _NO_SHAPE, (*_COLOR_ALONE, *_PLAIN_TEST), (41.7, 17.8)),
            Variant("spr", _NO_SHAPE, _PLAIN_TEST, (44.1, 22.2)),
            Variant("scm", (), (*_COLOR_ALONE, *_PLAIN_TEST), (51.0, 27.8)),
            _FULL,
        ),
    ),
    "8": Table(
        "Table 8: what the losses add",
        (
            Variant("cls", (), ("--pixel-loss", "false", "--region-loss", "false", *_PLAIN_TEST), (35.6, 22.0)),
            Variant("cls-pixel", (), ("--region-loss", "false", *_PLAIN_TEST), (58.1, 36.4)),
            Variant("cls-region", (), ("--pixel-loss", "false", *_PLAIN_TEST), (33.5, 22.7)),
            _FULL,
        ),
    ),
    "supervised": Table(
        "Image labels against masks: the same network, photographs, crop and number of epochs",
        (_FULL, Variant("supervised", ("--supervision", "masks"), _PLAIN_TEST, (80.8, float("nan")))),
    ),
}
"""By what `python -m analysis.reproduce` calls them."""

PAPER_ALPHA = {0.0: 39.1, 0.5: 55.5, 0.6: 61.2, 0.7: 64.5, 0.8: 65.8, 0.9: 64.8, 1.0: 61.9}
"""Table 6: mIoU on VOC's val of a network that was trained with each alpha, in percent."""

PAPER_ALPHA_PSEUDO = {0.0: 40.4, 0.5: 59.9, 0.6: 65.4, 0.7: 68.8, 0.8: 68.5, 0.9: 65.6, 1.0: 60.0}
"""Table 6: mIoU of its pseudo masks of VOC's train, in percent."""

PAPER_STAGES = {"single-stage": (65.2, 46.6), "two-stage": (67.9, float("nan"))}
"""mIoU of Table 1 and boundary IoU of Table 2, without CRF at test, on VOC's val, in percent."""
