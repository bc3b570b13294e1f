"""The folders of a run's states: which are kept, and in which order they count."""

import os

from wsss import checkpoint
from wsss.state import keep_newest


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
