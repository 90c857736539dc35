"""Examples become rows of token ids; whatever does not fit is found here, before anything slow starts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from selftaught.config import LearnConfig
from selftaught.errors import ConfigError, DataError
from selftaught.models.load import LanguageModel
from selftaught.prompts import render, student_prompt, teacher_messages, teacher_prompt
from selftaught.train.batch import TrainRow
from selftaught.types import Example


def prepare(
    examples: Sequence[Example], model: LanguageModel, config: LearnConfig
) -> tuple[LearnConfig, list[TrainRow]]:
    """Turns the examples to teach into token ids, checks that every one fits, and resolves the configuration.

    Raises:
        DataError: nothing to teach; a row without a demonstration; a prompt that does not fit.
    """
    taught = [example for example in examples if example.split == "train"]
    if not taught:
        raise DataError("nothing to teach: the data has no row of split 'train'")
    demonstrations = [_target(example, model) for example in taught]
    wanted = config.method == "cpt" or (config.sft_documents and not config.shows_teacher)
    documents = _documents(taught, model) if wanted else []
    told = [] if config.method == "cpt" else list(zip(taught, demonstrations, strict=True))
    knowledge = any(example.context for example in taught)
    config = config.resolve(len(told) + len(documents), max(map(len, demonstrations)), knowledge)
    return config, [*(_row(example, target, model, config) for example, target in told), *documents]


def _documents(taught: Sequence[Example], model: LanguageModel) -> list[TrainRow]:
    """Each distinct document as a row of plain text."""
    found: dict[str, str] = {}  # and the first row that has it
    for example in taught:
        if example.context:
            found.setdefault(example.context, example.id)
    if not found:
        raise ConfigError("sft_documents, or method cpt: no row has a document (a context column)")
    stop, rows = model.tokenizer.eos_token_id, []
    for number, (document, row) in enumerate(found.items(), 1):
        target = (*model.tokenizer(document, add_special_tokens=False)["input_ids"], stop)
        if 1 + len(target) > model.max_tokens:
            raise DataError(
                f"row {row!r}: its document of {len(target)} tokens does not fit the model's {model.max_tokens}"
            )
        rows.append(TrainRow(f"document-{number}", (stop,), (), target))
    return rows


def _target(example: Example, model: LanguageModel) -> tuple[int, ...]:
    """The demonstration's tokens and the stop token."""
    if not example.demonstration:
        raise DataError(f"row {example.id!r}: has no demonstration to learn from")
    return (
        *model.tokenizer(example.demonstration, add_special_tokens=False)["input_ids"],
        model.tokenizer.eos_token_id,
    )


def _row(example: Example, target: tuple[int, ...], model: LanguageModel, config: LearnConfig) -> TrainRow:
    tokenizer = model.tokenizer
    prompt = tuple(student_prompt(example, tokenizer))
    room = model.max_tokens - config.completion_limit
    if len(prompt) + len(target) > model.max_tokens or len(prompt) > room:
        raise DataError(f"row {example.id!r}: {len(prompt)} prompt tokens and the answer do not fit {model.max_tokens}")
    if not config.shows_teacher:
        return TrainRow(example.id, prompt, (), target)
    return TrainRow(example.id, prompt, tuple(teacher_prompt(example, tokenizer, config.prompts, room)), target)


def shown_prompts(
    model: LanguageModel, examples: Sequence[Example], config: LearnConfig, at_most: int
) -> list[tuple[int, ...]]:
    """Prompts that ask a taught row's question and show another row's demonstration, as token ids.

    Shown its own, a student that has learned the answer need not look at what it is shown. Those that do not fit are
    left out.

    Args:
        model: whose tokens, and room.
        examples: those of split "train" are taken.
        config: resolved; whose template (`prompts.skill`), and length of an answer.
        at_most: so many; nearer neighbours come first.
    """
    taught = [example for example in examples if example.split == "train"]
    pairs = (
        (taught[place], taught[(place + offset) % len(taught)])
        for offset in range(1, len(taught))
        for place in range(len(taught))
    )
    prompts = []
    for asked, other in islice(((a, b) for a, b in pairs if a.demonstration != b.demonstration), at_most):
        swapped = replace(asked, context=None, said=None, feedback=None, demonstration=other.demonstration)
        prompts.append(tuple(render(teacher_messages(swapped, config.prompts), model.tokenizer)))
    return [prompt for prompt in prompts if len(prompt) + config.completion_limit <= model.max_tokens]


def rehearsal_prompts(model: LanguageModel, examples: Sequence[Example]) -> tuple[list[tuple[int, ...]], int]:
    """Prompts of earlier skills as token ids, and how long an answer to them may be.

    Those that no longer fit, with such an answer, are left out: they were checked when they were taught.
    """
    length = math.ceil(1.5 * max([len(_target(example, model)) for example in examples], default=0))
    prompts = [tuple(student_prompt(example, model.tokenizer)) for example in examples]
    return [prompt for prompt in prompts if len(prompt) + length <= model.max_tokens], length
