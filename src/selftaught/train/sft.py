"""One step of supervised fine-tuning (SFT) and of DFT: the baselines, in the same loop as `step.sdft_step`."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from selftaught.config import LearnConfig
from selftaught.losses.distillation import likelihood_loss, sequence_weights
from selftaught.models.batching import microbatches
from selftaught.models.load import LanguageModel
from selftaught.models.score import student_hidden
from selftaught.processes import ALONE, ProcessGroup
from selftaught.train.batch import TrainRow
from selftaught.train.lockstep import in_step
from selftaught.train.optim import AnyOptimizer
from selftaught.train.step import StepOutput, check_finite


def sft_step(
    student: LanguageModel,
    optimizer: AnyOptimizer,
    rows: Sequence[TrainRow],
    config: LearnConfig,
    step: int,
    processes: ProcessGroup = ALONE,
) -> StepOutput:
    """Raises the likelihood of each row's target: its demonstration, or what another method puts in its place.

    L = −mean over rows of the mean over tokens of log p(token | prompt, tokens before it).

    With method "dft", each token weighs as much as the model believes in it already: `likelihood_loss`.

    Args:
        student: the model being taught; sees `row.prompt`.
        optimizer: holds the student's masters.
        rows: the step's batch; `row.target` is learned.
        config: of the run.
        step: 0-based.
        processes: who share the batch; each does the same with its own rows of it.

    Raises:
        TrainingError: the loss or its gradient is not finite; no weight has been changed.
    """
    loss, nats, num_rows, rows = 0.0, 0.0, len(rows), processes.share(rows)
    groups = microbatches([len(row.prompt) + len(row.target) for row in rows], config.microbatch_tokens)
    with in_step(student, len(groups), processes):
        for group in groups:
            targets = [rows[index].target for index in group]
            states = student_hidden(student, [rows[index].prompt for index in group], targets)  # [N, H]
            packed = torch.tensor([token for target in targets for token in target], device=states.device)  # [N]
            weights = sequence_weights([len(target) for target in targets], num_rows)
            output = likelihood_loss(
                states, student.head, packed, weights, config.loss.chunk_tokens, dft=config.method == "dft"
            )
            output.loss.backward()
            loss += output.loss.item()
            nats += output.nats.sum().item()
    loss, nats, num_tokens = processes.sum(loss, nats, sum(len(row.target) for row in rows))
    check_finite(loss, step)
    grad_norm = optimizer.step(step)
    return StepOutput(loss, nats / num_tokens, grad_norm, num_rows, num_tokens, num_rows)
