"""How several processes share the suite: in which order, and which tests run beside no other."""

import fcntl
import tempfile
from pathlib import Path

import pytest

LONGEST = (
    "test_train_browser.py",
    "test_reliability_training.py",
    "test_train.py",
    "test_jobs.py",
    "test_web.py",
    "test_browser.py",
)
"""The modules of the longest tests, those that take longest first: begun late, one of them would end alone."""

FEW = 40
"""Short tests that are done beside what is set up for those that run alone."""


def is_alone(item: pytest.Item) -> bool:
    """Whether a test measures time or memory, so that no other may run beside it."""
    return item.get_closest_marker("alone") is not None


def in_order(items: list[pytest.Item]) -> list[pytest.Item]:
    """The order in which two processes are done soonest, each of which takes a half and then helps the other.

    What runs alone comes first, while the other process is at short tests, for none of which it waits long. The tests
    of a running app are in the same half, so that one process starts it; those of other long modules are in the second,
    and the short ones fill up.
    """
    alone = [item for item in items if is_alone(item)]
    others = sorted((item for item in items if not is_alone(item)), key=_rank)
    served = [item for item in others if {"address", "small_address"} & set(item.fixturenames)]
    served.sort(key=lambda item: "small_address" not in item.fixturenames)  # the small one may have been measured alone
    slow = {item.path for item in others if item.get_closest_marker("slow")}
    long = [item for item in others if item.path in slow and item not in served]
    short = [item for item in others if item.path not in slow and item not in served]
    first = alone + served
    fill = max(0, min(len(items) // 2 - len(first), len(short) - FEW))
    return first + short[:fill] + short[fill : fill + FEW] + long + short[fill + FEW :]


def _rank(item: pytest.Item) -> int:
    return LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST)


class Room:
    """Where the tests of all processes of a run are; one that runs alone has it to itself."""

    def __init__(self, run: str) -> None:
        self._paths = [Path(tempfile.gettempdir(), f"tests-{run}-{name}") for name in ("door", "room")]
        self._door, self._room = (path.open("w") for path in self._paths)
        self.is_held = False

    def enter(self, *, alone: bool) -> None:
        """Wait for those who must leave before; nobody else comes in while one waits to be alone."""
        fcntl.flock(self._door, fcntl.LOCK_EX)
        fcntl.flock(self._room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(self._door, fcntl.LOCK_UN)
        self.is_held = True

    def leave(self) -> None:
        """Let the others in. To close the file would not do: processes that a test has forked hold it too."""
        fcntl.flock(self._room, fcntl.LOCK_UN)
        self.is_held = False

    def remove(self) -> None:
        """Take the files away; the processes that still run keep theirs open."""
        for path in self._paths:
            path.unlink(missing_ok=True)
