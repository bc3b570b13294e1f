"""The settings of a run that is there, for another one to begin with."""

import argparse
from typing import NamedTuple

from analysis.jobs import from_where_it_began
from analysis.runs import Found
from wsss import UserError
from wsss.config import Config
from wsss.flags import add_flags, from_flags


class RunSettings(NamedTuple):
    """What a run was started with."""

    preset: str
    data: str  # data folder, wherever the page is served from; "" where there is none
    config: Config


def settings_of(found: Found) -> RunSettings:
    """What the command of a run says. Raises UserError where it says nothing that could be started again."""
    words = found.argv
    if words[1:3] != ["-m", "wsss.train"]:
        raise UserError(f"{found.name}: does not say how it was started")
    parser = argparse.ArgumentParser()
    add_flags(parser)
    parser.add_argument("--data", default="")

    def refuse(message: str) -> None:
        raise UserError(f"{found.name}: its command cannot be read ({message})")

    parser.error = refuse
    given = parser.parse_known_args(from_where_it_began(words[3:], found))[0]
    return RunSettings(given.preset, given.data, from_flags(given))
