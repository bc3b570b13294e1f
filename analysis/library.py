"""The checkpoints that the page offers, by name; a few stay open."""

import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path

from analysis.predictor import Predictor
from wsss import UserError

MOST_OPEN = 4
"""Predictors in memory at once: Compare asks two in turn, and a slider must not read a file."""

MOST_UPLOADED = 8
"""Checkpoints that visitors have brought; the oldest makes room for a new one, and its files are removed."""

_LONGEST_NAME = 60


class Library:
    """Checkpoint folders, opened when they are asked for.

    A folder that cannot be opened leaves the others as they are. Of two folders of the same name the first counts.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders: dict[str, Path] = {}
        for folder in folders:
            self._folders.setdefault(folder.resolve().name, folder)
        self._uploaded: list[str] = []
        self._lock = threading.RLock()
        self._open: OrderedDict[str, Predictor] = OrderedDict()

    @property
    def names(self) -> list[str]:
        """Of all checkpoints, the default one first."""
        return list(self._folders)

    def folder(self, name: str) -> Path:
        """Of that checkpoint. Raises UserError when there is none."""
        if not isinstance(name, str) or name not in self._folders:
            raise UserError(f"there is no checkpoint {str(name)[:80]!r}; there are {', '.join(self._folders)}")
        return self._folders[name]

    def add_upload(self, name: str, folder: Path) -> None:
        """Offer a visitor's checkpoint; its folder belongs to the library from now on, which will remove it.

        Raises:
            UserError: it cannot be opened, or the name is taken or cannot be one; then nothing has changed.
        """
        if not name.strip() or not name.isprintable() or len(name) > _LONGEST_NAME:
            raise UserError(f"{name[:80]!r} cannot be the name of a checkpoint: at most {_LONGEST_NAME} letters")
        predictor = Predictor.from_checkpoint(folder)
        with self._lock:
            if name in self._folders:
                raise UserError(f"there is a checkpoint {name!r} already; rename the file")
            self._folders[name] = folder
            self._uploaded.append(name)
            self._keep(name, predictor)
            if len(self._uploaded) > MOST_UPLOADED:
                self._remove(self._uploaded.pop(0))

    def show(self, name: str, folder: Path) -> None:
        """Offer a checkpoint that lies on the server, as it is now: it may have been trained further since.

        Raises:
            UserError: it cannot be opened, or the name is another one's; then nothing has changed.
        """
        predictor = Predictor.from_checkpoint(folder)
        with self._lock:
            if name in self._folders and self._folders[name].resolve() != folder.resolve():
                raise UserError(f"{folder}: there is another checkpoint {name!r} already")
            self._folders[name] = folder
            self._keep(name, predictor)

    def __getitem__(self, name: str) -> Predictor:
        """The predictor of that checkpoint. Raises UserError when there is none, or it is missing or broken."""
        with self._lock:
            folder = self.folder(name)
            if name not in self._open:
                self._keep(name, Predictor.from_checkpoint(folder))
            self._open.move_to_end(name)
            return self._open[name]

    def _keep(self, name: str, predictor: Predictor) -> None:
        predictor.facts["name"] = name  # a run's folder is called "best"
        self._open[name] = predictor
        while len(self._open) > MOST_OPEN:
            self._open.popitem(last=False)

    def _remove(self, name: str) -> None:
        self._open.pop(name, None)
        shutil.rmtree(self._folders.pop(name), ignore_errors=True)
