"""All that training changes, and how an interrupted run is taken up again."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from wsss import UserError, checkpoint
from wsss.config import Config
from wsss.network import ShapeAwareNetwork

KEPT = 2
"""States of a run that are kept: the newest, and one to fall back to."""


@dataclass
class Learner:
    """The network and what learns it."""

    network: ShapeAwareNetwork
    optimiser: Optimizer
    scaler: torch.amp.GradScaler  # of float16 gradients; idle in the other formats
    average: AveragedModel | None  # moving average of the network's weights

    @property
    def kept(self) -> ShapeAwareNetwork:
        """The network that is evaluated and shipped."""
        return self.average.module if self.average is not None else self.network


def save_state(folder: Path, learner: Learner, step: int, config: Config, classes: tuple[str, ...]) -> None:
    """Write the state after `step` steps to folder/step-..., atomically; older states but one are removed."""
    state = {
        "step": step,
        "optimiser": learner.optimiser.state_dict(),
        "scaler": learner.scaler.state_dict(),
        "average": learner.average.state_dict() if learner.average is not None else None,
    }
    checkpoint.save(
        folder / f"step-{step:06d}",
        learner.network.state_dict(),
        config,
        classes,
        facts={"step": step},
        extra={"training.pt": lambda path: torch.save(state, path)},
    )
    checkpoint.keep_newest(folder, KEPT)


def load_state(folder: Path, learner: Learner, classes: tuple[str, ...]) -> int:
    """Load the newest state in `folder` into the learner; returns its step.

    Raises:
        UserError: there is none, it is broken, or it does not fit.
    """
    newest = checkpoint.newest(folder)
    content = checkpoint.read_config(newest)
    if tuple(content["classes"]) != tuple(classes):
        raise UserError(f"{newest}: was trained on {', '.join(content['classes'])}, the data hold {', '.join(classes)}")
    checkpoint.fit(learner.network, checkpoint.read_weights(newest, content["sha256"]), newest)
    try:
        state = torch.load(newest / "training.pt", map_location="cpu", weights_only=True)
    except Exception:  # torch's own text would advise the user to run code from the file
        raise UserError(f"{newest}: training.pt is broken; remove the folder to go back to the state before") from None
    learner.optimiser.load_state_dict(state["optimiser"])
    learner.scaler.load_state_dict(state["scaler"])
    if learner.average is not None:
        learner.average.load_state_dict(state["average"])
    return state["step"]
