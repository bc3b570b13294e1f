"""The folders of a run's states and checkpoints: which are kept, in which order they count, and whom they fit."""

import os

import pytest
import torch
from test_train import ALONE, SHORT

from wsss import UserError, checkpoint
from wsss.data.item import fingerprint
from wsss.data.shapes import Shapes
from wsss.epoch import keep_best
from wsss.presets import tiny
from wsss.state import keep_newest, load_state, newest_whole
from wsss.train import start, train


def test_the_newest_states_are_kept_and_rubbish_is_swept(tmp_path):
    for name in ("step-000001", "step-000002", "step-000010", "step-000020", ".tmp-1-step-000011"):
        (tmp_path / name).mkdir()
    keep_newest(tmp_path, step=10, count=2)  # step 20 was broken when the run went back
    assert checkpoint.sweep(tmp_path) == 1
    assert sorted(os.listdir(tmp_path)) == ["step-000002", "step-000010"]


def test_a_million_steps_come_after_999999(tmp_path):
    for name in ("step-999998", "step-999999", "step-1000000"):
        (tmp_path / name).mkdir()
    keep_newest(tmp_path, step=1_000_000, count=2)
    assert set(os.listdir(tmp_path)) == {"step-999999", "step-1000000"}


def test_a_state_of_other_classes_is_refused(tmp_path):
    assert train(SHORT, Shapes(4, 0), None, tmp_path, group=ALONE, until=0) == 0
    other = Shapes(4, 0)
    other.classes = ("one", "two", "three", "four")
    learner = start(SHORT, 5, ALONE.device, pretrained=False)
    with pytest.raises(UserError, match="was trained on disk, box, flower, star, the data hold one, two, three, four"):
        load_state(newest_whole(tmp_path / "states"), learner, other, SHORT)


def test_other_labels_of_the_same_photographs_are_other_data():
    source, other = Shapes(3, 0), Shapes(3, 0)
    other.labels[1] = 1 - other.labels[1]
    assert fingerprint(source) == fingerprint(Shapes(3, 0)) != fingerprint(other)


def test_of_two_checkpoints_that_score_alike_the_first_is_the_best(tmp_path):
    model, best = tmp_path / "model", tmp_path / "best"
    for step, miou in enumerate((0.5, 0.5, 0.4, 0.6), 1):
        facts = {"step": step, "val": {"miou": miou}}
        checkpoint.save(model, {"w": torch.zeros(1)}, tiny(), ("a",), facts)
        keep_best(model, best, miou)
        assert checkpoint.read_config(best)["step"] == (4 if step == 4 else 1)
