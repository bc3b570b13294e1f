"""A run's log: one CSV line and one JSON line a log step, in the run's folder."""

import csv
import json
from pathlib import Path

FIELDS = (
    *("step", "epoch", "seconds", "images_per_second", "lr", "alpha", "region_weight"),
    *("classification", "pixel", "region", "total", "labelled"),
    *("miou", "mean_boundary_iou", "accuracy"),
)
"""Columns of metrics.csv; a line holds those that were measured at its step."""


class Records:
    """Appends to metrics.csv and metrics.jsonl. Lines beyond `step` (of an interrupted run) are dropped on opening."""

    def __init__(self, folder: Path, step: int) -> None:
        self.csv, self.jsonl = folder / "metrics.csv", folder / "metrics.jsonl"
        kept = [row for row in read(self.jsonl) if row["step"] <= step]
        self.csv.write_text(",".join(FIELDS) + "\n")
        self.jsonl.write_text("")
        for row in kept:
            self.add(row)

    def add(self, row: dict[str, float]) -> None:
        """Append one line to each file."""
        with self.jsonl.open("a") as file:
            file.write(json.dumps(row) + "\n")
        with self.csv.open("a", newline="") as file:
            csv.DictWriter(file, FIELDS).writerow(row)


def read(path: Path) -> list[dict[str, float]]:
    """The lines of a metrics.jsonl; a torn last line is left out."""
    if not path.exists():
        return []
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows
