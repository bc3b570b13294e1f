"""How several processes share the suite: in which order, and which tests run beside no other."""

import fcntl
import tempfile
from pathlib import Path

import pytest


def is_alone(item: pytest.Item | None) -> bool:
    """Whether a test measures time or memory, so that no other may run beside it."""
    return item is not None and item.get_closest_marker("alone") is not None


def in_order(items: list[pytest.Item]) -> list[pytest.Item]:
    """The order in which two processes are done soonest, each of which takes a half and then helps the other.

    What runs alone comes first: no long test is under way then that it would wait for. The tests of the running app
    are in one half, so that one process starts it, those of other long modules begin the second, and the short ones
    fill up.
    """
    served = {item.path for item in items if "address" in item.fixturenames}
    long = {item.path for item in items if item.get_closest_marker("slow")} - served
    alone = [item for item in items if is_alone(item)]
    others = [item for item in items if not is_alone(item)]
    first = alone + [item for item in others if item.path in served]
    second = [item for item in others if item.path in long]
    short = [item for item in others if item.path not in served | long]
    fill = max(0, len(items) // 2 - len(first))
    return first + short[:fill] + second + short[fill:]


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
