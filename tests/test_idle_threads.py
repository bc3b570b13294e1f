"""Torch's idle threads give their core back: what comes after an operation of torch has it."""

import os
import subprocess
import sys
from statistics import median

import pytest

SECONDS_SPENT_IDLE = """
import time, torch
torch.set_num_threads(2)
x = torch.rand(500, 500)
for _ in range(9):
    x @ x
    before = time.process_time()
    time.sleep(0.03)
    print(time.process_time() - before)
"""


def seconds_spent_idle(first: str) -> float:
    """Of the processor, by a process that sleeps after a product of matrices; `first` is its first line."""
    environment = {name: value for name, value in os.environ.items() if name != "GOMP_SPINCOUNT"}
    command = [sys.executable, "-c", first + SECONDS_SPENT_IDLE]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return median(map(float, said.split()))


@pytest.mark.alone
def test_idle_threads_stop_spinning_sooner_than_they_would():
    usual = seconds_spent_idle("")
    if usual < 2e-3:
        pytest.skip("threads do not spin here")
    # Another process may keep a core from one of them for a moment. The package imports no more than `wsss`.
    assert any(seconds_spent_idle("import analysis") < 0.7 * usual for _ in range(3))
