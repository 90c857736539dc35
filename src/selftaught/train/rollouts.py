"""The completions that a step learns from: the student's, or at first also the teacher's."""

from __future__ import annotations

from collections.abc import Sequence

from selftaught.config import LearnConfig
from selftaught.models.load import LanguageModel
from selftaught.models.prefill import Prefill, prefill
from selftaught.models.teacher import TeacherModel
from selftaught.rollout.sampler import Completion, Sampling
from selftaught.rollout.torch_sampler import sample
from selftaught.train.batch import row_seed


def teacher_share(config: LearnConfig, step: int) -> float:
    """Share of a step's completions drawn from the teacher, falling linearly to 0.

    A student that does not know a fact seldom samples its first token, and once it samples another the
    rest of the answer is off track; the teacher's samples show it the whole answer until it can. After
    `teacher_share_end` of the run every completion is the student's own (after arXiv 2605.16865).
    """
    rollout = config.rollout
    end = rollout.teacher_share_end * config.total_steps
    return rollout.teacher_share * max(0.0, 1 - step / end) if end > 0 else 0.0


def draw_rollouts(
    student: LanguageModel,
    teacher: TeacherModel,
    student_prompts: Sequence[Sequence[int]],
    teacher_prefill: Prefill,
    config: LearnConfig,
    step: int,
) -> list[Completion]:
    """One completion a prompt: the first rows from the teacher, by `teacher_share`, the others from the student.

    Args:
        student: draws from its own prompts.
        teacher: draws from `teacher_prefill`.
        student_prompts: B token lists.
        teacher_prefill: the teacher's prompts of the same rows, already run.
        config: sampling and shares.
        step: 0-based; seeds follow from it.
    """
    rollout = config.rollout
    sampling = Sampling(config.completion_limit, rollout.temperature, rollout.top_p)
    seeds = [row_seed(config.seed, step, row) for row in range(len(student_prompts))]
    num_teacher = round(teacher_share(config, step) * len(student_prompts))
    completions: list[Completion] = []
    if num_teacher:
        with teacher.active() as model:
            completions += sample(model, teacher_prefill.rows(range(num_teacher)), sampling, seeds[:num_teacher])
    if num_teacher < len(student_prompts):
        prompts = prefill(student, student_prompts[num_teacher:])
        completions += sample(student, prompts, sampling, seeds[num_teacher:])
    return completions
