"""Masks of photographs: `python -m wsss.predict IMAGE... --checkpoint DIR --out DIR`."""

import argparse
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from wsss import UNLABELLED, UserError, checkpoint
from wsss.config import Config
from wsss.crf import crf, require_crf
from wsss.data.folder import SUFFIXES
from wsss.data.picture import read_rgb
from wsss.data.voc import VOC_PALETTE, mask_values
from wsss.disk import make_folder, reading, replacing
from wsss.distributed import pick_device
from wsss.exits import Stopped, said
from wsss.network import Output, ShapeAwareNetwork
from wsss.objective import reduce_image, refinement_grid
from wsss.pseudo import with_background
from wsss.refinement import refine
from wsss.stopping import StopRequest

MULTI_SCALE = (0.75, 1.0, 1.25)
"""What a test averages over, each also flipped.

An `animals` of 75.8 % mIoU has 77.0 % so; at Araslanov and Roth's scales, 0.5 to 2, 76.6 %.
"""

MULTI_SCALE_HELP = f"mean over scales {', '.join(f'{scale:g}' for scale in MULTI_SCALE)} and flips"
"""Of the flag in every command that has it, and of its box on the page."""


MOST_RATIO = 5
"""Of the sides of an image that is enlarged: a narrower one would take gigabytes."""

MOST_ENLARGED = 2.25
"""How many times as large as it is an image is looked at.

Photographs reduced to a short side of 64 lose less so than where they are enlarged to the 288 of `animals`.
"""


def to_image(rgb: np.ndarray, short_side: int = 0, scale: float = 1.0) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, h, w) in [0, 1], resized to `short_side` (0 keeps the size) times `scale`.

    One that is narrower than 1 to 5 is enlarged until its long side is 5 times `short_side`, if that is larger; none
    is enlarged more than `MOST_ENLARGED` times before it is scaled.
    """
    height, width = rgb.shape[:2]
    factor = 1.0
    if short_side:
        factor = min(short_side / min(height, width), max(1.0, MOST_RATIO * short_side / max(height, width)))
        factor = min(factor, MOST_ENLARGED)
    factor *= scale
    size = max(1, round(width * factor)), max(1, round(height * factor))
    if size != (width, height):
        rgb = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR)
    return torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1)))[None].float() / 255


def views(
    rgb: np.ndarray, short_side: int, *, multi_scale: bool, device: torch.device
) -> Iterator[tuple[Tensor, bool]]:
    """The images (1, 3, h, w) of a photograph that a test averages over, and whether each is mirrored."""
    for scale in MULTI_SCALE if multi_scale else (1.0,):
        image = to_image(rgb, short_side, scale).to(device)
        yield image, False
        if multi_scale:
            yield image.flip(3), True


@torch.inference_mode()
def predict_probs(
    network: ShapeAwareNetwork,
    rgb: np.ndarray,
    *,
    short_side: int = 0,
    multi_scale: bool = False,
    class_cutoff: float = 0.0,
    background_power: float = 1.0,
    **refinement: float,
) -> np.ndarray:
    """Class probabilities of every pixel.

    Args:
        network: in evaluation mode.
        rgb: (H, W, 3) uint8.
        short_side: of the photograph at scale 1, in pixels; 0 keeps its own.
        multi_scale: mean over `MULTI_SCALE` and flips.
        class_cutoff: objects whose image-level probability is below it in every view get 0 everywhere (Araslanov and
            Roth's code: 0.1).
        background_power: as in `with_background_power`.
        refinement: as in `pixel_probs`, of each view on its own.

    Returns:
        (K, H, W) float32; sums to 1 over K unless a class was left out, raised to a power, or refined.
    """
    device = next(network.parameters()).device
    looks = [(*view, network(view[0])) for view in views(rgb, short_side, multi_scale=multi_scale, device=device)]
    scores = torch.stack([output.image_scores.sigmoid() for *_, output in looks]).amax(0)
    total = torch.zeros((), device=device)
    for view, is_flipped, output in looks:
        probs = pixel_probs(output, view, rgb.shape[:2], objects=scores >= class_cutoff, **refinement)
        total = total + (probs.flip(3) if is_flipped else probs)
    mean = total[0] / len(looks)
    return with_background_power(mean, background_power).cpu().numpy()


def pixel_probs(
    output: Output,
    image: Tensor,
    size: tuple[int, int],
    *,
    refine_steps: int = 0,
    alpha: float = 1.0,
    refine_stride: int = 2,
    objects: Tensor | None = None,
) -> Tensor:
    """What the network says of an image, at another size, along the image's edges if asked to.

    Args:
        output: of the network on `image`.
        image: (B, 3, H, W) in [0, 1].
        size: (height, width) of the answer.
        refine_steps, alpha: T of Eq. 6 and alpha of Eq. 5; with 0 steps the logits are merely enlarged.
        refine_stride: the refinement works at the image's size over it.
        objects: which ones there are, (B, K-1) bool, all unless given; the others' answer is 0.

    Returns:
        (B, K, height, width).

    Source: the paper refines in training alone (Sec. 3.2.1). Here the scores are the logits and the background's is its
    constant, whatever a config asks for in training: neither probabilities nor `with_background_scores` brought more.
    """
    present = with_background(torch.ones_like(output.image_scores) if objects is None else objects)
    if not refine_steps:
        probs = F.interpolate(output.logits, size, mode="bilinear", align_corners=False).softmax(1)
        return probs * present[:, :, None, None]
    grid = refinement_grid(image, refine_stride)
    logits, probs = output.resized(grid)
    refined = refine(reduce_image(image, grid), logits, probs, alpha=alpha, steps=refine_steps, present=present)
    return F.interpolate(refined, size, mode="bilinear", align_corners=False)


def with_background_power(probs: Tensor, power: float) -> Tensor:
    """Probabilities (K, H, W), background first, that of the background raised to a power: above 1, objects grow.

    The largest is the class, they no longer sum to 1. Source: the test of Araslanov and Roth's code (there 3).
    """
    return torch.cat([probs[:1] ** power, probs[1:]])


def prediction_settings(config: Config, *, refined: bool = True) -> dict[str, float]:
    """What `predict_probs` takes from a config.

    Not refined, the answer is the network's own, as the paper tests it. A CRF takes that: to spread probabilities twice
    costs more than it brings (table crf).
    """
    return {
        "short_side": config.test_short_side,
        "class_cutoff": config.class_cutoff,
        "background_power": config.background_power,
        "refine_steps": config.test_refine_steps if refined else 0,
        "alpha": config.alpha,
        "refine_stride": config.test_refine_stride,
    }


def add_refinement_flags(parser: argparse.ArgumentParser) -> None:
    """Add --crf and --no-spr, of which one may be given."""
    flags = parser.add_mutually_exclusive_group()
    flags.add_argument("--crf", action="store_true", help="a dense CRF in place of SPR")
    flags.add_argument("--no-spr", action="store_true", help="the network's own answer, as the paper tests (Sec. 3.3)")


def palette_picture(mask: np.ndarray, classes: tuple[str, ...]) -> Image.Image:
    """A mask (H, W) of class indices as a palette picture; VOC's indices where the classes are VOC's."""
    table, values = np.full(256, UNLABELLED, np.uint8), mask_values(classes)
    table[: len(values)] = values
    picture = Image.fromarray(table[mask], mode="P")
    picture.putpalette(VOC_PALETTE.tobytes())
    return picture


def save_mask(path: Path, mask: np.ndarray, classes: tuple[str, ...]) -> None:
    """Write a mask as `palette_picture` makes it, a PNG. Raises Unwritable; what was there before then still stands."""
    with replacing(path) as temporary:
        palette_picture(mask, classes).save(temporary, format="PNG")


def require_apart(masks: Iterable[Path], given: Iterable[Path]) -> None:
    """Raises UserError where a mask to be written would replace a file that was given, by whatever path to it."""
    kept = set(map(os.path.realpath, given))  # unlike Path.resolve it takes links that lead in a circle
    for path in masks:
        if os.path.realpath(path) in kept:
            raise UserError(f"{path}: is one of the given files, which a mask would replace; choose another folder")


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m wsss.predict", description=__doc__)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="a picture, or a folder of pictures")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="DIR")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--multi-scale", action="store_true", help=MULTI_SCALE_HELP)
    add_refinement_flags(parser)
    parser.add_argument("--skip-bad", action="store_true", help="leave out pictures that cannot be used, and name them")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    arguments = parser.parse_args(argv)
    try:
        with StopRequest():
            _predict(arguments)
    except Stopped as stopped:
        return stopped.code
    except Exception as error:
        return said(error)
    return 0


def _predict(arguments: argparse.Namespace) -> None:
    if arguments.crf:
        require_crf()
    network, config, classes, _ = checkpoint.load(arguments.checkpoint)
    network = network.to(pick_device(arguments.device))
    images = [picture for path in arguments.images for picture in _pictures(path)]
    by_name: dict[str, Path] = {}
    for path in images:
        if (other := by_name.setdefault(path.stem, path)) is not path:
            raise UserError(f"{other} and {path} would have one mask, {path.stem}.png: leave one out, or rename it")
    require_apart((arguments.out / f"{name}.png" for name in by_name), images)
    images = _usable(images, skip_bad=arguments.skip_bad)
    make_folder(arguments.out)
    for path in images:
        rgb = read_rgb(path)
        settings = prediction_settings(config, refined=not (arguments.crf or arguments.no_spr))
        probs = predict_probs(network, rgb, multi_scale=arguments.multi_scale, **settings)
        probs = crf(rgb, probs) if arguments.crf else probs
        save_mask(arguments.out / f"{path.stem}.png", probs.argmax(0), classes)


def _pictures(path: Path) -> list[Path]:
    """The path, or the pictures in it where it is a folder. Raises UserError for a folder without any."""
    with reading(path):
        if not path.is_dir():
            return [path]
        found = sorted(inner for inner in path.iterdir() if inner.suffix.lower() in SUFFIXES)
    if not found:
        raise UserError(f"{path}: holds no picture ({', '.join(sorted(SUFFIXES))})")
    return found


def _usable(images: list[Path], *, skip_bad: bool) -> list[Path]:
    """The images that can be read; all are looked at before any mask is written, and not kept: they may be many.

    Raises:
        UserError: one cannot be used and shall not be skipped, or none is left.
    """
    usable = []
    for path in images:
        try:
            read_rgb(path)
            usable.append(path)
        except UserError as error:
            if not skip_bad:
                raise
            print(f"left out: {error}", file=sys.stderr)
    if not usable:
        raise UserError("none of the pictures can be used")
    return usable


if __name__ == "__main__":
    sys.exit(main())
