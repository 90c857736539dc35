"""Makes the questions: some pieces at a time, each batch's in a file of its own, so that a kill costs one batch."""

from __future__ import annotations

import hashlib
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from selftaught.config import QuestionConfig
from selftaught.data.documents import Piece
from selftaught.errors import DataError
from selftaught.files import discard, read_json, write_json, write_text
from selftaught.processes import ALONE, ProcessGroup
from selftaught.questions.checking import (
    AGAIN,
    ENOUGH,
    NO_ANSWER,
    answer_problem,
    question_problem,
    spread,
    subject,
    subject_words,
    told_of,
)
from selftaught.questions.neighbours import neighbour_rows
from selftaught.questions.writers import Writer
from selftaught.questions.writing import GENERAL, LONGEST_TELLING, OPENERS, Needs, closed_book, open_book, user, written
from selftaught.words import added, claims, names, stem, stems, words

QUESTIONS_FILE, REJECTED_FILE, PARTS = "questions.jsonl", "rejected.jsonl", "questions.parts"
PIECES_AT_ONCE = 8
REJECTED_FIELDS = ("question", "answer", "source_document", "piece")

Row = dict[str, Any]


@dataclass(frozen=True)
class Making:
    """How far the questions are.

    Attributes:
        done: pieces done.
        total: of how many.
        kept: questions kept so far.
        rejected: and rejected.
        seconds_left: till all are made, by the pieces made in this run; None before the first.
    """

    done: int
    total: int
    kept: int = 0
    rejected: int = 0
    seconds_left: float | None = None


def make_questions(
    pieces: Callable[[], Iterable[Piece]],
    writer: Writer,
    learner: Writer,
    config: QuestionConfig,
    folder: Path,
    seed: int = 0,
    watch: Callable[[Making], None] = lambda making: None,
) -> Mapping[str, int]:
    """Writes `questions.jsonl`, and `rejected.jsonl` with the reason of each that was not kept, into a folder.

    The former is a data set that every command reads. Pieces that were done before an interruption are not done again.

    Args:
        pieces: gives the pieces, as often as it is called.
        writer: writes questions and answers them with the piece in view.
        learner: the model that is taught; asked what it knows already.
        config: how many, and how they are checked.
        folder: where the files go; made if missing.
        seed: of what is drawn.
        watch: told how far it is.

    Returns:
        How many were kept ("kept"), how many ask about neighbours besides ("neighbours"), and of each reason how many
        were rejected.

    Raises:
        DataError: no question was kept.
    """
    make_parts(pieces, writer, learner, config, folder, seed, watch=watch)
    counts = collect_questions(pieces, writer.name, config, folder, seed)
    discard(folder / PARTS)
    return counts


def make_parts(
    pieces: Callable[[], Iterable[Piece]],
    writer: Writer,
    learner: Writer,
    config: QuestionConfig,
    folder: Path,
    seed: int = 0,
    processes: ProcessGroup = ALONE,
    watch: Callable[[Making], None] = lambda making: None,
) -> None:
    """Writes this process's share of the batches, each to a file; see `make_questions`, which does both parts alone."""
    counts, num_documents = spread(pieces())
    total = sum(1 for _ in pieces())
    parts = folder / PARTS
    parts.mkdir(parents=True, exist_ok=True)
    watch(Making(0, total))
    begun, made = time.monotonic(), 0
    done = num_kept = num_rejected = 0
    for number, batch in enumerate(_batches(pieces())):
        path = parts / _part(batch, writer.name, config, seed)
        if not path.is_file() and number % processes.size == processes.rank:
            wanted = [subject_words(piece, counts, num_documents) for piece in batch]
            if config.form == "general":
                kept, rejected = _told(batch, wanted, writer, seed)
            else:
                kept, rejected = _asked(batch, wanted, writer, learner, config, seed)
            write_json(path, {"kept": kept, "rejected": rejected})
            made += len(batch)
        done += len(batch)
        if path.is_file():  # or it is another's, still at work
            found = read_json(path)
            num_kept, num_rejected = num_kept + len(found["kept"]), num_rejected + len(found["rejected"])
            each = (time.monotonic() - begun) / (made * processes.size) if made else None  # all are as fast as this one
            watch(Making(done, total, num_kept, num_rejected, None if each is None else each * (total - done)))


def collect_questions(
    pieces: Callable[[], Iterable[Piece]], writer: str, config: QuestionConfig, folder: Path, seed: int = 0
) -> Mapping[str, int]:
    """Puts the batches' files together; see `make_questions`, whose arguments and result these are."""
    kept: list[Row] = []
    rejected: list[Row] = []
    seen: set[str] = set()
    for batch in _batches(pieces()):
        found = read_json(folder / PARTS / _part(batch, writer, config, seed))
        rejected += found["rejected"]
        for row in found["kept"]:
            key = " ".join(words(row["question"]))
            if key in seen:  # of another piece
                rejected.append({name: row[name] for name in REJECTED_FIELDS} | {"reason": AGAIN})
            else:
                seen.add(key)
                kept.append(row)
    if not kept:
        reasons = ", ".join(f"{count} × {reason}" for reason, count in _reasons(rejected).most_common(3))
        what, simpler = ("question", "--generator none, ") if config.form == "questions" else ("telling", "")
        raise DataError(
            f"{folder}: no {what} was good enough ({reasons}); try {simpler}a bigger --generator, or --questions"
        )
    neighbours = neighbour_rows(kept, *spread(pieces()), config.neighbours, seed)
    write_text(folder / REJECTED_FILE, _lines(rejected))
    write_text(folder / QUESTIONS_FILE, _lines([*kept, *neighbours]))
    return {"kept": len(kept), "neighbours": len(neighbours), **_reasons(rejected)}


def _reasons(rejected: Sequence[Row]) -> Counter[str]:
    return Counter(row["reason"] for row in rejected)


def _batches(pieces: Iterable[Piece]) -> Iterator[list[Piece]]:
    source = iter(pieces)
    while batch := list(islice(source, PIECES_AT_ONCE)):
        yield batch


def _part(batch: Sequence[Piece], writer: str, config: QuestionConfig, seed: int) -> str:
    """The name of a batch's file."""
    told = [[piece.id for piece in batch], writer, config.model_dump(mode="json"), seed]
    return f"{hashlib.sha256(json.dumps(told).encode()).hexdigest()[:16]}.json"


def _lines(rows: Sequence[Row]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


# ------------------------------------------------------------------------------------------ questions


def _asked(
    batch: Sequence[Piece],
    wanted: Sequence[set[str]],
    writer: Writer,
    learner: Writer,
    config: QuestionConfig,
    seed: int,
) -> tuple[list[Row], list[Row]]:
    """Questions about pieces: written, sorted out by their words, answered, and sorted out by their answers.

    Pieces of which no question is kept are told of in answer to general requests.
    """
    subjects = [subject(piece, words) for piece, words in zip(batch, wanted, strict=True)]
    rejected: list[Row] = []
    left: list[tuple[Piece, str, Needs]] = []
    for piece, about, questions in zip(batch, wanted, written(writer, batch, subjects, seed), strict=True):
        seen: set[str] = set()
        for question, needs in zip(questions, OPENERS.values(), strict=True):
            problem = question_problem(question, piece, about, seen)
            seen.add(" ".join(words(question)))
            if problem is None:
                left.append((piece, question, needs))
            else:
                rejected.append(_rejected(piece, question, problem))
    pieces, questions = [piece for piece, _, _ in left], [question for _, question, _ in left]
    draws = [
        open_book(writer, pieces, questions, config.temperature if draw else 0.0, seed + draw)
        for draw in range(config.samples)
    ]
    memory = closed_book(learner, questions, seed)
    kept: list[Row] = []
    wordings: Counter[tuple[str, frozenset[str]]] = Counter()
    for (piece, question, needs), known, *answers in zip(left, memory, *draws, strict=True):
        problem, quote = answer_problem(question, answers, known, piece, needs)
        told = claims(answers[0], question, piece.text) or {stem(word) for word in added(answers[0], question)}
        fact = (piece.id, frozenset(told))
        if problem is None and wordings[fact] > config.wordings:
            problem = ENOUGH
        if problem is not None:
            rejected.append(_rejected(piece, question, problem, answers, known))
            continue
        wordings[fact] += 1
        held_out = wordings[fact] > config.wordings  # one more wording of a fact: asked, not taught
        kept.append(
            _row(piece, sum(row["piece"] == piece.id for row in kept) + 1, question, answers[0], quote, held_out)
        )
    asked_of = {row["piece"] for row in kept}
    silent = [(piece, about) for piece, about in zip(batch, wanted, strict=True) if piece.id not in asked_of]
    told_of_them = _told([piece for piece, _ in silent], [about for _, about in silent], writer, seed)
    return kept + told_of_them[0], rejected + told_of_them[1]


def _told(batch: Sequence[Piece], wanted: Sequence[set[str]], writer: Writer, seed: int) -> tuple[list[Row], list[Row]]:
    """General requests, for models that ask poorly: what is told of each piece with it in view."""
    asked, texts = [], []
    for piece, about in zip(batch, wanted, strict=True):
        for request in GENERAL:
            texts.append(request.format(subject=told_of(piece, about)))
            asked.append((piece, user(f"{piece.text}\n\n{texts[-1]}")))
    if not asked:
        return [], []
    answers = writer.write([turn for _, turn in asked], [""] * len(asked), LONGEST_TELLING, 0.0, seed)
    kept: list[Row] = []
    rejected: list[Row] = []
    for (piece, _), request, answer in zip(asked, texts, answers, strict=True):
        told = " ".join(answer.split())
        there = stems(f"{piece.text} {piece.title}")
        if not told:
            rejected.append(_rejected(piece, request, NO_ANSWER))
        elif strangers := sorted(word for word in names(told) if stem(word) not in there):
            rejected.append(_rejected(piece, request, "tells of what does not stand in the text", [told, *strangers]))
        else:
            number = sum(row["piece"] == piece.id for row in kept) + 1
            kept.append(_row(piece, number, request, told, "", False) | {"group": "telling"})
    return kept, rejected


def _row(piece: Piece, number: int, question: str, answer: str, quote: str, held_out: bool) -> Row:
    row = {
        "id": f"{piece.id}-{number}",
        "question": question,
        "answer": answer,
        "context": piece.text,
        "group": "reworded" if held_out else "taught",
        "split": "test" if held_out else "train",
        "scorer": "keywords",
        "source_document": piece.document,
        "piece": piece.id,
        "section": " › ".join(piece.section),
        "quote": quote,
    }
    return {name: value for name, value in row.items() if value}


def _rejected(
    piece: Piece, question: str, reason: str, answers: Sequence[str] = (), from_memory: str | None = None
) -> Row:
    row: Row = {"question": question, "reason": reason, "source_document": piece.document, "piece": piece.id}
    if answers:
        row |= {"answer": answers[0], "other_answers": list(answers[1:])}
    if from_memory is not None:
        row["without_document"] = from_memory
    return row
