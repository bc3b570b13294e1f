"""A run as others find it: a folder that one process owns, and run.json that says what it does.

The page reads run.json of every run, also of those started in a terminal. A status of "running" is true while a process
`pid` that was created at `create_time` lives; else the run was killed before it could say how it ended.
"""

import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from wsss import UserError
from wsss.disk import replacing, writing
from wsss.exits import Stopped, explained

FILE = "run.json"
IF_FULL = "choose a smaller --batch or --crop, or --cache false"
"""What training can do where the memory is full."""

LOCK = "lock"
BEFORE_A_STATE = frozenset({FILE, LOCK, "job.json", "log.txt", "stop"})
"""What a run, and the page that has started it, leave in its folder before a first state: another may begin there."""

_held: set[int] = set()  # descriptors of locks, which the processes that load data must not inherit


class Run:
    """Keeps run.json of a folder up to date; each write is atomic."""

    def __init__(self, folder: Path, argv: list[str], **facts: Any) -> None:
        self.path = folder / FILE
        process = psutil.Process()
        self.content = {
            "format": 1,
            "status": "running",
            "argv": argv,
            "cwd": os.getcwd(),
            "pid": process.pid,
            "create_time": process.create_time(),
            "host": socket.gethostname(),
            "start": time.time(),
            "end": None,
            "exit_code": None,
            "error": None,
            "step": 0,
            "steps": None,
            "epoch": None,
            "epochs": None,
            "eta": None,  # seconds
            **facts,
        }
        self.update()

    def update(self, **values: Any) -> None:
        """Change some values and write the file. Raises Unwritable."""
        self.content |= values
        with replacing(self.path) as temporary:
            temporary.write_text(json.dumps(self.content, indent=1) + "\n")

    @contextmanager
    def recorded(self) -> Iterator["Run"]:
        """A context whose failure is written down."""
        try:
            yield self
        except Stopped as stopped:
            self.end(stopped.code)
            raise
        except Exception as error:
            self.end(*(explained(error, IF_FULL) or (1, f"{type(error).__name__}: {error}")))
            raise

    def end(self, code: int, error: str | None = None) -> None:
        """Say how the run ended: finished, stopped by a signal, or failed with a sentence."""
        status = "finished" if code == 0 else "stopped" if code > 128 else "failed"
        try:
            self.update(status=status, exit_code=code, error=error, end=time.time(), eta=None)
        except OSError:
            # Where the disk is what failed, the room that the file has already is all there is.
            with suppress(OSError), self.path.open("r+") as file:
                file.write(json.dumps(self.content) + "\n")
                file.truncate()


def read(folder: Path) -> dict[str, Any] | None:
    """What run.json of a folder says; None where there is none, or none that can be read."""
    try:
        content = json.loads((folder / FILE).read_text())
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def command_line(module: str, argv: list[str] | None) -> list[str]:
    """The words of this command; under torchrun, of one of its processes."""
    return [sys.executable, "-m", module, *(sys.argv[1:] if argv is None else argv)]


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Own a folder until the end, or until this process dies in whatever way.

    Raises:
        UserError: another run owns it; the sentence says its process.
        Unwritable: the folder cannot be made or written.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"{folder}: is a file, the run needs a folder; choose another --out")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
            raise UserError(
                f"{folder}: is in use by the run of process {owner}; stop it, or choose another --out"
            ) from None
        _held.add(descriptor)
        with writing(folder / LOCK):
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


def _forget_locks() -> None:
    """A child that kept the descriptor would keep the lock when its parent is killed."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


os.register_at_fork(after_in_child=_forget_locks)
