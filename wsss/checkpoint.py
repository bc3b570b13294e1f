"""Checkpoints: a folder with `model.safetensors` and a `config.json` that explains it."""

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from wsss import UserError
from wsss.config import Config, from_dict
from wsss.network import ShapeAwareNetwork, build

FORMAT = 1


class Checkpoint(NamedTuple):
    """A network as it was saved, in evaluation mode."""

    network: ShapeAwareNetwork
    config: Config
    classes: tuple[str, ...]  # objects, without the background
    facts: dict[str, Any]  # what else is known: data, seed, command, commit, scores


def write_folder(folder: Path, files: Mapping[str, Callable[[Path], None]]) -> None:
    """Write a folder of files so that it exists whole or not at all.

    It is written under a temporary name, flushed to the disk, and renamed. An existing folder is replaced.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = folder.with_name(f".tmp-{os.getpid()}-{folder.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        for name, write in files.items():
            write(temporary / name)
            _flush(temporary / name)
        if folder.exists():
            # A folder cannot replace a full one in one step: for an instant there is only the temporary name.
            old = folder.with_name(f".old-{os.getpid()}-{folder.name}")
            folder.rename(old)
            temporary.rename(folder)
            shutil.rmtree(old)
        else:
            temporary.rename(folder)
        _flush(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def save(
    folder: Path,
    weights: Mapping[str, Tensor],
    config: Config,
    classes: tuple[str, ...],
    facts: Mapping[str, Any] | None = None,
    extra: Mapping[str, Callable[[Path], None]] | None = None,
) -> None:
    """Write a checkpoint folder atomically; `extra` names further files and how to write them."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}

    def write_config(path: Path) -> None:
        content = {
            "format": FORMAT,
            "classes": list(classes),
            "config": asdict(config),
            "sha256": digest(path.with_name("model.safetensors")),
            **(facts or {}),
        }
        path.write_text(json.dumps(content, indent=1) + "\n")

    write_folder(
        folder,
        {"model.safetensors": lambda path: save_file(tensors, path), "config.json": write_config, **(extra or {})},
    )


def load(folder: Path) -> Checkpoint:
    """Read a checkpoint folder and build its network.

    Raises:
        UserError: the folder or a file is missing, broken, changed since it was written, or does not fit.
    """
    content = read_config(folder)
    try:
        config, classes = from_dict(content.pop("config")), tuple(content.pop("classes"))
    except (KeyError, TypeError) as error:
        raise UserError(f"{folder / 'config.json'}: has no usable entry {error}") from None
    network = build(config, len(classes) + 1, pretrained=False)
    fit(network, read_weights(folder, content.get("sha256")), folder)
    return Checkpoint(network.eval(), config, classes, content)


def read_config(folder: Path) -> dict[str, Any]:
    """The contents of a checkpoint's config.json. Raises UserError when it is missing, broken or of another format."""
    path = folder / "config.json"
    try:
        content = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{folder}: is not a checkpoint folder, it has no config.json") from None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise UserError(f"{path}: is not of checkpoint format {FORMAT}")
    return content


def read_weights(folder: Path, expected_digest: str | None) -> dict[str, Tensor]:
    """The tensors of a checkpoint. Raises UserError when the file is missing, broken or not what was written."""
    path = folder / "model.safetensors"
    if not path.is_file():
        raise UserError(f"{folder}: has no model.safetensors")
    if expected_digest is None or digest(path) != expected_digest:
        raise UserError(f"{path}: is not the file that config.json describes (SHA-256), copy the checkpoint again")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise UserError(f"{path}: is not a safetensors file ({error})") from None


def fit(network: ShapeAwareNetwork, weights: Mapping[str, Tensor], origin: object) -> None:
    """Load `weights` into the network. Raises UserError naming the first that are missing, unknown or misshapen."""
    wanted = network.state_dict()
    faults = [f"{key} is missing" for key in wanted if key not in weights]
    faults += [f"{key} is unknown" for key in weights if key not in wanted]
    faults += [
        f"{key} is {tuple(weights[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted
        if key in weights and weights[key].shape != wanted[key].shape
    ]
    if faults:
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        raise UserError(f"{origin}: the weights do not fit the network: {'; '.join(faults[:3])}{more}")
    network.load_state_dict(weights)


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def commit() -> str:
    """The commit of this code, "" outside a repository."""
    here = Path(__file__).parent
    result = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False)
    return result.stdout.strip()


def newest(states: Path) -> Path:
    """The newest state folder of a run. Raises UserError when there is none."""
    folders = sorted(states.glob("step-*"))
    if not folders:
        raise UserError(f"{states.parent}: holds no state to resume from; start it without --resume")
    return folders[-1]


def keep_newest(states: Path, count: int) -> None:
    """Remove all but the newest `count` state folders, and what interrupted writes left behind."""
    for folder in [*sorted(states.glob("step-*"))[:-count], *states.glob(".tmp-*"), *states.glob(".old-*")]:
        shutil.rmtree(folder, ignore_errors=True)
