"""What the reliability tests share: the table of their figures, and real processes to signal, kill and starve."""

import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import psutil


class Figure(NamedTuple):
    """A row of the table."""

    name: str
    seen: str
    bar: str
    met: bool


_figures: dict[str, Figure] = {}
_not_told: list[Figure] = []


def measured(name: str, seen: str, bar: str, met: bool) -> None:
    """Record what a test has seen, and fail where the bar is not met."""
    _not_told.append(Figure(name, seen, bar, met))
    assert met, f"{name}: {seen}; the bar: {bar}"


def not_told() -> list[Figure]:
    """What this process has measured since it was last asked."""
    figures = list(_not_told)
    _not_told.clear()
    return figures


def tell(name: str, seen: str, bar: str, met: bool) -> None:
    """Put a figure into the table; it may be of another process."""
    _figures[name] = Figure(name, seen, bar, met)


def table() -> list[str]:
    """The figures that were told, as aligned lines; none where nothing was measured."""
    if not _figures:
        return []
    rows = [("test", "figure", "bar", "met"), *((f.name, f.seen, f.bar, "yes" if f.met else "NO") for f in _sorted())]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return ["", *("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)]


def _sorted() -> list[Figure]:
    return sorted(_figures.values(), key=lambda figure: (figure.name[0], int(figure.name[1:])))


class Child:
    """A process that runs a function; what it prints goes to a file, its return value is its exit code.

    It is forked, so that it need not import everything anew, and leads a session of its own.
    """

    def __init__(self, run: Callable[[], int], log: Path, stdout: str = "", **environment: str) -> None:
        self.log, self.begun = log, time.monotonic()
        self.code: int | None = None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._be(run, stdout, environment)

    def _be(self, run: Callable[[], int], stdout: str, environment: dict[str, str]) -> None:
        import torch  # here, as the process that shares out the tests needs the table alone
        from tqdm import tqdm

        code = 1
        try:
            os.setsid()
            log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(os.open(stdout, os.O_WRONLY) if stdout else log, 1)
            os.dup2(log, 2)
            sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
            os.environ.update(environment)
            torch.set_num_threads(1)  # the threads of the parent are not here
            tqdm.set_lock(threading.RLock())  # that of the parent is shared: a killed child would hold it for ever
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            code = run()
        except BaseException:
            traceback.print_exc()
        finally:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
            os._exit(code)

    def send(self, number: int) -> None:
        """Send a signal, to this process alone."""
        os.kill(self.pid, number)

    def is_over(self) -> bool:
        """Whether it has ended; `code` then is its exit code, minus the signal that killed it."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.code = os.waitstatus_to_exitcode(status)
        return self.code is not None

    def wait(self, seconds: float = 120) -> int:
        """Its exit code. It is killed, and the test fails, when it takes longer."""
        deadline = time.monotonic() + seconds
        while not self.is_over():
            if time.monotonic() > deadline:
                self.kill_all()
                raise AssertionError(f"still running after {seconds} s: {self.said()[-2000:]}")
            time.sleep(0.005)
        return self.code

    def family(self) -> list[psutil.Process]:
        """The processes of its session that are alive."""
        found = []
        for process in psutil.process_iter():
            try:
                if os.getsid(process.pid) == self.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except (ProcessLookupError, PermissionError, psutil.Error):
                continue
        return found

    def kill_all(self) -> None:
        """End the session, whatever its state."""
        for process in self.family():
            process.kill()
        if not self.is_over():
            os.waitpid(self.pid, 0)

    def said(self) -> str:
        """What it has printed."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""


def until(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait for something to become true. Fails when it does not."""
    deadline, pause = time.monotonic() + seconds, 0.005
    while not condition():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(pause)
        pause = min(1.3 * pause, 0.05)  # to look costs the core that it waits for
