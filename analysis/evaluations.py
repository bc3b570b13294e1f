"""Evaluations as the page sees them: their reports, and the pictures of their photographs."""

import functools
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from analysis import run_files, runs
from analysis.library import Library
from analysis.report import Pictures, pictures
from analysis.truth import read_truth
from wsss import UNLABELLED, UserError, checkpoint
from wsss.data.item import Source
from wsss.data.source import read
from wsss.data.translated import translated
from wsss.data.voc import VOC_PALETTE, mask_values
from wsss.disk import reading

_NEEDED = (
    *("checkpoint", "split", "photographs", "multi_scale", "crf", "image_labels_used", "seconds"),
    *("miou", "mean_boundary_iou", "accuracy", "classes", "confusion"),
)
"""What the page and the files to take home read of a report."""


def report_of(name: str) -> dict[str, Any]:
    """The report of an evaluation. Raises UserError where there is none that is whole."""
    path = runs.known(name, evaluation=True).folder / runs.REPORT
    return _report(path, run_files.version(path))


@functools.lru_cache(maxsize=8)
def _report(path: Path, version: tuple[int, int]) -> dict[str, Any]:
    try:
        report = json.loads(path.read_text())
    except (OSError, ValueError):
        raise UserError(f"{path.parent.name}: has no report that can be read") from None
    if not isinstance(report, dict) or any(key not in report for key in _NEEDED):
        raise UserError(f"{path.parent.name}: its report is not one of an evaluation")
    return report


def checkpoints(library: Library) -> dict[str, Path]:
    """What can be evaluated: what the page looks at and is still there, then what else is shipped or trained here."""
    folders = {name: library.folder(name).absolute() for name in library.names}
    shown = {name: folder for name, folder in folders.items() if folder.parent.exists()}
    return shown | {name: folder for name, folder in runs.checkpoints().items() if name not in shown}


def checkpoint_folder(chosen: object, library: Library) -> Path:
    """The folder of a checkpoint that is offered by name, or that was typed. Raises UserError when it is none."""
    folder = checkpoints(library).get(str(chosen)) or runs.typed(str(chosen or ""))
    with reading(folder):
        is_one = (folder / "config.json").is_file()
    if not is_one:
        raise UserError(f"{str(chosen)[:200]!r}: is no checkpoint; choose one of the list, or write its folder")
    return folder


def dataset_of(folder: Path) -> str:
    """The layout of the data that a checkpoint was made from. Raises UserError when it cannot be read."""
    config = checkpoint.read_config(folder).get("config")
    return str(config.get("dataset", "")) if isinstance(config, dict) else ""


def free_name(chosen: str, split: str) -> str:
    """A name for a new evaluation, made from what is evaluated."""
    raw = f"{chosen.removeprefix('runs/')}-{split}"
    stem = "-".join("".join(c if c.isascii() and (c.isalnum() or c in "._") else " " for c in raw).split())
    stem = stem.strip("._-")[:50] or "evaluation"
    taken = {found.name for found in runs.found_evaluations()}
    numbered = (f"{stem}-{number}" if number else stem for number in range(10_000))
    return next(name for name in numbered if name not in taken)


def job_of(name: str) -> dict[str, Any]:
    """What an evaluation was started with. Raises UserError where the page has not started it."""
    if not (job := runs.known(name, evaluation=True).job):
        raise UserError(f"{name}: was not started from this page, so that it is not known what it has looked at")
    return job


class Judged(NamedTuple):
    """A photograph of an evaluation, and what its prediction is judged by."""

    rgb: np.ndarray  # (H, W, 3) uint8
    truth: np.ndarray | None  # (H, W) class indices, 255 unlabelled; None where there is none
    classes: tuple[str, ...]  # of the checkpoint, without the background


def judged(name: str, photograph: str) -> Judged:
    """A photograph of an evaluation. Raises UserError where the data are no longer there."""
    job, classes = job_of(name), tuple(report_of(name)["classes"])[1:]
    report = runs.folder_of(name, evaluation=True) / runs.REPORT
    source = _source(*(job.get(key, "") for key in ("dataset", "data", "split")), report, run_files.version(report))
    if photograph not in source.names:
        raise UserError(f"{photograph!r}: is no photograph of this split any more")
    index = source.names.index(photograph)
    source = translated(source, classes)
    return Judged(source.rgb(index), source.mask(index), classes)


def pictures_of(name: str, photograph: str) -> Pictures:
    """A photograph of an evaluation with its truth, prediction and errors.

    Raises:
        UserError: the data or the mask are no longer there.
    """
    rgb, truth, classes = judged(name, photograph)
    mask = read_truth(runs.folder_of(name, evaluation=True) / "masks" / f"{photograph}.png", classes, rgb.shape[:2])
    colors = VOC_PALETTE[list(mask_values(classes))]
    return pictures(rgb, truth if truth is not None else np.full(mask.shape, UNLABELLED, np.uint8), mask, colors)


@functools.lru_cache(maxsize=2)
def _source(dataset: str, data: str, split: str, report: Path, version: tuple[int, int]) -> Source:
    """A split is read once for many clicks; anew for another evaluation, since the data may have changed."""
    return read(dataset, Path(data) if data else None, split, labelled=False)
