"""A small process beside each job of the page: `python -m analysis.warden FOLDER FACTS -- COMMAND...`.

It runs the command, ends all of it when asked to, and writes FOLDER/job.json: who runs, and how it ended. It leads a
session of its own, so that the page can be closed, killed and started again meanwhile and still learns the truth.
"""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

FILE = "job.json"

GRACE = 12.0
"""Seconds that a job has to finish its step and save, before it is killed."""

_ASKED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_QUIET_BAR = {"PYTHONUNBUFFERED": "1", "TQDM_MININTERVAL": "1"}  # a log that is read while it grows, and stays small


class Warden:
    """Runs one command in this process's group."""

    def __init__(self, folder: Path, facts: dict[str, Any], command: list[str]) -> None:
        own = psutil.Process()
        self.path, self.command = folder / FILE, command
        self.content = {
            **facts,
            "argv": command,
            "pid": own.pid,
            "create_time": own.create_time(),
            "host": socket.gethostname(),
            "start": time.time(),
            "stop": None,  # when it was asked to end
            "end": None,
            "exit_code": None,  # -n: killed by signal n
        }
        self.asked: float | None = None

    def run(self) -> int:
        """Run the command to its end; returns its exit code."""
        woken, wakes = os.pipe()
        for end in (woken, wakes):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(wakes)
        for number in (*_ASKED, signal.SIGCHLD):
            signal.signal(number, self._note)
        locks = _locks()
        child = subprocess.Popen(self.command, env=os.environ | _QUIET_BAR, pass_fds=locks)
        self._write()
        while child.poll() is None:
            select.select([woken], [], [], self._patience())
            with suppress(BlockingIOError):
                os.read(woken, 512)
            if self.asked is not None and self.content["stop"] is None:
                self._write(stop=self.asked)
            if self.asked is not None and time.time() - self.asked > GRACE:
                _end_others()
        _end_others()
        self._write(end=time.time(), exit_code=child.returncode, stop=self.asked)
        return child.returncode

    def _note(self, number: int, frame: object) -> None:
        if number in _ASKED and self.asked is None:
            self.asked = time.time()

    def _patience(self) -> float | None:
        """Seconds until it is worth looking again; None: until a signal comes."""
        return None if self.asked is None else max(0.2, self.asked + GRACE - time.time())

    def _write(self, **values: Any) -> None:
        """Write the file at once or not at all. A full disk must not end the job that it tells of."""
        self.content |= values
        temporary = self.path.with_name(f".tmp-{os.getpid()}-{FILE}")
        with suppress(OSError):
            temporary.write_text(json.dumps(self.content, indent=1) + "\n")
            temporary.replace(self.path)


def _locks() -> tuple[int, ...]:
    """The descriptor of the device's lock, inherited: the device is free when this process and the command are gone."""
    given = os.environ.pop("WSSS_DEVICE_LOCK", "")
    return (int(given),) if given else ()


def _end_others() -> None:
    """Kill what is left of this process's group and of its descendants."""
    with suppress(psutil.Error):
        for process in {*psutil.Process().children(recursive=True), *_group()}:
            with suppress(psutil.Error):
                process.kill()


def _group() -> list[psutil.Process]:
    found, own = [], os.getpgrp()
    if own != os.getpid():
        return []  # not started by the page: the others of the group are somebody else's
    for process in psutil.process_iter():
        with suppress(psutil.Error, ProcessLookupError, PermissionError):
            if process.pid != os.getpid() and os.getpgid(process.pid) == own:
                found.append(process)
    return found


if __name__ == "__main__":
    folder, facts, _, *command = sys.argv[1:]
    sys.exit(abs(Warden(Path(folder), json.loads(facts), command).run()) % 256)
