"""A run's log: one CSV line and one JSON line a log step, in the run's folder, and TensorBoard events if asked for."""

import csv
import io
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from wsss import UserError
from wsss.disk import reading, replacing, writing

HEADLINES = ("miou", "mean_boundary_iou", "accuracy")
"""The scores of an evaluation that the log holds."""

TERMS = ("classification", "pixel", "region", "total", "labelled")
"""What a step of training tells: the terms of Eq. 10, their sum, and the share of pixels with a target."""

FIELDS = (
    *("step", "epoch", "seconds", "images_per_second", "lr", "alpha", "region_weight"),
    *TERMS,
    *HEADLINES,
)
"""Columns of metrics.csv; a line holds those that were measured at its step."""


class Records:
    """Appends to metrics.csv and metrics.jsonl. Lines beyond `step` (of an interrupted run) are dropped on opening.

    A step has one line of its losses; where the network was evaluated after it, a second one of its scores.
    """

    def __init__(self, folder: Path, step: int, *, tensorboard: bool = False) -> None:
        self.csv, self.jsonl = folder / "metrics.csv", folder / "metrics.jsonl"
        self.rows = [row for row in read(self.jsonl) if row["step"] <= step]
        with replacing(self.jsonl) as temporary:
            temporary.write_text("".join(map(_json_line, self.rows)))
        with replacing(self.csv) as temporary:
            temporary.write_text(",".join(FIELDS) + "\n" + "".join(map(_csv_line, self.rows)))
        self.events = event_writer()(folder / "tensorboard", purge_step=step + 1) if tensorboard else None

    @property
    def seconds(self) -> float:
        """How long the run had taken at its last line."""
        return self.rows[-1]["seconds"] if self.rows else 0.0

    def has_scores(self, step: int) -> bool:
        """Whether the network was evaluated after that step."""
        return any(row["step"] == step and "miou" in row for row in self.rows)

    def add(self, row: dict[str, float]) -> None:
        """Append one line to each file. Raises Unwritable."""
        self.rows.append(row)
        for path, line in ((self.jsonl, _json_line(row)), (self.csv, _csv_line(row))):
            with writing(path), path.open("a", newline="") as file:
                file.write(line)
        if self.events is not None:
            with writing(self.jsonl.parent / "tensorboard"):
                for name, value in row.items():
                    if name not in ("step", "epoch"):
                        self.events.add_scalar(name, value, row["step"])
                self.events.flush()


def read(path: Path) -> list[dict[str, float]]:
    """The lines of a metrics.jsonl; torn and foreign ones are left out. Raises UserError when it cannot be read."""
    if not path.exists():
        return []
    rows = []
    with reading(path):
        text = path.read_text(errors="replace")
    for line in text.splitlines():
        with suppress(ValueError):
            row = json.loads(line)
            if isinstance(row, dict) and type(row.get("step")) is int:
                rows.append(row)
    return rows


def event_writer() -> Any:
    """TensorBoard's writer of events. Raises UserError where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UserError("--tensorboard true needs TensorBoard: pip install tensorboard") from None
    return SummaryWriter


def _json_line(row: dict[str, float]) -> str:
    return json.dumps(row) + "\n"


def _csv_line(row: dict[str, float]) -> str:
    text = io.StringIO()
    csv.DictWriter(text, FIELDS, lineterminator="\n").writerow(row)
    return text.getvalue()
