"""All faults of a data set at once, with file and line, before hours of training depend on it."""

from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from wsss import UserError
from wsss.data.coco import Coco, require_pycocotools
from wsss.data.faults import Faults, listed
from wsss.data.item import Checkable
from wsss.data.source import read, with_masks


class Surveyed(NamedTuple):
    """A split without the photographs that have faults."""

    split: str
    source: Checkable
    faults: list[str]
    skipped: int  # photographs that are left out, and lines that name one anew


def survey(
    dataset: str,
    root: Path | None,
    split: str,
    *,
    labelled: bool = True,
    masks: bool = False,
    masks_from: str = "",
) -> Surveyed:
    """Read a split and look at each of its files.

    Args:
        labelled: each photograph needs a class.
        masks: each photograph needs a mask.
        masks_from: a folder of masks to take instead of the data's own.

    Raises:
        UserError: there is no such data, nothing could be read of it, or what draws its masks is not installed.
    """
    noted = Faults()
    try:
        source = read(dataset, root, split, labelled=labelled, noted=noted)
    except UserError as error:
        if not noted.sentences:
            raise
        raise UserError(listed([*noted.sentences, str(error)])) from None
    if masks_from:
        source = with_masks(source, Path(masks_from))
    if masks and isinstance(source, Coco):
        require_pycocotools()
    faults = photograph_faults(source, masks=masks)
    sound = source.subset([index for index in range(len(source)) if index not in faults]) if faults else source
    return Surveyed(
        split, sound, [*noted.sentences, *chain.from_iterable(faults.values())], noted.left_out + len(faults)
    )


def photograph_faults(source: Checkable, *, masks: bool = False) -> dict[int, list[str]]:
    """The faults of single photographs, by their index, each a sentence that names its file.

    They are looked at to their last byte. Where training or evaluation needs the masks, `masks=True` asks that there be
    one for each photograph and that it hold classes; this decodes them.
    """
    found = {index: source.faults(index, masks=masks) for index in range(len(source))}
    return {index: faults for index, faults in found.items() if faults}


def require_sound_splits(surveys: Sequence[Surveyed], *, skip_bad: bool) -> None:
    """Raises UserError that lists all faults, or, if they may be skipped, when nothing is left of a split."""
    faults = list(dict.fromkeys(fault for surveyed in surveys for fault in surveyed.faults))
    if faults and not skip_bad:
        raise UserError(listed(faults) + "\n(--skip-bad goes on with the rest)")
    for surveyed in surveys:
        if not len(surveyed.source):
            if not faults:
                raise UserError(f"the split {surveyed.split} holds no photograph")
            raise UserError(f"no photograph of the split {surveyed.split} is left; " + listed(faults))
