"""How questions are asked for: the writer is shown a piece, and how its question begins.

A small model, asked for "a question", asks the same one of every text. Told how it begins, it asks what the text can
answer, and what it cannot is found by the checks.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

from selftaught.data.documents import Piece
from selftaught.questions.writers import Writer
from selftaught.types import Message
from selftaught.words import sentences

Needs = Literal["name", "number", "words"]
OPENERS: dict[str, Needs] = {
    "In which country": "name", "In which month": "name", "When did": "number", "Where did": "name",
    "Which person": "name", "What caused": "words", "How many people": "number", "How many": "number",
    "How much": "number", "Which": "words", "What did": "words", "How fast": "number", "How long": "number",
    "Why did": "words", "What was": "words", "How did": "words", "At which": "name", "Which town": "name",
    "Which year": "number", "What is the name of": "name",
}  # fmt: skip
"""How questions begin, in the order in which they are kept, and what an answer to one must hold that is new: a name, a
number, or any words."""
GENERAL = ("Tell me about {subject}.", "What do you know about {subject}?", "What happened in {subject}?")
"""Requests that need no question: of any document, where a model asks too poorly."""
WRITE = "{text}\n\nWrite a question about {subject} that this text answers. Name {subject} in the question."
SHOWN = (  # how short an answer is to be: a small model, only told so, tells all that it has read
    Message(
        "user",
        "The Marrow Lane library opened its doors in 1911 in the town of Ostby. The mason Ida Brenn built it of red "
        "brick, and it cost 40000 crowns.\n\nWho built the Marrow Lane library?",
    ),
    Message("assistant", "The mason Ida Brenn built the Marrow Lane library."),
    Message("user", "In which town did the Marrow Lane library open?"),
    Message("assistant", "The Marrow Lane library opened in Ostby."),
)
LONG = 14  # words of an answer
LONGEST_QUESTION, LONGEST_ANSWER, LONGEST_TELLING = 32, 32, 96  # tokens


def user(text: str) -> tuple[Message, ...]:
    """A conversation of one turn."""
    return (Message("user", text),)


def written(writer: Writer, pieces: Sequence[Piece], subjects: Sequence[str], seed: int) -> list[list[str]]:
    """A question of each piece for each opener, as far as one came; the text after the question mark is dropped."""
    asked, starts = [], []
    for piece, subject in zip(pieces, subjects, strict=True):
        for opener in OPENERS:
            asked.append(user(WRITE.format(text=piece.text, subject=subject)))
            starts.append(opener)
    texts = writer.write(asked, starts, LONGEST_QUESTION, 0.0, seed)
    count = len(OPENERS)
    return [[_until_mark(text) for text in texts[n * count : (n + 1) * count]] for n in range(len(pieces))]


def _until_mark(text: str) -> str:
    """The first line up to its first question mark, and without a second question that is hung on it."""
    line = text.strip().split("\n")[0]
    if "?" not in line:
        return line
    first = re.split(r",? and (?:what|how|who|when|where|which|why)\b", line[: line.index("?")])[0]
    return f"{first.strip()}?"


def open_book(
    writer: Writer, pieces: Sequence[Piece], questions: Sequence[str], temperature: float, seed: int
) -> list[str]:
    """Answers with the piece in view."""
    asked = [(*SHOWN, *user(f"{p.text}\n\n{question}")) for p, question in zip(pieces, questions, strict=True)]
    return [shortened(text) for text in writer.write(asked, [""] * len(asked), LONGEST_ANSWER, temperature, seed)]


def closed_book(learner: Writer, questions: Sequence[str], seed: int) -> list[str]:
    """Answers from memory."""
    texts = learner.write([user(question) for question in questions], [""] * len(questions), LONGEST_ANSWER, 0.0, seed)
    return [first_line(text) for text in texts]


def first_line(text: str) -> str:
    """An answer's first line."""
    return text.strip().split("\n")[0].strip()


def shortened(text: str) -> str:
    """An answer's first sentence; of a long one, what stands before its first comma."""
    found = sentences(text)
    sentence = found[0] if found else ""
    if len(sentence.split()) <= LONG:
        return sentence
    before = re.split(r"(?<!\d)[,;](?=\s)|,(?=\s\D)", sentence)[0].strip()
    return before if before.endswith((".", "!", "?")) else f"{before}."
