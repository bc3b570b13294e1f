"""The checkpoints that the page offers."""

import os
import shutil
from pathlib import Path

import pytest
from drawn import write_lively

from analysis import library as shelf
from analysis.library import Library
from analysis.tabs.endpoints import Endpoints
from wsss import UserError
from wsss.data.shapes import Shapes


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Path:
    """A checkpoint that is read within milliseconds."""
    folder = tmp_path_factory.mktemp("library") / "small"
    write_lively(folder, Shapes(1, 0, (64, 64)), test_refine_steps=0)
    return folder


@pytest.fixture
def folders(small, tmp_path):
    copies = [tmp_path / f"copy-{n}" for n in range(shelf.MOST_OPEN + 2)]
    for copy in copies:
        shutil.copytree(small, copy)
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
        library.add_upload("copy-1", folders[1])
    assert library.names == ["copy-0"] and library["copy-0"] is served
    library.add_upload("copy-2", folders[2])
    assert library.names == ["copy-0", "copy-2"]


def test_a_folder_of_the_user_is_never_removed_and_an_upload_is(folders, small, tmp_path):
    library = Library(folders[:1])
    library.show("runs/mine", folders[1])
    for n in range(shelf.MOST_UPLOADED + 1):
        shutil.copytree(small, tmp_path / f"upload-{n}")
        library.add_upload(f"upload-{n}", tmp_path / f"upload-{n}")
        library.show(f"runs/{n}", folders[2])
    assert folders[1].is_dir() and folders[2].is_dir() and "runs/mine" in library.names
    assert not (tmp_path / "upload-0").exists() and "upload-0" not in library.names
    assert (tmp_path / "upload-1").is_dir()


def test_an_upload_that_is_shown_again_stays_an_upload(folders, small, tmp_path):
    """As an evaluation shows the checkpoint that it was of."""
    library, uploads = Library(folders[:1]), [tmp_path / f"upload-{n}" for n in range(shelf.MOST_UPLOADED + 1)]
    for n, folder in enumerate(uploads):
        shutil.copytree(small, folder)
        library.add_upload(folder.name, folder)
        if n == 0:
            library.show("upload-0", folder)
            with pytest.raises(UserError, match="there is another checkpoint 'upload-0' already"):
                library.show("upload-0", folders[1])
    assert not uploads[0].exists() and folders[1].is_dir()
    library.show("runs/mine", folders[1])
    assert "upload-0" not in library.names and "runs/mine" in library.names


def test_a_shown_checkpoint_is_read_again_each_time(folders):
    library = Library(folders[:1])
    long_name = "runs/" + "n" * 64
    library.show(long_name, folders[1])
    before = library[long_name]
    library.show(long_name, folders[1])
    assert library[long_name] is not before and library.names.count(long_name) == 1
    assert library[long_name].facts["name"] == long_name  # its folder may be called "best", as every run's is
    with pytest.raises(UserError, match="there is another checkpoint 'copy-0' already"):
        library.show("copy-0", folders[1])


def write_again(folder: Path, later: float) -> None:
    """As a training does: config.json has changed."""
    now = (folder / "config.json").stat().st_mtime + later
    os.utime(folder / "config.json", (now, now))


def test_a_checkpoint_that_was_written_again_is_read_again_when_it_is_chosen(folders):
    library = Library(folders[:1])
    before = library["copy-0"]
    assert library.current("copy-0") is before
    write_again(folders[0], 5)
    assert library["copy-0"] is before, "in the middle of looking at it"
    assert library.current("copy-0") is library["copy-0"] is not before


def test_a_checkpoint_whose_files_are_gone_stays_while_it_is_open(folders):
    library = Library(folders[:1])
    before = library["copy-0"]
    shutil.rmtree(folders[0])
    assert library.current("copy-0") is before


def test_a_deleted_run_is_no_longer_offered(folders, tmp_path):
    library = Library(folders[:1])
    for n in (1, 2):
        shutil.copytree(folders[n], tmp_path / f"run-{n}" / "best")
        library.show(f"runs/{n}", tmp_path / f"run-{n}" / "best")
        shutil.rmtree(tmp_path / f"run-{n}")
    assert library.names == ["copy-0", "runs/2"]


def test_a_run_that_was_shown_by_its_last_checkpoint_is_shown_by_its_best_one_later(folders):
    library = Library(folders[:1])
    for folder in folders[1:3]:
        library.show("runs/mine", folder)
        assert library.folder("runs/mine") == folder


def test_the_first_of_two_folders_of_a_name_counts(folders, tmp_path):
    shutil.copytree(folders[0], tmp_path / "other" / "copy-0")
    library = Library([tmp_path / "other" / "copy-0", folders[0]])
    assert library.names == ["copy-0"] and library.folder("copy-0") == tmp_path / "other" / "copy-0"


def test_the_folder_where_one_stands_has_its_name(folders, monkeypatch):
    monkeypatch.chdir(folders[0])
    assert Library([Path(".")]).names == ["copy-0"]


def test_an_endpoint_answers_by_the_checkpoints_files_as_they_are(small, cat, tmp_path):
    folder = tmp_path / "animals"
    shutil.copytree(small, folder)
    ask = Endpoints(Library([folder]))
    before, _ = ask._encoded(cat)
    assert ask._encoded(cat)[0] is before
    config = folder / "config.json"
    config.write_text(config.read_text() + " ")
    assert ask._encoded(cat)[0] is not before
