"""Checkpoints: what was saved comes back, and nothing else is taken for it."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from wsss import UserError, checkpoint
from wsss.exits import Unwritable
from wsss.network import build
from wsss.presets import tiny
from wsss.weights import read_foreign_weights, read_weights

CLASSES = ("disc", "star")


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build(tiny(), 3, pretrained=False).eval()


@pytest.fixture
def folder(network, tmp_path):
    checkpoint.save(tmp_path / "model", network.state_dict(), tiny(), CLASSES, {"commit": "abc", "val": {"miou": 0.5}})
    return tmp_path / "model"


def change(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def rewrite(folder, tensors):
    save_file(tensors, folder / "model.safetensors")
    change(folder, sha256=checkpoint.digest(folder / "model.safetensors"))


def test_a_saved_network_gives_equal_outputs(network, folder):
    loaded = checkpoint.load(folder)
    assert (loaded.config, loaded.classes) == (tiny(), CLASSES)
    assert loaded.facts["commit"] == "abc" and loaded.facts["val"]["miou"] == 0.5
    there = loaded.network.state_dict()
    assert all(torch.equal(there[name], value) for name, value in network.state_dict().items())
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():  # in another layout the sums have another order
        torch.testing.assert_close(loaded.network(image).logits, network(image).logits, rtol=0, atol=1e-5)


def test_others_may_read_a_checkpoint_like_any_new_file(folder):
    other = folder.parent / "other"
    other.touch()
    assert {path.stat().st_mode for path in folder.iterdir()} == {other.stat().st_mode}


def test_a_folder_is_replaced_whole(network, folder):
    checkpoint.save(folder, network.state_dict(), tiny(), ("a", "b"))
    assert checkpoint.load(folder).classes == ("a", "b")
    assert os.listdir(folder.parent) == ["model"]


def test_a_write_that_fails_leaves_the_old_folder_and_no_rubbish(network, folder):
    def fails(path):
        raise OSError("no space left")

    with pytest.raises(Unwritable, match=r"model/more: cannot be written"):
        checkpoint.save(folder, network.state_dict(), tiny(), ("a", "b"), extra={"more": fails})
    assert checkpoint.load(folder).classes == CLASSES
    assert os.listdir(folder.parent) == ["model"]


def test_no_folder_is_no_checkpoint(tmp_path):
    with pytest.raises(UserError, match="is not a checkpoint folder"):
        checkpoint.load(tmp_path / "nothing")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format": 99}', "[" * 100_000])
def test_a_broken_config_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(UserError, match="config.json"):
        checkpoint.load(folder)


@pytest.mark.parametrize("values", [{"config": None}, {"config": {"alpha": 7}}, {"config": {"alhpa": 0.5}}])
def test_a_wrong_config_is_refused(folder, values):
    change(folder, **values)
    with pytest.raises(UserError):
        checkpoint.load(folder)


def test_one_flipped_bit_is_noticed(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match="SHA-256"):
        checkpoint.load(folder)


def test_missing_extra_and_misshapen_weights_are_named(network, folder):
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    last = next(name for name in weights if name.startswith("decoder") and name.endswith("5.bias"))
    for tensors, words in (
        ({name: value for name, value in weights.items() if name != last}, f"{last} is missing"),
        (weights | {"stranger": torch.zeros(1)}, "'stranger' is unknown"),
        (weights | {last: torch.zeros(7)}, rf"{last} is \(7,\) instead of \(2,\)"),
    ):
        rewrite(folder, tensors)
        with pytest.raises(UserError, match=words):
            checkpoint.load(folder)


def test_a_file_that_is_no_safetensors_is_refused(folder):
    (folder / "model.safetensors").write_text("hello")
    change(folder, sha256=checkpoint.digest(folder / "model.safetensors"))
    with pytest.raises(UserError, match="is not a safetensors file"):
        checkpoint.load(folder)


@pytest.mark.parametrize("kind", [b"PK", b"\x80\x02", b"\x80\x04"])
def test_a_safetensors_file_may_begin_like_a_file_of_pytorch(kind, tmp_path):
    path, tensors = tmp_path / "weights.safetensors", {"x": torch.arange(3.0)}
    save_file(tensors, path)
    content, wanted = path.read_bytes(), int.from_bytes(kind, "little")
    length = int.from_bytes(content[:8], "little")
    header = content[8 : 8 + length] + b" " * (wanted - length)  # as the format pads it
    path.write_bytes(wanted.to_bytes(8, "little") + header + content[8 + length :])
    assert path.read_bytes()[:2] == kind and torch.equal(read_weights(path)["x"], tensors["x"])


@pytest.mark.parametrize(("is_old", "read"), [(False, read_weights), (True, read_foreign_weights)])
def test_a_full_memory_does_not_make_a_file_of_pytorch_broken(is_old, read, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise MemoryError

    torch.save({"x": torch.arange(3.0)}, tmp_path / "x.pt", _use_new_zipfile_serialization=not is_old)
    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(MemoryError):
        read(tmp_path / "x.pt")


def test_numbers_of_8_bits_are_refused(tmp_path):
    save_file({"x": torch.ones(3).to(torch.float8_e4m3fn)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="'x' holds numbers of 8 bits"):
        read_weights(tmp_path / "x.safetensors")


def test_a_setting_of_another_version_is_named_with_its_file(folder):
    change(folder, config=json.loads((folder / "config.json").read_text())["config"] | {"gate_rate": 0.3})
    with pytest.raises(UserError, match=r"config.json: there is no setting 'gate_rate'"):
        checkpoint.load(folder)


def test_without_git_no_commit_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert checkpoint.commit() == ""


def test_a_folder_that_cannot_be_replaced_stands_as_it_was(folder, monkeypatch):
    rename = Path.rename

    def fails(path: Path, target: Path) -> Path:
        if path.name.startswith(".tmp-"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fails)
    with pytest.raises(Unwritable, match="model: cannot be written"):
        checkpoint.write_folder(folder, {"config.json": lambda path: path.write_text("{}")})
    assert checkpoint.load(folder).classes == CLASSES and [path.name for path in folder.parent.iterdir()] == ["model"]


def test_a_folder_whose_replacement_was_interrupted_comes_back(folder):
    folder.rename(folder.with_name(".old-1-model"))
    assert checkpoint.sweep(folder.parent) == 1
    assert checkpoint.load(folder).classes == CLASSES
