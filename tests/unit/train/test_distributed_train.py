"""Processes that torchrun starts train as one, with the whole state each (DDP) or a part each (FSDP2)."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import make_tiny_model
from launched import launched
from process_work import do_all
from test_processes_train import assert_alike
from tiny_run import EXAMPLES, LORA, tiny_config, weights_of
from torch import Tensor

from selftaught.config import LearnConfig
from selftaught.errors import ConfigError
from selftaught.files import verify_directory
from selftaught.models.adapters import trainable
from selftaught.models.load import load_model
from selftaught.processes import ALONE
from selftaught.train.checkpoint import latest_checkpoint
from selftaught.train.loop import train

Run = dict[str, Any]
STEPS = 3
FSDP = {"parallel": "fsdp2"}

CONFIGS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"weights": LORA},
    "ema": {"teacher": {"kind": "ema", "rate": 0.2}},
    "live": {"teacher": {"kind": "live"}, "microbatch_tokens": 60},
    "sft": {"method": "sft", "weights": {"kind": "full", "embeddings": False}, "microbatch_tokens": 40},
    "recomputed": {"activation_checkpointing": True, "dtype": "float32"},
    "bfloat16": {"dtype": "bfloat16"},
}
RUNS = {
    1: ["fsdp2 full untied"],
    2: ["ddp ema tied", "fsdp2 ema untied", "fsdp2 sft tied", "fsdp2 recomputed tied"],
    4: ["fsdp2 sft untied", "fsdp2 live tied"],
}
RESUMED = ["ddp full tied", "fsdp2 full tied", "fsdp2 lora untied"]
LAST_KEPT = {2: 1, 4: 2, 1: 3}  # steps, after each number of processes in turn
HELD = {2: ["fsdp2 full tied", "fsdp2 lora tied"], 4: ["fsdp2 full untied"]}


def config(name: str) -> LearnConfig:
    """Rows of unlike length, an odd batch, the teacher's and the student's own completions, and an anchor.

    The anchor's first gradient is mere rounding, which AdamW turns into a whole step. Where embeddings are not tied,
    those of tokens that only the anchor's rows have get no other, so there is none then.
    """
    parallel, kind, head = name.split()
    held = 2 if head == "tied" else 0
    tree: dict[str, Any] = {
        "parallel": "auto" if parallel in ("ddp", "one") else parallel,
        "steps": STEPS,
        "batch_size": 3,
        "warmup_steps": 1,
        "checkpoint_every": 1,
        "keep_checkpoints": 9,
        "rollout": {"max_new_tokens": 6, "teacher_share": 1.0, "teacher_share_fall": 1.0},
        "anchor": {"rows": held, "shown": held, "pool": 6, "max_new_tokens": 4},
    }
    return tiny_config(**{**tree, **CONFIGS[kind]})


def alone(name: str) -> str:
    """The same run by one process without torchrun."""
    return f"one {name.split(maxsplit=1)[1]}"


@dataclasses.dataclass(frozen=True)
class Found:
    """What was done, by number of processes: 0 is one without torchrun."""

    models: dict[str, Path]
    by: dict[int, dict[str, Run]]
    resumed: dict[str, list[Run]]  # begun by two, continued by four, ended by one
    elsewhere: dict[str, Run]  # begun by torchrun's and ended by a process alone, or the other way round
    held: dict[int, dict[str, list[dict[str, Any]]]]
    folder: Path


@pytest.fixture(scope="module")
def found(sharp_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Found:
    """All runs: each group of processes does many."""
    folder = tmp_path_factory.mktemp("launched")
    models = {"tied": sharp_model, "untied": make_tiny_model(folder / "untied", scale=12.0, tied=False)}

    def job(name: str, place: str | None = None, keep: int | None = None) -> tuple[str, tuple[Any, ...]]:
        checkpoints = None if place is None else folder / place
        return "train_one", (models[name.split()[2]], EXAMPLES, config(name), checkpoints, keep)

    def hold(name: str) -> tuple[str, tuple[Any, ...]]:
        nothing_kept = config(name).model_copy(update={"prefix_cache_mib": 0})  # of the teacher's prompts and draws
        return "hold", (models[name.split()[2]], EXAMPLES, nothing_kept)

    names = sorted({alone(name) for runs in (*RUNS.values(), RESUMED) for name in runs} - {"one full tied"})
    ours = do_all([*map(job, names), job("one full tied", "there", 1)], ALONE)
    by = {0: dict(zip([*names, "one full tied"], ours))}
    resumed: dict[str, list[Run]] = {name: [] for name in RESUMED}
    held: dict[int, dict[str, list[dict[str, Any]]]] = {}
    elsewhere: dict[str, Run] = {}
    for size, last in LAST_KEPT.items():
        jobs = [*map(job, RUNS[size]), *(job(name, f"parts {name}", last) for name in RESUMED)]
        jobs += [*map(hold, HELD.get(size, ())), *([job("fsdp2 full tied", "there")] if size == 2 else [])]
        values = iter(launched(size, jobs, folder / f"by {size}"))
        by[size] = dict(zip(RUNS[size], values))
        for name in RESUMED:
            resumed[name].append(next(values))
        held[size] = dict(zip(HELD.get(size, ()), values))
        if size == 2:
            elsewhere["there"] = next(values)
            shutil.copytree(folder / "parts fsdp2 full tied", folder / "here")
    elsewhere["here"] = do_all([job("one full tied", "here")], ALONE)[0]
    return Found(models, by, resumed, elsewhere, held, folder)


def start_of(found: Found, name: str) -> dict[str, Tensor]:
    """The weights before the first step."""
    student = load_model(found.models[name.split()[2]], dtype="float32", masters=True)
    return {key: weight.detach() for key, weight in trainable(student, config(name)).model.named_parameters()}


@pytest.mark.parametrize(("size", "name"), [(size, name) for size, names in RUNS.items() for name in names])
def test_launched_processes_train_as_one(found: Found, size: int, name: str) -> None:
    run, one = found.by[size][name], found.by[0][alone(name)]
    assert len(run["reports"]) == STEPS
    assert run["weights"].keys() == one["weights"].keys()
    assert_alike(run, one, start_of(found, name))


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_begun_by_two_and_continued_by_four_is_ended_by_one(found: Found, name: str) -> None:
    one = found.by[0][alone(name)]
    parts = found.resumed[name]
    assert [[report["step"] for report in part["reports"]] for part in parts] == [[1, 2, 3], [2, 3], [3]]
    for part in parts:
        assert [step["step"] for step in part["record"]["steps"]] == [1, 2, 3]
        begun = STEPS - len(part["reports"])
        assert_alike(part, {**one, "reports": one["reports"][begun:]}, start_of(found, name))


@pytest.mark.parametrize(("place", "name"), [("there", "fsdp2 full tied"), ("here", "one full tied")])
def test_checkpoints_serve_both_kinds_of_processes(found: Found, place: str, name: str) -> None:
    run, one = found.elsewhere[place], found.by[0][alone(name)]
    assert [report["step"] for report in run["reports"]] == [2, 3]
    assert_alike(run, {**one, "reports": one["reports"][1:]}, start_of(found, name))


def test_a_checkpoint_in_parts_is_whole_and_of_every_process(found: Found) -> None:
    folder = found.folder / "parts fsdp2 full tied"
    (path,) = (folder / "step-000001",)
    verify_directory(path)
    files = {file.name for file in path.iterdir()}
    assert {"__0_0.distcp", "__1_0.distcp", ".metadata", "state.json", "manifest.json"} == files
    total = sum(weight.numel() for weight in start_of(found, "fsdp2 full tied").values())
    sizes = [(path / f"__{rank}_0.distcp").stat().st_size for rank in range(2)]
    for size in sizes:
        assert 12 * total / 2 < size < 12 * total / 2 * 1.6  # zip headers weigh much in a tiny model
    checkpoint = latest_checkpoint(folder)  # written by one process, after four and two
    assert checkpoint is not None and checkpoint.step == STEPS
    assert sum(tensor.numel() for tensor in checkpoint.tensors.values()) == 3 * total + 1
    assert json.loads((path / "state.json").read_text(encoding="utf-8"))["step"] == 1
    assert not [file for file in folder.iterdir() if file.name.startswith(".")]


@pytest.mark.parametrize(("size", "name"), [(size, name) for size, names in HELD.items() for name in names])
def test_every_process_holds_its_part_and_no_more(found: Found, size: int, name: str) -> None:
    everyones = found.held[size][name]
    every, trained = everyones[0]["all"], everyones[0]["trained"]
    assert len(everyones) == size
    assert trained == every if "full" in name else 0 < trained < every / 4
    # Tied embeddings get two gradients, and what the first one lies in lives as long as the last norm's beside it.
    embeddings = 259 * 32
    gradients = trained + (embeddings if name == "fsdp2 full tied" else 0)
    for kind, number in (("weights", every), ("module", every), ("gradients", gradients), ("moments", 2 * trained)):
        counts = [each[kind] for each in everyones]
        assert number <= sum(counts) < 1.02 * number, (kind, counts)  # FSDP2 fills up rows that cannot be divided
        assert max(counts) < 1.15 * number / size, (kind, counts)
    teacher = [each["teacher"] for each in everyones]
    if "lora" in name:
        assert teacher == [None] * size, "it is the student with its adapters off"
    else:
        assert every <= sum(teacher) < 1.02 * every and max(teacher) < 1.15 * every / size
    state = 4 * (every + 2 * trained + (0 if "lora" in name else every))  # bytes, of all
    head = 2 * 4 * embeddings  # of the anchor, and the embeddings' part that differs
    assert max(each["bytes"] for each in everyones) < 1.3 * state / size + head


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_without_torchrun_it_is_refused_in_one_line(sharp_model: Path, parallel: str) -> None:
    with pytest.raises(ConfigError, match=f"parallel: {parallel} is for processes that torchrun has started"):
        train(sharp_model, EXAMPLES, tiny_config(parallel=parallel))


def test_activation_checkpointing_changes_nothing_but_memory(sharp_model: Path) -> None:
    shared = {"steps": 2, "rollout": {"max_new_tokens": 6, "teacher_share": 0.5}}
    (plain, _), (recomputed, _) = (
        train(sharp_model, EXAMPLES, tiny_config(**shared, activation_checkpointing=on)) for on in (False, True)
    )
    start, others = weights_of(load_model(sharp_model, dtype="float32")), weights_of(recomputed)
    for name, weight in weights_of(plain).items():
        other = others[name]
        assert torch.allclose(weight, other, rtol=0, atol=1e-5 + 1e-3 * float((weight - start[name]).abs().max())), name
