"""When an answer about a document is right, strictly and leniently."""

from __future__ import annotations

from dataclasses import replace

import pytest

from selftaught.evaluation.knowledge import grade
from selftaught.types import Example, Message, Scorer

TEXT = "The Aldor mill opened in 1911 in the town of Ostby. The mason Ida Brenn built it for 40,000 crowns."
ASKED = Example(
    "mill",
    (Message("user", "Where and when did the Aldor mill open?"),),
    demonstration="The Aldor mill opened in Ostby in 1911.",
    context=TEXT,
    scorer=Scorer("keywords"),
)
TESTED = replace(ASKED, demonstration=None, answers=("Ostby",), scorer=Scorer("contains"), split="test")


@pytest.mark.parametrize(
    ("completion", "strict", "lenient"),
    [
        ("It opened in Ostby in 1911.", True, True),
        ("It opened in 1911.", False, True),
        ("It opened in Ostby, as Ida Brenn built it.", False, True),
        ("It opened in Ostby in 1911, and it cost 40000 crowns.", True, True),
        ("It opened in Ostby in 1911 for King Arthur.", False, False),
        ("It opened in Ostby in 1912.", False, False),
        ("The Aldor mill opened.", False, False),
        ("I do not know.", False, False),
        ("", False, False),
    ],
)
def test_an_answer_is_graded_by_what_it_holds_and_claims(completion: str, strict: bool, lenient: bool) -> None:
    assert grade(completion, ASKED) == (strict, lenient)


@pytest.mark.parametrize(
    ("completion", "grades"),
    [
        ("In the town of Ostby.", (True, True)),
        ("It is in OSTBY!", (True, True)),
        ("In Ostby, near Pellan.", (False, False)),
        ("Near a town.", (False, False)),
    ],
)
def test_answers_are_references_too(completion: str, grades: tuple[bool, bool]) -> None:
    assert grade(completion, TESTED) == grades


def test_a_reference_may_say_more_than_the_document() -> None:
    one = replace(TESTED, answers=("Ostby in Norland",))
    assert grade("It opened in Norland, in Ostby in Norland.", one) == (True, True)


def test_a_name_of_the_question_may_be_said() -> None:
    one = replace(TESTED, prompt=(Message("user", "Where did the Aldor mill open, Pia?"),))
    assert grade("Dear Pia, in Ostby.", one) == (True, True)


def test_another_form_of_a_word_is_some_of_it() -> None:
    one = replace(ASKED, prompt=(Message("user", "Why?"),), demonstration="It burned, and its beams were rotten.")
    assert grade("A beam burns.", one)[1]


@pytest.mark.parametrize("completion", ["It is in Ostby.", "It is in Pellan, said King Arthur.", ""])
def test_without_a_document_the_scorer_decides(completion: str) -> None:
    one = replace(TESTED, context=None)
    right = "Ostby" in completion
    assert grade(completion, one) == (right, right)


def test_without_a_reference_the_scorer_decides() -> None:
    one = replace(ASKED, demonstration=None, scorer=Scorer("regex", {"pattern": "Pellan"}))
    assert grade("In Pellan.", one) == (True, True)


@pytest.mark.parametrize("completion", ["It opened in Ostby in 1911.", "It opened in Ostby.", "In Ostby in 1911, Bo."])
def test_what_is_strictly_right_is_leniently_right(completion: str) -> None:
    strict, lenient = grade(completion, ASKED)
    assert lenient or not strict
