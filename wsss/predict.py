"""Masks of photographs: `python -m wsss.predict IMAGE... --checkpoint DIR --out DIR`."""

import argparse
import sys
from pathlib import Path

import numpy as np

from wsss import UserError, checkpoint
from wsss.crf import crf, require_crf
from wsss.data.folder import SUFFIXES
from wsss.data.picture import read_rgb
from wsss.disk import make_folder, reading
from wsss.distributed import pick_device
from wsss.mask_files import require_apart, save_mask, save_overlay, save_probs
from wsss.probabilities import MULTI_SCALE_HELP, PredictionSettings, predict_probs
from wsss.stopping import exit_code_of


def add_refinement_flags(parser: argparse.ArgumentParser) -> None:
    """Add --crf and --no-spr, of which one may be given."""
    flags = parser.add_mutually_exclusive_group()
    flags.add_argument("--crf", action="store_true", help="a dense CRF in place of SPR")
    flags.add_argument("--no-spr", action="store_true", help="the network's own answer, as the paper tests (Sec. 3.3)")


def main(argv: list[str] | None = None) -> int:
    """The command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m wsss.predict", description=__doc__)
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="a picture, or a folder of pictures")
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="DIR", help="folder of the checkpoint")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the masks, DIR/NAME.png")
    parser.add_argument("--multi-scale", action="store_true", help=MULTI_SCALE_HELP)
    add_refinement_flags(parser)
    parser.add_argument("--overlays", action="store_true", help="also DIR/overlays/NAME.png, the mask over the picture")
    parser.add_argument(
        "--probs", action="store_true", help="also DIR/probs/NAME.npz: probs (classes, height, width) and classes"
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave out pictures that cannot be used, and name them")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    arguments = parser.parse_args(argv)
    return exit_code_of(lambda _: _predict(arguments))


def _predict(arguments: argparse.Namespace) -> None:
    if arguments.crf:
        require_crf()
    network, config, classes, _ = checkpoint.load(arguments.checkpoint)
    network = network.to(pick_device(arguments.device))
    images = [picture for path in arguments.images for picture in _pictures(path)]
    by_name: dict[str, Path] = {}
    for path in images:
        if (other := by_name.setdefault(path.stem.casefold(), path)) is not path:
            raise UserError(f"{other} and {path} would have one mask, {path.stem}.png: leave one out, or rename it")
    places = {path: _places(arguments, path.stem) for path in images}
    require_apart((place for files in places.values() for place in files.values()), images)
    images = _usable(images, skip_bad=arguments.skip_bad)
    for folder in dict.fromkeys(place.parent for place in places[images[0]].values()):
        make_folder(folder)
    refined = not (arguments.crf or arguments.no_spr)
    settings = PredictionSettings.of(config, refined=refined, multi_scale=arguments.multi_scale)
    for path in images:
        rgb = read_rgb(path)
        probs = predict_probs(network, rgb, settings)
        probs = crf(rgb, probs) if arguments.crf else probs
        _write(places[path], rgb, probs, classes)


def _places(arguments: argparse.Namespace, name: str) -> dict[str, Path]:
    """The files that are asked for of a picture, by what they hold."""
    asked = {"mask": True, "overlay": arguments.overlays, "probs": arguments.probs}
    files = {"mask": f"{name}.png", "overlay": f"overlays/{name}.png", "probs": f"probs/{name}.npz"}
    return {what: arguments.out / files[what] for what, is_asked in asked.items() if is_asked}


def _write(files: dict[str, Path], rgb: np.ndarray, probs: np.ndarray, classes: tuple[str, ...]) -> None:
    mask = probs.argmax(0)
    save_mask(files["mask"], mask, classes)
    if "overlay" in files:
        save_overlay(files["overlay"], rgb, mask, classes)
    if "probs" in files:
        save_probs(files["probs"], probs, classes)


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
