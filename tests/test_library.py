"""The checkpoints that the page offers."""

import shutil

import pytest

from analysis import library as shelf
from analysis.library import Library
from wsss import UserError


@pytest.fixture
def folders(shipped_or_fresh, tmp_path):
    copies = [tmp_path / f"copy-{n}" for n in range(shelf.MOST_OPEN + 2)]
    for copy in copies:
        shutil.copytree(shipped_or_fresh, copy)
    return copies


def test_the_first_folder_is_the_default(folders):
    assert Library(folders).names == [folder.name for folder in folders]


def test_a_checkpoint_is_opened_once_and_few_stay_open(folders):
    library = Library(folders)
    assert library["copy-0"] is library["copy-0"]
    for folder in folders:
        assert library[folder.name].facts["name"] == folder.name
    assert len(library._open) == shelf.MOST_OPEN


def test_an_unknown_name_is_answered_with_the_known_ones(folders):
    with pytest.raises(UserError, match="there is no checkpoint 'unicorn'; there are copy-0"):
        Library(folders)["unicorn"]


def test_a_refused_checkpoint_leaves_the_others_as_they_were(folders):
    library = Library(folders[:1])
    served = library["copy-0"]
    (folders[1] / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(UserError):
        library.add("copy-1", folders[1])
    assert library.names == ["copy-0"] and library["copy-0"] is served
    library.add("copy-2", folders[2])
    assert library.names == ["copy-0", "copy-2"]
