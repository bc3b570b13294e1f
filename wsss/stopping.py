"""Signals that ask a run to end."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from wsss.exits import Stopped, report

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
_ECHO = 3.0  # seconds


class StopRequest:
    """Remembers a signal to end. A second one kills at once.

    Where nothing has to be finished the signal raises `Stopped`; within `deferred` it waits in `signal`, so that the
    step at hand is finished and saved.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._since = 0.0
        self._defers = False

    def __enter__(self) -> "StopRequest":
        # nohup has a run ignore SIGHUP, and means it.
        wanted = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._remember) for number in wanted}
        return self

    def __exit__(self, *error: object) -> None:
        for number, action in self._before.items():
            signal.signal(number, action)

    @contextmanager
    def deferred(self) -> Iterator[None]:
        """A context in which a signal waits to be looked at."""
        with self._set(True):
            yield

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """A context, inside a deferred one, in which a signal raises `Stopped`: for work not worth waiting for."""
        with self._set(False):
            if self.signal:
                raise Stopped(self.signal)
            yield

    @contextmanager
    def _set(self, defers: bool) -> Iterator[None]:
        before, self._defers = self._defers, defers
        try:
            yield
        finally:
            self._defers = before

    def _remember(self, number: int, frame: object) -> None:
        if self.signal:
            # torchrun passes on a signal that a terminal or a page has already sent to all: that is the same one.
            if "TORCHELASTIC_RUN_ID" in os.environ and time.monotonic() - self._since < _ECHO:
                return
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.signal, self._since = number, time.monotonic()
        if not self._defers:
            raise Stopped(number)


def exit_code_of(work: Callable[[StopRequest], int | None], if_full: str = "") -> int:
    """That of a command: what its work returns, 0 for None; 128 + signal; or that of a failure, which is said."""
    try:
        with StopRequest() as stop:
            return work(stop) or 0
    except Stopped as stopped:
        return stopped.code
    except Exception as error:
        return report(error, if_full)
