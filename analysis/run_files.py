"""What the files of a run say while they grow: its metrics, and its log as a terminal would show it."""

import functools
import json
import os
import re
from pathlib import Path

MOST_LOG = 64 * 1024
"""Bytes of a log that are read and shown."""

_ESCAPES = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?|[@-Z\\-_])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_LONGEST_LINE = 2000


def stamp_of(path: Path) -> os.stat_result | None:
    """The file's stat; None where there is no file."""
    try:
        return path.stat()
    except OSError:
        return None


NO_VERSION = (0, 0)
"""Of a file that is not there."""


def version(path: Path) -> tuple[int, int]:
    """A number pair that changes with a file's content: when it was written, and its size."""
    stat = stamp_of(path)
    return (stat.st_mtime_ns, stat.st_size) if stat else NO_VERSION


def metrics(folder: Path) -> list[dict[str, float]]:
    """The lines of a run's log in order; torn or foreign ones are left out."""
    return _metrics_file(folder / "metrics.jsonl").rows()


class _MetricsFile:
    """A log as it was last read: of a run that goes on only the newest reading is kept."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read: tuple[tuple[int, int] | None, list[dict[str, float]]] = None, []

    def rows(self) -> list[dict[str, float]]:
        now = version(self.path)
        if self._read[0] != now:
            self._read = now, _read_metrics(self.path)
        return self._read[1]


# More than a table of runs is long: each of its lines asks for its run's.
_metrics_file = functools.lru_cache(maxsize=256)(_MetricsFile)


def _read_metrics(path: Path) -> list[dict[str, float]]:
    try:
        lines = path.read_bytes().splitlines()
    except OSError:
        return []
    return [row for row in map(_row, lines) if row]


def _row(line: bytes) -> dict[str, float] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    if not isinstance(row, dict) or type(row.get("step")) is not int:
        return None
    return {name: value for name, value in row.items() if isinstance(value, int | float) and value == value}


def tail(path: Path, most: int = MOST_LOG) -> str:
    """The end of a log as a terminal would show it, in at most `most` bytes of UTF-8.

    Colors are removed, a progress bar is its last state, bytes that are no text become a mark, a long line is cut.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - most))
            content = file.read(most)
    except OSError:
        return ""
    lines = content.decode(errors="replace").replace("\r\n", "\n").split("\n")
    if size > most and len(lines) > 1:
        lines = lines[1:]  # the first one is torn
    shown = "\n".join(_shown(line) for line in lines).strip("\n")
    return shown.encode()[-most:].decode(errors="ignore")


def _shown(line: str) -> str:
    states = [state for state in line.split("\r") if state.strip()]
    text = _CONTROLS.sub("", _ESCAPES.sub("", states[-1] if states else ""))
    return text if len(text) <= _LONGEST_LINE else text[:_LONGEST_LINE] + " ..."
