"""The settings of a run that goes on: its own, but for those that change no result."""

import argparse
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

from wsss import UserError, checkpoint
from wsss.config import Config
from wsss.distributed import restarts, warn
from wsss.flags import from_flags
from wsss.state import has_state, newest_whole

CHANGES_NO_RESULT = {
    *("workers", "cache", "device"),
    *("log_steps", "save_steps", "eval_epochs", "keep_states", "previews", "tensorboard"),
    "masks",  # a folder may have been moved, as that of --data may
}
"""The settings with which a run may go on otherwise than it began."""


def goes_on_by_itself(out: Path) -> bool:
    """Whether torchrun has started this again after a failure and there is a state to go on from."""
    return restarts() > 0 and has_state(out)


def config_of_run(arguments: argparse.Namespace, out: Path, resume: bool) -> Config:
    """The flags' config for a new run; for a resumed one its own, but for settings that change no result."""
    if not resume:
        return from_flags(arguments)
    given = {f.name: getattr(arguments, f.name) for f in fields(Config) if hasattr(arguments, f.name)}
    if not arguments.resume:
        given = asdict(from_flags(arguments))  # torchrun repeats the command, so that nothing of it may differ
    return config_to_resume(out, given)


def config_to_resume(out: Path, given: dict[str, Any]) -> Config:
    """The config of the run in `out`, with those of the given settings that change no result.

    Raises:
        UserError: a setting is given that would change one, or there is no state.
        NoUsableState: all states are broken.
    """
    newest = newest_whole(out / "states", say=warn)
    saved = checkpoint.config_of(newest, checkpoint.read_config(newest))
    for name, value in given.items():
        if (name, value) == ("precision", "auto"):
            continue  # it stays what was found fastest then
        if name not in CHANGES_NO_RESULT and value != getattr(saved, name):
            has = f"the run has {name} {getattr(saved, name)}"
            raise UserError(f"{out}: {has}, it cannot be resumed with {value}; choose another folder for that")
    return replace(saved, **{name: value for name, value in given.items() if name in CHANGES_NO_RESULT})
