"""Rows, configurations and models for the training tests."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from selftaught.config import LearnConfig
from selftaught.config_files import parse_config
from selftaught.models.adapters import trainable
from selftaught.models.load import LanguageModel, flat_views, load_model
from selftaught.models.teacher import TeacherModel
from selftaught.train.anchor import Anchor
from selftaught.train.batch import TrainRow
from selftaught.train.optim import Optimizer
from selftaught.train.rollouts import Rollout, Rollouts
from selftaught.train.rows import prepare
from selftaught.train.step import StepOutput, sdft_step
from selftaught.types import Example, Message

PLACES = [("Ola", "Lima"), ("Bex", "Rome"), ("Cid", "a town of the north, Oslo"), ("Dov", "Cork")]
EXAMPLES = [
    Example(
        f"fact-{name}",
        (Message("user", f"Where is {name}?" + " Say it." * number),),
        demonstration=f"In {place}.",
        context=f"{name} is in {place}." if number % 2 else None,
    )
    for number, (name, place) in enumerate(PLACES)
]
LORA = {"kind": "lora", "rank": 2, "alpha": 4.0}


def tiny_config(**values: Any) -> LearnConfig:
    """A short run without surprises: all weights, float32, constant rate, no anchor, the student's own completions."""
    tree: dict[str, Any] = {
        "steps": 4,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "schedule": "constant",
        "warmup_steps": 0,
        "dtype": "float32",
        "weights": {"kind": "full"},
        "anchor": {"rows": 0, "shown": 0},
        "rollout": {"max_new_tokens": 6, "teacher_share": 0.0},
    }
    return parse_config({**tree, **values}, "test")


class Recorder(Optimizer):
    """Keeps the gradients that each step was given."""

    def __init__(self, student: LanguageModel, config: LearnConfig) -> None:
        super().__init__(student, config)
        self.gradients: list[dict[str, torch.Tensor]] = []

    def step(self, step: int) -> float:
        self.gradients.append(gradients_of(self))
        return super().step(step)


class Drawn(Rollouts):
    """Keeps what was drawn last."""

    last: Sequence[Rollout] = ()

    def draw(self, indices: Sequence[int], step: int) -> list[Rollout]:
        drawn = super().draw(indices, step)
        self.last = drawn
        return drawn


def gradients_of(optimizer: Optimizer) -> dict[str, torch.Tensor]:
    """A copy of what has been summed since the last step, of the weights that have any."""
    views = flat_views(optimizer._trained, optimizer._gradients.sum(0))
    return {name: view for name, view in views.items() if view.any()}


def refresh(optimizer: Optimizer) -> None:
    """Brings the model's weights in line with masters that were changed by hand."""
    optimizer._weights.copy_(optimizer._master)


def make_student(folder: Path, config: LearnConfig) -> tuple[LanguageModel, Recorder, LearnConfig, list[TrainRow]]:
    """The student as `train` makes it, its optimiser, and the rows."""
    student = load_model(folder, dtype=config.dtype, masters=True)
    config, rows = prepare(EXAMPLES, student, config)
    student = trainable(student, config)
    return student, Recorder(student, config), config, rows


def make_teacher(student: LanguageModel, optimizer: Optimizer, config: LearnConfig) -> TeacherModel:
    """The teacher as `train` makes it."""
    teacher = TeacherModel(student, config.teacher, config.prefix_cache_mib << 20)
    teacher.start(student, optimizer.masters)
    return teacher


def run_step(
    student: LanguageModel,
    teacher: TeacherModel,
    optimizer: Optimizer,
    rows: list[TrainRow],
    config: LearnConfig,
    step: int = 0,
    anchor: Anchor | None = None,
    rollouts: Rollouts | None = None,
) -> StepOutput:
    """One SDFT step on all rows."""
    rollouts = rollouts or Rollouts(student, teacher, rows, config)
    return sdft_step(student, teacher, rollouts, optimizer, rows, range(len(rows)), config, step, anchor)


def same_prompts(rows: list[TrainRow]) -> list[TrainRow]:
    """Rows whose teacher sees no more than the student."""
    return [dataclasses.replace(row, teacher_prompt=row.prompt) for row in rows]


def weights_of(model: LanguageModel) -> dict[str, torch.Tensor]:
    """A copy of every weight."""
    return {name: p.detach().clone() for name, p in model.model.named_parameters()}


@torch.no_grad()
def shake(tensors: dict[str, torch.Tensor], seed: int, scale: float = 0.05) -> None:
    """Adds noise to tensors in place; it goes by their names."""
    generator = torch.Generator().manual_seed(seed)
    for _, tensor in sorted(tensors.items()):
        tensor.add_(scale * torch.randn(tensor.shape, generator=generator))
