"""What counts as a word, a name, a number and a sentence, and what an answer adds to its question."""

from __future__ import annotations

import pytest

from selftaught.words import (
    STOP_WORDS,
    added,
    best_sentence,
    content_words,
    folded,
    names,
    sentences,
    stem,
    stems,
    words,
)

TEXTS = [
    "The Alvorim wildfire broke out in Portugal on 9 August 2025. It burned 5,400 hectares.",
    "He came in 2011,2012 and left.",
    "About 1,234,567 people saw Zoë O’Neil near the Straße of São Tomé.",
    "It cost $40,000.50; Ida paid 3.5% of 12,34.",
    "",
]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("5,400 hectares", ["5400", "hectares"]),
        ("1,234,567", ["1234567"]),
        ("12,34", ["12", "34"]),
        ("1,2345", ["1", "2345"]),
        ("in 2011, 201 of them", ["in", "2011", "201", "of", "them"]),
    ],
)
def test_a_comma_joins_thousands_alone(text: str, found: list[str]) -> None:
    assert words(text) == found


def test_case_and_the_way_an_accent_is_encoded_are_not_looked_at() -> None:
    assert folded("Zoe\u0308 STRASSE") == folded("zo\u00eb Straße")


def test_content_words_are_without_those_of_every_text() -> None:
    assert content_words("Where did the fire burn, and was it in May?") == {"fire", "burn", "may"}


@pytest.mark.parametrize("word", ["yes", "no", "not", "may"])
def test_what_can_be_a_whole_answer_is_a_content_word(word: str) -> None:
    assert word not in STOP_WORDS


@pytest.mark.parametrize(
    ("one", "other"),
    [("occur", "occurred"), ("fire", "fires"), ("burn", "burning"), ("cause", "caused"), ("stop", "stopped")],
)
def test_forms_of_a_word_have_one_stem(one: str, other: str) -> None:
    assert stem(one) == stem(other)


@pytest.mark.parametrize("word", ["2025", "5400", "bed", "was", "sea"])
def test_numbers_and_short_words_are_their_own_stems(word: str) -> None:
    assert stem(word) == word


def test_the_stems_of_a_text_are_those_of_its_words() -> None:
    assert stems("Fires burned 5,400") == {stem("fires"), stem("burned"), "5400"}


def test_an_answer_adds_what_its_question_holds_in_no_form() -> None:
    assert added("The fire burned 5,400 hectares in Lousende.", "How many hectares did fires burn?") == {
        *("5400", "lousende"),
    }


def test_an_answer_that_repeats_its_question_adds_nothing() -> None:
    assert added("It was the fire that burned.", "What did the fire burn?") == set()


def test_names_are_capitals_within_sentences_and_all_numbers() -> None:
    assert names("Winds rose. Then Beatriz Fontal led 2300 people. 17 died in the Corvela.") == {
        *("beatriz", "fontal", "2300", "17", "corvela"),
    }


def test_a_capital_that_begins_a_sentence_is_no_name() -> None:
    assert names("Fire! Strong winds came.\nLater they fell. “Help,” she said.") == set()


def test_a_stop_word_with_a_capital_is_no_name() -> None:
    assert names("the Where and The Who") == set()


@pytest.mark.parametrize("text", TEXTS)
def test_every_name_is_a_word_of_its_text(text: str) -> None:
    assert names(text) <= set(words(text))


def test_sentences_end_before_a_capital_and_at_each_line() -> None:
    text = "It cost 3.5 million. She said “no.” Then he left!\n\nNo more, i.e. nothing"
    assert sentences(text) == ["It cost 3.5 million.", "She said “no.", "Then he left!", "No more, i.e. nothing"]


@pytest.mark.parametrize("text", TEXTS)
def test_sentences_lose_no_word(text: str) -> None:
    assert [word for sentence in sentences(text) for word in words(sentence)] == words(text)


def test_the_best_sentence_holds_most_of_what_is_wanted() -> None:
    text = "A fire broke out. It burned 5400 hectares of pine. Pines burn well."
    assert best_sentence(text, {"5400", "burn", "oak", "pines"}) == ("It burned 5400 hectares of pine.", 0.75)


def test_the_first_of_equal_sentences_is_the_best() -> None:
    assert best_sentence("Fires burn. A fire ends.", {"fire"}) == ("Fires burn.", 1.0)


def test_no_text_has_no_best_sentence() -> None:
    assert best_sentence("", {"fire"}) == ("", 0.0)
