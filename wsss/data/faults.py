"""What is wrong with single photographs, where the rest of a data set can be used without them."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from wsss import UNLABELLED, UserError
from wsss.data.picture import photograph_size, read_mask

_SHOWN = 20


@dataclass
class Faults:
    """What a reader could not use: a sentence for each fault, which begins with file or file:line."""

    sentences: list[str] = field(default_factory=list)
    left_out: int = 0  # photographs of the split that is read, and repeated lines of its list


@contextmanager
def noting(noted: Faults | None, left_out: int = 0) -> Iterator[None]:
    """Within, a UserError is a fault that costs so many photographs; it is raised where nothing is noted."""
    try:
        yield
    except UserError as error:
        if noted is None:
            raise
        noted.sentences.append(str(error))
        noted.left_out += left_out


def listed(faults: Sequence[str]) -> str:
    """The first 20 faults, one a line, and the number of all."""
    more = [f"... and {len(faults) - _SHOWN} more"] if len(faults) > _SHOWN else []
    count = f"{len(faults)} faults" if len(faults) > 1 else "a fault"
    return "\n".join([f"the data have {count}:", *faults[:_SHOWN], *more])


def refusals(ask: Callable[[], object]) -> list[str]:
    """The sentence of the UserError that `ask` raises, if it does."""
    try:
        ask()
    except UserError as error:
        return [str(error)]
    return []


def picture_faults(path: Path, expected: tuple[int, int] | None = None, by: str = "") -> list[str]:
    """What is wrong with a photograph, also when its (height, width) is not what `by` says."""
    try:
        _require_inside(path)
        size = photograph_size(path)
    except UserError as error:
        return [str(error)]
    if expected is not None and size != expected:
        return [f"{path}: is {size}, but {by} is {expected} (height, width)"]
    return []


def mask_size(path: Path, values: Sequence[int], are_pseudo: bool) -> tuple[int, int]:
    """(height, width) of a mask; `values` are those of the classes. Raises UserError when it cannot be used."""
    _require_inside(path)
    mask = read_mask(path)
    found = set(np.unique(mask).tolist())
    # Where the classes are a part of a larger list, as in VOC's animals, the others' values are background in the true
    # masks. In given ones they tell that the values are another list's, whose objects would all become background.
    is_whole = list(values) == list(range(len(values)))
    if unknown := found - {*values, UNLABELLED} if is_whole or are_pseudo else set():
        known = f"0 to {values[-1]}" if is_whole else ", ".join(map(str, values))
        raise UserError(f"{path}: holds the values {sorted(unknown)[:5]}; they must be {known}, or 255")
    if found == {UNLABELLED} and not are_pseudo:
        raise UserError(f"{path}: is unlabelled (255) all over")
    return mask.shape


def _require_inside(path: Path) -> None:
    """Raises UserError for a link to a file elsewhere; linked folders are the user's own arrangement and pass."""
    if not os.path.islink(path):
        return
    place, folder = (Path(os.path.realpath(one)) for one in (path, path.parent.parent))  # a circle of links is no error
    if not place.is_relative_to(folder):
        raise UserError(f"{path}: is a link that leads out of the data folder; put the file itself there")
