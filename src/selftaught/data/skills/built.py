"""What every built skill consists of, and how rows are put in an order that only their names decide."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from selftaught.types import Example

Item = TypeVar("Item")


@dataclass(frozen=True)
class BuiltSkill:
    """A skill's rows and what is to be known about them.

    Attributes:
        name: what `build_skill` calls it.
        title: what a page calls it.
        examples: rows of all splits, each with demonstration, answers, scorer and group.
        card: "title", "source", "licence", "about", "split", "counts" by split and group, and "ceiling", the
            share of the test rows that a perfect learner could get right, and why.
    """

    name: str
    title: str
    examples: tuple[Example, ...]
    card: dict[str, Any]


def built(
    name: str, title: str, examples: Iterable[Example], facts: Mapping[str, str], ceiling: tuple[float, str]
) -> BuiltSkill:
    """Puts a skill together.

    Args:
        name: the skill's name.
        title: its title.
        examples: its rows.
        facts: the card's "source", "licence", "about" and "split".
        ceiling: the share of test rows that can be got right, and why.
    """
    rows = tuple(examples)
    card = {
        "title": title,
        **facts,
        "counts": counts(rows),
        "ceiling": {"value": round(ceiling[0], 3), "why": ceiling[1]},
    }
    return BuiltSkill(name, title, rows, card)


def counts(examples: Sequence[Example]) -> dict[str, dict[str, int]]:
    """The number of rows of each split and group."""
    table: dict[str, dict[str, int]] = {}
    for (split, group), count in Counter((example.split, example.group) for example in examples).items():
        table.setdefault(split, {})[group] = count
    return table


def hashed(name: str) -> int:
    """A large number that only a name decides: no seed, the same on every machine."""
    return int(hashlib.sha256(name.encode("utf-8")).hexdigest(), 16)


def shuffled(items: Iterable[Item], name_of: Callable[[Item], str], salt: str) -> list[Item]:
    """Items in an order that only their names decide.

    Args:
        items: anything.
        name_of: an item's name; equal names keep their order.
        salt: another salt gives another order.
    """
    return sorted(items, key=lambda item: hashed(f"{salt}/{name_of(item)}"))
