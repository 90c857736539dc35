"""When two answers say the same, and when one says that nothing is said."""

from __future__ import annotations

import re

import pytest

from selftaught.questions.agreeing import NOT_STATED, UNSTATED, Asked, agree, holds, is_unstated, says_something

TEXT = "The Aldor mill opened in 1911 in Ostby. The Brekka mill opened in 1921 in Pellan. Rain made its roof fall."
WHERE = Asked("Where did the Aldor mill open?", TEXT)
WHY = Asked("Why did the roof fall?", TEXT)
OLDER = Asked("Which is older, the Aldor mill or the Brekka mill?", TEXT, (frozenset({"aldor"}), frozenset({"brekka"})))


@pytest.mark.parametrize(
    "answer",
    [
        *["Not stated.", "It is not mentioned.", "The text does not say.", "The text doesn't specify who.", UNSTATED],
        *["I do not know.", "I don’t know.", "No information is given.", "It has not been provided."],
    ],
)
def test_answers_that_say_that_nothing_is_said(answer: str) -> None:
    assert is_unstated(answer)
    assert re.search(NOT_STATED, answer)  # as the scorer does


@pytest.mark.parametrize("answer", ["", "In Ostby.", "No, it did not open.", "The stated year is 1911.", "Nobody."])
def test_answers_that_say_something(answer: str) -> None:
    assert not is_unstated(answer)


@pytest.mark.parametrize(
    ("left", "right", "asked", "same"),
    [
        ("In Ostby.", "The Aldor mill opened in Ostby.", WHERE, True),
        ("In Ostby.", "In Ostby, in 1911.", WHERE, True),
        ("In Ostby.", "In Pellan.", WHERE, False),
        ("In Ostby.", "In a town.", WHERE, False),
        ("In Ostby.", "Not stated.", WHERE, False),
        ("Not stated.", "The text does not say.", WHERE, True),
        ("No, it opened in 1911.", "No.", WHERE, True),
        ("No, it opened in 1911.", "Yes, in 1911.", WHERE, False),
        ("No, it opened in 1911.", "It opened only in 1911.", WHERE, True),
        ("Because of heavy rain.", "Heavy rain was the reason.", WHY, True),
        ("Because of heavy rain.", "A storm.", WHY, False),
        ("The Aldor mill.", "Aldor, as it opened ten years before Brekka.", OLDER, True),
        ("The Aldor mill.", "The Brekka mill.", OLDER, False),
        ("The Aldor mill, in 1911.", "The Brekka mill, in 1911.", OLDER, True),  # names and numbers go first
        ("10 years lie between them.", "Aldor is 10 years older.", OLDER, True),
    ],
)
def test_two_answers_agree(left: str, right: str, asked: Asked, same: bool) -> None:
    assert agree(left, right, asked) is same


@pytest.mark.parametrize(
    ("said", "answer", "asked", "known"),
    [
        ("In Ostby, I think.", "In Ostby.", WHERE, True),
        ("In Ostby.", "In Ostby, in 1911.", WHERE, False),
        ("No.", "No, it opened in 1911.", WHERE, True),
        ("In 1911.", "No, it opened in 1911.", WHERE, False),
        ("Aldor.", "The Aldor mill.", OLDER, True),
        ("Brekka, not Aldor.", "The Aldor mill.", OLDER, False),
        ("heavy rain it was", "Because of heavy rain.", WHY, True),
        ("It was the rain.", "Because of heavy rain.", WHY, False),
    ],
)
def test_from_memory_all_must_be_said(said: str, answer: str, asked: Asked, known: bool) -> None:
    assert holds(said, answer, asked) is known


@pytest.mark.parametrize(
    ("answer", "asked", "something"),
    [
        ("In Ostby.", WHERE, True),
        ("No.", WHERE, True),
        ("The Aldor mill did open.", WHERE, False),
        ("The Aldor mill.", OLDER, True),
        ("The Aldor mill.", WHERE, False),
        ("Not stated.", WHERE, False),
        ("", WHERE, False),
    ],
)
def test_an_answer_must_say_something(answer: str, asked: Asked, something: bool) -> None:
    assert says_something(answer, asked) is something
