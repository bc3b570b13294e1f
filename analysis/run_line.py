"""A training run in one line: of a page, and of the table of all runs."""

import html
import time
from collections.abc import Sequence
from typing import Any

from analysis import jobs, run_files, runs
from analysis.commands import Flags, flags_of, words_of
from analysis.legends import state_line
from wsss.progress import clock

COLUMNS = (
    "run",
    "state",
    "preset",
    "epoch",
    "of",
    "mIoU",
    "best mIoU",
    "loss",
    "device",
    "started",
    "took",
    "settings",
)
_COLORS = {"running": "#2ca58d", "finished": "#4c8bf5", "failed": "#e15759", "killed": "#e15759"}
_SETTINGS_APART = ("--preset", "--out", "--data", "--resume")


def status_html(run: runs.Found) -> str:
    """The state of a run in one line with a bar; names and sentences are escaped."""
    done, steps = runs.progress(run)
    color = _COLORS.get(run.status, "#8a8d91")
    parts = [f'<b style="color:{color}">{html.escape(run.status)}</b>', html.escape(run.name)]
    if run.run.get("epochs"):
        parts.append(f"epoch {html.escape(str(run.run.get('epoch')))} of {html.escape(str(run.run['epochs']))}")
    if steps:
        parts.append(f"step {done} of {steps}")
    if (left := runs.eta(run)) is not None:
        parts.append(f"about {clock(left)} to go")
    rows = run_files.metrics(run.folder)
    parts += [f"{_last(rows, 'images_per_second'):.1f} photographs/s"] if _last(rows, "images_per_second") else []
    parts += [f"mIoU {100 * score:.1f} %"] if (score := _last(rows, "miou")) is not None else []
    parts += [f"exit code {run.code}"] if run.code else []
    if said := jobs.reason(run):
        parts.append(f'<span style="color:{_COLORS["failed"]}">{html.escape(said[:600])}</span>')
    share = 100 * done / steps if steps else 0
    bar = f'<div style="background:#8884;height:6px;border-radius:3px"><div style="background:{color};height:6px;'
    bar += f'border-radius:3px;width:{min(100, share):.1f}%"></div></div>'
    return state_line(run.status, *parts) + bar


def row_of(run: runs.Found) -> list[Any]:
    """A line of the table, in the order of `COLUMNS`.

    What a visitor may sort by is a number, or a text that sorts as its numbers do.
    """
    rows = run_files.metrics(run.folder)
    scores = [row["miou"] for row in rows if "miou" in row]
    epoch, loss = _last(rows, "epoch"), _last(rows, "total")
    flags = flags_of(run.argv)
    return [
        run.name,
        run.status if run.job or not run.run else f"{run.status} (terminal)",
        dict(flags).get("--preset", ""),
        int(epoch or 0),
        run.run.get("epochs"),
        round(100 * scores[-1], 1) if scores else None,
        round(100 * max(scores), 1) if scores else None,
        None if loss is None else round(loss, 3),
        run.device or "",
        time.strftime("%Y-%m-%d %H:%M", time.localtime(run.start)) if run.start else "",
        _clock(_last(rows, "seconds") or 0),
        " ".join(_settings(flags)),
    ]


def _clock(seconds: float) -> str:
    """3725 -> 01:02:05."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}"


def _last(rows: Sequence[dict[str, float]], key: str) -> float | None:
    return next((row[key] for row in reversed(rows) if key in row), None)


def _settings(flags: Flags) -> list[str]:
    return [word.removeprefix("--") for word in words_of([flag for flag in flags if flag[0] not in _SETTINGS_APART])]
