"""A folder for what strangers upload: only this user can read it, and it is gone when the server is."""

import atexit
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

_PREFIX = "wsss-page-"


def private_folder() -> Path:
    """A new folder that is removed when this process ends; those of processes that were killed are removed now."""
    _sweep(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))  # mkdtemp makes it private
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _sweep(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        owner = folder.name.removeprefix(_PREFIX).partition("-")[0]
        with suppress(OSError):
            if owner.isdigit() and folder.lstat().st_uid == os.getuid() and not Path("/proc", owner).exists():
                shutil.rmtree(folder, ignore_errors=True)
