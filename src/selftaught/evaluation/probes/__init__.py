"""Retention probes: short tasks that the base model partly masters, to see what teaching cost.

The items are ours, in JSON files beside this one, a file a family.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from selftaught.evaluation.probes.bank import read_bank
from selftaught.types import Example, Message, Scorer

FAMILIES = ("facts", "categories", "arithmetic", "formats", "translation")


@dataclass(frozen=True)
class ProbeFamily:
    """One ability, and the items that probe it.

    Attributes:
        name: one of `FAMILIES`.
        description: what is asked.
        max_new_tokens: longest answer.
        examples: the items; each one's group is the family's name.
        clusters: of every item's id, what it shares with the other wordings of the same fact.
    """

    name: str
    description: str
    max_new_tokens: int
    examples: tuple[Example, ...]
    clusters: Mapping[str, str]


@cache
def probe_family(name: str) -> ProbeFamily:
    """The standard items of a family: quick to ask, and each of a fact of its own."""
    data = _read(f"{name}.json")
    examples = tuple(
        Example(
            id=item["id"],
            prompt=(Message("user", item["prompt"]),),
            answers=tuple(item.get("answers", ())),
            scorer=Scorer(item["scorer"]["name"], item["scorer"].get("params", {})),
            group=name,
            split="test",
        )
        for item in data["items"]
    )
    return ProbeFamily(name, data["description"], data["max_new_tokens"], examples, _alone(examples))


@cache
def probe_bank(name: str) -> ProbeFamily:
    """A family's standard items and, after them, the bank's: enough to prove a small loss, or its absence."""
    standard, bank = probe_family(name), read_bank(name)
    asked = {example.question for example in standard.examples}
    more = tuple(example for example in bank.examples if example.question not in asked)
    clusters = {example.id: bank.clusters[example.id] for example in more}
    return ProbeFamily(
        name, standard.description, bank.max_new_tokens, standard.examples + more, {**standard.clusters, **clusters}
    )


@cache
def general_prompts() -> tuple[str, ...]:
    """Varied everyday requests, on which drift is measured."""
    return tuple(_read("general_prompts.json")["prompts"])


def _alone(examples: tuple[Example, ...]) -> dict[str, str]:
    return {example.id: example.id for example in examples}


def _read(name: str) -> Any:
    return json.loads(files(__name__).joinpath(name).read_text(encoding="utf-8"))
