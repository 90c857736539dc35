"""Checkpoints of processes that share no memory: each writes and reads its own part (torch.distributed.checkpoint).

They lie in the same folders, are whole or not there, and are read by any number of processes, together or alone; those
that `checkpoint` writes are read here too.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selftaught.errors import ArtifactError
from selftaught.files import read_json, whole_directory, write_json
from selftaught.processes import ProcessGroup
from selftaught.train.checkpoint import (
    METADATA_FILE,
    STATE_FILE,
    drop_older,
    newest_whole,
    read_tensors,
    step_folder,
)


def save_parts(
    folder: Path,
    step: int,
    tensors: Mapping[str, Tensor],
    records: Mapping[str, Any],
    keep: int,
    processes: ProcessGroup,
) -> None:
    """Writes `folder/step-000030`, each process its part, and drops all but the newest `keep`; all must call it.

    The folder must be one that all machines see.

    Raises:
        ArtifactError: the disk is full or cannot be written; older checkpoints are untouched.
    """
    path = step_folder(folder, step)
    with whole_directory(path) if processes.first else nullcontext() as draft:
        (place,) = processes.gather(draft)[:1]
        assert place is not None
        _write(dict(tensors), place, path)
        if draft is not None:
            write_json(draft / STATE_FILE, {"step": step, "records": records})
    if processes.first:
        drop_older(folder, step, keep)
    processes.wait()  # the next step changes the tensors


def _write(tensors: dict[str, Tensor], place: Path, path: Path) -> None:
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.filesystem import FileSystemWriter
    from torch.distributed.checkpoint.state_dict_saver import save

    try:
        save(tensors, storage_writer=FileSystemWriter(place))
    except CheckpointException as error:
        reason = next(iter(error.failures.values()))[0]
        raise ArtifactError(f"{path}: cannot be written ({reason}); free some space or choose another place") from error


def restore_parts(
    folder: Path, tensors: Mapping[str, Tensor], processes: ProcessGroup
) -> tuple[int, dict[str, Any]] | None:
    """Fills tensors, in place, from the newest checkpoint that is whole; all must call it.

    Args:
        folder: of checkpoints.
        tensors: by name; whole, or this process's parts.
        processes: who hold the others.

    Returns:
        The number of steps done and what had been reported by then; None if there is no checkpoint.

    Raises:
        ArtifactError: all are damaged.
    """
    path = processes.gather(newest_whole(folder) if processes.first else None)[0]
    if path is None:
        return None
    if (path / METADATA_FILE).exists():
        from torch.distributed.checkpoint.state_dict_loader import load

        load(dict(tensors), checkpoint_id=path)
    else:
        _fill_from_whole(tensors, path)
    state = read_json(path / STATE_FILE)
    return state["step"], state["records"]


@torch.no_grad()
def _fill_from_whole(tensors: Mapping[str, Any], path: Path) -> None:
    """From a checkpoint of processes that shared memory."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    stored = read_tensors(path)
    for name, tensor in tensors.items():
        if isinstance(tensor, DTensor):
            part = distribute_tensor(stored[name], tensor.device_mesh, tensor.placements, src_data_rank=None)
            tensor.to_local().copy_(part.to_local())
        else:
            tensor.copy_(stored[name])
