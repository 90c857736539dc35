"""Built-in corpora, written for selftaught: fiction that no model can know."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any

from selftaught.types import Example, Message, Scorer

QUICKSTART_EVENTS = ("d01", "d02", "d03", "d05", "d07", "d08", "d14", "d15", "d17", "d18")
"""The fixed subset that the quickstart teaches, to keep its time: the first ten events whose four answers the
embedded model gives with the demonstration in context and does not guess without it (docs/log.md)."""


@cache
def events() -> tuple[dict[str, Any], ...]:
    """The invented events, as written: {"id", "name", "article", "questions", "indirect", …}."""
    text = files(__name__).joinpath("disasters.json").read_text(encoding="utf-8")
    return tuple(json.loads(text)["events"])


def disasters(event_ids: tuple[str, ...] | None = None) -> list[Example]:
    """The corpus "2025 natural disasters": 44 invented events.

    Each event has an article, four questions with demonstrations (group "direct", taught), two unseen
    rewordings of each (group "paraphrase"), and four questions that need a fact of the article without
    asking for it (group "indirect").

    Args:
        event_ids: some of the events ("d01" … "d44"); None takes all.
    """
    chosen = [event for event in events() if event_ids is None or event["id"] in event_ids]
    direct, paraphrase, indirect = [], [], []
    for event in chosen:
        for question in event["questions"]:
            direct.append(_example(question["id"], question, event, question["demonstration"]))
            for number, wording in enumerate(question["paraphrases"], 1):
                paraphrase.append(_test(f"{question['id']}-p{number}", wording, question["answers"], "paraphrase"))
        indirect += [_test(item["id"], item["question"], item["answers"], "indirect") for item in event["indirect"]]
    return [*direct, *paraphrase, *indirect]


def _example(id: str, question: dict[str, Any], event: dict[str, Any], demonstration: str) -> Example:
    return Example(
        id=id,
        prompt=(Message("user", question["question"]),),
        demonstration=demonstration,
        context=event["article"],
        answers=tuple(question["answers"]),
        scorer=Scorer("contains"),
    )


def _test(id: str, question: str, answers: list[str], group: str) -> Example:
    return Example(
        id=id,
        prompt=(Message("user", question),),
        answers=tuple(answers),
        scorer=Scorer("contains"),
        group=group,
        split="test",
    )
