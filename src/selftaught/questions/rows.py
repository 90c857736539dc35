"""Rows of questions: what is kept, and what is not, each with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from selftaught.data.documents import Piece

Row = dict[str, Any]


def row_of(piece: Piece, number: int, question: str, answer: str, quote: str, held_out: bool) -> Row:
    """What is taught, or asked only, of a piece."""
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


def rejected_of(
    piece: Piece, question: str, reason: str, answers: Sequence[str] = (), from_memory: str | None = None
) -> Row:
    """What is not kept, and why."""
    row: Row = {"question": question, "reason": reason, "source_document": piece.document, "piece": piece.id}
    if answers:
        row |= {"answer": answers[0], "other_answers": list(answers[1:])}
    if from_memory is not None:
        row["without_document"] = from_memory
    return row
