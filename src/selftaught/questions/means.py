"""Who writes questions, who is to learn them, and what is known of all documents together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from selftaught.config import QuestionConfig
from selftaught.data.documents import Piece
from selftaught.questions.checking import subject_words
from selftaught.questions.retrieval import Retriever
from selftaught.questions.writers import Writer


@dataclass(frozen=True)
class Means:
    """What every batch of pieces needs.

    Attributes:
        writer: writes questions and answers them with the pieces in view.
        learner: the model that is taught; asked what it knows already.
        config: how many, and how they are checked.
        seed: of what is drawn.
        counts: in how many documents each word stands.
        num_documents: how many there are.
        retriever: over all pieces; None where no kind of question needs other pieces.
    """

    writer: Writer
    learner: Writer
    config: QuestionConfig
    seed: int
    counts: Mapping[str, int]
    num_documents: int
    retriever: Retriever | None = None

    def wanted(self, piece: Piece) -> set[str]:
        """Words of which a question about a piece must hold one."""
        return subject_words(piece, self.counts, self.num_documents)
