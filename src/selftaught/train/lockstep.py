"""Keeps processes that hold parts of one model in step: each forward and backward pass needs all of them."""

from __future__ import annotations

from selftaught.models.load import LanguageModel
from selftaught.models.score import student_hidden
from selftaught.processes import ProcessGroup


def keep_step(student: LanguageModel, num_passes: int, processes: ProcessGroup) -> None:
    """Runs as many empty passes as the busiest process has run more; nothing to do where the model is not in parts.

    Args:
        student: the model that is taught.
        num_passes: forward and backward passes that this process has run.
        processes: all must call this.
    """
    if student.shards is None:
        return
    for _ in range(max(processes.gather(num_passes)) - num_passes):
        states = student_hidden(student, [(0,)], [(0,)])  # [1, H]
        (student.head(states).sum() * 0.0).backward()
