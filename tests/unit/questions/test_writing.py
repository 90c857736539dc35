"""What a writer is asked, and what is taken of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from made_pieces import Scripted, mills

from selftaught.questions.writing import LONG, OPENERS, SHOWN, closed_book, first_line, open_book, shortened, written
from selftaught.types import Message


def echo(reply: str) -> Scripted:
    return Scripted(lambda asked, start: start + reply)


def test_every_piece_is_asked_for_a_question_of_each_opener() -> None:
    found = written(echo(" it?"), mills(2), ["a", "b"], 0)
    assert found == [[f"{opener} it?" for opener in OPENERS]] * 2


def test_the_writer_is_shown_the_piece_and_its_subject() -> None:
    writer = echo(" it?")
    written(writer, mills(1), ["the Aldor mill"], 0)
    assert all(mills(1)[0].text in asked and "the Aldor mill" in asked for asked in writer.asked)


@pytest.mark.parametrize(
    ("reply", "taken"),
    [
        (" the mill open? It opened in Ostby. Why?", " the mill open?"),
        (" the mill open, and who built it?", " the mill open?"),
        (" the mill open and when did it close?", " the mill open?"),
        (" the mill open ?\nAnswer: in Ostby?", " the mill open?"),
        (" the mill and the barn open?", " the mill and the barn open?"),
        (" the mill open\nor not?", " the mill open"),
    ],
)
def test_a_question_ends_at_its_first_mark_and_asks_one_thing(reply: str, taken: str) -> None:
    found = written(echo(reply), mills(1), ["a"], 0)[0]
    assert found == [opener + taken for opener in OPENERS]


def test_an_answer_is_asked_for_with_the_piece_in_view_after_two_examples() -> None:
    seen: list[Sequence[Message]] = []

    class Noting(Scripted):
        def write(self, *words: Any) -> list[str]:
            seen.extend(words[0])
            assert words[-2:] == (0.3, 5)
            return super().write(*words)

    one = mills(1)[0]
    assert open_book(Noting(lambda asked, start: "In Ostby. Yes."), [one], ["Where is it?"], 0.3, 5) == ["In Ostby."]
    assert tuple(seen[0][:-1]) == SHOWN
    assert seen[0][-1].content == f"{one.text}\n\nWhere is it?"


def test_from_memory_no_document_is_in_view() -> None:
    learner = Scripted(lambda asked, start: "In Ostby.\nOr not.")
    assert closed_book(learner, ["Where is it?"], 0) == ["In Ostby."]
    assert learner.asked == ["Where is it?"]


@pytest.mark.parametrize("text", ["", "\n\n", "  "])
def test_an_empty_answer_stays_empty(text: str) -> None:
    assert first_line(text) == shortened(text) == ""


LISTED = "The mill opened in the old town of Ostby in 1911, after the mason had built it, and it still runs."


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("It opened in Ostby, in 1911. It is red.", "It opened in Ostby, in 1911."),
        (LISTED, "The mill opened in the old town of Ostby in 1911."),
        (LISTED.replace("1911, after", "the year of 5,400 crowns; after"), None),
        ("word " * (LONG + 1), None),
        ("In Ostby\nIn Pellan", "In Ostby"),
    ],
)
def test_an_answer_is_its_first_sentence_and_of_a_long_one_what_stands_before_its_comma(
    text: str, short: str | None
) -> None:
    found = shortened(text)
    if short is None:
        short = text.split(";", maxsplit=1)[0].strip() + "."
    assert found == short


def test_a_number_with_a_comma_is_not_cut() -> None:
    text = "It burned 5,400 hectares of pine and of oak and of birch in the hills of Portugal, they said."
    assert shortened(text) == text.rsplit(",", 1)[0] + "."
