"""Masks of a training set from its image labels: `python -m wsss.pseudo_labels --checkpoint DIR --data ROOT --out DIR`.

What lies between the stages of the paper's two-stage training (Sec. 4.2.2), all of which `python -m wsss.two_stage`
does; the second is `python -m wsss.train --supervision masks --masks DIR --shape-cue none --region-loss false`. Masks
that are there already are kept, so an interrupted command goes on; DIR/settings.json says how they are made, and others
are not mixed with them.
"""

import argparse
import json
import math
import os
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from tqdm import tqdm

from wsss import UNLABELLED, UserError, checkpoint
from wsss.config import Config
from wsss.crf import crf, require_crf
from wsss.data.item import Source, files, fingerprint
from wsss.data.translated import require_classes
from wsss.disk import make_folder, replacing
from wsss.distributed import pick_device
from wsss.folding import folded
from wsss.json_file import read_json
from wsss.mask_files import save_mask
from wsss.network import ShapeAwareNetwork
from wsss.objective import refined_probs
from wsss.preflight import require_sound_splits, survey
from wsss.probabilities import MULTI_SCALE_HELP, views
from wsss.pseudo import present_classes
from wsss.refinement import refinement_grid
from wsss.stopping import exit_code_of
from wsss.words import shown
from wsss.workers import each_of

_NOTE = "settings.json"  # in a folder of masks: how they were made


class MaskSettings(NamedTuple):
    """How the mask of a photograph is made whose classes are known."""

    multi_scale: bool = False  # mean over `MULTI_SCALE` and flips
    with_crf: bool = False  # a dense CRF takes the place of the refinement
    sure: float = 0.0  # pixels whose class has a lesser share of what the classes present sum to stay unlabelled


@torch.inference_mode()
def training_mask(
    network: ShapeAwareNetwork, rgb: np.ndarray, labels: np.ndarray, config: Config, settings: MaskSettings
) -> np.ndarray:
    """The mask of a photograph whose classes are known.

    The network's probabilities are refined as in training (Eq. 5, 6, at the end of its alpha), averaged over the views,
    and the largest wins. A CRF takes the place of the refinement: both at once spread them twice (mIoU of such masks by
    an `animals` of 75.8 %: 76 %, of either alone 79 and 80 %).

    Args:
        network: in evaluation mode.
        rgb: (H, W, 3) uint8.
        labels: (K-1,) in {0, 1}.

    Returns:
        (H, W) uint8 of class indices, each of the background or of a class present; 255 unlabelled.
    """
    device, given = next(network.parameters()).device, torch.from_numpy(labels)[None]
    present = np.flatnonzero(present_classes(given)[0].numpy())
    total, count = torch.zeros((), device=device), 0
    for view, is_flipped in views(rgb, config.test_short_side, multi_scale=settings.multi_scale, device=device):
        grid = refinement_grid(view, config.refine_stride)
        output = network(view)
        if settings.with_crf:
            probs = output.resized_probs(grid)
        else:
            probs = refined_probs(output, view, given, grid, config, config.alpha)
        probs = F.interpolate(probs[:, present], rgb.shape[:2], mode="bilinear", align_corners=False)
        total, count = total + (probs.flip(3) if is_flipped else probs), count + 1
    mean = (total[0] / count).cpu().numpy()
    probs = crf(rgb, mean) if settings.with_crf else mean
    mask = present[probs.argmax(0)].astype(np.uint8)
    mask[probs.max(0) < settings.sure * probs.sum(0)] = UNLABELLED
    return mask


def write_masks(network: ShapeAwareNetwork, source: Source, config: Config, settings: MaskSettings, out: Path) -> int:
    """Write out/NAME.png of each photograph that has none there yet; returns how many were written.

    Raises:
        Unwritable: the disk is full or cannot be written.
        UserError: a photograph cannot be read.
        WorkerFailed: a process that makes masks died or hangs.
    """
    make_folder(out)
    missing = [index for index in range(len(source)) if not (out / f"{source.names[index]}.png").exists()]
    work = partial(_mask_of, folded(network), source, config, settings)
    masks = each_of(work, missing, next(network.parameters()).device)
    with closing(masks):
        for index, mask in zip(tqdm(missing, desc="masks"), masks, strict=True):
            save_mask(out / f"{source.names[index]}.png", mask, source.classes)
    return len(missing)


def require_own_folder(out: Path, source: Source) -> None:
    """Raises UserError where the data's own files lie: a true mask would pass for one that was made already."""
    if os.path.realpath(out) in {os.path.realpath(path.parent) for path in files(source)}:
        raise UserError(f"{out}: holds photographs or masks of the data; choose another --out")


def require_same_settings(out: Path, settings: dict[str, Any]) -> None:
    """Raises UserError naming what was otherwise when the masks that are there were made.

    What an older version has not noted is taken as it is.
    """
    if any(out.glob("*.png")) and (out / _NOTE).exists():
        before = read_json(out / _NOTE)
        if changed := [name for name, value in settings.items() if before.get(name, value) != value]:
            flags = " and ".join(f"--{name}" for name in changed if name != "data")
            found = f"with another {flags}" if flags else "of other photographs or labels"
            raise UserError(f"{out}: its masks were made {found}; remove the folder, or choose another --out")


def note_settings(out: Path, settings: dict[str, Any]) -> None:
    """Write down in a folder without masks how they are made. Raises Unwritable: the disk is full, or the like."""
    if any(out.glob("*.png")):
        return
    make_folder(out)
    with replacing(out / _NOTE) as temporary:
        temporary.write_text(json.dumps(settings, indent=1) + "\n")


def _mask_of(
    network: ShapeAwareNetwork, source: Source, config: Config, settings: MaskSettings, index: int
) -> np.ndarray:
    return training_mask(network, source.rgb(index), source.labels[index], config, settings)


def share(text: str) -> float:
    """A flag's number from 0 to 1. Raises argparse.ArgumentTypeError, which argparse says as its own."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1, got {shown(text)}")
    return value


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code, one of `wsss.exits`."""
    parser = argparse.ArgumentParser(prog="python -m wsss.pseudo_labels", description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="DIR", help="folder of the checkpoint")
    parser.add_argument("--data", type=Path, metavar="ROOT", help="data folder; drawn shapes need none")
    parser.add_argument("--split", help="the checkpoint's training list unless given")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the masks, DIR/NAME.png")
    parser.add_argument("--crf", action="store_true", help="a dense CRF in place of the refinement")
    parser.add_argument("--multi-scale", action="store_true", help=MULTI_SCALE_HELP)
    parser.add_argument(
        "--sure", type=share, default=0.0, metavar="SHARE", help="pixels whose class is less probable stay unlabelled"
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave out photographs with faults")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    arguments = parser.parse_args(argv)
    return exit_code_of(lambda _: _write(arguments))


def _write(arguments: argparse.Namespace) -> None:
    if arguments.crf:
        require_crf()
    network, config, classes, facts = checkpoint.load(arguments.checkpoint)
    network = network.to(pick_device(arguments.device))
    split = arguments.split or config.train_split
    found = survey(config.dataset, arguments.data, split)
    require_sound_splits([found], skip_bad=arguments.skip_bad)
    require_classes(found.source, classes)
    require_own_folder(arguments.out, found.source)
    flags = {"crf": arguments.crf, "multi-scale": arguments.multi_scale, "sure": arguments.sure}
    made_by = {"checkpoint": facts["sha256"], "data": fingerprint(found.source), **flags}
    require_same_settings(arguments.out, made_by)
    note_settings(arguments.out, made_by)
    settings = MaskSettings(arguments.multi_scale, arguments.crf, arguments.sure)
    count = write_masks(network, found.source, config, settings, arguments.out)
    print(f"{count} masks written to {arguments.out}, {len(found.source) - count} were there; {found.skipped} left out")


if __name__ == "__main__":
    sys.exit(main())
