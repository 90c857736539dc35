"""A run by several processes is the run of one, up to rounding, and always the same bit for bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from process_work import do_all
from tiny_run import EXAMPLES, LORA, make_student, tiny_config
from torch import Tensor

from selftaught.config import LearnConfig
from selftaught.processes import process_group

STEPS = 4
Run = dict[str, Any]

CONFIGS: dict[str, dict[str, Any]] = {
    "full frozen": {"teacher": {"kind": "frozen"}},
    "full ema": {"teacher": {"kind": "ema", "rate": 0.2}},
    "lora frozen": {"weights": LORA},
    "lora ema": {"weights": LORA, "teacher": {"kind": "ema", "rate": 0.2}},
    "sft": {"method": "sft", "weights": {"kind": "full", "embeddings": False}},
    "one row": {"batch_size": 1, "anchor": {"rows": 1, "pool": 2, "max_new_tokens": 4}},
    "several a prompt": {
        "batch_size": 6,
        "rollout": {"max_new_tokens": 6, "teacher_share": 1.0, "teacher_share_fall": 1.0, "per_prompt": 2},
    },
    "bfloat16": {"dtype": "bfloat16"},
}
BY_TWO = ["full frozen", "full ema", "lora frozen", "lora ema", "sft", "bfloat16"]
BY_THREE = ["full frozen", "lora ema", "sft", "one row", "several a prompt"]
TWICE = ["full frozen", "lora ema", "bfloat16"]
RESUMED = ["full frozen", "lora ema"]
EXACT = [(2, name) for name in BY_TWO if name != "bfloat16"] + [(3, name) for name in BY_THREE]


def config(name: str) -> LearnConfig:
    """Rows of unlike length, an odd batch, the teacher's and the student's own completions, and an anchor."""
    tree: dict[str, Any] = {
        "steps": STEPS,
        "batch_size": 3,
        "schedule": "cosine",
        "warmup_steps": 1,
        "checkpoint_every": 2,
        "rollout": {"max_new_tokens": 6, "teacher_share": 1.0, "teacher_share_fall": 1.0},
        "anchor": {"rows": 2, "pool": 40, "max_new_tokens": 4},
    }
    return tiny_config(**{**tree, **CONFIGS[name]})


@dataclasses.dataclass(frozen=True)
class Runs:
    """What was done by each number of processes."""

    by: dict[int, dict[str, Run]]
    again: dict[str, Run]  # by two processes a second time
    begun_by: dict[int, dict[str, Run]]  # by one process or by two, and ended by the other number
    measured: dict[int, Any]


@pytest.fixture(scope="module")
def runs(sharp_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """All runs: starting processes takes seconds, so each group does many of them."""
    folder = tmp_path_factory.mktemp("checkpoints")

    def begun(size: int, name: str) -> Path:
        return folder / f"{name} by {size}"

    def job(name: str, checkpoints: Path | None = None, keep: int | None = None) -> tuple[str, tuple[Any, ...]]:
        values = config(name).model_copy(update={"keep_checkpoints": 9})
        return "train_one", (sharp_model, EXAMPLES, values, checkpoints, keep)

    def by(size: int, jobs: list[tuple[str, tuple[Any, ...]]]) -> Iterator[Any]:
        with process_group(size, do_all, jobs) as group:
            return iter(do_all(jobs, group))

    look: tuple[str, tuple[Any, ...]] = ("measure", (sharp_model, EXAMPLES))
    one = by(1, [*map(job, CONFIGS), *(job(name, begun(1, name), 2) for name in RESUMED), look])
    alone = dict(zip(CONFIGS, one))
    measured = {1: list(one)[-1]}
    two = by(
        2,
        [
            *map(job, [*BY_TWO, *TWICE]),
            *(job(name, begun(2, name), 2) for name in RESUMED),
            *(job(name, begun(1, name)) for name in RESUMED),
        ],
    )
    found = {1: alone, 2: dict(zip(BY_TWO, two))}
    again, _ = dict(zip(TWICE, two)), dict(zip(RESUMED, two))
    ended = {1: dict(zip(RESUMED, two))}
    three = by(3, [look, *map(job, BY_THREE)])
    measured[3] = next(three)
    found[3] = dict(zip(BY_THREE, three))
    ended[2] = dict(zip(RESUMED, by(1, [job(name, begun(2, name)) for name in RESUMED])))
    return Runs(found, again, ended, measured)


def start_of(folder: Path, name: str) -> dict[str, Tensor]:
    """The weights before the first step."""
    student, _, _, _ = make_student(folder, config(name))
    return {key: weight.detach() for key, weight in student.model.named_parameters()}


def assert_alike(run: Run, other: Run, start: dict[str, Tensor]) -> None:
    """The same up to the rounding of float32; the weights' difference is small beside how far they went."""
    assert [report["step"] for report in run["reports"]] == [report["step"] for report in other["reports"]]
    for ours, theirs in zip(run["reports"], other["reports"], strict=True):
        assert ours.keys() == theirs.keys()
        for key in ("step", "steps", "tokens", "completion_tokens", "sample", "sample_id"):
            assert ours[key] == theirs[key], key
        for key in ("loss", "gap_nats", "grad_norm", "learning_rate", "teacher_share", "anchor_nats"):
            assert ours[key] == (theirs[key] and pytest.approx(theirs[key], rel=2e-3, abs=1e-6)), key
    moved = off = 0.0
    for name, weight in other["weights"].items():
        moved += float((weight - start[name]).square().sum())
        off += float((run["weights"][name] - weight).square().sum())
    assert moved > 0
    assert off < 1e-4 * moved, (off, moved)


def assert_same(run: Run, other: Run) -> None:
    """Bit for bit, all but time and memory."""
    apart = ("seconds", "seconds_left", "weights", "peak_memory_gib")

    def story(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: story(item) for key, item in value.items() if key not in apart}
        return [story(item) for item in value] if isinstance(value, list) else value

    assert story(run) == story(other)
    assert run["weights"].keys() == other["weights"].keys()
    assert all(torch.equal(weight, other["weights"][name]) for name, weight in run["weights"].items())


@pytest.mark.parametrize(("size", "name"), EXACT)
def test_several_processes_train_as_one(runs: Runs, sharp_model: Path, size: int, name: str) -> None:
    assert len(runs.by[size][name]["reports"]) == STEPS
    assert_alike(runs.by[size][name], runs.by[1][name], start_of(sharp_model, name))


@pytest.mark.parametrize("name", TWICE)
def test_as_many_processes_give_the_same_bit_for_bit(runs: Runs, name: str) -> None:
    assert_same(runs.again[name], runs.by[2][name])


@pytest.mark.parametrize("begun_by", [1, 2])
@pytest.mark.parametrize("name", RESUMED)
def test_a_run_may_be_ended_by_another_number_of_processes(
    runs: Runs, sharp_model: Path, name: str, begun_by: int
) -> None:
    run, whole = runs.begun_by[begun_by][name], runs.by[1][name]
    assert [report["step"] for report in run["reports"]] == [3, 4]
    assert len(run["record"]["steps"]) == STEPS
    assert_alike(run, {**whole, "reports": whole["reports"][2:]}, start_of(sharp_model, name))


def test_two_processes_in_bfloat16_come_as_far_as_one(runs: Runs, sharp_model: Path) -> None:
    start = start_of(sharp_model, "bfloat16")
    losses = [[report["loss"] for report in runs.by[size]["bfloat16"]["reports"]] for size in (1, 2)]
    assert losses[1] == pytest.approx(losses[0], rel=0.3)
    assert any(not torch.equal(w, start[n]) for n, w in runs.by[2]["bfloat16"]["weights"].items())


def test_several_processes_measure_as_one(runs: Runs) -> None:
    one, three = runs.measured[1], runs.measured[3]
    assert three["results"] == one["results"]
    assert three["everyones"] == [one["results"]] * 3
    assert three["lift"] == one["lift"]
    assert one["rest"] == three["rest"] == 0
    assert three["drift"] == pytest.approx(one["drift"], rel=1e-4) and one["drift"] > 1e-3
