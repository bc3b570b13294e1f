"""What several tests need: photographs, and where the data lie."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import reliability
from visitor import running

from wsss import checkpoint
from wsss.data.picture import read_rgb
from wsss.network import build
from wsss.presets import animals

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "analysis" / "examples"

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell starts what is to run in the background so
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def animals_root() -> Path:
    """The real photographs of voc-animals; tests that need them are skipped where they are not."""
    root = Path(os.environ.get("WSSS_ANIMALS", ROOT.parent / "shared" / "voc-animals"))
    if not root.is_dir():
        pytest.skip("voc-animals is not here; set WSSS_ANIMALS to its folder")
    return root


@pytest.fixture(scope="session")
def cat() -> np.ndarray:
    """A photograph of a cat's face, (300, 451, 3) uint8."""
    return read_rgb(next(EXAMPLES.glob("chelsea.*")))


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """A photograph of an astronaut, (512, 512, 3) uint8."""
    return read_rgb(next(EXAMPLES.glob("astronaut.*")))


@pytest.fixture(scope="session")
def shipped_or_fresh(tmp_path_factory) -> Path:
    """The shipped checkpoint; before there is one, an untrained network of the same form."""
    shipped = ROOT / "checkpoints" / "animals"
    if (shipped / "config.json").exists():
        return shipped
    folder = tmp_path_factory.mktemp("fresh") / "animals"
    classes = ("cat", "cow", "dog", "horse", "person", "sheep")
    checkpoint.save(folder, build(animals(), 7, pretrained=False).state_dict(), animals(), classes)
    return folder


@pytest.fixture(scope="session")
def runs_folder(tmp_path_factory) -> Path:
    """Of the running app."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="session")
def address(shipped_or_fresh, runs_folder) -> Iterator[str]:
    """Of the running app, as a newcomer starts it."""
    with running(shipped_or_fresh, WSSS_RUNS=str(runs_folder)) as found:
        yield found


def pytest_terminal_summary(terminalreporter) -> None:
    """One line for each figure that a reliability test has measured."""
    for line in reliability.table():
        terminalreporter.write_line(line)
