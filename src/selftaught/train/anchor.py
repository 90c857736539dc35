"""The anchor: what the base model says on prompts that nobody teaches, held in place while it learns.

The base model makes the prompts itself: shown only where a user's turn begins, a chat model writes one,
and then answers it. So no data is needed, and none that is measured later is seen. Each step adds

    weight · mean over anchor rows of mean over tokens of KL(base‖student)

to the loss, which is drift itself, on the model's own everyday talk (after arXiv 2609.24646).

Where the model has learned skills before, prompts of theirs are *rehearsed* in the same way: what it says to
them now, right or wrong, is what the student is held to. No demonstration is needed again.

Legend: N completion tokens, H hidden size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from selftaught.config import AnchorConfig, LossConfig
from selftaught.errors import ModelError
from selftaught.losses.distillation import Head, distillation_loss, sequence_weights
from selftaught.models.batching import microbatches
from selftaught.models.fast_decoder import make_decoder
from selftaught.models.load import LanguageModel
from selftaught.models.prefill import FreshPrompts
from selftaught.models.score import student_hidden
from selftaught.processes import ALONE, ProcessGroup
from selftaught.rollout.sampler import Sampling
from selftaught.rollout.torch_sampler import sample
from selftaught.train.batch import batch_indices, row_seed

USER_MARK = "\x00user\x00"
OPENERS = (
    "", "What", "Which", "Who", "Where", "When", "Why", "How", "How many", "Is", "Can", "Name", "Give", "List",
    "Write", "Translate", "Explain", "Describe", "Complete", "Answer", "Choose", "Calculate", "Summarize", "Tell",
)  # fmt: skip
"""Words that the base's prompts begin with, in turn: left to itself it seldom writes a short, plain request."""
GROUP_ROWS = 32  # sampled at a time


@dataclass(frozen=True)
class AnchorRow:
    """A prompt that the base wrote, its answer, and its states at each token of the answer."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    hidden: Tensor  # [N, H]


class Anchor:
    """Rows drawn once from the base model, and the loss that holds the student to them.

    Args:
        base: the model before it is taught.
        config: number of rows, their length and weight.
        seed: of the rows.
        processes: who draw the rows, and share those of a step.
        rehearsed: prompts of earlier skills, as token ids; as many as `config.pool` are used.
        rehearsed_tokens: longest answer to one of them.
    """

    def __init__(
        self,
        base: LanguageModel,
        config: AnchorConfig,
        seed: int,
        processes: ProcessGroup = ALONE,
        rehearsed: Sequence[Sequence[int]] = (),
        rehearsed_tokens: int = 0,
    ) -> None:
        self.config = config
        self.processes = processes
        self.seed = seed
        head = base.head.detached()
        self._head = Head(head.weight.clone(), None if head.bias is None else head.bias.clone())
        self._rows = draw_rows(base, config, seed, processes) if config.rows else []
        wanted = min(config.pool, len(rehearsed)) if config.rehearsal else 0  # evenly taken
        prompts = [tuple(rehearsed[index * len(rehearsed) // wanted]) for index in range(wanted)]
        self._rehearsed = answered(base, prompts, rehearsed_tokens, seed, processes) if prompts else []

    def backward(self, student: LanguageModel, step: int, microbatch_tokens: int) -> float:
        """Adds the anchor's gradient for a step (0-based).

        Returns:
            This process's part of the mean KL(base‖student) a token, in nats.
        """
        picked = _picked(self._rows, self.config.rows, step, self.seed)
        picked += _picked(self._rehearsed, self.config.rehearsal, step, self.seed)
        rows = self.processes.share(picked)
        total = 0.0
        for group in microbatches([len(row.prompt) + len(row.completion) for row in rows], microbatch_tokens):
            members = [rows[index] for index in group]
            states = student_hidden(student, [row.prompt for row in members], [row.completion for row in members])
            weights = sequence_weights([len(row.completion) for row in members], len(picked)) * self.config.weight
            base_states = torch.cat([row.hidden for row in members])
            output = distillation_loss(states, student.head, base_states, self._head, weights, LossConfig())
            output.loss.backward()
            total += output.loss.item()
        return total / self.config.weight


def _picked(rows: Sequence[AnchorRow], num_rows: int, step: int, seed: int) -> list[AnchorRow]:
    return [rows[index] for index in batch_indices(len(rows), num_rows, step, seed)] if rows else []


@torch.no_grad()
def draw_rows(base: LanguageModel, config: AnchorConfig, seed: int, processes: ProcessGroup = ALONE) -> list[AnchorRow]:
    """Has the base write `config.pool` user turns and answer them, at temperature 1."""
    opening, closing = user_turn(base)
    prompts: list[list[tuple[int, ...]]] = []
    decoder = make_decoder(base, config.max_new_tokens * math.ceil(config.pool / GROUP_ROWS))
    for first in processes.share(range(0, config.pool, GROUP_ROWS)):
        numbers = range(first, min(first + GROUP_ROWS, config.pool))
        sampling = Sampling(config.max_new_tokens, temperature=1.0)
        openers = [base.tokenizer(OPENERS[n % len(OPENERS)], add_special_tokens=False)["input_ids"] for n in numbers]
        begun = [(*opening, *opener) for opener in openers]
        turns = sample(FreshPrompts(decoder, begun), sampling, [row_seed(seed, -1, n) for n in numbers])
        prompts.append(
            [
                (*start, *(token for token in turn.ids if token not in base.stop_ids), *closing)
                for start, turn in zip(begun, turns, strict=True)
            ]
        )
    asked = [prompt for group in processes.merged(processes.gather(prompts)) for prompt in group]
    return answered(base, asked, config.max_new_tokens, seed, processes)


@torch.no_grad()
def answered(
    base: LanguageModel, prompts: Sequence[tuple[int, ...]], max_new_tokens: int, seed: int, processes: ProcessGroup
) -> list[AnchorRow]:
    """Has the base answer prompts at temperature 1."""
    groups: list[list[AnchorRow]] = []
    decoder = make_decoder(base, max_new_tokens * math.ceil(len(prompts) / GROUP_ROWS))
    for first in processes.share(range(0, len(prompts), GROUP_ROWS)):
        numbers = range(first, min(first + GROUP_ROWS, len(prompts)))
        asked = [prompts[number] for number in numbers]
        seeds = [row_seed(seed, -2, number) for number in numbers]
        answers = sample(FreshPrompts(decoder, asked), Sampling(max_new_tokens, temperature=1.0), seeds)
        groups.append(
            [
                AnchorRow(prompt, answer.ids, student_hidden(base, [prompt], [answer.ids]))
                for prompt, answer in zip(asked, answers, strict=True)
            ]
        )
    return [row for group in processes.merged(processes.gather(groups)) for row in group]


def user_turn(model: LanguageModel) -> tuple[list[int], list[int]]:
    """The tokens of the chat template before and after a user's first turn."""
    turns = [{"role": "user", "content": USER_MARK}]
    text = model.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    before, _, after = text.partition(USER_MARK)
    if not before:
        raise ModelError(
            f"{model.path}: its chat template has nothing before a user's turn, so the model cannot write one itself; "
            "set anchor.rows=0"
        )
    opening, closing = (model.tokenizer(part, add_special_tokens=False)["input_ids"] for part in (before, after))
    return opening, closing
