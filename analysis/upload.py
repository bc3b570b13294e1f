"""A stranger's checkpoint: `admit` has it opened by a process of its own, with limits on memory and time.

The server itself only reads the folder that this process has written, whose weights fit and give finite answers.
"""

import logging
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from analysis.predictor import Predictor
from wsss import UserError, checkpoint
from wsss.config import Config, from_dict
from wsss.data.labels import check_classes
from wsss.exits import explained
from wsss.json_file import read_json
from wsss.network import build
from wsss.weights import is_pt, own_names, read_pt, read_weights, require_finite, require_fit, weights_of

SECONDS = 120
"""To open a checkpoint and to answer for one photograph; it takes about five on a machine that is idle."""

MOST_MEMORY = 3 * 2**30
"""Bytes that this may take."""

_LOG = logging.getLogger(__name__)
_TRIED = (512, 640, 3)  # the largest photograph that the page asks about is about that
_ROOT = Path(__file__).parent.parent


class Described(NamedTuple):
    """What is said of weights."""

    config: Config
    classes: tuple[str, ...]


def admit(weights: Path, folder: Path, *, like: Path, described: Path | None = None, seconds: float = SECONDS) -> Path:
    """Make a checkpoint folder of an uploaded file of weights, and return it.

    Args:
        weights: a safetensors file, or a PyTorch file of tensors and plain values.
        folder: to be written.
        like: checkpoint folder whose config.json serves where nothing else describes the weights.
        described: the config.json that came with the weights. A PyTorch file may have entries "format", "classes" and
            "config" of its own, which count more.

    Raises:
        UserError: it is broken, holds code, is too large, or does not fit; there is no folder then.
    """
    try:
        _convert_apart(weights, folder, like, described, seconds)
    except UserError:
        shutil.rmtree(folder, ignore_errors=True)  # it is written before its answers are tested
        raise
    return folder


def _convert_apart(weights: Path, folder: Path, like: Path, described: Path | None, seconds: float) -> None:
    """`convert` in a process of its own: a crash, or a hang in a parser, is that one's. Raises UserError."""
    command = [sys.executable, "-m", "analysis.upload", str(weights.absolute()), str(folder.absolute())]
    command += [str((like / "config.json").absolute()), *([str(described.absolute())] if described else [])]
    try:
        ended = subprocess.run(
            command,
            cwd=_ROOT,
            # No GPU: CUDA reserves more addresses than the limit on memory leaves.
            env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONIOENCODING": "utf-8:replace"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"{weights.name}: is too large: it takes more than {seconds:g} s to open") from None
    if ended.returncode == 2 and (sentence := ended.stdout.decode(errors="replace").strip()):
        raise UserError(sentence)
    if ended.returncode != 0:
        said = ended.stderr.decode(errors="replace")
        _LOG.error("opening %s ended with %s: %s", weights.name, ended.returncode, said[-4000:])
        raise UserError(f"{weights.name}: cannot be opened within the memory and time that an upload may take")


def convert(weights: Path, folder: Path, like: Path, described: Path | None = None) -> None:
    """The work of `admit`, in this process and without limits; `like` is the other checkpoint's config.json."""
    told = read_json(described or like)
    if is_pt(weights):
        content = read_pt(weights)
        own = content if isinstance(content, Mapping) else {}
        told |= {key: own[key] for key in ("format", "classes", "config") if key in own}
        tensors = own_names(weights_of(content, weights), weights)
    else:
        tensors = read_weights(weights)
        if described and told.get("sha256") != checkpoint.digest(weights):
            raise UserError(f"{weights.name}: is broken: it is not the file that {described.name} describes (SHA-256)")
    about = _described(told, described or weights)
    # On the "meta" device a network of any size has its shapes and takes no memory.
    with torch.device("meta"):
        wanted = build(about.config, len(about.classes) + 1, pretrained=False).state_dict()
    require_fit(wanted, tensors, weights.name)
    tensors = {name: value.to(wanted[name].dtype) for name, value in tensors.items()}
    require_finite(tensors, weights)  # float64 may have become infinite
    checkpoint.save(folder, tensors, about.config, about.classes, {"uploaded": True})
    _try(folder)


def _described(told: Mapping[str, Any], path: Path) -> Described:
    """Raises UserError where the description is not one of a checkpoint."""
    if told.get("format") != checkpoint.FORMAT:
        raise UserError(f"{path}: does not fit: it is not of checkpoint format {checkpoint.FORMAT}")
    classes = told.get("classes")
    if not isinstance(classes, list) or not all(isinstance(name, str) and name.isprintable() for name in classes):
        raise UserError(f"{path}: does not fit: classes must be a list of names")
    return Described(from_dict(told.get("config")), check_classes(classes, f"{path}: does not fit"))


def _try(folder: Path) -> None:
    """Ask it about a photograph. Raises UserError when the answer is not finite."""
    rgb = np.random.default_rng(0).integers(0, 256, _TRIED, np.uint8)
    encoding = Predictor.from_checkpoint(folder).encode(rgb)
    if not (np.isfinite(encoding.probs).all() and np.isfinite(encoding.image_probs).all()):
        raise UserError(f"{folder.name}: does not fit: its answers are not finite numbers")


def _limit() -> None:
    """Limit this process's memory and time from now on."""
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for kind, most in (
        (resource.RLIMIT_AS, taken + MOST_MEMORY),
        (resource.RLIMIT_CPU, SECONDS),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def main(argv: list[str]) -> int:
    """WEIGHTS FOLDER LIKE [DESCRIBED]; a mistake is a sentence on standard output. Returns the exit code."""
    torch.set_num_threads(1)
    weights, *others = map(Path, argv)
    _limit()
    try:
        convert(weights, *others)
    except Exception as error:
        if (known := explained(error)) is None:
            raise
        code, sentence = known
        print(f"{weights.name}: is too large: it takes more memory than an upload may" if code == 5 else sentence)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
