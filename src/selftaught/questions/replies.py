"""How a capable writer is asked in words for a question of some kind, and how its reply is read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from selftaught.config import QuestionKind
from selftaught.data.documents import Piece
from selftaught.questions.rows import Row
from selftaught.questions.writers import Writer
from selftaught.questions.writing import first_line, user

WISHES: Mapping[QuestionKind, str] = {
    "paraphrase": "Here is a question about the text, and its answer:\n{question}\n{answer}\n\nWrite another question "
    "that asks for the same, in other words and in another order. It must differ from all of these:\n{wordings}",
    "comparison": "Write a question that compares what the first text says with what the second one says: which came "
    "first, which is larger, what they have in common or not. Nobody shall be able to answer it with one of the texts "
    "alone.",
    "multi_hop": "Write a question whose short answer stands in one of the texts, but that can be answered only with "
    "the help of the other: it names something by what the other text says of it.",
    "indirect": "Write a question about {subject} that does not ask for a fact of the text, but that nobody can answer "
    "without one: what follows from it, or what it means in a case that the text does not mention.",
    "unstated": "Write a question about {subject} that a reader of the text would naturally ask, and that the text "
    "does not answer.",
}
FORM = """It must be clear to someone who sees no text: it names what it is about, and does not speak of a text.
Reply with nothing but JSON:
{"question": "…", "answer": "one short sentence", "quotes": [%s]}"""
QUOTES = {
    1: '"the words of the text that the answer rests on, exactly as they stand there"',
    2: '"the words of the first text that the answer rests on, exactly as they stand there", "those of the second"',
}
UNSTATED_QUOTE = '"the words of the text that speak of what is asked about, exactly as they stand there"'
ANSWER = "Answer in one short sentence, by what is written above alone. If it is not said there, reply: Not stated."
LONGEST_REPLY, LONGEST_SENTENCE = 256, 64  # tokens


@dataclass(frozen=True)
class Request:
    """A question that is wanted.

    Attributes:
        kind: of which kind.
        pieces: what it is to be about, one or two.
        subject: what the first of them is about.
        held_out: asked only, not taught.
        rewords: the row that it is to say in other words.
        wordings: those that there are of it.
    """

    kind: QuestionKind
    pieces: tuple[Piece, ...]
    subject: str
    held_out: bool = False
    rewords: Row | None = None
    wordings: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """Its pieces' texts together."""
        return "\n\n".join(piece.text for piece in self.pieces)


@dataclass(frozen=True)
class Draft:
    """A question that was written, its answer, and the words that it rests on."""

    question: str
    answer: str
    quotes: tuple[str, ...]


def drafts(writer: Writer, requests: Sequence[Request], temperature: float, seed: int) -> list[Draft | str]:
    """What the writer replies to each request; a reply that cannot be read, as it is."""
    asked = [user(_asked(request)) for request in requests]
    texts = writer.write(asked, [""] * len(asked), LONGEST_REPLY, temperature, seed)
    return [read_reply(text) or text for text in texts]


def answers(writer: Writer, texts: Sequence[str], questions: Sequence[str], temperature: float, seed: int) -> list[str]:
    """Answers by a text alone, or that it does not say."""
    asked = [user(f"{text}\n\n{question}\n\n{ANSWER}") for text, question in zip(texts, questions, strict=True)]
    written = writer.write(asked, [""] * len(asked), LONGEST_SENTENCE, temperature, seed)
    return [first_line(text) for text in written]


def _asked(request: Request) -> str:
    """The whole of what is asked."""
    texts = [piece.text for piece in request.pieces]
    if len(texts) == 2:
        texts = [f"{place} text:\n{text}" for place, text in zip(("First", "Second"), texts, strict=True)]
    fields = {"subject": request.subject, "wordings": "\n".join(request.wordings), **(request.rewords or {})}
    wish = re.sub(r"\{(\w+)\}", lambda name: str(fields[name[1]]), WISHES[request.kind])
    quotes = UNSTATED_QUOTE if request.kind == "unstated" else QUOTES[len(texts)]
    return "\n\n".join([*texts, wish, FORM % quotes])


def read_reply(text: str) -> Draft | None:
    """The question in a reply, whatever stands around its JSON; None if there is none."""
    for value in _objects(text):
        fields = {str(name).strip().lower(): item for name, item in value.items()}
        question, answer = (fields.get(name, "") for name in ("question", "answer"))
        if isinstance(question, str) and question.strip() and isinstance(answer, (str, int, float)):
            quotes = tuple(_texts(fields.get("quotes", fields.get("quote"))))
            return Draft(_one_line(question), _one_line(str(answer)), quotes)
    return None


def _objects(text: str) -> Iterable[Mapping[str, Any]]:
    """The JSON objects in a text, also those within others and those with a comma too many."""
    for begin in re.finditer(r"\{", text):
        rest = text[begin.start() :]
        for candidate in (rest, re.sub(r",(\s*[\]}])", r"\1", rest)):
            try:
                value = json.JSONDecoder(strict=False).raw_decode(candidate)[0]
            except (ValueError, RecursionError):
                continue
            yield value
            break


def _texts(value: Any) -> list[str]:
    """The texts in a value, a list or an object."""
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else [value]
    return [_one_line(item).strip("\"'“”„… ") for item in items if isinstance(item, str)]


def _one_line(text: str) -> str:
    return " ".join(text.split())
