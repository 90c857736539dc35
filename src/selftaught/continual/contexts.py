"""Which pieces of documents the teacher is shown with a row: those that fit it best, as many as its prompt can hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from selftaught.config import LearnConfig, PromptConfig
from selftaught.data.documents import DocumentRecord, Piece, cut_text, pieces_of
from selftaught.prompts import ChatTokenizer, render, teacher_messages, with_document
from selftaught.questions import Retriever
from selftaught.types import Example

Pieces = Mapping[str, Sequence[str]]
"""Of rows, by id, the pieces that their context consists of."""


def with_pieces(
    own: Sequence[Example], records: Sequence[DocumentRecord], store: Path, count: int = 1
) -> tuple[list[Example], Pieces]:
    """The user's rows, each with the pieces that fit it best where it brings no document.

    Args:
        own: the rows.
        records: of the documents.
        store: where their pieces are.
        count: how many pieces a row gets, the best first.
    """
    if all(row.context for row in own):
        return list(own), {}
    retriever = Retriever(pieces_of(store, records))
    rows: list[Example] = []
    parts: dict[str, list[str]] = {}
    for row in own:
        rows.append(row)
        best = [] if row.context or row.group == "neighbour" else retriever.best(row.question, count)
        if best:
            parts[row.id] = [piece.text for piece in best]
            rows[-1] = replace(row, context="\n\n".join(parts[row.id]), source=row.source or best[0].document)
    return rows, parts


@dataclass(frozen=True)
class Room:
    """How long a prompt with a document in it may be.

    Attributes:
        tokenizer: counts.
        prompts: the templates.
        tokens: the most that fit.
    """

    tokenizer: ChatTokenizer
    prompts: PromptConfig
    tokens: int

    def holds(self, row: Example) -> bool:
        """Whether a row's document fits, as the teacher sees it and as oracle retrieval does."""
        shown = (teacher_messages(row, self.prompts), with_document(row, self.prompts).prompt)
        return all(len(render(messages, self.tokenizer)) <= self.tokens for messages in shown)


def room_of(model: str, rows: Sequence[Example], config: LearnConfig) -> Room:
    """The room that a model has beside the longest answer to some rows.

    Raises:
        ModelError: its tokenizer cannot be read.
    """
    from selftaught.models.load import load_tokenizer, longest_input

    tokenizer = load_tokenizer(Path(model))
    targets = [row.demonstration for row in rows if row.split == "train" and row.demonstration]
    lengths = [1 + len(tokenizer(text, add_special_tokens=False)["input_ids"]) for text in targets]
    answer = config.resolve(max(1, len(lengths)), max(lengths, default=1)).completion_limit
    return Room(tokenizer, config.prompts, min(config.prompts.max_teacher_tokens, longest_input(Path(model)) - answer))


def fitted(
    rows: Sequence[Example], parts: Pieces, room: Room, shown: Callable[[Example], bool] = lambda row: True
) -> tuple[list[Example], list[dict[str, Any]]]:
    """The rows, of those whose document is too long only the pieces that fit best, in their order.

    A row of which not even one piece fits stays as it is: it is an error of its own when it is taught.

    Args:
        rows: of all splits.
        parts: the pieces of which a row's context consists; that of any other row is cut as documents are.
        room: what a prompt can hold.
        shown: whether a row's document is shown to anyone; others are left as they are.

    Returns:
        The rows, and of each that was cut {"id", "shown", "pieces"}: how many pieces are shown, of how many.
    """
    made: list[Example] = []
    told: list[dict[str, Any]] = []
    for row in rows:
        made.append(row)
        if row.context and shown(row) and not room.holds(row):
            pieces = parts.get(row.id) or cut_text(row.context)
            if places := _fitting(row, pieces, room):
                made[-1] = replace(row, context=_joined(pieces, places))
                told.append({"id": row.id, "shown": len(places), "pieces": len(pieces)})
    return made, told


def _fitting(row: Example, pieces: Sequence[str], room: Room) -> list[int]:
    """The places of the pieces that fit question and answer best, as many as there is room for."""
    numbered = [Piece(str(place), "", "", (), None, text) for place, text in enumerate(pieces)]
    wanted = " ".join([row.question, row.demonstration or "", *row.answers])
    best = [int(piece.id) for piece in Retriever(numbered).best(wanted, len(pieces))]
    places: list[int] = []
    for place in [*best, *(place for place in range(len(pieces)) if place not in best)]:
        more = sorted([*places, place])
        if not room.holds(replace(row, context=_joined(pieces, more))):
            break
        places = more
    return places


def _joined(pieces: Sequence[str], places: Sequence[int]) -> str:
    return "\n\n".join(pieces[place] for place in places)
