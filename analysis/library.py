"""The checkpoints that the page offers, by name; a few stay open."""

import shutil
import threading
from collections import OrderedDict
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from analysis import run_files
from analysis.predictor import Predictor
from wsss import UserError

MOST_OPEN = 7
"""Predictors in memory at once: a visitor of Compare asks seven in turn, and a slider must not read a file."""

MOST_UPLOADED = 8
"""Checkpoints that visitors have brought; the oldest makes room for a new one, and its files are removed."""

_LONGEST_NAME = 60


class _Opened(NamedTuple):
    """A checkpoint in memory, and the version of its config.json, which names and describes its weights."""

    predictor: Predictor
    version: tuple[int, int]


class Library:
    """Checkpoint folders, opened when they are asked for.

    A folder that cannot be opened leaves the others as they are. Of two folders of the same name the first counts.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        self._folders: dict[str, Path] = {}
        for folder in folders:
            self._folders.setdefault(folder.resolve().name, folder)
        self._uploaded: list[str] = []
        self._shown: set[str] = set()  # of the server's own, which may change or go
        self._lock = threading.RLock()
        self._open: OrderedDict[str, _Opened] = OrderedDict()

    @property
    def names(self) -> list[str]:
        """The names of all checkpoints, the default one first."""
        return list(self._folders)

    def folder(self, name: str) -> Path:
        """The folder of that checkpoint. Raises UserError when there is none."""
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
        opened = _read(folder)
        with self._lock:
            if name in self._folders:
                raise UserError(f"there is a checkpoint {name!r} already; rename the file")
            self._folders[name] = folder
            self._uploaded.append(name)
            self._keep(name, opened)
            if len(self._uploaded) > MOST_UPLOADED:
                self._remove(self._uploaded.pop(0))

    def show(self, name: str, folder: Path) -> None:
        """Offer a checkpoint that lies on the server, as it is now: it may have been trained further since.

        Those that were shown before and have been deleted are no longer offered.

        Raises:
            UserError: it cannot be opened, or the name is another one's; then nothing has changed.
        """
        opened = _read(folder)
        with self._lock:
            is_another = name in self._folders and self._folders[name].resolve() != folder.resolve()
            if is_another and name not in self._shown:
                raise UserError(f"{folder}: there is another checkpoint {name!r} already")
            if name not in self._folders:  # an upload, or what the page was started with, stays what it is
                self._shown.add(name)
            self._folders[name] = folder
            self._keep(name, opened)
            self._forget_deleted()

    def __getitem__(self, name: str) -> Predictor:
        """The predictor of that checkpoint. Raises UserError when there is none, or it is missing or broken."""
        with self._lock:
            folder = self.folder(name)
            if name not in self._open:
                self._keep(name, _read(folder))
            self._open.move_to_end(name)
            return self._open[name].predictor

    def current(self, name: str) -> Predictor:
        """The predictor of that checkpoint as its files are now; `[name]` stays as it was opened.

        A run may have replaced them, or another run of that name: from now on all visitors look at the new ones. One
        whose files are gone stays as long as it is open.

        Raises:
            UserError: as of `[name]`.
        """
        with self._lock:
            now = run_files.version(_config(self.folder(name)))
            if name in self._open and now not in (self._open[name].version, run_files.NO_VERSION):
                del self._open[name]
            return self[name]

    def _keep(self, name: str, opened: _Opened) -> None:
        opened.predictor.facts["name"] = name  # a run's folder is called "best"
        self._open[name] = opened
        while len(self._open) > MOST_OPEN:
            self._open.popitem(last=False)

    def _forget_deleted(self) -> None:
        """A run goes as a whole, with the folder around its checkpoint; that alone is away while it is replaced."""
        for name in [shown for shown in self._shown if not self._folders[shown].parent.exists()]:
            self._shown.remove(name)
            self._open.pop(name, None)
            del self._folders[name]

    def _remove(self, name: str) -> None:
        self._open.pop(name, None)
        shutil.rmtree(self._folders.pop(name), ignore_errors=True)


def _read(folder: Path) -> _Opened:
    version = run_files.version(_config(folder))  # before: what is written meanwhile is another version
    return _Opened(Predictor.from_checkpoint(folder), version)


def _config(folder: Path) -> Path:
    return folder / "config.json"
