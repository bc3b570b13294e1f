"""The settings of a run that is there, for another one to begin with."""

import argparse
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from analysis.commands import from_anywhere, training_flags, words_of
from analysis.runs import Found
from wsss import UserError, checkpoint
from wsss.config import Config
from wsss.flags import add_flags, from_flags
from wsss.state import newest_whole


class RunSettings(NamedTuple):
    """What a run was started with."""

    preset: str
    data: str  # data folder, wherever the page is served from; "" where there is none
    config: Config


def settings_of(found: Found) -> RunSettings:
    """What a run has computed with, or, before its first state, what its command says.

    The command alone may be that of a terminal which has resumed the run, `--out DIR --resume`.

    Raises:
        UserError: the command says nothing that could be started again.
    """
    words = words_of(training_flags(found))
    parser = argparse.ArgumentParser()
    add_flags(parser)
    parser.add_argument("--data", default="")

    def refuse(message: str) -> None:
        raise UserError(f"{found.name}: its command cannot be read ({message})")

    parser.error = refuse
    given = parser.parse_known_args(words)[0]
    said = from_flags(given)
    with suppress(UserError):  # there is no state, or none of this version
        newest = newest_whole(found.folder / "states")
        own = checkpoint.config_of(newest, checkpoint.read_config(newest))
        files = {
            "masks": said.masks or from_anywhere(found, "--masks", own.masks),  # which may have been moved
            "encoder_weights": from_anywhere(found, "--encoder-weights", own.encoder_weights),
        }
        # The format that was the fastest there may not be so for another run.
        return RunSettings(given.preset, given.data, replace(own, **files, precision=said.precision))
    return RunSettings(given.preset, given.data, said)
