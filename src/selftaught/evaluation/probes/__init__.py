"""Retention probes: short tasks that the base model partly masters, to see what teaching cost.

The items are ours, in JSON files beside this one, a file a family.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from selftaught.types import Example, Message, Scorer

FAMILIES = ("facts", "categories", "arithmetic", "formats", "translation")


@dataclass(frozen=True)
class ProbeFamily:
    """One ability, and the items that probe it."""

    name: str
    description: str
    max_new_tokens: int
    examples: tuple[Example, ...]


@cache
def probe_family(name: str) -> ProbeFamily:
    """A family of `FAMILIES`; each example's group is the family's name."""
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
    return ProbeFamily(name, data["description"], data["max_new_tokens"], examples)


@cache
def general_prompts() -> tuple[str, ...]:
    """Varied everyday requests, on which drift is measured."""
    return tuple(_read("general_prompts.json")["prompts"])


def _read(name: str) -> Any:
    return json.loads(files(__name__).joinpath(name).read_text(encoding="utf-8"))
