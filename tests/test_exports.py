"""What a visitor takes home is what was shown."""

import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from analysis.exports import archive, arrays_npz, mask_png, picture_png, settings_json
from analysis.predictor import Predictor
from analysis.truth import read_truth
from wsss import UserError

ANIMALS = ("cat", "cow", "dog", "horse", "person", "sheep")


def test_a_mask_comes_back_with_vocs_indices_and_colors():
    mask = np.array([[0, 1], [5, 255]], np.uint8)
    picture = Image.open(io.BytesIO(mask_png(mask, ANIMALS)))
    assert picture.mode == "P" and np.asarray(picture).tolist() == [[0, 8], [15, 255]]
    assert np.asarray(picture.convert("RGB"))[0, 1].tolist() == [64, 0, 0]


def test_a_mask_that_was_taken_home_is_a_ground_truth_again(tmp_path):
    mask = np.array([[0, 1, 3], [5, 255, 6]], np.uint8).repeat(8, 0).repeat(8, 1)
    path = tmp_path / "mask.png"
    path.write_bytes(mask_png(mask, ANIMALS))
    assert np.array_equal(read_truth(path, ANIMALS, (16, 24)), mask)
    assert np.array_equal(read_truth(path, ANIMALS, (32, 48)), mask.repeat(2, 0).repeat(2, 1))


def test_a_ground_truth_of_other_proportions_is_refused_in_words(tmp_path):
    path = tmp_path / "mask.png"
    path.write_bytes(mask_png(np.zeros((10, 30), np.uint8), ANIMALS))
    with pytest.raises(UserError, match="30x10 pixels, which are not the photograph's proportions"):
        read_truth(path, ANIMALS, (20, 20))


def test_a_photograph_is_no_ground_truth(tmp_path):
    path = tmp_path / "photograph.png"
    path.write_bytes(picture_png(np.zeros((20, 20, 3), np.uint8)))
    with pytest.raises(UserError, match="this mask cannot be used .a mask must hold class indices") as refused:
        read_truth(path, ANIMALS, (20, 20))
    assert str(tmp_path) not in str(refused.value)


def test_the_archive_holds_every_file_and_arrays_without_loss(shipped_or_fresh, cat):
    predictor = Predictor.from_checkpoint(shipped_or_fresh)
    encoding = predictor.encode(cat)
    files = {
        "arrays.npz": arrays_npz(probs=encoding.probs),
        "settings.json": settings_json(predictor, encoding, ["cat"], alpha=0.8),
    }
    with zipfile.ZipFile(io.BytesIO(archive(files))) as folder:
        assert set(folder.namelist()) == set(files)
        with np.load(io.BytesIO(folder.read("arrays.npz"))) as arrays:
            assert np.array_equal(arrays["probs"], encoding.probs)
        settings = json.loads(folder.read("settings.json"))
    assert settings["settings"] == {"alpha": 0.8} and settings["photograph"]["sha1"] == encoding.key
    assert settings["checkpoint"]["sha256"] == predictor.facts["sha256"]
