"""Checkpoints: written whole or not at all, verified when read, bounded in number."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from selftaught.errors import ArtifactError
from selftaught.files import read_json, verify_directory, whole_directory, write_json

SHARD_BYTES = 256 << 20
STATE_FILE = "state.json"
METADATA_FILE = ".metadata"  # of checkpoints that processes of torchrun wrote, each its part


@dataclass(frozen=True)
class Checkpoint:
    """A run's state after some step.

    Attributes:
        step: number of steps done.
        tensors: masters, moments and a teacher's average, by name.
        records: what the run had reported so far (see `train.loop.RunRecord`).
    """

    step: int
    tensors: dict[str, Tensor]
    records: dict[str, Any]


def save_checkpoint(
    folder: Path, step: int, tensors: Mapping[str, Tensor], records: Mapping[str, Any], keep: int
) -> None:
    """Writes `folder/step-000030` and then drops all but the newest `keep`.

    Raises:
        ArtifactError: the disk is full or cannot be written; older checkpoints are untouched.
    """
    from safetensors.torch import save_file

    with whole_directory(step_folder(folder, step)) as draft:
        for number, shard in enumerate(_shards(tensors), 1):
            save_file(shard, draft / f"state-{number:04d}.safetensors")
        write_json(draft / STATE_FILE, {"step": step, "records": records})
    drop_older(folder, step, keep)


def step_folder(folder: Path, step: int) -> Path:
    """Where the checkpoint after `step` steps lies."""
    return folder / f"step-{step:06d}"


def drop_older(folder: Path, step: int, keep: int) -> None:
    """Deletes all but the newest `keep` checkpoints up to a step."""
    for old in [other for other in _steps(folder) if _number(other) <= step][:-keep]:  # later ones are damaged
        shutil.rmtree(old, ignore_errors=True)


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole, also one that was written in parts; None if there is none.

    A damaged one is passed over for the one before it; if all are damaged, that is an error.
    """
    path = newest_whole(folder)
    if path is None:
        return None
    state = read_json(path / STATE_FILE)
    return Checkpoint(state["step"], read_tensors(path), state["records"])


def newest_whole(folder: Path) -> Path | None:
    """The newest checkpoint's place; see `latest_checkpoint`."""
    problems: list[str] = []
    for path in reversed(_steps(folder)):
        try:
            verify_directory(path)
        except ArtifactError as error:
            problems.append(str(error))
            continue
        return path
    if problems:
        raise ArtifactError(f"no checkpoint is whole: {problems[0]}")
    return None


def _shards(tensors: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """Parts of at most `SHARD_BYTES` (or one tensor): safetensors copies what it writes."""
    shard: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if shard and sum(other.nbytes for other in shard.values()) + tensor.nbytes > SHARD_BYTES:
            yield shard
            shard = {}
        shard[name] = tensor.contiguous()
    yield shard


def read_tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint, whole."""
    from safetensors.torch import load_file

    tensors: dict[str, Tensor] = {}
    if (path / METADATA_FILE).exists():
        from torch.distributed.checkpoint.filesystem import FileSystemReader
        from torch.distributed.checkpoint.state_dict_loader import load

        stored: dict[str, Any] = FileSystemReader(path).read_metadata().state_dict_metadata
        tensors = {name: torch.empty(one.size, dtype=one.properties.dtype) for name, one in stored.items()}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that it is read by one process alone, as is meant
            load(tensors, checkpoint_id=path, no_dist=True)
    for shard in sorted(path.glob("state-*.safetensors")):
        tensors |= load_file(shard)
    return tensors


def _steps(folder: Path) -> list[Path]:
    return sorted((path for path in folder.glob("step-*") if path.is_dir() and _number(path) >= 0), key=_number)


def _number(path: Path) -> int:
    digits = path.name.removeprefix("step-")
    return int(digits) if digits.isdecimal() else -1
