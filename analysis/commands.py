"""The commands of jobs: the words that start one, that go on with one, and what the words of one say."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from analysis import runs
from wsss import UserError
from wsss.config import Config
from wsss.disk import reading
from wsss.presets import PRESETS

Flags = list[tuple[str, str | None]]
"""The flags of a command in their order, each with its value, where it has one."""

_PATHS = ("--data", "--masks", "--encoder-weights")  # flags of a training that name files or folders
_OF_ITS_BEGIN = ("--out", "--begin-with", "--resume")  # the run has begun, and lies where it lies


def training_argv(preset: str, config: Config, out: Path, data: str = "") -> list[str]:
    """The words of `python -m wsss.train` for a config: the preset, and a flag for each setting that differs."""
    if preset not in PRESETS:
        raise UserError(f"there is no preset {preset!r}; choose {', '.join(PRESETS)}")
    before, words = asdict(PRESETS[preset]()), [sys.executable, "-m", "wsss.train", f"--preset={preset}"]
    if config.dataset != "shapes":
        words.append(f"--data={data_folder(data)}")
    words.append(f"--out={out.relative_to(runs.REPOSITORY) if out.is_relative_to(runs.REPOSITORY) else out}")
    differing = {name for name, value in before.items() if getattr(config, name) != value}
    differing |= {f"{name}_start" for name in differing} & before.keys()  # it would follow its end, were it not given
    names = [f.name for f in fields(Config) if f.name in differing]
    return words + [f"--{name.replace('_', '-')}={_word(getattr(config, name))}" for name in names]


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def data_folder(data: str) -> Path:
    """The folder that was meant. Raises UserError unless there is one."""
    if not data.strip():
        raise UserError("these data are read from a folder: write its path, or choose the drawn shapes")
    folder = runs.typed(data)
    with reading(folder):
        if not folder.is_dir():
            raise UserError(f"{data.strip()}: there is no such data folder")
    return folder.resolve()


def evaluation_argv(
    checkpoint: Path, dataset: str, data: str, split: str, out: Path, *, refined_by: str, multi_scale: bool
) -> list[str]:
    """The words of `python -m wsss.evaluate` that write the report and the masks into the folder `out`."""
    words = [sys.executable, "-m", "wsss.evaluate", f"--checkpoint={checkpoint}", f"--dataset={dataset}"]
    words.append(f"--split={split}")
    if dataset != "shapes":
        words.append(f"--data={data_folder(data)}")
    words += [f"--json={out / runs.REPORT}", "--per-image", f"--masks={out / 'masks'}"]
    words += {"SPR": [], "CRF": ["--crf"], "none": ["--no-spr"]}[refined_by]
    return words + ["--multi-scale"] * multi_scale


def resumed_argv(found: runs.Found) -> list[str]:
    """The words that go on with a run, also with one that a terminal has started. Raises UserError where none do."""
    try:
        kept = [flag for flag in training_flags(found) if flag[0] not in _OF_ITS_BEGIN]
    except UserError as error:
        raise UserError(f"{error}; resume it in a terminal by --resume") from None
    # The first three words are ours: what a file says is never run, only given to our own command.
    return [sys.executable, "-m", "wsss.train", *words_of(kept), f"--out={found.folder}", "--resume"]


def training_flags(found: runs.Found) -> Flags:
    """The flags that a run was started with; files and folders do not depend on where that was said.

    Raises:
        UserError: its command is not known, or is not one of a training.
    """
    if found.argv[1:3] != ["-m", "wsss.train"]:
        raise UserError(f"{found.name}: does not say how it was started")
    return [(name, from_anywhere(found, name, value)) for name, value in flags_of(found.argv)]


def from_anywhere(found: runs.Found, name: str, value: str | None) -> str | None:
    """The path that a run's flag named where the run was started; what is no path stays."""
    is_path = value and name in _PATHS and (name, value) != ("--encoder-weights", "none")
    return str(Path(str(found.run.get("cwd") or runs.REPOSITORY)) / value) if is_path else value


def flags_of(argv: Sequence[str]) -> Flags:
    """The flags of a command `python -m MODULE ...`, whether written `--a b` or `--a=b`."""
    flags: Flags = []
    for word in argv[3:]:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            flags.append((name, value if equals else None))
        elif flags and flags[-1][1] is None:
            flags[-1] = (flags[-1][0], word)
    return flags


def words_of(flags: Flags) -> list[str]:
    """`--a=b` for each of the flags."""
    return [name if value is None else f"{name}={value}" for name, value in flags]


def command_text(argv: Sequence[str]) -> str:
    """The command to copy into a terminal, in the repository's folder."""
    return shlex.join(["python", *argv[1:]])
