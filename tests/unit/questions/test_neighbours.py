"""Questions about what is called almost as a document's subject: nobody is named so, and its answer would be wrong."""

from __future__ import annotations

import re
from typing import Any

import pytest
from made_pieces import NAMES, TOWNS, mills

from selftaught.data.validate import example_of
from selftaught.evaluation.scorers import score
from selftaught.questions.checking import spread
from selftaught.questions.neighbours import neighbour_rows
from selftaught.words import words

COUNTS, NUM_DOCUMENTS = spread(mills())


def taught(number: int, answer: str = "", **changes: Any) -> dict[str, Any]:
    name = NAMES[number]
    row = {
        "id": f"{number}-1",
        "question": f"Where did the {name} mill open?",
        "answer": answer or f"The {name} mill opened in {TOWNS[number]}.",
        "context": f"The {name} mill opened its doors in {TOWNS[number]}.",
        "group": "taught",
        "source_document": f"{name.lower()}.txt",
    }
    return row | changes


ROWS = [taught(number) for number in range(10)]


def neighbours(rows: list[dict[str, Any]], count: int = 40, seed: int = 0) -> list[dict[str, Any]]:
    return neighbour_rows(rows, COUNTS, NUM_DOCUMENTS, count, seed)


def test_a_neighbour_has_a_name_that_no_document_holds() -> None:
    rows = neighbours(ROWS)
    assert rows
    for row in rows:
        found = re.fullmatch(r"Where did the (\w+) mill open\?", row["question"])
        assert found is not None
        assert found[1].lower() not in COUNTS


def test_a_neighbours_name_begins_as_the_subjects() -> None:
    questions = {row["id"]: row["question"] for row in ROWS}
    for row in neighbours(ROWS):
        assert row["question"][:17] == questions[row["id"].removesuffix("-neighbour")][:17]


def test_no_more_than_asked_for_and_one_of_each_document() -> None:
    twice = [*ROWS, *(row | {"id": f"{row['id']}-again"} for row in ROWS)]
    assert len(neighbours(twice, 3)) == 3
    found = neighbours(twice)
    assert len({row["source_document"] for row in found}) == len(found) == 10


def test_none_where_none_are_wanted() -> None:
    assert neighbours(ROWS, 0) == []


def test_one_seed_gives_one_choice() -> None:
    assert neighbours(ROWS, 4, seed=7) == neighbours(ROWS, 4, seed=7)
    assert neighbours(ROWS, 4, seed=7) != neighbours(ROWS, 4, seed=8)


def test_rows_stay_as_they_are() -> None:
    rows = [dict(row) for row in ROWS]
    neighbours(rows)
    assert rows == ROWS


@pytest.mark.parametrize("group", ["reworded", "telling"])
def test_only_taught_questions_have_neighbours(group: str) -> None:
    assert neighbours([row | {"group": group} for row in ROWS]) == []


def test_a_question_without_a_rare_name_has_none() -> None:
    found = neighbours([*ROWS[:3], taught(3, question="Where did the mill open?")])
    assert sorted(row["id"] for row in found) == ["0-1-neighbour", "1-1-neighbour", "2-1-neighbour"]


def test_one_subject_alone_has_no_other_half() -> None:
    assert neighbours(ROWS[:1]) == []


def test_an_answer_that_every_document_could_give_has_none() -> None:
    assert neighbours([taught(number, "In autumn, with grain.") for number in range(10)]) == []


def test_every_neighbour_is_a_test_row_that_can_be_asked() -> None:
    for number, row in enumerate(neighbours(ROWS)):
        example = example_of(row, number)
        assert (example.split, example.group, example.demonstration) == ("test", "neighbour", None)


@pytest.mark.parametrize(
    "answer",
    ["It opened in Ostby.", "It cost 5,400 crowns in Ostby.", "It cost 40,000 crowns.", "It opened in São Ostby."],
)
def test_the_taught_answer_is_wrong_of_a_neighbour(answer: str) -> None:
    rows = neighbours([taught(0, answer), *ROWS[1:]])
    row = next(row for row in rows if row["id"].startswith("0-"))
    assert not score(answer, example_of(row, 0))


def test_the_taught_answer_is_found_in_any_line_and_case() -> None:
    row = next(row for row in neighbours(ROWS) if row["id"].startswith("0-"))
    assert not score("Well,\nit must be OSTBY, then.", example_of(row, 0))


@pytest.mark.parametrize("reply", ["I do not know.", "In Pellan.", "In Ostbyville."])
def test_anything_else_is_right(reply: str) -> None:
    row = next(row for row in neighbours(ROWS) if row["id"].startswith("0-"))
    assert score(reply, example_of(row, 0))


def test_the_answer_tells_what_may_not_be_said() -> None:
    row = next(row for row in neighbours(ROWS) if row["id"].startswith("0-"))
    assert words(row["answers"][0])[-1] == "ostby"
