"""Keeps processes that hold parts of one model in step: each forward and backward pass needs all of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from selftaught.models.load import LanguageModel
from selftaught.models.score import student_hidden
from selftaught.processes import ProcessGroup


@contextmanager
def in_step(student: LanguageModel, num_passes: int, processes: ProcessGroup) -> Iterator[None]:
    """After the block, runs as many empty passes as the busiest process has run more, if the model is in parts.

    Args:
        student: the model that is taught.
        num_passes: forward and backward passes of the block in this process.
        processes: all must enter the block.
    """
    sharded = student.shards is not None
    most = max(processes.gather(num_passes)) if sharded else num_passes  # before the first: passes are exchanges too
    yield
    for _ in range(most - num_passes):
        states = student_hidden(student, [(0,)], [(0,)])  # [1, H]
        (student.head(states).sum() * 0.0).backward()
