"""Single questions to a model: is this data teachable, how good is it, what does it say?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from selftaught.config import LearnConfig
from selftaught.types import Example, Message


def check(
    data: str | Path | Sequence[Example], model: str | Path = "smollm2-135m", config: LearnConfig | None = None
) -> dict[str, Any]:
    """Validates data and measures the lift: accuracy on the taught rows without and with the demonstration.

    Args:
        data: a file, a hub data set, or examples.
        model: an embedded name, a directory, or a hub id.
        config: whose templates are used.

    Returns:
        {"rows", "train_rows", "groups", "lift": {"without", "with", "lift", "warning"}}.

    Raises:
        SelftaughtError: with one line that says what is wrong and how to mend it.
    """
    from selftaught.evaluation.runner import check_lift
    from selftaught.models.load import load_model
    from selftaught.train.rows import prepare

    config, examples = config or LearnConfig(), _examples(data)
    loaded = load_model(model, dtype=config.dtype)
    config, rows = prepare(examples, loaded, config)
    lift = check_lift(loaded, examples, config.prompts, config.completion_limit)
    return {"rows": len(examples), "train_rows": len(rows), "groups": _groups(examples), "lift": lift.as_dict()}


def evaluate(
    model: str | Path,
    data: str | Path | Sequence[Example],
    max_new_tokens: int = 64,
    probes: bool = False,
    on_progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Asks a model every question of a data set and scores its answers.

    Args:
        model: an embedded name, a model's directory, a run's folder, or a hub id.
        data: a file, a hub data set, or examples.
        max_new_tokens: longest answer.
        probes: also ask the retention probes.
        on_progress: called with the number of answers so far.

    Returns:
        {"model", "accuracy": {group: share}, "probes": {family: share}, "results": [{"id", "group", "question",
        "expected", "completion", "correct"}]}; a share is {"correct", "total", "value", "low", "high"}.
    """
    from selftaught.evaluation.probes import FAMILIES, probe_family
    from selftaught.evaluation.runner import accuracy_by_group
    from selftaught.evaluation.runner import evaluate as ask_all
    from selftaught.models.load import load_model

    examples = _examples(data)
    loaded = load_model(model)
    results = ask_all(loaded, examples, max_new_tokens, on_progress=on_progress)
    probe_results = []
    for family in [probe_family(name) for name in FAMILIES] if probes else []:
        probe_results += ask_all(loaded, family.examples, family.max_new_tokens)
    return {
        "model": str(model),
        "accuracy": accuracy_by_group(results),
        "probes": accuracy_by_group(probe_results),
        "results": [
            {
                **asdict(result),
                "question": example.question,
                "expected": example.answers[0] if example.answers else example.demonstration or "",
            }
            for example, result in zip(examples, results, strict=True)
        ],
    }


class Chat:
    """A conversation with a model.

    Args:
        model: an embedded name, a model's directory, a run's folder, or a hub id.
        max_new_tokens: longest answer.
        temperature: 0 is greedy.
        seed: of the first answer; each later one has the next.
        system: a system prompt, if any.
    """

    def __init__(
        self,
        model: str | Path,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
        system: str | None = None,
    ) -> None:
        from selftaught.models.load import load_model
        from selftaught.rollout.sampler import Sampling

        self._model = load_model(model)
        self._sampling = Sampling(max_new_tokens, temperature)
        self._seed = seed
        self._messages: list[Message] = [Message("system", system)] if system else []

    def say(self, text: str) -> str:
        """The model's answer to the next user turn; the conversation goes on from it.

        Raises:
            DataError: the conversation no longer fits the model.
        """
        from selftaught.errors import DataError
        from selftaught.evaluation.runner import answer, text_of
        from selftaught.prompts import render

        turns = [*self._messages, Message("user", text)]
        prompt = render(tuple(turns), self._model.tokenizer)
        if len(prompt) + self._sampling.max_new_tokens > self._model.max_tokens:
            raise DataError(
                f"the conversation has {len(prompt)} tokens and the model takes {self._model.max_tokens} with the "
                "answer; start a new one, or ask for a shorter answer"
            )
        (completion,) = answer(self._model, [prompt], self._sampling, [self._seed])
        self._seed += 1
        reply = text_of(self._model, completion)
        self._messages = [*turns, Message("assistant", reply)]
        return reply


def ask(model: str | Path, prompt: str, max_new_tokens: int = 256, temperature: float = 0.0, seed: int = 0) -> str:
    """One answer to one question. For several, `Chat` loads the model once.

    Args:
        model: an embedded name, a model's directory, a run's folder, or a hub id.
        prompt: the user's turn.
        max_new_tokens: longest answer.
        temperature: 0 is greedy.
        seed: of the answer, where the temperature is above 0.
    """
    return Chat(model, max_new_tokens, temperature, seed).say(prompt)


def _examples(data: str | Path | Sequence[Example]) -> list[Example]:
    from selftaught.data import load_examples
    from selftaught.evaluation.scorers import check_scorers

    examples = load_examples(data) if isinstance(data, (str, Path)) else list(data)
    check_scorers(examples)
    return examples


def _groups(examples: Sequence[Example]) -> dict[str, int]:
    groups: dict[str, int] = {}
    for example in examples:
        groups[example.group] = groups.get(example.group, 0) + 1
    return groups
