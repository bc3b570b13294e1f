"""How a command ends: the file is named, the exit code tells what it was, and nothing half-written is left."""

import builtins
import errno
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from wsss import checkpoint, predict, records, train
from wsss.data.source import read
from wsss.exits import Unwritable, explained
from wsss.mask_files import save_mask
from wsss.preflight import survey
from wsss.run import Run
from wsss.weights import read_foreign_weights


@pytest.fixture
def locked(monkeypatch):
    """Have a file refuse to be opened, as one of another user does; these tests may be root's, whom nothing refuses."""

    def lock(locked: Path) -> None:
        def refuse(path, *arguments, opened=io.open, **more):
            if not isinstance(path, int) and Path(path) == locked:
                raise PermissionError(errno.EACCES, "Permission denied", str(path))
            return opened(path, *arguments, **more)

        monkeypatch.setattr(io, "open", refuse)
        monkeypatch.setattr(builtins, "open", refuse)

    return lock


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("labels.csv", lambda path: survey("folder", path.parent, "train")),
        ("annotations/instances_train.json", lambda path: read("coco", path.parents[1], "train")),
        ("model.safetensors", lambda path: checkpoint.read_weights(path.parent, "")),
        ("weights.pth", read_foreign_weights),
        ("metrics.jsonl", records.read),
    ],
)
def test_a_file_that_may_not_be_read_is_a_mistake_that_names_it(name, command, tmp_path, locked):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("{}")
    locked(path)
    with pytest.raises(Exception) as failed:
        command(path)
    assert explained(failed.value) == (2, f"{path}: cannot be read (Permission denied)")


@pytest.mark.parametrize(("command", "advises"), [(train, True), (predict, False)])
def test_only_training_names_its_flags_where_the_memory_is_full(command, advises, tmp_path, monkeypatch, capsys):
    def fill(*_):
        raise MemoryError

    monkeypatch.setattr(command, "_train" if command is train else "_predict", fill)
    flags = ["--out", str(tmp_path)] + ([] if command is train else ["x.png", "--checkpoint", "y"])
    assert command.main(flags) == 5
    said = capsys.readouterr().err
    assert said.startswith("error: the memory is full") and ("--batch" in said) == advises


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("mask.png", lambda path: save_mask(path, np.zeros((2, 2), np.uint8), ("cat",))),
        ("metrics.csv", lambda path: records.Records(path.parent, 0)),
        ("run.json", lambda path: Run(path.parent, [])),
    ],
)
def test_a_file_that_cannot_be_replaced_leaves_no_other_behind(name, write, tmp_path):
    (tmp_path / name).mkdir()  # a file cannot take the place of a folder
    with pytest.raises(Unwritable, match=f"{name}: cannot be written"):
        write(tmp_path / name)
    assert not list(tmp_path.glob(".tmp-*"))


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_a_full_memory_is_known_of_the_machine_and_of_its_gpu(error):
    assert explained(error) == (5, "the memory is full")


def test_the_standard_output_is_named_only_for_what_writing_to_it_meets():
    assert explained(OSError(errno.ENOSPC, "No space left")) == (
        4,
        "standard output: cannot be written (No space left)",
    )
    code, sentence = explained(OSError(errno.EMFILE, "Too many open files"))
    assert code == 4 and "Too many open files" in sentence and "standard output" not in sentence


def test_the_keeper_of_a_job_does_not_wait_for_torch():
    code = "import analysis.jobs, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent.parent, check=False).returncode == 0
