"""Scores of a checkpoint: `python -m wsss.evaluate --checkpoint DIR --data ROOT --split val`."""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from wsss import UserError, checkpoint
from wsss.crf import crf, require_crf
from wsss.data.item import Source, files, item
from wsss.data.source import LAYOUTS
from wsss.data.translated import differences, translated
from wsss.disk import make_folder, replacing
from wsss.distributed import pick_device
from wsss.folding import folded
from wsss.mask_files import require_apart, save_mask
from wsss.metrics import Scores
from wsss.network import ShapeAwareNetwork
from wsss.predict import add_refinement_flags
from wsss.preflight import require_sound_splits, survey
from wsss.probabilities import MULTI_SCALE_HELP, PredictionSettings, predict_probs
from wsss.records import HEADLINES
from wsss.stopping import exit_code_of
from wsss.workers import each_of


def evaluate(
    network: ShapeAwareNetwork,
    source: Source,
    settings: PredictionSettings,
    *,
    with_crf: bool = False,
    with_labels: bool = False,
    progress: bool = False,
    each: Callable[[str, Scores, np.ndarray], object] | None = None,
) -> Scores:
    """Compare the network's masks with the true ones, at the size of the photographs.

    Args:
        network: in evaluation mode.
        source: photographs with masks.
        with_labels: leave out the classes that an image's labels deny. Test sets have no labels: only for analysis.
        each: called with the name, the scores and the mask (H, W) of every photograph.

    Raises:
        UserError: a photograph has no mask or cannot be read.
        WorkerFailed: a process that judges photographs died or hangs.
    """
    device = next(network.parameters()).device
    work = partial(judged, folded(network), source, settings, with_crf=with_crf, with_labels=with_labels)
    total = Scores.none(len(source.classes) + 1)
    with closing(each_of(work, range(len(source)), device)) as found:
        for name, scores, mask in tqdm(found, desc="evaluate", total=len(source), disable=not progress):
            if each is not None:
                each(name, scores, mask)
            total += scores
    return total


def judged(
    network: ShapeAwareNetwork,
    source: Source,
    settings: PredictionSettings,
    index: int,
    *,
    with_crf: bool,
    with_labels: bool,
) -> tuple[str, Scores, np.ndarray]:
    """Name, scores and mask (H, W) of one photograph; arguments and errors as in `evaluate`."""
    name, rgb, labels, truth = item(source, index)
    if truth is None:
        raise UserError(f"{name}: has no mask to compare with")
    probs = predict_probs(network, rgb, settings)
    if with_labels:
        probs[1:] *= labels[:, None, None]
    if with_crf:
        probs = crf(rgb, probs)
    mask = probs.argmax(0).astype(np.uint8)
    return name, Scores.of(truth, mask, len(source.classes) + 1), mask


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m wsss.evaluate", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="DIR", help="folder of the checkpoint")
    parser.add_argument("--data", type=Path, metavar="ROOT", help="data folder; drawn shapes need none")
    parser.add_argument("--dataset", choices=LAYOUTS, help="layout of the data, the checkpoint's unless given")
    parser.add_argument("--split", default="val", help="list to evaluate on (val)")
    add_refinement_flags(parser)
    parser.add_argument("--multi-scale", action="store_true", help=MULTI_SCALE_HELP)
    parser.add_argument(
        "--with-image-labels",
        action="store_true",
        help="drop classes that the photograph is not labelled with (not a test!)",
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    parser.add_argument("--skip-bad", action="store_true", help="leave out photographs with faults, and count them")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the report here too")
    parser.add_argument("--per-image", action="store_true", help="in the report, the scores of each photograph too")
    parser.add_argument("--masks", type=Path, metavar="DIR", help="write the predicted masks here, DIR/NAME.png")
    arguments = parser.parse_args(argv)
    if arguments.per_image and not arguments.json:
        parser.error("--per-image adds to the report; name its file with --json")
    return exit_code_of(lambda _: _report(arguments))


def _report(arguments: argparse.Namespace) -> None:
    if arguments.json:
        _require_place(arguments.json, arguments.checkpoint)  # said now, not after the evaluation
    report = _evaluate(arguments)
    try:
        if arguments.json:  # before what is printed, which may be cut off
            with replacing(arguments.json) as temporary:
                temporary.write_text(json.dumps(report, indent=1) + "\n")
    finally:  # where the file cannot be written, the scores are not lost
        _print(report)


def _require_place(report: Path, model: Path) -> None:
    """Raises UserError where no report can be written, or it would replace a file of the checkpoint."""
    if not report.parent.is_dir():
        raise UserError(f"{report.parent}: no such folder for the report")
    if report.is_dir():
        raise UserError(f"{report}: is a folder, the report needs the name of a file")
    if report.exists() and not report.is_file():
        raise UserError(f"{report}: is a device or a pipe, the report needs the name of a file")
    if model.is_dir() and Path(os.path.realpath(report)).parent.samefile(model):
        raise UserError(f"{report}: lies in the checkpoint, whose files it could replace; choose another place")


def _evaluate(arguments: argparse.Namespace) -> dict[str, object]:
    if arguments.crf:
        require_crf()
    network, config, classes, facts = checkpoint.load(arguments.checkpoint)
    network = network.to(pick_device(arguments.device))
    found = survey(arguments.dataset or config.dataset, arguments.data, arguments.split, labelled=False, masks=True)
    require_sound_splits([found], skip_bad=arguments.skip_bad)
    given = found.source
    source = translated(given, classes)
    for difference in differences(given.classes, classes):
        print(difference, file=sys.stderr)
    if arguments.masks:
        require_apart((arguments.masks / f"{name}.png" for name in source.names), files(given))
        make_folder(arguments.masks)
    rows: list[dict[str, object]] = []

    def each(name: str, scores: Scores, mask: np.ndarray) -> None:
        if arguments.per_image:
            rows.append(_row(name, scores, classes))
        if arguments.masks:
            save_mask(arguments.masks / f"{name}.png", mask, classes)

    refined = not (arguments.crf or arguments.no_spr)
    settings = PredictionSettings.of(config, refined=refined, multi_scale=arguments.multi_scale)
    start = time.perf_counter()
    scores = evaluate(
        network,
        source,
        settings,
        with_crf=arguments.crf,
        with_labels=arguments.with_image_labels,
        progress=True,
        each=each,
    )
    report = {
        "checkpoint": arguments.checkpoint.name,
        "sha256": facts.get("sha256"),
        "commit": facts.get("commit"),
        "split": arguments.split,
        "data_classes": list(given.classes),
        "photographs": len(source),
        "skipped": found.skipped,
        "multi_scale": arguments.multi_scale,
        "crf": arguments.crf,
        "refine_steps": settings.refine_steps,
        "alpha": settings.alpha,
        "image_labels_used": arguments.with_image_labels,
        "seconds": round(time.perf_counter() - start, 1),
        **scores.as_dict(classes),
    }
    return report | {"images": rows} if arguments.per_image else report


def _row(name: str, scores: Scores, classes: tuple[str, ...]) -> dict[str, object]:
    """The scores of one photograph, over the classes that are in its truth or its mask."""
    known = scores.as_dict(classes)
    ious = {label: row["iou"] for label, row in known["classes"].items() if row["iou"] is not None}
    headlines = {key: known[key] for key in HEADLINES}
    return {"name": name, **headlines, "iou": ious}


def _print(report: dict[str, object]) -> None:
    for name, row in report["classes"].items():
        print(f"{name:>12} " + ("     -" if row["iou"] is None else f"{100 * row['iou']:6.2f}"))
    print(f"mIoU {100 * report['miou']:.2f}   boundary IoU {100 * report['mean_boundary_iou']:.2f}   ", end="")
    print(f"pixel accuracy {100 * report['accuracy']:.2f}   ({report['photographs']} photographs)")
    if report["skipped"]:
        print(f"{report['skipped']} photographs or lines were left out for their faults.")
    if report["image_labels_used"]:
        print("The true image-level labels were used: this is not a test score.")


if __name__ == "__main__":
    sys.exit(main())
