"""Asking and judging: answers, lift, and the retention probes."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, find, settings
from hypothesis import strategies as st

from selftaught.config import PromptConfig
from selftaught.evaluation import runner
from selftaught.evaluation.probes import FAMILIES, general_prompts, probe_family
from selftaught.evaluation.runner import Lift, accuracy_by_group, answer, check_lift, evaluate, text_of
from selftaught.evaluation.scorers import check_scorers, score
from selftaught.models.load import LanguageModel, load_model
from selftaught.prompts import student_prompt, teacher_prompt
from selftaught.rollout import torch_sampler
from selftaught.rollout.sampler import Sampling
from selftaught.statistics import Share
from selftaught.types import Example, ItemResult, Message


@pytest.fixture(scope="module")
def model(sharp_model: Path) -> LanguageModel:
    return load_model(sharp_model, dtype="float32")


def rows(number: int, **values: object) -> list[Example]:
    return [
        Example(id=f"r{n}", prompt=(Message("user", f"Where is {n * 'a'}?"),), demonstration="In Lima.", **values)  # type: ignore[arg-type]
        for n in range(number)
    ]


def test_answers_come_in_order_whatever_waits(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = [student_prompt(row, model.tokenizer) for row in rows(7)]
    seen: list[int] = []
    sampling = Sampling(6, temperature=1.0)
    together = answer(model, prompts, sampling, list(range(7)), seen.append)
    assert seen == sorted(seen) and seen[-1] == 7
    monkeypatch.setattr(torch_sampler, "CACHE_TOKENS", 2 * max(map(len, prompts)) + 12)  # room for two
    seen.clear()
    assert answer(model, prompts, sampling, list(range(7)), seen.append) == together
    assert seen == sorted(seen) and seen[-1] == 7 and len(seen) > 7
    backwards = answer(model, prompts[::-1], sampling, list(range(7))[::-1])
    assert backwards == together[::-1]
    assert answer(model, [], sampling, []) == []


def test_evaluate_is_greedy_and_judges_by_the_scorer(model: LanguageModel) -> None:
    asked = rows(3)
    first = evaluate(model, asked, 6)
    assert first == evaluate(model, asked, 6)
    assert [one.id for one in first] == ["r0", "r1", "r2"]
    said = first[1].completion
    told = [Example("x", asked[1].prompt, answers=(said,))] if said else asked[1:2]
    assert evaluate(model, told, 6)[0].correct or not said
    shares = accuracy_by_group(first)
    assert shares["direct"]["total"] == 3


def test_in_context_shows_what_the_teacher_sees(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = rows(2, context="Lima is in Peru.")
    config = PromptConfig()
    seen: list[list[int]] = []

    def spy(model: LanguageModel, prompts: list[list[int]], *_: object, **__: object) -> list[object]:
        seen.extend(prompts)
        return real(model, prompts, *_, **__)  # type: ignore[return-value, arg-type]

    real = runner.answer
    monkeypatch.setattr(runner, "answer", spy)
    evaluate(model, asked, 2, in_context=config)
    assert seen == [teacher_prompt(row, model.tokenizer, config) for row in asked]


def test_text_is_without_its_stop_token(model: LanguageModel) -> None:
    from selftaught.rollout.sampler import Completion

    ids = (*model.tokenizer(" Lima. ", add_special_tokens=False)["input_ids"], model.tokenizer.eos_token_id)
    assert text_of(model, Completion(ids, True)) == "Lima."


# ---------------------------------------------------------------------------------------------- lift


def test_lift_is_the_difference_of_two_accuracies(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over the taught rows alone: one of four is known, three are answered with the demonstration."""

    def judged(
        model: LanguageModel, asked: list[Example], length: int, in_context: object = None, processes: object = None
    ) -> list[ItemResult]:
        assert length == 9
        right = 3 if in_context is not None else 1
        return [ItemResult(row.id, row.group, "", number < right) for number, row in enumerate(asked)]

    monkeypatch.setattr(runner, "evaluate", judged)
    test_row = Example("t", (Message("user", "Who?"),), answers=("I",), split="test")
    lift = check_lift(model, [*rows(4), test_row], PromptConfig(), 9)
    assert (lift.without, lift.with_demonstration) == (Share(1, 4), Share(3, 4))
    assert lift.value == 0.5
    assert lift.as_dict()["lift"] == 0.5


@pytest.mark.parametrize(
    ("without", "with_demonstration", "words"),
    [
        (0, 20, None),
        (0, 4, None),
        (10, 14, None),
        (17, 20, "lifts accuracy by only 15 points"),
        (0, 0, "lifts accuracy by only 0 points"),
        (0, 3, "lifts accuracy by only 15 points"),
        (8, 4, "points: self-distillation cannot"),
        (18, 20, "already answers 90% of these questions"),
        (20, 20, "already answers 100% of these questions"),
    ],
)
def test_lift_warnings(without: int, with_demonstration: int, words: str | None) -> None:
    warning = Lift(Share(without, 20), Share(with_demonstration, 20)).warning
    assert (warning is None) if words is None else (warning is not None and words in warning)


# -------------------------------------------------------------------------------------------- probes


def test_families() -> None:
    ids = []
    for name in FAMILIES:
        family = probe_family(name)
        assert family.name == name
        assert family.description
        assert family.max_new_tokens >= 8
        assert len(family.examples) >= 50
        assert {example.group for example in family.examples} == {name}
        assert {example.split for example in family.examples} == {"test"}
        check_scorers(family.examples)
        ids += [example.id for example in family.examples]
    assert len(set(ids)) == len(ids)


def test_general_prompts_are_no_probes() -> None:
    prompts = general_prompts()
    assert len(prompts) >= 128
    assert len(set(prompts)) == len(prompts)
    asked = {example.question for name in FAMILIES for example in probe_family(name).examples}
    assert not asked & set(prompts)
    assert len(asked) == sum(len(probe_family(name).examples) for name in FAMILIES)


QUIETLY = settings(
    max_examples=500, deadline=None, suppress_health_check=list(HealthCheck), database=None, phases=[Phase.generate]
)


def right_answers(example: Example) -> list[str]:
    """Every accepted answer; where a pattern judges, a text that it finds."""
    if example.answers:
        return list(example.answers)
    assert example.scorer is not None
    pattern = example.scorer.params["pattern"]
    texts = st.from_regex(pattern)
    return [find(texts, lambda text: bool(re.search(pattern, text.strip())), settings=QUIETLY, random=random.Random(0))]


@pytest.mark.parametrize("name", FAMILIES)
def test_every_probe_tells_right_from_wrong(name: str) -> None:
    for example in probe_family(name).examples:
        for text in right_answers(example):
            assert score(text, example), (example.id, text)
        for text in ("", "???"):
            assert not score(text, example), (example.id, text)
