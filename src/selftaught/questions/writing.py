"""How questions are asked for: the writer is shown a piece, and how its question begins.

A small model, asked for "a question", asks the same one of every text. Told how it begins, it asks what the text can
answer, and what it cannot is found by the checks.
"""

from __future__ import annotations

from collections.abc import Sequence

from selftaught.data.documents import Piece
from selftaught.questions.writers import Writer
from selftaught.types import Message

OPENERS = (
    "In which country", "In which month", "When did", "Where did", "Who", "What caused", "How many people", "How many",
    "How much", "Which", "What is the name of", "What did", "How fast", "How long", "Why did", "What was", "How did",
    "At which",
)  # fmt: skip
"""How questions begin, in the order in which they are kept."""
GENERAL = ("Tell me about {subject}.", "What do you know about {subject}?", "What happened in {subject}?")
"""Requests that need no question: of any document, where a model asks too poorly."""
WRITE = "{text}\n\nWrite a question about {subject} that this text answers. Name {subject} in the question."
ANSWER = "{text}\n\n{question} Answer in one short sentence."
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
    """The first line up to its first question mark."""
    line = text.strip().split("\n")[0]
    return line[: line.index("?") + 1] if "?" in line else line


def open_book(
    writer: Writer, pieces: Sequence[Piece], questions: Sequence[str], temperature: float, seed: int
) -> list[str]:
    """Answers with the piece in view."""
    asked = [user(ANSWER.format(text=p.text, question=question)) for p, question in zip(pieces, questions, strict=True)]
    return [first_line(text) for text in writer.write(asked, [""] * len(asked), LONGEST_ANSWER, temperature, seed)]


def closed_book(learner: Writer, questions: Sequence[str], seed: int) -> list[str]:
    """Answers from memory."""
    texts = learner.write([user(question) for question in questions], [""] * len(questions), LONGEST_ANSWER, 0.0, seed)
    return [first_line(text) for text in texts]


def first_line(text: str) -> str:
    """An answer's first line."""
    return text.strip().split("\n")[0].strip()
