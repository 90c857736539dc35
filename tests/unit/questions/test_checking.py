"""Which questions and answers are turned away, and why."""

from __future__ import annotations

import pytest
from made_pieces import NAMES, mills, piece

from selftaught.data.documents import Piece
from selftaught.questions.checking import (
    AGAIN,
    KNOWN,
    NO_ANSWER,
    NOT_A_QUESTION,
    NOT_IN_TEXT,
    OF_THE_TEXT,
    PRESUMES,
    UNSURE,
    VAGUE,
    answer_problem,
    is_rare,
    question_problem,
    spread,
    subject,
    subject_words,
)

TEXT = (
    "The Aldor mill opened in 1911 in the town of Ostby. The mason Ida Brenn built it of red brick, and it cost "
    "40,000 crowns. Heavy rain and rotten beams made the roof fall."
)
MILL = piece(0, text=TEXT)
ASKED = "Where did the Aldor mill open?"


# ----------------------------------------------------------------------------------------- subjects


def test_a_word_is_counted_once_a_document() -> None:
    counts, num_documents = spread([piece(0), piece(0, 2), piece(1)])
    assert num_documents == 2
    assert (counts["mill"], counts["aldor"], counts["ostby"]) == (2, 1, 1)


def test_titles_are_counted_too() -> None:
    counts, _ = spread([piece(0, text="Nothing of it.")])
    assert counts["aldor"] == 1


@pytest.mark.parametrize(
    ("count", "num_documents", "rare"), [(1, 3, True), (2, 3, False), (3, 30, True), (4, 30, False)]
)
def test_a_word_of_one_document_or_a_tenth_of_them_is_rare(count: int, num_documents: int, rare: bool) -> None:
    assert is_rare("mill", {"mill": count}, num_documents) is rare


def test_a_title_gives_the_subject_by_the_words_that_others_lack() -> None:
    counts, num_documents = spread(mills())
    assert [subject_words(one, counts, num_documents) for one in mills()] == [{name.lower()} for name in NAMES]


def test_where_the_text_has_no_word_of_the_title_its_rare_names_are_the_subject() -> None:
    one = Piece("x-1", "scan.pdf", "scan 0007", (), 1, "In 1911 the Aldor mill opened, and Aldor grew near Ostby.")
    counts, num_documents = spread([one, *mills(0)])
    wanted = subject_words(one, counts, num_documents)
    assert wanted == {"aldor", "ostby"}
    assert subject(one, wanted) == "Aldor"


def test_a_title_that_names_the_subject_is_what_it_is_called() -> None:
    assert subject(MILL, {"aldor"}) == "Aldor mill"


def test_a_piece_that_names_nothing_goes_by_its_title() -> None:
    one = Piece("x-1", "notes.txt", "notes", (), None, "it rained all day.")
    assert subject(one, subject_words(one, *spread([one]))) == "notes"


# ---------------------------------------------------------------------------------------- questions


@pytest.mark.parametrize(
    ("question", "problem"),
    [
        (ASKED, None),
        ("The Aldor mill opened in Ostby.", NOT_A_QUESTION),
        ("", NOT_A_QUESTION),
        ("Why the Aldor?", NOT_A_QUESTION),
        ("What does the text say about the Aldor mill?", OF_THE_TEXT),
        ("Where did the mill open its doors?", VAGUE),
        ("Which dragon guards treasure below Aldor?", PRESUMES),
        ("Who built the Aldor mills of bricks?", None),
    ],
)
def test_a_question_can_be_asked_or_has_a_problem(question: str, problem: str | None) -> None:
    assert question_problem(question, MILL, {"aldor"}, set()) == problem


def test_a_question_that_was_asked_is_found_whatever_its_case_and_signs() -> None:
    assert question_problem(ASKED, MILL, {"aldor"}, {"where did the aldor mill open"}) == AGAIN


def test_a_question_about_a_piece_that_names_nothing_need_not_name_it() -> None:
    assert question_problem("Who built the mill of brick?", MILL, set(), set()) is None


# ------------------------------------------------------------------------------------------ answers

IN_OSTBY = "The Aldor mill opened in Ostby."


def problem(question: str, *answers: str, memory: str = "I do not know.", needs: str = "words") -> str | None:
    return answer_problem(question, answers, memory, MILL, needs)[0]  # type: ignore[arg-type]


def test_a_good_answer_comes_with_the_sentence_that_holds_it() -> None:
    found = answer_problem(ASKED, [IN_OSTBY] * 3, "In a town.", MILL, "name")
    assert found == (None, "The Aldor mill opened in 1911 in the town of Ostby.")


@pytest.mark.parametrize("answer", ["", "It did open.", "The Aldor mill opened.", "The mill was red."])
def test_an_answer_must_add_something(answer: str) -> None:
    assert problem(ASKED, answer) == NO_ANSWER


@pytest.mark.parametrize(
    ("needs", "answer", "wanted"),
    [
        ("name", "It opened in 1911.", NO_ANSWER),
        ("number", "It opened in Ostby.", NO_ANSWER),
        ("number", "It opened in 1911.", None),
        ("words", "It opened in 1911.", None),
        ("name", "It opened in Ostby.", None),
    ],
)
def test_an_answer_must_add_what_its_question_asks_for(needs: str, answer: str, wanted: str | None) -> None:
    assert problem(ASKED, answer, needs=needs) == wanted


def test_a_name_counts_without_its_capital() -> None:
    assert problem(ASKED, "it opened in ostby.", needs="name") is None


@pytest.mark.parametrize("answer", ["It opened in Pellan.", "It opened in 1912.", "It opened in Ostby with Ida Brenn."])
def test_names_and_numbers_stand_in_one_sentence_of_the_text(answer: str) -> None:
    assert problem(ASKED, answer) == NOT_IN_TEXT


def test_an_answer_without_names_stands_in_one_sentence_for_the_most_part() -> None:
    asked = "Why did the Aldor roof fall?"
    assert problem(asked, "Because of heavy rain and rotten beams.") is None
    assert problem(asked, "Because of a careless drunken watchman.") == NOT_IN_TEXT


def test_a_number_is_one_number_however_it_is_written() -> None:
    assert problem("How much did the Aldor mill cost?", "It cost 40000 crowns.", needs="number") is None


@pytest.mark.parametrize(
    ("others", "wanted"),
    [
        ([IN_OSTBY, "In 1911."], None),
        (["In 1911.", "I do not know."], UNSURE),
        (["In Ostby, in 1911.", "In Ostby."], None),
        (["In 1911."], UNSURE),
        ([], None),
    ],
)
def test_most_answers_must_agree_with_the_first(others: list[str], wanted: str | None) -> None:
    assert problem(ASKED, IN_OSTBY, *others) == wanted


def test_answers_without_names_agree_by_half_of_their_words() -> None:
    asked, first = "Why did the Aldor roof fall?", "Because of heavy rain and rotten beams."
    assert problem(asked, first, "The rotten beams and rains.", "A storm.") is None
    assert problem(asked, first, "A storm.", "The wind.") == UNSURE


def test_a_plain_word_that_begins_an_answer_is_no_name() -> None:
    assert problem("Where did the Aldor roof fall?", "Heavy rain made it fall.", needs="name") == NO_ANSWER


def test_answers_agree_whichever_of_their_words_comes_first() -> None:
    first, second = "Because of heavy rain and rotten beams.", "Rotten beams and heavy rain."
    assert problem("Why did the Aldor roof fall?", first, second) is None


@pytest.mark.parametrize(("memory", "wanted"), [("I think OSTBY?", KNOWN), ("In Pellan.", None), ("", None)])
def test_what_is_known_without_the_document_is_not_taught(memory: str, wanted: str | None) -> None:
    assert problem(ASKED, IN_OSTBY, memory=memory) == wanted
