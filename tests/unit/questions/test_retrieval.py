"""BM25 against a straightforward computation of it, and what is found."""

from __future__ import annotations

import math
import random

import pytest
from made_pieces import NAMES, mills, piece

from selftaught.data.documents import Piece
from selftaught.questions import Retriever
from selftaught.words import content_words, stem, words

VOCABULARY = ["mill", "grain", "river", "opened", "burned", "stone", "Ostby", "1911", "roof", "fell", "beams", "the"]


def random_pieces(seed: int) -> list[Piece]:
    source = random.Random(seed)
    pieces = []
    for number in range(20):
        text = " ".join(source.choices(VOCABULARY, k=source.randint(3, 40)))
        section = tuple(source.choices(VOCABULARY, k=source.randint(0, 2)))
        pieces.append(Piece(f"{number}-1", f"{number}.txt", source.choice(VOCABULARY), section, None, text))
    return pieces


def terms(one: Piece) -> list[str]:
    return [stem(word) for word in words(" ".join([one.title, *one.section, one.text]))]


def bm25(question: str, pieces: list[Piece]) -> dict[str, float]:
    """The formula as it is written, with k = 1.2 and b = 0.75; by the pieces' ids."""
    said = {one.id: terms(one) for one in pieces}
    mean = sum(map(len, said.values())) / len(pieces)
    totals = dict.fromkeys(said, 0.0)
    for word in {stem(word) for word in content_words(question)}:
        holding = sum(word in other for other in said.values())
        idf = math.log(1 + (len(pieces) - holding + 0.5) / (holding + 0.5))
        for id, found in said.items():
            count = found.count(word)
            totals[id] += idf * count * 2.2 / (count + 1.2 * (0.25 + 0.75 * len(found) / mean))
    return totals


@pytest.mark.parametrize("seed", range(5))
def test_pieces_come_in_the_order_of_their_scores(seed: int) -> None:
    pieces = random_pieces(seed)
    question = "Which beams of the mill fell, and did Ostby burn in 1911?"
    wanted = bm25(question, pieces)
    scores = [wanted[one.id] for one in Retriever(pieces).best(question, len(pieces))]
    assert scores == pytest.approx(sorted((score for score in wanted.values() if score > 0), reverse=True))


@pytest.mark.parametrize("number", range(10))
def test_a_name_finds_its_piece(number: int) -> None:
    assert Retriever(mills()).best(f"Where did the {NAMES[number]} mill open?") == [piece(number)]


def test_forms_of_a_word_are_found() -> None:
    pieces = [*mills(2), piece(2, text="Thieves burned the roofs.")]
    assert Retriever(pieces).best("Who is burning a roof?") == [pieces[2]]


def test_titles_and_sections_are_searched() -> None:
    hidden = Piece("x-1", "x.txt", "Quarry", ("Ropeways",), None, "It rained.")
    retriever = Retriever([*mills(), hidden])
    assert retriever.best("Which quarry?") == retriever.best("Which ropeway?") == [hidden]


def test_the_first_of_equal_pieces_is_the_best() -> None:
    pieces = [piece(0), piece(0, 2)]
    assert Retriever(pieces).best("Where is Aldor?", 2) == pieces


@pytest.mark.parametrize("question", ["Zebra?", "Where was it?", ""])
def test_nothing_is_found_where_no_word_is_shared(question: str) -> None:
    assert Retriever(mills()).best(question) == []


def test_nothing_is_found_among_no_pieces() -> None:
    assert Retriever([]).best("Where is Aldor?") == []
