"""Whether two answers to one question say the same, and whether an answer says that something is not stated."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from selftaught.words import added, claims, stem, words

UNSTATED = "The documents do not say."
"""What is taught where the documents do not answer."""
NOT_STATED = (
    r"(?i)\bnot (?:been )?(?:stated|said|mentioned|specified|given|provided|told)\b|\bno (?:information|mention)\b"
    r"|(?:\b(?:do|does|did) not|n['’]t) (?:say|state|tell|mention|specify|give|provide|know|answer)\b"
)
"""A pattern for answers that say so, in whatever words."""


@dataclass(frozen=True)
class Asked:
    """A question, the text that it is about, and, where it compares things, the names of each."""

    question: str
    text: str
    subjects: tuple[frozenset[str], ...] = ()


def is_unstated(answer: str) -> bool:
    """Whether an answer says that nothing is said about it."""
    return re.search(NOT_STATED, answer) is not None


def says_something(answer: str, asked: Asked) -> bool:
    """Whether an answer says yes or no, adds a word to its question, or chooses what the question compares."""
    if is_unstated(answer):
        return False
    return bool(_verdict(answer) or added(answer, asked.question) or _chosen(answer, asked) is not None)


def agree(left: str, right: str, asked: Asked) -> bool:
    """Whether two answers say the same, by the first of these that both have.

    Yes or no; names and numbers, of which one must have all that the other has; the thing compared that is named first;
    else half of the words.
    """
    if is_unstated(left) or is_unstated(right):
        return is_unstated(left) and is_unstated(right)
    if _verdict(left) and _verdict(right):
        return _verdict(left) == _verdict(right)
    a, b = (claims(text, asked.question, asked.text) for text in (left, right))
    if a and b:
        return a <= b or b <= a
    if _chosen(left, asked) is not None and _chosen(right, asked) is not None:
        return _chosen(left, asked) == _chosen(right, asked)
    mine, theirs = ({stem(word) for word in added(text, asked.question)} for text in (left, right))
    return not (a or b) and 2 * len(mine & theirs) >= max(1, len(mine))


def holds(said: str, answer: str, asked: Asked) -> bool:
    """Whether what is said from memory has all that an answer says."""
    if _verdict(answer):
        return _verdict(said) == _verdict(answer)
    if told := claims(answer, asked.question, asked.text):
        return told <= set(words(said))
    if _chosen(answer, asked) is not None:
        return _chosen(said, asked) == _chosen(answer, asked)
    return added(answer, asked.question) <= set(words(said))


def _verdict(answer: str) -> str:
    """ "yes" or "no", if an answer begins so."""
    first: Sequence[str] = words(answer)[:1]
    return first[0] if first and first[0] in ("yes", "no") else ""


def _chosen(answer: str, asked: Asked) -> int | None:
    """Which of the things compared an answer names first."""
    found = (place for word in words(answer) for place, names in enumerate(asked.subjects) if word in names)
    return next(found, None)
