"""What is shipped: checkpoints, whole, small, each with its manifest; a README whose commands are understood."""

import argparse
import importlib
import re
import shlex
from pathlib import Path

import pytest
import torch

from wsss import checkpoint, train
from wsss.flags import from_flags

ROOT = Path(__file__).parent.parent
FOLDERS = sorted(path for path in (ROOT / "checkpoints").iterdir() if path.is_dir())


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_a_shipped_checkpoint_opens_and_tells_how_it_was_made(folder):
    network, _, classes, facts = checkpoint.load(folder)
    with torch.inference_mode():
        output = network.eval()(torch.rand(1, 3, 64, 96))
    assert output.logits.shape[1] == len(classes) + 1 and output.logits.isfinite().all()
    assert {"data", "command", "commit", "val"} <= facts.keys()
    assert set(facts["val"]["classes"]) == {"background", *classes} and 0 < facts["val"]["miou"] < 1
    assert (folder / "model.safetensors").stat().st_size < 12e6


def test_table_5_ships_one_network_of_each_line():
    folders = [folder for folder in FOLDERS if folder.name.startswith("table5-")]
    made = {folder.name: checkpoint.config_of(folder, checkpoint.read_config(folder)) for folder in folders}
    lines = {name: (config.shape_cue, config.alpha < 1) for name, config in made.items()}
    assert lines == {
        "table5-baseline": ("none", False),
        "table5-spr": ("none", True),
        "table5-scm": ("on", False),
        "table5-full": ("on", True),
    }


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_the_readme_of_the_checkpoints_names_each(folder):
    assert f"`{folder.name}`" in (folder.parent / "README.md").read_text()


class Understood(Exception):
    """Raised in place of what a command does once it has its arguments: those, and the words that are left over."""


def given(main, words, monkeypatch) -> tuple[argparse.Namespace, list[str]]:
    """How a command's own parser understands these words. SystemExit where it refuses them, or tells its --help."""
    parse = argparse.ArgumentParser.parse_known_args

    def stop(parser, args=None, namespace=None):
        raise Understood(*parse(parser, args, namespace))

    with monkeypatch.context() as patched, pytest.raises(Understood) as understood:
        patched.setattr(argparse.ArgumentParser, "parse_known_args", stop)
        main(words)
    return understood.value.args


def commands() -> list[str]:
    """The lines `python -m ...` of the README's blocks of code that call this project's own modules."""
    blocks = re.findall(r"^```\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [line.split("#")[0].strip() for line in lines if re.search(r"-m (wsss|analysis)\.", line)]


def test_the_readme_has_commands():
    assert len(commands()) >= 9 and any("reproduce" in line for line in commands())


@pytest.mark.parametrize("line", commands())
def test_a_command_of_the_readme_is_understood_by_its_own_parser(line, monkeypatch):
    name, *words = shlex.split(line.partition(" -m ")[2].removesuffix("..."))
    if name in ("analysis.timing", "analysis.benchmark"):
        pytest.importorskip("playwright")
    main = importlib.import_module(name).main
    if words == ["--help"]:
        with pytest.raises(SystemExit, match="0"):
            main(words)
        return
    known, left = given(main, words, monkeypatch)
    if name == "analysis.reproduce":  # the other flags are handed on
        flags = [word for word in left if word != "--then"]
        known, left = given(train.main, ["--preset", known.preset, *flags], monkeypatch)
    assert not left
    if hasattr(known, "preset"):
        from_flags(known)
