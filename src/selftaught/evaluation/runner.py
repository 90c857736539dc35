"""Asks a model questions and judges its answers. Greedy, so that one model gives one result."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

from selftaught.config import PromptConfig
from selftaught.errors import DataError
from selftaught.evaluation.scorers import score
from selftaught.models.fast_decoder import make_decoder
from selftaught.models.load import LanguageModel
from selftaught.models.prefill import FreshPrompts
from selftaught.processes import ALONE, ProcessGroup
from selftaught.prompts import render, student_prompt, teacher_messages
from selftaught.rollout.sampler import Completion, Sampling
from selftaught.rollout.torch_sampler import sample
from selftaught.statistics import Share, shares_by_group
from selftaught.types import Example, ItemResult

ROWS_AT_ONCE = 64  # about as many prompts are answered together


def answer(
    model: LanguageModel,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    seeds: Sequence[int] | None = None,
    on_progress: Callable[[int], None] | None = None,
    processes: ProcessGroup = ALONE,
) -> list[Completion]:
    """Completions of many prompts, those alike in length together.

    Args:
        model: who answers.
        prompts: token ids.
        sampling: how to draw.
        seeds: one a prompt; needed unless greedy.
        on_progress: called with the number of this process's prompts done so far.
        processes: who answer, each its share; all get all completions.
    """
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    mine = processes.share(order)
    decoder = make_decoder(model, sampling.max_new_tokens * math.ceil(len(mine) / ROWS_AT_ONCE))
    drawn = sample(
        FreshPrompts(decoder, [prompts[index] for index in mine]),
        sampling,
        [seeds[index] for index in mine] if seeds is not None else None,
        on_done=on_progress or (lambda done: None),
    )
    everyones = processes.merged(processes.gather(drawn))
    completions = dict(zip(order, everyones, strict=True))
    return [completions[index] for index in range(len(prompts))]


def text_of(model: LanguageModel, completion: Completion) -> str:
    """A completion as text, without its stop token."""
    text: str = model.tokenizer.decode(completion.ids, skip_special_tokens=True)
    return text.strip()


def evaluate(
    model: LanguageModel,
    examples: Sequence[Example],
    max_new_tokens: int = 32,
    in_context: PromptConfig | None = None,
    on_progress: Callable[[int], None] | None = None,
    processes: ProcessGroup = ALONE,
) -> list[ItemResult]:
    """Asks every example's question and scores the answer.

    Args:
        model: who answers.
        examples: what is asked.
        max_new_tokens: longest answer.
        in_context: show the demonstration (and document) by these templates, as the teacher sees them.
        on_progress: called with the number of this process's answers so far.
        processes: who answer, each its share; all get all results.

    Raises:
        DataError: a question does not fit the model; it names the row.
    """
    tokenizer = model.tokenizer
    if in_context is None:
        prompts = [student_prompt(example, tokenizer) for example in examples]
    else:
        prompts = [render(teacher_messages(example, in_context), tokenizer) for example in examples]
    for example, prompt in zip(examples, prompts, strict=True):
        if len(prompt) + max_new_tokens > model.max_tokens:
            raise DataError(
                f"row {example.id!r}: {len(prompt)} prompt tokens and up to {max_new_tokens} of the answer do not fit "
                f"the model's {model.max_tokens}"
            )
    greedy = Sampling(max_new_tokens, temperature=0.0)
    completions = answer(model, prompts, greedy, on_progress=on_progress, processes=processes)
    results: list[ItemResult] = []
    if processes.first:  # a scorer of the user's may be known to the process that was called alone
        texts = [text_of(model, completion) for completion in completions]
        results = [
            ItemResult(example.id, example.group, text, score(text, example))
            for example, text in zip(examples, texts, strict=True)
        ]
    return processes.gather(results)[0]


@dataclasses.dataclass(frozen=True)
class Lift:
    """Accuracy on the taught questions without and with the demonstration in context."""

    without: Share
    with_demonstration: Share

    @property
    def value(self) -> float:
        """What the demonstration adds."""
        return self.with_demonstration.value - self.without.value

    @property
    def warning(self) -> str | None:
        """Why self-distillation will not teach much here; None if it can."""
        if self.without.value >= 0.9:
            return f"the model already answers {self.without.value:.0%} of these questions: there is little to learn"
        if self.value < 0.2 - 1e-9:  # 0.7 − 0.5 is a little less than 0.2
            return (
                f"the demonstration lifts accuracy by only {100 * self.value:.0f} points: self-distillation cannot "
                "teach what the model cannot use in context; try a larger model, or other demonstrations or templates"
            )
        return None

    def as_dict(self) -> dict[str, object]:
        """For a report."""
        return {
            "without": self.without.as_dict(),
            "with": self.with_demonstration.as_dict(),
            "lift": self.value,
            "warning": self.warning,
        }


def check_lift(
    model: LanguageModel,
    examples: Sequence[Example],
    prompts: PromptConfig,
    max_new_tokens: int = 32,
    processes: ProcessGroup = ALONE,
) -> Lift:
    """Measures the lift over the examples that are taught."""
    taught = [example for example in examples if example.split == "train"]
    return Lift(
        _overall(evaluate(model, taught, max_new_tokens, processes=processes)),
        _overall(evaluate(model, taught, max_new_tokens, in_context=prompts, processes=processes)),
    )


def accuracy_by_group(results: Sequence[ItemResult]) -> dict[str, dict[str, float]]:
    """Accuracy of each group, for a report."""
    return {group: share.as_dict() for group, share in shares_by_group(results).items()}


def _overall(results: Sequence[ItemResult]) -> Share:
    return Share(sum(result.correct for result in results), len(results))
