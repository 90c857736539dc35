"""The pieces that a question is about: BM25 over all of them, for questions that name no document."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import islice

from selftaught.data.documents import Piece
from selftaught.words import content_words, stem, words

K, B = 1.2, 0.75  # the usual ones


class Retriever:
    """An inverted index of pieces.

    score = Σ over words q of idf(q) · f (k + 1) / (f + k (1 − b + b · length / mean length)), with f how often
    the piece has the word: Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009.

    Args:
        pieces: all of them; their texts are kept.
    """

    def __init__(self, pieces: Iterable[Piece]) -> None:
        self._pieces = list(pieces)
        self._found: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self._lengths = []
        for number, piece in enumerate(self._pieces):
            said = [stem(word) for word in words(f"{piece.title} {' '.join(piece.section)} {piece.text}")]
            self._lengths.append(len(said))
            for word, count in Counter(said).items():
                self._found[word].append((number, count))

    def best(self, question: str, count: int = 1, outside: str | None = None) -> list[Piece]:
        """The pieces that fit a question best, the best first; fewer where fewer share a word with it.

        Args:
            question: or any other text.
            count: how many at most.
            outside: a document whose pieces are left out.
        """
        mean = sum(self._lengths) / max(1, len(self._lengths))
        scores: dict[int, float] = defaultdict(float)
        for word in {stem(word) for word in content_words(question)}:
            found = self._found.get(word, [])
            weight = math.log(1 + (len(self._pieces) - len(found) + 0.5) / (len(found) + 0.5))
            for number, times in found:
                scores[number] += weight * times * (K + 1) / (times + K * (1 - B + B * self._lengths[number] / mean))
        order = sorted(scores, key=lambda number: (-scores[number], number))
        fitting = (self._pieces[number] for number in order if self._pieces[number].document != outside)
        return list(islice(fitting, count))
