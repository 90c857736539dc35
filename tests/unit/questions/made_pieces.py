"""Documents about mills that never were, and a writer who says what a script tells him."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from selftaught.data.documents import Piece
from selftaught.types import Message

NAMES = ("Aldor", "Brekka", "Corvel", "Dunmar", "Elstow", "Fenwig", "Garmol", "Hestia", "Ilmara", "Jorvik")
TOWNS = ("Ostby", "Pellan", "Quimre", "Rosken", "Sandle", "Tolmar", "Ullern", "Vasker", "Welden", "Yarrow")


def piece(number: int, part: int = 1, text: str | None = None) -> Piece:
    """A piece of the document about a mill."""
    name, town = NAMES[number], TOWNS[number]
    text = text or f"The {name} mill opened its doors in the town of {town}. Farmers bring grain in autumn."
    return Piece(f"{number:016x}-{part}", f"{name.lower()}.txt", f"{name} mill", (), None, text)


def mills(count: int = 10) -> list[Piece]:
    """The first mills, a document of one piece each."""
    return [piece(number) for number in range(count)]


Telling = Callable[[str, str], str]
"""What is said, given the last turn and the start that is asked for."""


@dataclass
class Scripted:
    """A writer that follows a script, and notes what it was asked."""

    say: Telling
    name: str = "scripted"
    asked: list[str] = field(default_factory=list)

    def write(
        self,
        asked: Sequence[Sequence[Message]],
        starts: Sequence[str],
        max_new_tokens: int,
        temperature: float,
        seed: int,
    ) -> list[str]:
        self.asked += [turns[-1].content for turns in asked]
        return [self.say(turns[-1].content, start) for turns, start in zip(asked, starts, strict=True)]


def mill_of(asked: str) -> int:
    """Which mill a turn is about."""
    return next(number for number, name in enumerate(NAMES) if name in asked)


WORDINGS = {  # four for one fact, in the order in which they are kept
    "Where did": "Where did the {name} mill open?",
    "Which": "Which place has the {name} mill?",
    "What was": "What was the town where the {name} mill opened?",
    "Which town": "Which town has the {name} mill?",
}


def good(asked: str, start: str) -> str:
    """Asks each mill's town in four wordings, answers each, and tells the text's first sentence."""
    number = mill_of(asked)
    if start:
        return WORDINGS.get(start, f"{start} nothing").format(name=NAMES[number])
    if asked.endswith("?") and any(asked.endswith(text.format(name=NAMES[number])) for text in WORDINGS.values()):
        return f"In {TOWNS[number]}."
    return asked.split(". ", maxsplit=1)[0] + "."


def ignorant(asked: str, start: str) -> str:
    """Knows nothing."""
    return "I do not know."
