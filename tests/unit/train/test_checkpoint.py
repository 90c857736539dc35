"""Checkpoints under damage: a run finds the newest whole one, or is told that there is none."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from torch import Tensor

from selftaught.errors import ArtifactError
from selftaught.train import checkpoint as checkpoint_module
from selftaught.train.checkpoint import latest_checkpoint, save_checkpoint

RECORDS = {"steps": [{"step": 1, "loss": 0.1 + 0.2}], "seconds": 1.25, "tokens": 7}


def tensors(seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "master.a.weight": torch.randn(5, 3, generator=generator),
        "exp_avg.a.weight": torch.randn(3, 5, generator=generator).T,  # not contiguous
        "step.a.weight": torch.tensor(3.0),
        "ema.half": torch.randn(4, generator=generator).bfloat16(),
    }


def save(folder: Path, step: int, keep: int = 9) -> None:
    save_checkpoint(folder, step, tensors(step), RECORDS, keep)


def spoil(path: Path) -> None:
    """Flips one bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def latest_step(folder: Path) -> int:
    found = latest_checkpoint(folder)
    assert found is not None
    return found.step


def test_a_checkpoint_goes_round_bit_for_bit(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 30, tensors(), RECORDS, 1)
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 30
    assert found.records == RECORDS
    assert found.tensors.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert found.tensors[name].dtype == tensor.dtype
        assert torch.equal(found.tensors[name], tensor)


@pytest.mark.parametrize("exists", [True, False])
def test_no_checkpoint_is_none(tmp_path: Path, exists: bool) -> None:
    assert latest_checkpoint(tmp_path if exists else tmp_path / "nowhere") is None


@pytest.mark.parametrize("keep", [1, 2, 3])
def test_only_the_newest_are_kept(tmp_path: Path, keep: int) -> None:
    for step in (5, 10, 100, 1000):
        save(tmp_path, step, keep)
    assert names(tmp_path) == [f"step-{step:06d}" for step in (5, 10, 100, 1000)][-keep:]
    assert latest_step(tmp_path) == 1000


@pytest.mark.parametrize("victim", ["state-0001.safetensors", "state.json", "manifest.json"])
@pytest.mark.parametrize("how", ["spoiled", "gone", "cut short"])
def test_a_damaged_newest_is_passed_over(tmp_path: Path, victim: str, how: str) -> None:
    save(tmp_path, 10)
    save(tmp_path, 20)
    path = tmp_path / "step-000020" / victim
    if how == "spoiled":
        spoil(path)
    elif how == "gone":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:20])
    found = latest_checkpoint(tmp_path)
    assert found is not None and found.step == 10
    assert torch.equal(found.tensors["master.a.weight"], tensors(10)["master.a.weight"])


def test_if_all_are_damaged_it_is_an_error(tmp_path: Path) -> None:
    for step in (10, 20):
        save(tmp_path, step)
        spoil(tmp_path / f"step-{step:06d}" / "state-0001.safetensors")
    with pytest.raises(ArtifactError, match=r"no checkpoint is whole.*step-000020"):
        latest_checkpoint(tmp_path)


@pytest.mark.parametrize("moment", ["tensors", "half the tensors", "records", "rename"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["disk", "user"])
def test_a_failure_while_writing_leaves_the_old_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, error: BaseException
) -> None:
    import safetensors.torch

    save(tmp_path, 10, keep=1)

    def fail(*_args: Any, **_options: Any) -> NoReturn:
        raise error

    def half(_tensors: Any, path: Path) -> NoReturn:
        Path(path).write_bytes(b"half")
        raise error

    if moment == "tensors":
        monkeypatch.setattr(safetensors.torch, "save_file", fail)
    elif moment == "half the tensors":
        monkeypatch.setattr(safetensors.torch, "save_file", half)
    elif moment == "records":
        monkeypatch.setattr(checkpoint_module, "write_json", fail)
    else:
        plain = Path.replace

        def replace(self: Path, target: Path) -> Path:
            return fail() if Path(target).name == "step-000020" else plain(self, target)

        monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(ArtifactError if isinstance(error, OSError) else KeyboardInterrupt):
        save(tmp_path, 20, keep=1)
    monkeypatch.undo()
    assert names(tmp_path) == ["step-000010"], "nothing half-written is left, hidden or visible"
    assert latest_step(tmp_path) == 10
    save(tmp_path, 20, keep=1)
    assert names(tmp_path) == ["step-000020"]


def test_a_killed_writer_leaves_nothing_that_is_taken_for_a_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 10)
    dies = (
        "import os, sys; from pathlib import Path; from selftaught.files import whole_directory\n"
        "with whole_directory(Path(sys.argv[1])) as draft:\n"
        "    (draft / 'state-0001.safetensors').write_text('half'); os._exit(9)\n"  # as on SIGKILL: no cleaning up
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    died = subprocess.run([sys.executable, "-c", dies, tmp_path / "step-000020"], env=environment, check=False)
    assert died.returncode == 9
    assert len(names(tmp_path)) == 2, "a hidden draft is left"
    assert latest_step(tmp_path) == 10
    save(tmp_path, 20)
    assert names(tmp_path) == ["step-000010", "step-000020"], "the next writer clears it away"


def test_a_step_may_be_written_again(tmp_path: Path) -> None:
    save(tmp_path, 10)
    save_checkpoint(tmp_path, 10, tensors(99), RECORDS, 1)
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert torch.equal(found.tensors["ema.half"], tensors(99)["ema.half"])


def test_what_was_just_written_is_never_dropped(tmp_path: Path) -> None:
    """A damaged later one does not count as one of those kept."""
    save(tmp_path, 10)
    save(tmp_path, 40)
    spoil(tmp_path / "step-000040" / "state-0001.safetensors")
    assert latest_step(tmp_path) == 10
    save(tmp_path, 20, keep=1)  # resumed from 10, with another checkpoint_every
    assert latest_step(tmp_path) == 20


def test_steps_beyond_six_digits_are_newest(tmp_path: Path) -> None:
    save(tmp_path, 999_999)
    save(tmp_path, 1_000_000)
    assert latest_step(tmp_path) == 1_000_000
