"""All that training changes, and how an interrupted run is taken up again."""

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from wsss import UserError, checkpoint
from wsss.config import Config
from wsss.data.item import Source, fingerprint
from wsss.exits import NoUsableState, is_out_of_memory
from wsss.network import ShapeAwareNetwork
from wsss.weights import read_safetensors

_PREFIX = "step-"
_FOLDERS = f"{_PREFIX}*"


@dataclass
class Learner:
    """The network, and all that changes with it as it learns."""

    network: ShapeAwareNetwork
    parallel: nn.Module  # the network, or what has several processes share its gradients
    optimiser: Optimizer
    scaler: torch.amp.GradScaler  # of float16 gradients; idle in the other formats
    average: AveragedModel | None  # moving average of the network's weights

    @property
    def shipped(self) -> ShapeAwareNetwork:
        """The network that is evaluated and shipped."""
        return self.average.module if self.average is not None else self.network


def save_state(folder: Path, learner: Learner, step: int, config: Config, source: Source) -> None:
    """Write the state after `step` steps to folder/step-..., atomically; the newest `config.keep_states` are kept.

    Raises:
        Unwritable: the disk is full or cannot be written; the states before still stand.
    """
    state = {
        "step": step,
        "optimiser": learner.optimiser.state_dict(),
        "scaler": learner.scaler.state_dict(),
        "average": learner.average.state_dict() if learner.average is not None else None,
    }
    checkpoint.save(
        folder / f"{_PREFIX}{step:06d}",
        learner.network.state_dict(),
        config,
        source.classes,
        facts={"step": step, "data": fingerprint(source)},
        extra={"training.pt": lambda path: torch.save(state, path)},
    )
    keep_newest(folder, step, config.keep_states)


def load_state(folder: Path, learner: Learner, source: Source, config: Config) -> int:
    """Load a state's folder, the run's own or another's, into the learner; returns its step.

    The optimiser keeps the rates of `config`, and the average begins with the network's weights where the state has
    none: a run that goes on has the same `config` as before.

    Raises:
        UserError: it is broken, does not fit, or is of a run on other data.
    """
    content = checkpoint.require_whole(folder)
    if not (folder / "training.pt").exists():
        raise UserError(f"{folder}: is a checkpoint, not a state of training; give a folder of a run's states/")
    if tuple(content["classes"]) != tuple(source.classes):
        there = ", ".join(source.classes)
        raise UserError(f"{folder}: was trained on {', '.join(content['classes'])}, the data hold {there}")
    if content.get("data", fingerprint(source)) != fingerprint(source):
        own = "if it was the same data folder, its list or labels have changed since the run began"
        raise UserError(f"{folder}: was trained on other photographs, or with other labels; {own}")
    batch = checkpoint.config_of(folder, content).batch
    if config.batch != batch:
        raise UserError(f"{folder}: counts steps of {batch} photographs; begin with that --batch")
    checkpoint.fit(learner.network, read_safetensors(folder / "model.safetensors"), folder)
    try:
        saved = torch.load(folder / "training.pt", map_location="cpu", weights_only=True)
        _load_optimiser(learner.optimiser, saved["optimiser"])
        if saved["scaler"]:
            learner.scaler.load_state_dict(saved["scaler"])
        if learner.average is not None and saved["average"] is not None:
            learner.average.load_state_dict(saved["average"])
        elif learner.average is not None:
            learner.average.module.load_state_dict(learner.network.state_dict())
        return int(saved["step"])
    except Exception as error:  # torch's own text would advise the user to run code from the file
        if is_out_of_memory(error):
            raise
        raise UserError(f"{folder}: training.pt does not fit; begin with its --frozen-stages, or train anew") from None


def _load_optimiser(optimiser: Optimizer, saved: dict[str, Any]) -> None:
    """Load what it has gathered, not its rates."""
    rates = [{key: value for key, value in group.items() if key != "params"} for group in optimiser.param_groups]
    optimiser.load_state_dict(saved)
    for group, own in zip(optimiser.param_groups, rates, strict=True):
        group.update(own)


def has_state(out: Path) -> bool:
    """Whether a run has a state to go on from, whole or not."""
    return any((out / "states").glob(_FOLDERS))


def newest_whole(states: Path, say: Callable[[str], None] = lambda sentence: None) -> Path:
    """The newest state folder of a run that is not broken; each broken one is said.

    Raises:
        UserError: there is none at all.
        NoUsableState: all are broken.
    """
    folders = sorted(states.glob(_FOLDERS), key=_steps, reverse=True)
    if not folders:
        raise UserError(f"{states.parent}: holds no state to resume from; start it without --resume")
    for folder in folders:
        try:
            checkpoint.require_whole(folder)
        except UserError as error:
            say(f"{error}: this state is broken, the one before is taken")
        else:
            return folder
    raise NoUsableState(
        f"{states}: none of the {len(folders)} states can be read; "
        "bring one back from a copy, or start anew in another --out"
    )


def _steps(state: Path) -> int:
    """The number in the name of a state's folder; -1 of a folder that is none."""
    number = state.name.removeprefix(_PREFIX)
    return int(number) if number.isdecimal() else -1


def keep_newest(states: Path, step: int, count: int) -> None:
    """Remove all but the newest `count` state folders up to `step`, the one just written.

    Those of later steps are broken ones, which `newest_whole` has passed over. What cannot be removed stays.
    """
    folders = sorted(states.glob(_FOLDERS), key=_steps)
    older = [folder for folder in folders if 0 <= _steps(folder) < step]
    beyond = [folder for folder in folders if _steps(folder) > step]
    for folder in [*(older[: -(count - 1)] if count > 1 else older), *beyond]:
        with suppress(OSError):
            removed = folder.with_name(f".tmp-{os.getpid()}-{folder.name}")  # no longer a state, even if half removed
            folder.rename(removed)
            shutil.rmtree(removed)
