"""Freed memory that a training process keeps is not asked of the system again."""

import platform
import subprocess
import sys

import pytest

PAGE_FAULTS = """
import resource, torch
from wsss.allocator import keep_freed_memory

def page_faults_of_large_tensors():
    "Of twenty tensors of 64 MB, one after the other, after some others."
    for _ in range(20):
        torch.ones(2**24)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(page_faults_of_large_tensors())
keep_freed_memory()
print(page_faults_of_large_tensors())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_large_tensors_take_the_memory_of_those_before_them():
    # A process of its own: this one may have been told before.
    said = subprocess.run([sys.executable, "-c", PAGE_FAULTS], capture_output=True, text=True, check=True).stdout
    usual, kept = map(int, said.split())
    assert usual > 10 * max(1, kept)
