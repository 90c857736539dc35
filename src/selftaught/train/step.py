"""One step of self-distillation fine-tuning (SDFT, arXiv 2601.19897).

sample → score teacher and student → loss → backward → optimiser → teacher update.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from selftaught.config import LearnConfig
from selftaught.errors import TrainingError
from selftaught.losses.distillation import distillation_loss, sequence_weights
from selftaught.models.batching import microbatches
from selftaught.models.load import LanguageModel
from selftaught.models.score import student_hidden
from selftaught.models.teacher import TeacherModel
from selftaught.processes import ALONE, ProcessGroup
from selftaught.train.anchor import Anchor
from selftaught.train.batch import TrainRow
from selftaught.train.guard import repetition
from selftaught.train.lockstep import in_step
from selftaught.train.optim import AnyOptimizer
from selftaught.train.rollouts import Rollouts


@dataclass(frozen=True)
class StepOutput:
    """What one optimiser step did.

    Attributes:
        loss: the distillation loss (SDFT, the anchor's apart) or the cross-entropy (SFT).
        gap_nats: mean divergence a token between teacher and student, before clipping (SDFT); for SFT
            the mean negative log-likelihood; None where only the anchor teaches.
        grad_norm: before clipping.
        num_rows: completions learned from, or, where only the anchor teaches, its rows.
        num_tokens: completion tokens of these.
        num_ended: rollouts that ended by themselves (SDFT), else all rows.
        anchor_nats: KL(base‖student) a token on the anchor's rows; None without an anchor.
        repetition: mean share of a rollout's four-token runs that it has said before; None without rollouts.
    """

    loss: float
    gap_nats: float | None
    grad_norm: float
    num_rows: int
    num_tokens: int
    num_ended: int
    anchor_nats: float | None = None
    repetition: float | None = None


def sdft_step(
    student: LanguageModel,
    teacher: TeacherModel,
    rollouts: Rollouts,
    optimizer: AnyOptimizer,
    rows: Sequence[TrainRow],
    indices: Sequence[int],
    config: LearnConfig,
    step: int,
    anchor: Anchor | None = None,
    processes: ProcessGroup = ALONE,
) -> StepOutput:
    """Moves the student, token by token, towards the teacher's distribution over sampled answers.

    Args:
        student: the model being taught; sees `row.prompt`.
        teacher: the model shown the demonstration; sees `row.teacher_prompt`.
        rollouts: draws the student's answers and has the teacher score them.
        optimizer: holds the student's masters.
        rows: all rows that are taught.
        indices: the step's rows among them; each gets `rollout.per_prompt` completions.
        config: of the run.
        step: 0-based.
        anchor: holds the student to the base model on other prompts; None does not.
        processes: who share the batch; each does the same with its own rows of it.

    Raises:
        TrainingError: the loss or its gradient is not finite; no weight has been changed.
    """
    # 1. sample: the student answers on its own; the teacher scores every token of the answer
    indices = [index for index in indices for _ in range(config.rollout.per_prompt)]
    drawn = rollouts.draw(indices, step)
    prompts = [rows[rollout.row].prompt for rollout in drawn]
    answers = [rollout.completion.ids for rollout in drawn]
    teacher_head = teacher.head()

    loss, nats = 0.0, 0.0
    lengths = [len(prompt) + len(answer) for prompt, answer in zip(prompts, answers)]
    groups = microbatches(lengths, config.microbatch_tokens, prompts if config.rollout.per_prompt > 1 else None)
    with in_step(student, len(groups), processes):
        for group in groups:
            # 2. the student scores the same tokens, without the demonstration
            group_answers = [answers[row] for row in group]
            student_states = student_hidden(student, [prompts[row] for row in group], group_answers)  # [N, H]
            teacher_states = torch.cat([drawn[row].teacher_states for row in group])  # [N, H]

            # 3. loss and backward: a divergence over the vocabulary at every token
            weights = sequence_weights([len(a) for a in group_answers], len(indices), config.loss.skip_tokens)
            output = distillation_loss(student_states, student.head, teacher_states, teacher_head, weights, config.loss)
            output.loss.backward()
            loss += output.loss.item()
            nats += output.nats.sum().item()
    anchor_nats = anchor.backward(student, step, config.microbatch_tokens) if anchor is not None else 0.0
    num_tokens, num_ended = sum(map(len, answers)), sum(rollout.completion.ended for rollout in drawn)
    repeated = sum(map(repetition, answers)) / len(indices)
    loss, nats, anchor_nats, num_tokens, num_ended, repeated = processes.sum(
        loss, nats, anchor_nats, num_tokens, num_ended, repeated
    )
    check_finite(loss + anchor_nats, step)

    # 4. optimiser and teacher update
    grad_norm = optimizer.step(step)
    teacher.update(student, optimizer.masters)
    held = anchor_nats if anchor is not None else None
    return StepOutput(loss, nats / num_tokens, grad_norm, len(indices), num_tokens, num_ended, held, repeated)


def check_finite(loss: float, step: int) -> None:
    """Raises TrainingError for a loss that is not finite, before it reaches the weights."""
    if not math.isfinite(loss):
        raise TrainingError(
            f"step {step + 1}: the loss is not finite; lower learning_rate, or set dtype=float32 "
            "(the last checkpoint is kept)"
        )
