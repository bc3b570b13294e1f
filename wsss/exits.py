"""How a command ends: each kind of failure is one sentence and an exit code of its own.

0: done. 2: a mistake in what was given. 3: no usable state to resume from, or a number that is not finite. 4: a disk is
full or cannot be written. 5: out of memory. 6: a process that loads data died or hangs. 7: another process of the
training was lost. 128 + n: stopped by signal n, with the state saved.
"""

import errno
import os
import signal
import sys
from contextlib import suppress
from typing import TextIO

from wsss import UserError

LOST_RANK = 7
_OF_A_STREAM = (errno.EPIPE, errno.EBADF, errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what writing meets


class NotFinite(RuntimeError):
    """A loss or a gradient is not finite; training stops before it reaches the weights."""


class NoUsableState(UserError):
    """A run has states, but none of them can be read."""


class WorkerFailed(RuntimeError):
    """A process that loads data died, or gave nothing for too long."""


class Unwritable(OSError):
    """A file cannot be written; the sentence names it and its disk."""


class Stopped(BaseException):
    """A signal asked to stop at a moment when nothing had to be finished. Like KeyboardInterrupt, no error to catch."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name}")
        self.code = 128 + number


def explained(error: BaseException, if_full: str = "") -> tuple[int, str] | None:
    """The exit code and the sentence of a failure; None for one that nobody foresaw, whose traceback is wanted.

    `if_full` is what the command can do where the memory is full.
    """
    text = str(error)
    for kind, code in ((NoUsableState, 3), (UserError, 2), (NotFinite, 3), (WorkerFailed, 6)):
        if isinstance(error, kind):
            return code, text
    if isinstance(error, OSError):
        if error.errno == errno.ENOMEM:
            return 5, "the memory is full" + (f": {if_full}" if if_full else "")
        # What is read becomes a UserError by `disk.reading`, so what is left here was to be written, or to be opened.
        if isinstance(error, Unwritable):
            return 4, text
        place = error.filename or ("standard output" if error.errno in _OF_A_STREAM else "")
        reason = error.strerror or text
        return 4, f"{place}: cannot be written ({reason})" if place else f"the system refuses what is needed ({reason})"
    if is_out_of_memory(error):
        return 5, "the memory is full" + (f": {if_full}" if if_full else "")
    if isinstance(error, RuntimeError) and is_worker_failure(text):
        return 6, worker_sentence(text)
    if isinstance(error, RuntimeError) and any(word in text for word in ("gloo", "NCCL", "Connection", "ProcessGroup")):
        return LOST_RANK, f"another process of the training was lost ({text.splitlines()[0][:120]})"
    return None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory is full, of the machine or of its GPU: whatever was read then may well be whole."""
    # torch's own error is known by its name: its import takes seconds, which the warden of a job would wait for.
    is_of_torch = type(error).__name__ == "OutOfMemoryError"
    signs = (
        *("can't allocate memory", "Cannot allocate memory", "Insufficient memory"),  # of torch, the system, OpenCV
        *("out of memory", "ALLOC_FAILED"),  # of CUDA where it is not torch that asks, of cuDNN and cuBLAS
    )
    return isinstance(error, MemoryError) or is_of_torch or any(sign in str(error) for sign in signs)


def report(error: Exception, if_full: str = "") -> int:
    """Say what is `explained` on standard error; returns its exit code. A failure that nobody foresaw is raised."""
    if (known := explained(error, if_full)) is None:
        raise error
    code, sentence = known
    speaker = f"process {os.environ.get('RANK', '?')}: " if os.environ.get("WORLD_SIZE", "1") != "1" else ""
    with suppress(OSError):
        print(f"error: {speaker}{sentence}", file=sys.stderr, flush=True)
    for stream in (sys.stdout, sys.stderr):
        _let_go_if_full(stream)
    return code


def _let_go_if_full(stream: TextIO) -> None:
    """Python would try to write the rest at its end, fail, and change the exit code."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def is_worker_failure(text: str) -> bool:
    """Whether torch says that a process which loads data is gone or hangs, not that its work has failed."""
    signs = ("worker (pid", "timed out", "shared memory", "No space left")
    return "DataLoader" in text and any(sign in text for sign in signs)


def worker_sentence(text: str) -> str:
    """torch's words on a process that loads data, in one sentence."""
    if "timed out" in text:
        return "a process that loads data hangs: " + text.splitlines()[0]
    if "No space left" in text or "shared memory" in text:
        return "a process that loads data died for want of shared memory: choose --workers 0, or a larger /dev/shm"
    return "a process that loads data died: " + text.splitlines()[0]
