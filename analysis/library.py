"""The checkpoints that the page offers, by name; a few stay open."""

import threading
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

from analysis.predictor import Predictor
from wsss import UserError

MOST_OPEN = 4
"""Predictors in memory at once: Compare asks two in turn, and a slider must not read a file."""


class Library:
    """Checkpoint folders, opened when they are asked for.

    A folder that cannot be opened leaves the others as they are.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders = {folder.name: folder for folder in folders}
        self._lock = threading.RLock()
        self._open: OrderedDict[str, Predictor] = OrderedDict()

    @property
    def names(self) -> list[str]:
        """Of all checkpoints, the default one first."""
        return list(self._folders)

    def add(self, name: str, folder: Path) -> None:
        """Offer another checkpoint. Raises UserError when it cannot be opened; then nothing has changed."""
        predictor = Predictor.from_checkpoint(folder)
        with self._lock:
            self._folders[name] = folder
            self._keep(name, predictor)

    def __getitem__(self, name: str) -> Predictor:
        """The predictor of that checkpoint. Raises UserError when there is none, or it is missing or broken."""
        with self._lock:
            if name not in self._folders:
                raise UserError(f"there is no checkpoint {name!r}; there are {', '.join(self._folders)}")
            if name not in self._open:
                self._keep(name, Predictor.from_checkpoint(self._folders[name]))
            self._open.move_to_end(name)
            return self._open[name]

    def _keep(self, name: str, predictor: Predictor) -> None:
        self._open[name] = predictor
        while len(self._open) > MOST_OPEN:
            self._open.popitem(last=False)
