"""Freed memory that a training process keeps is not asked of the system again."""

import os
import platform
import resource
from pathlib import Path

import pytest
import torch
from reliability import Child

from wsss.allocator import keep_freed_memory


def page_faults_of_large_tensors() -> int:
    """Of twenty tensors of 64 MB, one after the other, after some others."""
    for _ in range(5):
        torch.ones(2**24)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told")
def test_large_tensors_take_the_memory_of_those_before_them(tmp_path: Path):
    def compare() -> int:
        usual = page_faults_of_large_tensors()
        keep_freed_memory()
        print(usual, page_faults_of_large_tensors())
        return os.EX_OK

    child = Child(compare, tmp_path / "log")
    assert child.wait() == os.EX_OK, child.said()
    usual, kept = map(int, child.said().split())
    assert usual > 10 * max(1, kept)
