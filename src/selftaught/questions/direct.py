"""Questions that even a small model can write, and what it tells where it cannot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from selftaught.data.documents import Piece
from selftaught.questions.checking import (
    ENOUGH,
    NO_ANSWER,
    answer_problem,
    question_problem,
    subject,
    told_of,
)
from selftaught.questions.means import Means
from selftaught.questions.rows import Row, rejected_of, row_of
from selftaught.questions.writing import GENERAL, LONGEST_TELLING, OPENERS, Needs, closed_book, open_book, user, written
from selftaught.words import added, claims, names, stem, stems, words


def direct_questions(batch: Sequence[Piece], means: Means) -> tuple[list[Row], list[Row]]:
    """Questions about pieces: written, sorted out by their words, answered, and sorted out by their answers."""
    left, rejected = _well_worded(batch, means)
    config, seed = means.config, means.seed
    pieces, questions = [piece for piece, _, _ in left], [question for _, question, _ in left]
    draws = [
        open_book(means.writer, pieces, questions, config.temperature if draw else 0.0, seed + draw)
        for draw in range(config.samples)
    ]
    memory = closed_book(means.learner, questions, seed)
    kept: list[Row] = []
    wordings: Counter[tuple[str, frozenset[str]]] = Counter()
    for (piece, question, needs), known, *answers in zip(left, memory, *draws, strict=True):
        problem, quote = answer_problem(question, answers, known, piece, needs)
        fact = fact_of(piece, question, answers[0])
        if problem is None and wordings[fact] > config.wordings:
            problem = ENOUGH
        if problem is not None:
            rejected.append(rejected_of(piece, question, problem, answers, known))
            continue
        wordings[fact] += 1
        held_out = wordings[fact] > config.wordings  # one more wording of a fact: asked, not taught
        kept.append(
            row_of(piece, sum(row["piece"] == piece.id for row in kept) + 1, question, answers[0], quote, held_out)
        )
    return kept, rejected


def fact_of(piece: Piece, question: str, answer: str) -> tuple[str, frozenset[str]]:
    """What an answer tells of a piece; other wordings of a question have the same."""
    told = claims(answer, question, piece.text) or {stem(word) for word in added(answer, question)}
    return piece.id, frozenset(told)


def _well_worded(batch: Sequence[Piece], means: Means) -> tuple[list[tuple[Piece, str, Needs]], list[Row]]:
    """The questions that can be asked, with what an answer to each must add, and the others."""
    wanted = [means.wanted(piece) for piece in batch]
    subjects = [subject(piece, words) for piece, words in zip(batch, wanted, strict=True)]
    asked = written(means.writer, batch, subjects, means.seed)
    rejected: list[Row] = []
    left: list[tuple[Piece, str, Needs]] = []
    for piece, about, questions in zip(batch, wanted, asked, strict=True):
        seen: set[str] = set()
        for question, needs in zip(questions, OPENERS.values(), strict=True):
            problem = question_problem(question, piece, about, seen)
            seen.add(" ".join(words(question)))
            if problem is None:
                left.append((piece, question, needs))
            else:
                rejected.append(rejected_of(piece, question, problem))
    return left, rejected


def tellings(batch: Sequence[Piece], means: Means) -> tuple[list[Row], list[Row]]:
    """General requests, for models that ask poorly: what is told of each piece with it in view."""
    asked, texts = [], []
    for piece in batch:
        about = told_of(piece, means.wanted(piece))
        for request in GENERAL:
            texts.append(request.format(subject=about))
            asked.append((piece, user(f"{piece.text}\n\n{texts[-1]}")))
    if not asked:
        return [], []
    answers = means.writer.write([turn for _, turn in asked], [""] * len(asked), LONGEST_TELLING, 0.0, means.seed)
    kept: list[Row] = []
    rejected: list[Row] = []
    for (piece, _), request, answer in zip(asked, texts, answers, strict=True):
        told = " ".join(answer.split())
        there = stems(f"{piece.text} {piece.title}")
        if not told:
            rejected.append(rejected_of(piece, request, NO_ANSWER))
        elif strangers := sorted(word for word in names(told) if stem(word) not in there):
            rejected.append(rejected_of(piece, request, "tells of what does not stand in the text", [told, *strangers]))
        else:
            number = sum(row["piece"] == piece.id for row in kept) + 1
            kept.append(row_of(piece, number, request, told, "", False) | {"group": "telling"})
    return kept, rejected
