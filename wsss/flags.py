"""Command-line flags, one for each field of `Config`."""

import argparse
import dataclasses
import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import fields, replace

from wsss import UserError
from wsss.config import Config, misfit
from wsss.presets import PRESETS
from wsss.words import nearest, shown


class _Once(argparse.Action):
    """A flag that is given twice is refused; argparse would silently take the last."""

    def __call__(self, parser, namespace, value, option_string=None) -> None:
        if hasattr(namespace, self.dest):
            raise argparse.ArgumentError(self, f"{self.dest} is given twice")
        setattr(namespace, self.dest, value)


def _reader(f: dataclasses.Field) -> Callable[[str], object]:
    """Turns the text behind a flag into the field's value, in the words of `Config` where it cannot."""

    def read(text: str) -> object:
        try:
            return {"true": True, "false": False}[text.lower()] if f.type is bool else f.type(text)
        except (ValueError, KeyError):
            raise argparse.ArgumentTypeError(misfit(f, text)) from None

    return read


def add_flags(parser: argparse.ArgumentParser) -> None:
    """`--preset NAME`, then one flag for each field: `--lr 0.01`, `--region-loss false`."""
    parser.allow_abbrev = False  # a later field could make a shortened flag mean another one
    parser.error = functools.partial(_say_nearest, parser, parser.error)
    parser.add_argument("--preset", choices=PRESETS, default="voc", help="settings to start from [voc]")
    for f in fields(Config):
        parser.add_argument(
            "--" + f.name.replace("_", "-"),
            dest=f.name,
            action=_Once,
            type=_reader(f),
            default=argparse.SUPPRESS,
            metavar="|".join(f.metadata["choices"]) or f.type.__name__.upper(),
            help=f"{f.metadata['help']} [voc: {default_text(f)}]".replace("%", "%%"),
        )


def default_text(f: dataclasses.Field) -> str:
    """A field's default as it would be written."""
    if isinstance(f.default, bool):
        return str(f.default).lower()
    return (f"{f.default:g}" if f.type is float else str(f.default)) or "empty"


def _say_nearest(parser: argparse.ArgumentParser, say: Callable[[str], None], message: str) -> None:
    """argparse's refusal of a flag that there is not, with the nearest one that there is."""
    unknown = re.search(r"unrecognized arguments: (--[\w-]+)", message)
    say(message + (nearest(unknown[1], parser._option_string_actions) if unknown else ""))


def from_flags(arguments: argparse.Namespace) -> Config:
    """The `Config` that the flags of `add_flags` ask for.

    What the preset holds constant during training stays so: `--alpha 0.5` alone is its start too.
    """
    given, preset = vars(arguments), PRESETS[arguments.preset]()
    chosen = {f.name: given[f.name] for f in fields(Config) if f.name in given}
    for end in ("alpha", "object_cutoff", "background_cutoff"):
        start = f"{end}_start"
        if end in chosen and start not in chosen and getattr(preset, start) == getattr(preset, end):
            chosen[start] = chosen[end]
    return replace(preset, **chosen)


def latest(*groups: Sequence[str]) -> list[str]:
    """The flags of all groups; of those that several give, the last one. Raises UserError."""
    chosen: dict[str, list[str]] = {}
    for group in groups:
        given: dict[str, list[str]] = {}
        for word in group:
            if word.startswith("--"):
                name, *value = word.split("=", 1)
                if name in given:
                    raise UserError(f"{name} is given twice")
                given[name] = value
            elif given:
                given[name].append(word)
            else:
                raise UserError(f"{shown(word)} does not belong to a flag")
        chosen |= given
    return [word for name, value in chosen.items() for word in _words(name, value)]


def _words(name: str, value: Sequence[str]) -> list[str]:
    """A flag as argparse takes it: a value that begins as a flag does must be joined to its name."""
    return [f"{name}={value[0]}"] if len(value) == 1 and value[0].startswith("-") else [name, *value]
