"""What each method does with a step's rows; the loop that calls it is the same for all (docs/methods.md)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from selftaught.config import FrozenTeacher, LearnConfig
from selftaught.models.load import LanguageModel, load_model
from selftaught.models.teacher import TeacherModel
from selftaught.processes import ProcessGroup
from selftaught.train.anchor import Anchor, Kept
from selftaught.train.batch import TrainRow, batch_indices
from selftaught.train.optim import AnyOptimizer
from selftaught.train.rollouts import Rollouts
from selftaught.train.rows import rehearsal_prompts, shown_prompts
from selftaught.train.sft import sft_step
from selftaught.train.step import StepOutput, check_finite, sdft_step
from selftaught.types import Example


class Method:
    """Plain supervised fine-tuning, and what the others change of it; all that they need is made from the
    untaught model.

    Args:
        student: the model to teach, its weights already the optimiser's.
        optimizer: of the student.
        rows: all rows that are taught.
        config: resolved.
        processes: who train it together.
    """

    def __init__(
        self,
        student: LanguageModel,
        optimizer: AnyOptimizer,
        rows: Sequence[TrainRow],
        config: LearnConfig,
        processes: ProcessGroup,
    ) -> None:
        self.student, self.optimizer, self.rows = student, optimizer, rows
        self.config, self.processes = config, processes

    def step(self, indices: Sequence[int], step: int) -> StepOutput:
        """Learns from the rows of a step (0-based)."""
        return self.learn_from([self.rows[index] for index in indices], step)

    def learn_from(self, rows: Sequence[TrainRow], step: int) -> StepOutput:
        """Raises the likelihood of the rows' targets: SFT, DFT, and continued pre-training on documents."""
        return sft_step(self.student, self.optimizer, rows, self.config, step, self.processes)

    def state(self) -> dict[str, Tensor]:
        """What a resumed run needs beyond the optimiser's own state."""
        return {}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Goes back to a state."""


class Distillation(Method):
    """Self-distillation, and the same on the teacher's completions alone (off-policy).

    Args:
        rehearse: examples of earlier skills.
        origin: the model before it was taught anything, where that is another one than the student.
        taught: the examples that the rows are made of.
    """

    def __init__(
        self,
        student: LanguageModel,
        optimizer: AnyOptimizer,
        rows: Sequence[TrainRow],
        config: LearnConfig,
        processes: ProcessGroup,
        rehearse: Sequence[Example] = (),
        origin: str | Path | None = None,
        taught: Sequence[Example] = (),
    ) -> None:
        super().__init__(student, optimizer, rows, config, processes)
        self.teacher = _teacher(student, optimizer, config, processes)
        self.rollouts = Rollouts(student, self.teacher, rows, config, processes)
        self.anchor = None
        kept = self._kept(rehearse, taught)
        if config.anchor.rows or any(some.prompts for some in kept):
            writer = None if origin is None else load_model(origin, dtype=config.dtype)
            self.anchor = Anchor(student, config.anchor, config.seed, processes, kept, writer, config.total_steps)

    def _kept(self, rehearse: Sequence[Example], taught: Sequence[Example]) -> list[Kept]:
        """What the anchor holds the student to besides general prompts."""
        config, kept = self.config, []
        if config.anchor.rehearsal:
            prompts, length = rehearsal_prompts(self.student, rehearse)
            kept.append(Kept(prompts, length, config.anchor.rehearsal))
        if config.anchor.shown:
            prompts = shown_prompts(self.student, taught, config, config.anchor.pool)
            kept.append(Kept(prompts, config.completion_limit, config.anchor.shown))
        return kept

    def step(self, indices: Sequence[int], step: int) -> StepOutput:
        """See `Method`."""
        return sdft_step(
            self.student,
            self.teacher,
            self.rollouts,
            self.optimizer,
            self.rows,
            indices,
            self.config,
            step,
            self.anchor,
            self.processes,
        )

    def state(self) -> dict[str, Tensor]:
        """See `Method`."""
        return self.teacher.state()

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """See `Method`."""
        self.teacher.load_state(tensors)


class TeacherSamples(Method):
    """SFT on what the teacher says, once shown the demonstrations, instead of on the demonstrations."""

    def __init__(
        self,
        student: LanguageModel,
        optimizer: AnyOptimizer,
        rows: Sequence[TrainRow],
        config: LearnConfig,
        processes: ProcessGroup,
    ) -> None:
        super().__init__(student, optimizer, rows, config, processes)
        teacher = _teacher(student, optimizer, config.model_copy(update={"teacher": FrozenTeacher()}), processes)
        self._samples = Rollouts(student, teacher, rows, config, processes)

    def step(self, indices: Sequence[int], step: int) -> StepOutput:
        """See `Method`."""
        samples = self._samples.teacher_samples(indices, step)
        rows = [dataclasses.replace(self.rows[index], target=target) for index, target in zip(indices, samples)]
        return self.learn_from(rows, step)


class Replay(Method):
    """SFT with the base's own answers to general prompts mixed in, `anchor.rows` of them a step."""

    def __init__(
        self,
        student: LanguageModel,
        optimizer: AnyOptimizer,
        rows: Sequence[TrainRow],
        config: LearnConfig,
        processes: ProcessGroup,
    ) -> None:
        super().__init__(student, optimizer, rows, config, processes)
        general = Anchor(student, config.anchor, config.seed, processes, num_steps=config.total_steps).general
        self._general = [
            TrainRow(f"general-{number}", row.prompt, (), row.completion) for number, row in enumerate(general)
        ]

    def step(self, indices: Sequence[int], step: int) -> StepOutput:
        """See `Method`."""
        picked = batch_indices(len(self._general), self.config.anchor.rows, step, self.config.seed)
        mixed = [self._general[index] for index in picked]
        return self.learn_from([*(self.rows[index] for index in indices), *mixed], step)


class Reinvoke(Method):
    """SFT; then, for the last `reinvoke_share` of the steps, the base is distilled back on general prompts."""

    def __init__(
        self,
        student: LanguageModel,
        optimizer: AnyOptimizer,
        rows: Sequence[TrainRow],
        config: LearnConfig,
        processes: ProcessGroup,
    ) -> None:
        super().__init__(student, optimizer, rows, config, processes)
        self._anchor = Anchor(student, config.anchor, config.seed, processes)

    def step(self, indices: Sequence[int], step: int) -> StepOutput:
        """See `Method`."""
        if step < round((1 - self.config.reinvoke_share) * self.config.total_steps):
            return super().step(indices, step)
        nats = self._anchor.backward(self.student, step, self.config.microbatch_tokens)
        nats = self.processes.sum(nats)
        check_finite(nats, step)
        rows = self.config.anchor.rows
        grad_norm, num_tokens = self.optimizer.step(step), self._anchor.num_tokens(step)
        return StepOutput(nats, None, grad_norm, rows, num_tokens, rows, anchor_nats=nats)


def make_method(
    student: LanguageModel,
    optimizer: AnyOptimizer,
    rows: Sequence[TrainRow],
    config: LearnConfig,
    processes: ProcessGroup,
    rehearse: Sequence[Example] = (),
    origin: str | Path | None = None,
    taught: Sequence[Example] = (),
) -> Method:
    """The configured method, ready for its first step; see `Distillation` for the arguments."""
    if config.distils:
        return Distillation(student, optimizer, rows, config, processes, rehearse, origin, taught)
    others = {"teacher_samples": TeacherSamples, "replay": Replay, "reinvoke": Reinvoke}
    return others.get(config.method, Method)(student, optimizer, rows, config, processes)


def _teacher(
    student: LanguageModel, optimizer: AnyOptimizer, config: LearnConfig, processes: ProcessGroup
) -> TeacherModel:
    teacher = TeacherModel(student, config.teacher, (config.prefix_cache_mib << 20) // processes.size, processes)
    teacher.start(student, optimizer.masters)
    return teacher
