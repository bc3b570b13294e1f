"""Masks of a training set from its image labels: `python -m wsss.pseudo_labels --checkpoint DIR --data ROOT --out DIR`.

The first stage of the paper's two-stage training (Table 1): `python -m wsss.train --supervision masks --masks DIR` then
trains a plain segmentation network on them. Masks that are there already are kept, so an interrupted command goes on.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from wsss import UserError, checkpoint
from wsss.config import Config
from wsss.crf import available, crf
from wsss.data.item import Source
from wsss.evaluate import require_classes
from wsss.exits import Stopped, said, writing
from wsss.network import ShapeAwareNetwork
from wsss.objective import reduce_image
from wsss.predict import MULTI_SCALE, predict_probs, save_mask, to_image
from wsss.preflight import require_sound, survey
from wsss.pseudo import with_background
from wsss.refinement import refine
from wsss.stopping import StopRequest
from wsss.workers import each_of


def training_mask(
    network: ShapeAwareNetwork,
    rgb: np.ndarray,
    labels: np.ndarray,
    config: Config,
    *,
    scales: Sequence[float] = (1.0,),
    with_crf: bool = False,
) -> np.ndarray:
    """The mask of a photograph whose classes are known.

    The network's probabilities of the classes present are refined along the photograph's colors and their own
    affinities (Eq. 5, 6, at the end of training's alpha), smoothed by a CRF if asked for, and the largest wins.

    Args:
        network: in evaluation mode.
        rgb: (H, W, 3) uint8.
        labels: (K-1,) in {0, 1}.

    Returns:
        (H, W) uint8 of class indices, each of the background or of a class present.
    """
    probs = predict_probs(
        network,
        rgb,
        short_side=config.test_short_side,
        scales=scales,
        flip=len(scales) > 1,
        background_power=config.background_power,
    )
    present = with_background(torch.from_numpy(labels)[None])[0].numpy()
    refined = _refined(rgb, probs * present[:, None, None], present, config)
    if with_crf:
        refined = crf(rgb, refined) * present[:, None, None]
    return refined.argmax(0).astype(np.uint8)


@torch.inference_mode()
def _refined(rgb: np.ndarray, probs: np.ndarray, present: np.ndarray, config: Config) -> np.ndarray:
    """Probabilities (K, H, W), refined at the photograph's size over the refinement stride, as in training."""
    size = tuple(max(1, side // config.refine_stride) for side in rgb.shape[:2])
    small = torch.nn.functional.interpolate(torch.from_numpy(probs)[None], size, mode="bilinear", align_corners=False)
    refined = refine(
        reduce_image(to_image(rgb), size),
        small,
        small,
        alpha=config.alpha,
        steps=config.refine_steps,
        present=torch.from_numpy(present)[None],
    )
    large = torch.nn.functional.interpolate(refined, rgb.shape[:2], mode="bilinear", align_corners=False)
    return large[0].numpy()


def write_masks(
    network: ShapeAwareNetwork,
    source: Source,
    config: Config,
    out: Path,
    *,
    scales: Sequence[float] = (1.0,),
    with_crf: bool = False,
) -> int:
    """Write out/NAME.png of each photograph that has none there yet; returns how many were written.

    Raises:
        Unwritable: the disk is full or cannot be written.
        UserError: a photograph cannot be read.
        WorkerFailed: a process that makes masks died or hangs.
    """
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    missing = [index for index in range(len(source)) if not (out / f"{source.names[index]}.png").exists()]
    work = partial(_mask_of, network, source, config, scales=scales, with_crf=with_crf)
    masks = each_of(work, missing, next(network.parameters()).device)
    with closing(masks):
        for index, mask in zip(tqdm(missing, desc="masks"), masks, strict=True):
            path = out / f"{source.names[index]}.png"
            with writing(path):
                save_mask(path, mask, source.classes)
    return len(missing)


def _mask_of(network: ShapeAwareNetwork, source: Source, config: Config, index: int, **settings: Any) -> np.ndarray:
    return training_mask(network, source.rgb(index), source.labels[index], config, **settings)


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code, one of `wsss.exits`."""
    parser = argparse.ArgumentParser(prog="python -m wsss.pseudo_labels", description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="DIR")
    parser.add_argument("--data", type=Path, metavar="ROOT", help="drawn shapes need none")
    parser.add_argument("--split", help="the checkpoint's training list unless given")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--crf", action="store_true", help="smooth the masks by a dense CRF")
    parser.add_argument("--multi-scale", action="store_true", help="mean over scales 0.5, 1, 1.5, 2 and flips")
    parser.add_argument("--skip-bad", action="store_true", help="leave out photographs with faults")
    arguments = parser.parse_args(argv)
    try:
        with StopRequest():
            _write(arguments)
    except Stopped as stopped:
        return stopped.code
    except Exception as error:
        return said(error)
    return 0


def _write(arguments: argparse.Namespace) -> None:
    if arguments.crf and not available():
        raise UserError("--crf needs the package pydensecrf2: pip install pydensecrf2")
    network, config, classes, _ = checkpoint.load(arguments.checkpoint)
    split = arguments.split or config.train_split
    found = survey(config.dataset, arguments.data, split)
    require_sound({split: found}, skip_bad=arguments.skip_bad)
    require_classes(found.source, classes)
    scales = MULTI_SCALE if arguments.multi_scale else (1.0,)
    count = write_masks(network, found.source, config, arguments.out, scales=scales, with_crf=arguments.crf)
    print(f"{count} masks written to {arguments.out}, {len(found.source) - count} were there; {found.skipped} left out")


if __name__ == "__main__":
    sys.exit(main())
