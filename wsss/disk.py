"""Files and folders: a failure to read or write becomes one sentence, and what is replaced is never half-written."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError

from wsss import UserError
from wsss.exits import Unwritable


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Within, a failure to read becomes a UserError that names the file, `path` unless the system names another."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{error.filename or path}: cannot be read ({error.strerror or error})") from None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Within, a failure to write becomes Unwritable, naming `path` and whether its disk is full.

    torch and safetensors report a full disk without an error number, so the disk itself is asked.
    """
    try:
        yield
    except Unwritable:
        raise
    except Exception as error:
        if not _is_of_writing(error):
            raise
        raise Unwritable(_unwritable_sentence(path, error)) from error


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, which takes its place at the end; where that is a link, the place it leads to.

    Raises:
        Unwritable: as in `writing`; what was there before still stands, and nothing else is left.
    """
    path = Path(os.path.realpath(path)) if path.is_symlink() else path
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name[-40:]}")  # the whole may be as long as a name can be
    try:
        with writing(path):
            yield temporary
            temporary.replace(path)
    finally:
        with suppress(OSError):
            temporary.unlink()


def make_folder(folder: Path) -> None:
    """Make a folder and those above it, unless it is there. Raises UserError where another thing is, and Unwritable."""
    if os.path.lexists(folder) and not folder.is_dir():  # also a link that leads nowhere, or in a circle
        kind = "a broken link" if folder.is_symlink() and not os.path.exists(folder) else "a file"
        raise UserError(f"{folder}: is {kind}, a folder is needed here")
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)


def _unwritable_sentence(path: Path, error: Exception) -> str:
    """What could not be written, and why."""
    number = getattr(error, "errno", None)
    free, disk = _room(path)
    if number in (errno.ENOSPC, errno.EDQUOT) or (number is None and free < 2**20):
        left = f"{free / 2**20:.0f} MiB free"
        return f"{path}: cannot be written, the disk at {disk} is full ({left}); make room and try again"
    reason = os.strerror(number) if number else str(error).splitlines()[0][:200]
    return f"{path}: cannot be written on the disk at {disk} ({reason})"


def _is_of_writing(error: Exception) -> bool:
    if isinstance(error, RuntimeError):
        return any(word in str(error) for word in ("inline_container", "PytorchStreamWriter", "iostream", "open file"))
    return isinstance(error, OSError | SafetensorError)


def _room(path: Path) -> tuple[int, Path]:
    """Free bytes of the disk that holds `path`, and where it is mounted."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    while not place.is_mount():
        place = place.parent
    return free, place
