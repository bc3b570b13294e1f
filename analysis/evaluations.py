"""Evaluations as the page sees them: their reports, and the pictures of their photographs."""

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np

from analysis import run_files, runs
from analysis.library import Library
from analysis.report import Pictures, pictures
from analysis.truth import read_truth
from wsss import UserError, checkpoint
from wsss.data.item import Source
from wsss.data.source import read
from wsss.data.translated import translated
from wsss.data.voc import VOC_PALETTE, mask_values
from wsss.disk import reading

_NEEDED = ("miou", "mean_boundary_iou", "accuracy", "classes", "confusion", "photographs", "split")


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


def pictures_of(name: str, photograph: str) -> Pictures:
    """A photograph of an evaluation with its truth, prediction and errors.

    Raises:
        UserError: the data or the mask are no longer there.
    """
    found, classes = runs.known(name, evaluation=True), tuple(report_of(name)["classes"])[1:]
    source, index = _place_of(found, photograph)
    source = translated(source, classes)
    rgb, truth = source.rgb(index), source.mask(index)
    mask = read_truth(found.folder / "masks" / f"{photograph}.png", classes, rgb.shape[:2])
    colors = VOC_PALETTE[list(mask_values(classes))]
    return pictures(rgb, truth if truth is not None else np.full(mask.shape, 255, np.uint8), mask, colors)


def truth_of(name: str, photograph: str) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """The true mask (H, W) of an evaluation's photograph, None where there is none, and its classes: the checkpoint's.

    Raises:
        UserError: the data are no longer there.
    """
    source, index = _place_of(runs.known(name, evaluation=True), photograph)
    classes = tuple(report_of(name)["classes"])[1:]
    return translated(source, classes).mask(index), classes


def _place_of(found: runs.Found, photograph: str) -> tuple[Source, int]:
    """The split of an evaluation, and where in it a photograph is. Raises UserError."""
    place = (found.job.get(key, "") for key in ("dataset", "data", "split"))
    source = _source(*place, found.folder, run_files.version(found.folder / runs.REPORT))
    if photograph not in source.names:
        raise UserError(f"{photograph!r}: is no photograph of this split any more")
    return source, source.names.index(photograph)


@functools.lru_cache(maxsize=2)
def _source(dataset: str, data: str, split: str, evaluation: Path, version: tuple[int, int]) -> Source:
    """A split is read once for many clicks; anew for another evaluation, since the data may have changed."""
    return read(dataset, Path(data) if data else None, split, labelled=False)
