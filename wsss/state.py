"""All that training changes, and how an interrupted run is taken up again."""

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from wsss import UserError, checkpoint
from wsss.config import Config
from wsss.data.item import Source
from wsss.exits import NoUsableState, is_out_of_memory
from wsss.network import ShapeAwareNetwork

_PREFIX = "step-"
_FOLDERS = f"{_PREFIX}*"


@dataclass
class Learner:
    """The network, and all that changes with it as it learns."""

    network: ShapeAwareNetwork
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


def load_state(newest: Path, learner: Learner, source: Source, own: Config | None = None) -> int:
    """Load a state folder into the learner; returns its step.

    Args:
        own: the settings of another run, which begins with this state; its optimiser keeps its rates, and its average
            begins with the network's weights where the state has none. None: the run goes on as it was.

    Raises:
        UserError: it is broken, does not fit, or is of a run on other data.
    """
    content = checkpoint.require_whole(newest)
    if not (newest / "training.pt").exists():
        raise UserError(f"{newest}: is a checkpoint, not a state of training; give a folder of a run's states/")
    if tuple(content["classes"]) != tuple(source.classes):
        there = ", ".join(source.classes)
        raise UserError(f"{newest}: was trained on {', '.join(content['classes'])}, the data hold {there}")
    if content.get("data", fingerprint(source)) != fingerprint(source):
        why = "the list of photographs or their labels have changed since the run began; train anew"
        raise UserError(f"{newest}: {why if own is None else 'was trained on other photographs, or with other labels'}")
    batch = checkpoint.config_of(newest, content).batch
    if own is not None and own.batch != batch:
        raise UserError(f"{newest}: counts steps of {batch} photographs; begin with that --batch")
    checkpoint.fit(learner.network, checkpoint.read_weights(newest, content["sha256"]), newest)
    try:
        state = torch.load(newest / "training.pt", map_location="cpu", weights_only=True)
        rates = [{key: value for key, value in part.items() if key != "params"} for part in _parts(learner)]
        learner.optimiser.load_state_dict(state["optimiser"])
        if own is not None:
            for part, mine in zip(_parts(learner), rates, strict=True):
                part.update(mine)
        if state["scaler"] or own is None:
            learner.scaler.load_state_dict(state["scaler"])
        if learner.average is not None and (state["average"] is not None or own is None):
            learner.average.load_state_dict(state["average"])
        elif learner.average is not None:
            learner.average.module.load_state_dict(learner.network.state_dict())
        return int(state["step"])
    except Exception as error:  # torch's own text would advise the user to run code from the file
        if is_out_of_memory(error):
            raise
        if own is not None:
            raise UserError(f"{newest}: does not fit these settings; begin with its --frozen-stages") from None
        raise UserError(f"{newest}: training.pt does not fit this version of the code; train anew") from None


def _parts(learner: Learner) -> list[dict[str, Any]]:
    return learner.optimiser.param_groups


def fingerprint(source: Source) -> str:
    """SHA-256 of the photographs' names and labels, which every sample follows from but for masks that supervise."""
    names = "\n".join(source.names).encode()
    return hashlib.sha256(names + np.ascontiguousarray(source.labels, np.float32).tobytes()).hexdigest()


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

    Those beyond it were broken when the run went back to an earlier one. What cannot be removed stays.
    """
    folders = sorted(states.glob(_FOLDERS), key=_steps)
    older = [folder for folder in folders if 0 <= _steps(folder) < step]
    beyond = [folder for folder in folders if _steps(folder) > step]
    for folder in [*(older[: -(count - 1)] if count > 1 else older), *beyond]:
        with suppress(OSError):
            removed = folder.with_name(f".tmp-{os.getpid()}-{folder.name}")  # no longer a state, even if half removed
            folder.rename(removed)
            shutil.rmtree(removed)
