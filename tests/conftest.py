"""What several tests need: photographs, and where the data lie."""

import os
from pathlib import Path

import numpy as np
import pytest

from wsss.data.item import read_rgb

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "analysis" / "examples"


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
