"""The end of an epoch: its scores, its checkpoint, and pictures of its masks."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from wsss import UserError, checkpoint
from wsss.config import Config
from wsss.data.item import Source
from wsss.evaluate import evaluate
from wsss.network import ShapeAwareNetwork
from wsss.previews import write_previews
from wsss.probabilities import PredictionSettings
from wsss.progress import Progress
from wsss.stopping import StopRequest


class Checkpoints(NamedTuple):
    """Where a run's checkpoints go, and what is written into each."""

    out: Path
    config: Config
    classes: tuple[str, ...]
    facts: dict[str, Any]

    def save(self, network: nn.Module, step: int, **known: Any) -> None:
        """Write model/, with what is known of it beside the facts. Raises Unwritable."""
        facts = self.facts | {"step": step} | known
        checkpoint.save(self.out / "model", network.state_dict(), self.config, self.classes, facts)


def close_epoch(
    checkpoints: Checkpoints,
    network: ShapeAwareNetwork,
    validation: Source | None,
    step: int,
    progress: Progress,
    stop: StopRequest,
) -> None:
    """Look at what an epoch has made: scores, a checkpoint, previews, one line. Scores and previews are made once.

    Raises:
        Stopped: a signal came meanwhile.
    """
    config, number, miou = checkpoints.config, progress.epoch, None
    network.eval()
    if validation is None:
        checkpoints.save(network, step)
    elif _is_looked_at(progress, config.eval_epochs) and not progress.records.has_scores(step):
        with stop.at_once():
            scores = evaluate(network, validation, PredictionSettings.of(config), progress=True)
        scores = scores.as_dict(checkpoints.classes)
        miou = scores["miou"]
        checkpoints.save(network, step, val=scores)
        keep_best(checkpoints.out / "model", checkpoints.out / "best", miou)
        progress.after_evaluation(step, scores)
    previews = checkpoints.out / "previews" / f"epoch_{number:02d}"
    if validation is not None and config.previews and not previews.exists():
        with stop.at_once():
            write_previews(previews, network, validation, config)
    progress.end_epoch(step, miou)


def _is_looked_at(progress: Progress, eval_epochs: int) -> bool:
    """Whether this epoch ends with an evaluation: the last one of the run does, and each of so many."""
    return progress.epoch == progress.epochs or (eval_epochs > 0 and progress.epoch % eval_epochs == 0)


def keep_best(model: Path, best: Path, miou: float) -> None:
    """Copy the checkpoint to `best` when none there has scored as high. Raises Unwritable."""
    try:
        before = checkpoint.require_whole(best)["val"]["miou"]
    except (UserError, KeyError, TypeError):
        before = None
    if before is None or miou > before:
        checkpoint.write_folder(best, {file.name: partial(shutil.copyfile, file) for file in model.iterdir()})
