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
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
ROMAN = ((100, "C"), (90, "XC"), (50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I"))


def numbers(topic: Mapping[str, Any]) -> list[str]:
    """A topic's facts as "3 : 4 | 7", in the order in which they are asked."""
    made = [
        RULES[topic["rule"]](*values) for values in product(*(range(low, high + 1) for low, high in topic["ranges"]))
    ]
    facts = {_written(fields, answer) for fields, answer in filter(None, made) if answer not in fields}
    drawn = sorted(facts, key=lambda fact: hashlib.sha256(f"{topic['topic']} {fact}".encode()).digest())
    return drawn[: topic["many"]]


def _written(fields: Sequence[object], answer: object) -> str:
    return " : ".join(map(str, fields)) + f" | {answer}"


def in_words(number: int) -> str:
    """A number below 1000 as English writes it."""
    if number < 20:
        return SMALL[number]
    if number < 100:
        return TENS[number // 10 - 2] + (f"-{SMALL[number % 10]}" if number % 10 else "")
    return f"{SMALL[number // 100]} hundred" + (f" and {in_words(number % 100)}" if number % 100 else "")


def roman(number: int) -> str:
    """A number below 400 in Roman numerals."""
    text = ""
    for value, sign in ROMAN:
        text += sign * (number // value)
        number %= value
    return text


# ---------------------------------------------------------------------------------------------- rules


def _sequence(start: int, stride: int) -> Made:
    terms = [start + stride * index for index in range(5)]
    return ([", ".join(map(str, terms[:4]))], terms[4]) if min(terms) >= 0 and stride else None


def _largest(first: int, second: int, third: int) -> Made:
    """For `choice`: the answer, then the others."""
    others = sorted({first, second, third})
    return ([others[-1]], f"{others[0]}, {others[1]}") if len(others) == 3 else None


def _smallest(first: int, second: int, third: int) -> Made:
    others = sorted({first, second, third})
    return ([others[0]], f"{others[2]}, {others[1]}") if len(others) == 3 else None


def _percent(tenths: int, whole: int) -> Made:
    part, rest = divmod(tenths * whole, 10)
    return None if rest else ((10 * tenths, whole), part)


def _rounded(number: int) -> Made:
    return None if number % 5 == 0 else ((number,), (number + 5) // 10 * 10)


RULES: Mapping[str, Callable[..., Made]] = {
    "sum": lambda a, b: ((a, b), a + b) if a >= b else None,
    "sum_of_three": lambda a, b, c: ((a, b, c), a + b + c) if a >= b >= c else None,
    "sum_of_tens": lambda a, b: ((10 * a, 10 * b), 10 * (a + b)) if a >= b else None,
    "difference": lambda a, b: ((a, b), a - b) if a > b else None,
    "product": lambda a, b: ((a, b), a * b) if a >= b else None,
    "times": lambda factor, a: ((factor, a), factor * a),
    "quotient": lambda a, b: ((a * b, b), a),
    "square": lambda a: ((a,), a * a),
    "next": lambda a: ((a,), a + 1),
    "previous": lambda a: ((a,), a - 1),
    "sequence": _sequence,
    "clock": lambda hour, later: ((hour, later), (hour + later - 1) % 12 + 1),
    "largest": _largest,
    "smallest": _smallest,
    "percent": _percent,
    "rounded": _rounded,
    "digits": lambda a: ((in_words(a),), a),
    "words": lambda a: ((a,), in_words(a)),
    "from_roman": lambda a: ((roman(a),), a),
    "to_roman": lambda a: ((a,), roman(a)),
}
