"""What a process knows of the memory that it uses."""

from __future__ import annotations

import os
import sys

import pytest
import torch

from selftaught.runtime import num_cores, peak_memory_gib, release_memory, reset_peak_memory

SIZE = 300 << 20  # bytes
GIB = SIZE / 2**30


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak cannot be reset")
def test_the_peak_is_that_since_the_last_reset() -> None:
    release_memory()
    reset_peak_memory()
    before = peak_memory_gib()
    assert before > 0
    block = torch.ones(SIZE, dtype=torch.uint8)
    assert peak_memory_gib() - before == pytest.approx(GIB, rel=0.2)
    del block
    assert peak_memory_gib() - before == pytest.approx(GIB, rel=0.2), "a peak stays"
    reset_peak_memory()
    assert peak_memory_gib() - before < 0.3 * GIB


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="needs a file in memory")
def test_memory_that_is_shared_is_counted_apart() -> None:
    release_memory()
    reset_peak_memory()
    before = peak_memory_gib()
    file = os.memfd_create("test")
    os.truncate(file, SIZE)
    block = torch.from_file(f"/proc/self/fd/{file}", shared=True, size=SIZE, dtype=torch.uint8)
    block.fill_(1)
    assert abs(peak_memory_gib() - before) < 0.3 * GIB
    os.close(file)


def test_cores() -> None:
    assert 1 <= num_cores() <= (os.cpu_count() or 1)
