"""The bank's arithmetic: facts made by rule, in the form that `bank` reads.

A topic says which `rule` makes its facts, from numbers in what `ranges`, and how `many` it wants. Those are drawn
by a hash of their text, which is the same on every machine and in every version of Python. A fact whose answer is
one of its own numbers is left out: repeating the question must not be right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from typing import Any

Made = tuple[Sequence[object], object] | None

ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen"
SMALL = [*ONES.split(), "eighteen", "nineteen"]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def made_facts(topic: Mapping[str, Any]) -> list[str]:
    """A topic's facts as "3 : 4 | 7", in the order in which they are asked."""
    results = [
        RULES[topic["rule"]](*values) for values in product(*(range(low, high + 1) for low, high in topic["ranges"]))
    ]
    facts = {_written(fields, answer) for fields, answer in filter(None, results) if answer not in fields}
    drawn = sorted(facts, key=lambda fact: hashlib.sha256(f"{topic['topic']} {fact}".encode()).digest())
    return drawn[: topic["many"]]


def _written(fields: Sequence[object], answer: object) -> str:
    return " : ".join(map(str, fields)) + f" | {answer}"


def in_words(number: int) -> str:
    """A number below 100 as English writes it."""
    if number < 20:
        return SMALL[number]
    return TENS[number // 10 - 2] + (f"-{SMALL[number % 10]}" if number % 10 else "")


# ---------------------------------------------------------------------------------------------- rules


def _largest(first: int, second: int, third: int) -> Made:
    """For `choice`: the answer, then the others."""
    others = sorted({first, second, third})
    return ([others[-1]], f"{others[0]}, {others[1]}") if len(others) == 3 else None


def _smallest(first: int, second: int, third: int) -> Made:
    others = sorted({first, second, third})
    return ([others[0]], f"{others[2]}, {others[1]}") if len(others) == 3 else None


RULES: Mapping[str, Callable[..., Made]] = {
    "sum": lambda a, b: ((a, b), a + b) if a >= b and (a % 10 or b % 10) else None,
    "sum_of_tens": lambda a, b: ((10 * a, 10 * b), 10 * (a + b)) if a >= b else None,
    "difference": lambda a, b: ((a, b), a - b) if a > b else None,
    "product": lambda a, b: ((a, b), a * b) if a >= b else None,
    "times": lambda factor, a: ((factor, a), factor * a),
    "next": lambda a: ((a,), a + 1),
    "next_even": lambda a: ((a,), a + 2 - a % 2),
    "next_odd": lambda a: ((a,), a + 1 + a % 2),
    "largest": _largest,
    "smallest": _smallest,
    "digits": lambda a: ((in_words(a),), a),
}
