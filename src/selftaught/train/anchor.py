"""The anchor: what the base model says on prompts that nobody teaches, held in place while it learns.

The base model makes the prompts itself: shown only where a user's turn begins, a chat model writes one,
and then answers it. So no data is needed, and none that is measured later is seen. Each step adds

    weight · mean over anchor rows of mean over tokens of KL(base‖student)

to the loss, which is drift itself, on the model's own everyday talk (after arXiv 2609.24646).

Where the model has learned skills before, the prompts are still written and answered by the model as it was before
the first of them, so that what each lesson costs does not add up. And prompts of those skills are *rehearsed* in the
same way: what the model says to them now, right or wrong, is what the student is held to. No demonstration is needed
again. So is what it makes of rows that show it another row's demonstration (`anchor.shown`): a model that stops
following what it is shown is no teacher for the next lesson.

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
from selftaught.train.lockstep import in_step

USER_MARK = "\x00user\x00"
OPENERS = (
    # anything
    "", "What", "Which", "Who", "Where", "When", "Why", "How", "How many", "Is", "Can", "Name", "Give", "List",
    "Write", "Explain", "Describe", "Complete", "Answer", "Choose", "Summarize", "Tell",
    # facts and words
    "Who was", "Which country", "In which year", "What is the capital of", "What is the name of", "Which animal",
    "What is the opposite of", "What kind of", "What color", "What do you call", "Is a", "True or false:",
    "Which of these", "What comes after", "Put these",
    # numbers
    "Calculate", "What is 7 plus", "What is 12 minus", "What is 6 times", "What is 20 divided by", "Add", "Subtract",
    "How much is", "How many days", "If I have", "What is half of", "Which number is", "Count", "Solve",
    # forms
    "Write a sentence", "Write exactly", "Reply with", "Use the word", "Repeat", "Spell", "Rewrite", "Say",
    "Finish the sentence:", "Start your answer with", "In one word,", "Change", "Make a list of", "Write in capitals:",
    # languages
    "Translate", "Translate into English:", "Translate into Spanish:", "Translate into French:", "How do you say",
    "Which language", "What does the word", "What does the Spanish word", "What does the French word",
    "What does the German word", "What does the Italian word", "What is the German word for",
    "What is the Spanish word for",
)  # fmt: skip
"""How the base's prompts begin, in turn: left to itself it seldom writes a short, plain request. Kinds of requests
that no opener leads to are held less well (docs/log.md)."""
PROMPT_TEMPERATURE, ANSWER_TEMPERATURE = 0.8, 0.5  # hotter, a small model writes requests and answers that none would
GROUP_ROWS = 64  # sampled at a time
AS_IT_IS = LossConfig(teacher_temperature=1.0)  # what is held is what the base says, no sharper


@dataclass(frozen=True)
class AnchorRow:
    """A prompt that the base wrote, its answer, and its states at each token of the answer."""

    prompt: tuple[int, ...]
    completion: tuple[int, ...]
    hidden: Tensor  # [N, H]


@dataclass(frozen=True)
class Kept:
    """Prompts besides the general ones, to which the student is held to what the base says now.

    Attributes:
        prompts: as token ids.
        max_new_tokens: longest answer to one of them.
        rows_a_step: so many of them beside each step's batch.
    """

    prompts: Sequence[tuple[int, ...]]
    max_new_tokens: int
    rows_a_step: int


class Anchor:
    """Rows drawn once from the base model, and the loss that holds the student to them.

    Args:
        base: the model before it is taught; it answers the kept prompts.
        config: number of rows, their length and weight.
        seed: of the rows.
        processes: who draw the rows, and share those of a step.
        kept: prompts of earlier skills, and of other kinds; of each at most `config.pool` are used, evenly taken.
        origin: who writes and answers the general prompts: the model before it was taught anything; None is `base`.
        num_steps: steps that it will be used for; no more rows are drawn than they need.
    """

    def __init__(
        self,
        base: LanguageModel,
        config: AnchorConfig,
        seed: int,
        processes: ProcessGroup = ALONE,
        kept: Sequence[Kept] = (),
        origin: LanguageModel | None = None,
        num_steps: int | None = None,
    ) -> None:
        self.config = config
        self.processes = processes
        self.seed = seed
        needed = math.inf if num_steps is None else num_steps
        self._held: list[_Held] = []
        if config.rows:
            pool = max(1, int(min(config.pool, config.rows * needed)))
            with (origin or base).whole() as writer:
                rows = draw_rows(writer, config.model_copy(update={"pool": pool}), seed, processes)
                self._held.append(_Held(rows, config.rows, _copied_head(writer)))
        for some in kept:
            prompts = _evenly(some.prompts, int(min(config.pool, some.rows_a_step * needed)))
            if some.rows_a_step and prompts:
                with base.whole() as writer:
                    answers = answered(writer, prompts, some.max_new_tokens, seed, processes)
                    self._held.append(_Held(answers, some.rows_a_step, _copied_head(writer)))

    @property
    def general(self) -> Sequence[AnchorRow]:
        """The prompts that the base wrote, with its answers."""
        return self._held[0].rows if self.config.rows else []

    def num_tokens(self, step: int) -> int:
        """Number of completion tokens that a step (0-based) holds the student to."""
        return sum(len(row.completion) for held in self._held for row in held.picked(step, self.seed))

    def backward(self, student: LanguageModel, step: int, microbatch_tokens: int) -> float:
        """Adds the anchor's gradient for a step (0-based).

        Returns:
            This process's part of the mean KL(base‖student) a token, in nats.
        """
        num_rows = sum(held.rows_a_step for held in self._held)
        total = 0.0
        for held in self._held:
            rows = self.processes.share(held.picked(step, self.seed))
            groups = microbatches([len(row.prompt) + len(row.completion) for row in rows], microbatch_tokens)
            with in_step(student, len(groups), self.processes):
                for group in groups:
                    members = [rows[index] for index in group]
                    states = student_hidden(
                        student, [row.prompt for row in members], [row.completion for row in members]
                    )
                    weights = sequence_weights([len(row.completion) for row in members], num_rows) * self.config.weight
                    base_states = torch.cat([row.hidden for row in members])
                    output = distillation_loss(states, student.head, base_states, held.head, weights, AS_IT_IS)
                    output.loss.backward()
                    total += output.loss.item()
        return total / self.config.weight


def _evenly(prompts: Sequence[tuple[int, ...]], at_most: int) -> list[tuple[int, ...]]:
    """So many prompts, evenly taken."""
    wanted = min(at_most, len(prompts))
    return [prompts[index * len(prompts) // wanted] for index in range(wanted)]


@dataclass(frozen=True)
class _Held:
    """Rows that one model answered, how many of them a step takes, and that model's last layer."""

    rows: list[AnchorRow]
    rows_a_step: int
    head: Head

    def picked(self, step: int, seed: int) -> list[AnchorRow]:
        """Those of a step (0-based)."""
        return [self.rows[index] for index in batch_indices(len(self.rows), self.rows_a_step, step, seed)]


def _copied_head(model: LanguageModel) -> Head:
    """The student's own would change as it learns."""
    head = model.head.detached()
    return Head(head.weight.clone(), None if head.bias is None else head.bias.clone())


@torch.no_grad()
def draw_rows(base: LanguageModel, config: AnchorConfig, seed: int, processes: ProcessGroup = ALONE) -> list[AnchorRow]:
    """Has the base write `config.pool` user turns and answer them."""
    opening, closing = user_turn(base)
    prompts: list[list[tuple[int, ...]]] = []
    decoder = make_decoder(base, config.max_new_tokens * math.ceil(config.pool / GROUP_ROWS))
    for first in processes.share(range(0, config.pool, GROUP_ROWS)):
        numbers = range(first, min(first + GROUP_ROWS, config.pool))
        sampling = Sampling(config.max_new_tokens, PROMPT_TEMPERATURE)
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
    """Has the base answer prompts."""
    groups: list[list[AnchorRow]] = []
    decoder = make_decoder(base, max_new_tokens * math.ceil(len(prompts) / GROUP_ROWS))
    for first in processes.share(range(0, len(prompts), GROUP_ROWS)):
        numbers = range(first, min(first + GROUP_ROWS, len(prompts)))
        asked = [prompts[number] for number in numbers]
        seeds = [row_seed(seed, -2, number) for number in numbers]
        sampling = Sampling(max_new_tokens, ANSWER_TEMPERATURE)
        answers = sample(FreshPrompts(decoder, asked), sampling, seeds, keep_states=True)
        groups.append([AnchorRow(row, answer.ids, answer.states) for row, answer in zip(asked, answers, strict=True)])
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
