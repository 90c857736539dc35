"""The completions that a step learns from: the student's own, and at first also the teacher's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from selftaught.config import LearnConfig
from selftaught.models.load import LanguageModel
from selftaught.models.prefill import prefill
from selftaught.models.score import teacher_hidden
from selftaught.models.teacher import TeacherModel
from selftaught.rollout.sampler import Completion, Sampling
from selftaught.rollout.torch_sampler import sample
from selftaught.train.batch import TrainRow, row_seed

GROUP_ROWS = 16  # rows for which the teacher draws together, always the same ones


@dataclass(frozen=True)
class Rollout:
    """A completion, and the teacher's states that predict each of its tokens."""

    completion: Completion
    teacher_states: Tensor  # [T, H]


def teacher_share(config: LearnConfig, step: int) -> float:
    """Share of a step's completions drawn from the teacher, falling linearly to 0.

    A student that does not know a fact seldom samples its first token, and once it samples another the
    rest of the answer is off track; the teacher's samples show it the whole answer until it can. After
    `teacher_share_end` of the run every completion is the student's own (after arXiv 2605.16865).
    """
    rollout = config.rollout
    end = rollout.teacher_share_end * config.total_steps
    return rollout.teacher_share * max(0.0, 1 - step / end) if end > 0 else 0.0


class Rollouts:
    """Draws a step's completions and has the teacher score them.

    A frozen teacher's own completions are drawn `teacher_draws` times for each row, kept with its
    states (a few kilobytes each), and used in turn; the steps that learn from them need neither
    rollout nor teacher. They are drawn in fixed groups of rows, so that their numbers do not depend on
    the step that first needs them: a resumed run equals an uninterrupted one bit for bit.

    Args:
        student: draws from its own prompts.
        teacher: draws from, and scores with, the demonstration in its context.
        rows: all rows that are taught.
        config: sampling and shares.
    """

    def __init__(
        self, student: LanguageModel, teacher: TeacherModel, rows: Sequence[TrainRow], config: LearnConfig
    ) -> None:
        self._student, self._teacher, self._rows, self._config = student, teacher, rows, config
        rollout = config.rollout
        self._sampling = Sampling(config.completion_limit, rollout.temperature, rollout.top_p)
        self._kept: dict[tuple[int, int], Rollout] = {}  # by draw and row

    def draw(self, indices: Sequence[int], step: int) -> list[Rollout]:
        """One scored completion for each row of a step: the first ones the teacher's, by `teacher_share`.

        Args:
            indices: the step's rows.
            step: 0-based; seeds follow from it.
        """
        num_teacher = round(teacher_share(self._config, step) * len(indices))
        return self._from_teacher(indices[:num_teacher], step) + self._from_student(indices[num_teacher:], step)

    def _from_student(self, indices: Sequence[int], step: int) -> list[Rollout]:
        if not indices:
            return []
        seeds = [row_seed(self._config.seed, step, place) for place in range(len(indices))]
        prompts = prefill(self._student, [self._rows[index].prompt for index in indices])
        completions = sample(self._student, prompts, self._sampling, seeds)
        return self._scored(indices, completions)

    def _from_teacher(self, indices: Sequence[int], step: int) -> list[Rollout]:
        """The teacher's completions: kept ones if it is frozen, else fresh."""
        if not self._teacher.frozen:
            return self._sampled_by_teacher(indices, f"teacher/{step}") if indices else []
        epoch = step * self._config.batch_size // len(self._rows)
        draw = epoch % self._config.rollout.teacher_draws
        for index in indices:
            if (draw, index) not in self._kept:
                first = index - index % GROUP_ROWS
                group = range(first, min(first + GROUP_ROWS, len(self._rows)))
                drawn = self._sampled_by_teacher(group, f"teacher-draw/{draw}")
                self._kept |= {(draw, member): rollout for member, rollout in zip(group, drawn, strict=True)}
        return [self._kept[draw, index] for index in indices]

    def _sampled_by_teacher(self, indices: Sequence[int], stream: str) -> list[Rollout]:
        seeds = [row_seed(self._config.seed, f"{stream}/{place}", index) for place, index in enumerate(indices)]
        with self._teacher.active() as model:
            prompts = self._teacher.prefills.get([self._rows[index].teacher_prompt for index in indices])
            completions = sample(model, prompts, self._sampling, seeds)
        return self._scored(indices, completions)

    def _scored(self, indices: Sequence[int], completions: Sequence[Completion]) -> list[Rollout]:
        answers = [completion.ids for completion in completions]
        with self._teacher.active() as model:
            prompts = self._teacher.prefills.get([self._rows[index].teacher_prompt for index in indices])
            states = teacher_hidden(model, prompts, answers)  # [N, H]
        pieces = states.split([len(answer) for answer in answers])
        return [Rollout(completion, piece) for completion, piece in zip(completions, pieces, strict=True)]
