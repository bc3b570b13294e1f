"""Two-stage training, after Sec. 4.2.2: `python -m wsss.two_stage --preset NAME --out DIR [train's flags]`.

OUT/labels          the network of this paper, trained from image labels
OUT/masks           its masks of the training set, by SPR or, with --crf, by a dense CRF in its place
OUT/segmentation    a plain segmentation network, trained on those masks

The paper's masks have always gone through a CRF, and its second network is another one. Here it is the first without
SCM and region loss: it keeps the constant score of the background, the classification loss, since its scores of the
image name the classes, and the preset's SPR at test. Flags after --then are for it alone: `--then --epochs 10`.

The command can be given again after it was interrupted: each stage goes on where it stopped.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from wsss import UserError, pseudo_labels, train
from wsss.beginning import require_at_once
from wsss.crf import require_crf
from wsss.flags import add_flags, from_flags, latest
from wsss.probabilities import MULTI_SCALE_HELP
from wsss.state import has_state

_PLAIN = ("--supervision", "masks", "--shape-cue", "none", "--region-loss", "false")
"""What the second network is: trained on masks, without the shape cue and the region loss."""

_SET_HERE = dict.fromkeys(("--supervision", "--masks"), "is what the second stage sets; leave it out")
_OF_ONE_TRAINING = dict.fromkeys(
    ("--begin-with", "--until", "--resume"), "is of one training alone; leave it out, a stage that has begun goes on"
)
_OF_BOTH = {
    **dict.fromkeys(("--device", "--dataset", "--val-split"), "is of both stages; give it before --then"),
    "--train-split": "is of both stages: there are masks of the first one's photographs alone; give it before --then",
}
_OF_THE_SECOND = dict.fromkeys(("--shape-cue", "--region-loss"), "is what the second stage sets; give it after --then")


def main(argv: list[str] | None = None) -> int:
    """The command; returns the exit code of the stage that failed, 0 when none did."""
    parser = argparse.ArgumentParser(prog="python -m wsss.two_stage", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of both stages and the masks")
    parser.add_argument("--data", metavar="ROOT", help="data folder; drawn shapes need none")
    parser.add_argument("--crf", action="store_true", help="masks by a dense CRF in place of the refinement")
    parser.add_argument("--multi-scale", action="store_true", help=f"masks: {MULTI_SCALE_HELP}")
    parser.add_argument(
        "--sure", type=pseudo_labels.share, metavar="SHARE", help="pixels whose class is less probable stay unlabelled"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 ...")
    parser.add_argument("--skip-bad", action="store_true", help="leave out photographs with faults, and count them")
    parser.add_argument(
        "--then", nargs=argparse.REMAINDER, default=[], metavar="FLAG", help="train's flags for the second stage alone"
    )
    arguments, flags = parser.parse_known_args(argv)
    first, masks, second = (arguments.out / name for name in ("labels", "masks", "segmentation"))
    try:  # now, not after the first stage
        _refuse(flags, _SET_HERE | _OF_ONE_TRAINING | _OF_THE_SECOND)
        _refuse(arguments.then, _SET_HERE | _OF_ONE_TRAINING | _OF_BOTH)
        second_flags = latest(flags, _PLAIN, arguments.then)
        _require_settings([*second_flags, f"--masks={masks}"], parser.prog)
        if os.environ.get("WORLD_SIZE", "1") != "1":
            raise UserError("the two stages run in one process, start them without torchrun")
        if arguments.crf:
            require_crf()
    except UserError as error:
        parser.error(str(error))
    data = ["--device", arguments.device, *([f"--data={arguments.data}"] if arguments.data else [])]
    skip = ["--skip-bad"] if arguments.skip_bad else []
    options = [f"--{name}" for name, given in (("crf", arguments.crf), ("multi-scale", arguments.multi_scale)) if given]
    options += [] if arguments.sure is None else ["--sure", str(arguments.sure)]
    return (
        train.main([*flags, *data, *skip, *_folder(first)])
        or pseudo_labels.main([f"--checkpoint={first / 'model'}", *data, *skip, f"--out={masks}", *options])
        or train.main([*second_flags, *data, *skip, f"--masks={masks}", *_folder(second)])
    )


def _refuse(flags: Sequence[str], why: dict[str, str]) -> None:
    """Raises UserError for the first of the flags that cannot be given."""
    for word in flags:
        if (flag := word.split("=")[0]) in why:
            raise UserError(f"{flag} {why[flag]}")


def _require_settings(flags: Sequence[str], prog: str) -> None:
    """Raises UserError, or SystemExit as argparse does, unless these are settings of a training."""
    parser = argparse.ArgumentParser(prog=prog)
    add_flags(parser)
    require_at_once(from_flags(parser.parse_args(flags)), has_state=False)


def _folder(out: Path) -> list[str]:
    """The flags that begin a run in a folder, or go on with the one that is there."""
    return [f"--out={out}", *(["--resume"] if has_state(out) else [])]


if __name__ == "__main__":
    sys.exit(main())
