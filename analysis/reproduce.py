"""The paper's tables on data of one's own: `python -m analysis.reproduce TABLE [--data ROOT] [train's flags]`.

TABLE   5            the four networks with and without SCM and SPR
        8            the four combinations of losses
        supervised   image labels against masks
        two-stage    a plain network trained on the masks that the first one and a CRF make of three scales
        6            pseudo masks of a checkpoint by alpha
        crf          what the refinement and the CRF add to a checkpoint's masks

Trains what is missing only, and goes on where it was interrupted. Writes table_TABLE.csv, .md and .json (a Plotly
figure) into runs/results, where the Results tab finds them. Seeds, commands, commits and the paper's numbers stand
beside what was measured.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from analysis import runs, tables
from analysis.experiments import ALPHAS, PAPER_STAGES, TRAINED, Variant
from analysis.pseudo_quality import pseudo_quality
from wsss import UserError, checkpoint, run, train, two_stage
from wsss.data.item import Source
from wsss.data.translated import require_classes
from wsss.evaluate import evaluate
from wsss.flags import add_flags, from_flags, latest
from wsss.preflight import require_sound_splits, survey
from wsss.probabilities import PredictionSettings
from wsss.resuming import config_to_resume
from wsss.state import has_state, newest_whole
from wsss.stopping import exit_code_of

ROOT = Path(__file__).parent.parent

_MASKS = ("--crf", "--multi-scale", "--sure", "0.95")
"""How those of the second stage are made. On a first stage of 75.8 % it gained 3.0 points so, 1.3 by a CRF alone."""


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code: that of the training that failed, 2 for a mistake, 128 + signal, 0."""
    parser = argparse.ArgumentParser(
        prog="python -m analysis.reproduce",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,  # --seed would mean --seeds
    )
    parser.add_argument("table", choices=list(tables.TITLES))
    parser.add_argument("--preset", default="animals", help="of the networks that are trained")
    parser.add_argument("--data", metavar="ROOT", help="drawn shapes need none")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], metavar="N")
    parser.add_argument(
        "--runs", type=Path, default=runs.root() / "tables", metavar="DIR", help="of the networks; %(default)s"
    )
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "checkpoints" / "animals", metavar="DIR")
    parser.add_argument("--splits", nargs="+", default=["train", "val"], metavar="SPLIT", help="of table 6")
    parser.add_argument(
        "--out", type=Path, default=runs.root() / "results", metavar="DIR", help="of the tables; %(default)s"
    )
    parser.add_argument("--skip-bad", action="store_true", help="leave out photographs with faults")
    arguments, flags = parser.parse_known_args(argv)
    return exit_code_of(lambda _: _reproduce(arguments, flags))


def _reproduce(arguments: argparse.Namespace, flags: Sequence[str]) -> int:
    if arguments.table in TRAINED or arguments.table == "two-stage":
        _require_scores(flags)
        flags = ["--skip-bad", *flags] if arguments.skip_bad else flags
        return _trained(arguments, flags) if arguments.table in TRAINED else _two_stage(arguments, flags)
    if flags:
        raise UserError(f"{flags[0]} is for tables of trained networks; table {arguments.table} trains none")
    table = _by_alpha(arguments) if arguments.table == "6" else _by_refinement(arguments)
    tables.write(arguments.out, arguments.table, table)
    return 0


def _require_scores(flags: Sequence[str]) -> None:
    """Raises UserError where nothing is evaluated: what is trained would have no scores, hours later."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--val-split")
    if parser.parse_known_args(flags)[0].val_split == "none":
        raise UserError("--val-split none: a table is made of scores; name the split to evaluate on")


def _trained(arguments: argparse.Namespace, flags: Sequence[str]) -> int:
    """Train each variant with each seed, and write the table after each of them; returns the exit code."""
    rows = []
    for seed in arguments.seeds:
        for variant in TRAINED[arguments.table].variants:
            out = arguments.runs / f"{variant.name}-{seed}"
            whole = ["--preset", arguments.preset, "--seed", str(seed)]
            whole += [f"--data={arguments.data}"] if arguments.data else []
            common = [*whole, *latest(flags, variant.network)]
            argv = [*whole, *latest(flags, variant.flags), f"--out={out}"]
            classified = arguments.runs / "-".join(["classified", *variant.network[1:], str(seed)])
            code = _classify(common, classified) or train.main([*argv, *_from_where(out, classified)])
            if code:
                return code
            rows.append(_scores(variant, seed, out / "model", "train", argv))
            tables.write(arguments.out, arguments.table, pd.DataFrame(rows))
    return 0


def _classify(argv: Sequence[str], out: Path) -> int:
    """The epochs of classification, which variants of one network share: each would compute the same.

    Raises:
        UserError: they were done with other settings.
    """
    parser = argparse.ArgumentParser()
    add_flags(parser)
    config = from_flags(parser.parse_known_args(argv)[0])
    if (run.read(out) or {}).get("status") == "finished":
        config_to_resume(out, asdict(config))
        return 0
    until = min(config.warmup_epochs, config.epochs)
    return train.main([*argv, f"--until={until}", f"--out={out}", *_from_where(out)])


def _from_where(out: Path, before: Path | None = None) -> list[str]:
    """Flags of a run that goes on if it has begun, else starts where another one ended."""
    if has_state(out):
        return ["--resume"]
    return [f"--begin-with={newest_whole(before / 'states')}"] if before else []


def _two_stage(arguments: argparse.Namespace, flags: Sequence[str]) -> int:
    """Table 1's comparison: both stages with each seed; returns the exit code."""
    rows = []
    for seed in arguments.seeds:
        out = arguments.runs / f"two-stage-{seed}"
        argv = ["--preset", arguments.preset, "--seed", str(seed), *_MASKS, f"--out={out}"]
        argv += [f"--data={arguments.data}"] if arguments.data else []
        argv += flags  # at the end, where --then stands
        if code := two_stage.main(argv):
            return code
        for name, model in (("single-stage", "labels"), ("two-stage", "segmentation")):
            rows.append(
                _scores(Variant(name, (), (), PAPER_STAGES[name]), seed, out / model / "model", "two_stage", argv)
            )
        tables.write(arguments.out, arguments.table, pd.DataFrame(rows))
    return 0


def _scores(variant: Variant, seed: int, model: Path, module: str, argv: Sequence[str]) -> dict[str, Any]:
    """One line of a table of trained networks, from what its training, `python -m wsss.MODULE`, has written."""
    content = checkpoint.read_config(model)
    return {
        "variant": variant.name,
        "seed": seed,
        "mIoU": 100 * content["val"]["miou"],
        "boundary IoU": 100 * content["val"]["mean_boundary_iou"],
        "paper mIoU": variant.paper[0],
        "paper boundary IoU": variant.paper[1],
        "commit": content.get("commit", ""),
        "command": f"python -m wsss.{module} {shlex.join(_of_any_machine(argv))}",
    }


def _of_any_machine(argv: Sequence[str]) -> list[str]:
    """The flags without the folders of this machine."""
    names = {"--data": "ROOT", "--out": "DIR"}
    words: list[str] = []
    for word in argv:
        flag = word.partition("=")[0]
        words += [flag, names[flag]] if flag in names else [word]
    return words


def _by_alpha(arguments: argparse.Namespace) -> pd.DataFrame:
    """Table 6: the quality of a checkpoint's pseudo masks by alpha."""
    network, config, classes, facts = checkpoint.load(arguments.checkpoint)
    rows = []
    for split in dict.fromkeys(arguments.splits):
        source = _source(arguments, config.dataset, split, classes)
        for alpha, quality in pseudo_quality(network, source, config, ALPHAS).items():
            rows.append({"split": split, "photographs": len(source), "alpha": alpha, **quality})
    return pd.DataFrame(rows).assign(checkpoint=arguments.checkpoint.name, commit=str(facts.get("commit", "")))


def _by_refinement(arguments: argparse.Namespace) -> pd.DataFrame:
    """What a checkpoint's masks gain from the refinement at test and from the CRF."""
    network, config, classes, facts = checkpoint.load(arguments.checkpoint)
    source = _source(arguments, config.dataset, config.val_split, classes, labelled=False)
    steps = config.test_refine_steps or config.refine_steps
    rows = []
    for name, refine_steps, with_crf in (
        ("network", 0, False),
        ("refined (SPR)", steps, False),
        ("CRF", 0, True),
        ("refined (SPR), then CRF", steps, True),
    ):
        settings = PredictionSettings.of(config)._replace(refine_steps=refine_steps)
        scores = evaluate(network, source, settings, with_crf=with_crf, progress=True).as_dict(classes)
        rows.append({"masks": name, "mIoU": 100 * scores["miou"], "boundary IoU": 100 * scores["mean_boundary_iou"]})
    return pd.DataFrame(rows).assign(checkpoint=arguments.checkpoint.name, commit=str(facts.get("commit", "")))


def _source(arguments: argparse.Namespace, dataset: str, split: str, classes: tuple[str, ...], **needs: bool) -> Source:
    """A split to look at; `needs` as of `survey`."""
    root = Path(arguments.data) if arguments.data else None
    found = survey(dataset, root, split, masks=True, **needs)
    require_sound_splits([found], skip_bad=arguments.skip_bad)
    require_classes(found.source, classes)
    return found.source


if __name__ == "__main__":
    sys.exit(main())
