"""Checkpoints: a folder with `model.safetensors` and a `config.json` that explains it."""

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import save_file
from torch import Tensor

from wsss import UserError
from wsss.config import Config, from_dict
from wsss.data.labels import check_classes
from wsss.disk import reading, writing
from wsss.json_file import read_json
from wsss.network import ShapeAwareNetwork, build
from wsss.weights import read_safetensors, require_fit

FORMAT = 1


class Checkpoint(NamedTuple):
    """A network as it was saved, in evaluation mode."""

    network: ShapeAwareNetwork
    config: Config
    classes: tuple[str, ...]  # objects, without the background
    facts: dict[str, Any]  # what else is known: data, seed, command, commit, scores


def write_folder(folder: Path, files: Mapping[str, Callable[[Path], object]]) -> None:
    """Write a folder of files so that it exists whole or not at all.

    It is written under a temporary name, flushed to the disk, and renamed. An existing folder is replaced.

    Raises:
        Unwritable: naming the file and its disk; what stood there before still stands.
    """
    temporary = folder.with_name(f".tmp-{os.getpid()}-{folder.name}")
    try:
        with writing(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
            for name, write in files.items():
                with writing(folder / name):
                    write(temporary / name)
                    # safetensors makes files for their owner alone, whatever the umask lets others do.
                    (temporary / name).chmod(temporary.stat().st_mode & 0o666)
                    _flush(temporary / name)
            if folder.exists():
                # A folder cannot replace a full one in one step: for an instant there are only two temporary names,
                # of which `sweep` brings the old one back.
                old = folder.with_name(f".old-{os.getpid()}-{folder.name}")
                folder.rename(old)
                try:
                    temporary.rename(folder)
                except BaseException:
                    old.rename(folder)
                    raise
                shutil.rmtree(old, ignore_errors=True)
            else:
                temporary.rename(folder)
            _flush(folder.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def sweep(folder: Path) -> int:
    """Remove what interrupted writes have left in a folder that nobody else writes; returns how many there were."""
    stale = [path for path in folder.glob(".*") if is_left_over(path)]
    for path in stale:
        named = path.with_name(path.name.split("-", 2)[-1])
        if path.name.startswith(".old-") and not named.exists():
            path.rename(named)
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
    return len(stale)


def is_left_over(path: Path) -> bool:
    """Whether an interrupted write has left it; a user's file may begin with ".tmp-" too."""
    return re.match(r"\.(tmp|old)-\d+-.", path.name) is not None


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
    extra: Mapping[str, Callable[[Path], object]] | None = None,
) -> None:
    """Write a checkpoint folder atomically; `extra` names further files and how to write them.

    config.json is written last: it names each of the other files with its size and SHA-256.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in weights.items()}

    files = {"model.safetensors": lambda path: save_file(tensors, path), **(extra or {})}

    def write_config(path: Path) -> None:
        written = {name: path.with_name(name) for name in files}
        described = {name: {"bytes": file.stat().st_size, "sha256": digest(file)} for name, file in written.items()}
        content = {
            "format": FORMAT,
            "classes": list(classes),
            "config": asdict(config),
            "sha256": described["model.safetensors"]["sha256"],
            "files": described,
            **(facts or {}),
        }
        path.write_text(json.dumps(content, indent=1) + "\n")

    write_folder(folder, {**files, "config.json": write_config})


def load(folder: Path) -> Checkpoint:
    """Read a checkpoint folder and build its network.

    Raises:
        UserError: the folder or a file is missing, broken, changed since it was written, or does not fit; or it is a
            state to resume from.
    """
    content = read_config(folder)
    files = content.get("files")
    if isinstance(files, dict) and "training.pt" in files:  # it holds the weights themselves, not their average
        raise UserError(f"{folder}: is a state of training, not a checkpoint; give the run's folder model or best")
    config, classes = config_of(folder, content), _classes_of(folder, content)
    network = build(config, len(classes) + 1, pretrained=False)
    fit(network, read_weights(folder, content.get("sha256")), folder)
    facts = {name: value for name, value in content.items() if name not in ("config", "classes")}
    # A photograph's forward pass takes 67 ms on one core in this layout, 91 in the usual one.
    return Checkpoint(network.eval().to(memory_format=torch.channels_last), config, classes, facts)


def config_of(folder: Path, content: dict[str, Any]) -> Config:
    """The settings in the contents of a config.json. Raises UserError that names it, if they are of another version."""
    try:
        return from_dict(content["config"])
    except KeyError:
        raise UserError(f"{folder / 'config.json'}: has no entry 'config'") from None
    except UserError as error:
        raise UserError(f"{folder / 'config.json'}: {error}") from None


def _classes_of(folder: Path, content: dict[str, Any]) -> tuple[str, ...]:
    """The classes in the contents of a config.json. Raises UserError that names it, if they are none."""
    classes = content.get("classes")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise UserError(f"{folder / 'config.json'}: has no list of names 'classes'")
    return check_classes(classes, str(folder))


def read_config(folder: Path) -> dict[str, Any]:
    """The contents of a checkpoint's config.json. Raises UserError when it is missing, broken or of another format."""
    path = folder / "config.json"
    with reading(path):
        there = path.exists()
    if not there:
        raise UserError(f"{folder}: is not a checkpoint folder, it has no config.json")
    content = read_json(path)
    if content.get("format") != FORMAT:
        raise UserError(f"{path}: is not of checkpoint format {FORMAT}")
    return content


def read_weights(folder: Path, expected_digest: str | None) -> dict[str, Tensor]:
    """The tensors of a checkpoint. Raises UserError when the file is missing, broken or not what was written."""
    path = folder / "model.safetensors"
    if not path.is_file():
        raise UserError(f"{folder}: has no model.safetensors")
    with reading(path):
        found = digest(path)
    if found != expected_digest:
        raise UserError(f"{path}: is not the file that config.json describes (SHA-256), copy the checkpoint again")
    return read_safetensors(path)


def fit(network: ShapeAwareNetwork, weights: Mapping[str, Tensor], origin: object) -> None:
    """Load `weights` into the network.

    Raises:
        UserError: naming the first that are missing, unknown or misshapen, or become infinite in the network's format.
    """
    require_fit(network.state_dict(), weights, origin)
    network.load_state_dict(weights)
    for name, value in network.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UserError(f"{origin}: does not fit: {name!r} holds numbers that are too large for {value.dtype}")


def digest(path: Path) -> str:
    """SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def commit() -> str:
    """The commit of this code, with "-dirty" where it was changed since; "" without a repository or git."""
    words = ["git", "describe", "--always", "--exclude=*", "--abbrev=12", "--dirty"]
    try:
        result = subprocess.run(words, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except OSError:
        return ""
    return result.stdout.strip()


def require_whole(folder: Path) -> dict[str, Any]:
    """The contents of config.json. Raises UserError naming the first file that is not the one that it describes."""
    content = read_config(folder)
    described = content.get("files")
    if not isinstance(described, dict) or "model.safetensors" not in described:  # of an older version
        described = {"model.safetensors": {"sha256": content.get("sha256")}}
    if not all(isinstance(expected, dict) for expected in described.values()):
        raise UserError(f"{folder / 'config.json'}: does not describe the files beside it")
    if not isinstance(content.get("sha256"), str):
        raise UserError(f"{folder / 'config.json'}: has no entry 'sha256'")
    _classes_of(folder, content)
    for name, expected in described.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path}: is missing")
        with reading(path):
            found = digest(path)
        if found != expected.get("sha256"):
            raise UserError(f"{path}: is not the file that config.json describes (SHA-256)")
    return content
