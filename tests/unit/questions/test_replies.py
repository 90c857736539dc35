"""What a capable writer is asked in words, and what is read of its replies."""

from __future__ import annotations

import json

import pytest
from made_pieces import Scripted, mills

from selftaught.questions.replies import WISHES, Draft, Request, answers, drafts, read_reply

WHOLE = {"question": "Where did it open?", "answer": "In Ostby.", "quotes": ["the town of Ostby"]}
READ = Draft("Where did it open?", "In Ostby.", ("the town of Ostby",))


@pytest.mark.parametrize(
    "reply",
    [
        json.dumps(WHOLE),
        json.dumps(WHOLE, indent=2),
        f"Sure! Here it is:\n```json\n{json.dumps(WHOLE)}\n```\nI hope {{this}} helps.",
        json.dumps({"questions": [WHOLE]}),
        json.dumps({"Question": "Where did\nit open?", " answer ": "In  Ostby.", "quote": "“the town of Ostby…”"}),
        json.dumps({**WHOLE, "quotes": {"first": "the town of Ostby"}}),
        json.dumps(WHOLE).replace("]}", ",],}"),
        json.dumps(WHOLE).replace("it open", "it\nopen"),
        "{not this} " + json.dumps(WHOLE),
    ],
)
def test_a_question_is_found_in_whatever_stands_around_it(reply: str) -> None:
    assert read_reply(reply) == READ


@pytest.mark.parametrize(
    "reply",
    [
        *["", "Where did it open?", "{", '{"question": ""}', '{"question": 3, "answer": "x"}', "[1]", '{"a": ' * 3000],
        '{"question": "Why?", "answer": ["x"]}',
    ],
)
def test_what_is_no_question_is_not_read(reply: str) -> None:
    assert read_reply(reply) is None


def test_a_number_is_an_answer_and_quotes_may_lack() -> None:
    assert read_reply('{"question": "How many?", "answer": 7}') == Draft("How many?", "7", ())


@pytest.mark.parametrize("kind", WISHES)
def test_the_writer_sees_its_pieces_and_nothing_unfilled(kind: str) -> None:
    one, other = mills(2)
    pieces = (one, other) if kind in ("comparison", "multi_hop") else (one,)
    row = {"question": "Where is {answer}?", "answer": "In {subject}."}
    writer = Scripted(lambda asked, start: json.dumps(WHOLE))
    request = Request(kind, pieces, "the Aldor mill", False, row, ("Where is {answer}?",))  # type: ignore[arg-type]
    assert drafts(writer, [request], 0.0, 0) == [READ]
    (asked,) = writer.asked
    assert all(piece.text in asked for piece in pieces)
    assert ("First text:" in asked) is (len(pieces) == 2)
    assert ("In {subject}." in asked) is (kind == "paraphrase")  # a brace of the row's stays one
    assert asked.count("exactly as they stand there") == 1
    assert asked.rpartition("\n")[2].startswith('{"question": "…"')


def test_a_reply_that_cannot_be_read_comes_back_as_it_is() -> None:
    request = Request("indirect", (mills(1)[0],), "the Aldor mill")
    assert drafts(Scripted(lambda asked, start: "No."), [request], 0.0, 0) == ["No."]


def test_an_answer_is_asked_for_by_the_text_alone() -> None:
    writer = Scripted(lambda asked, start: "In Ostby.\nIndeed.")
    assert answers(writer, ["The {question} text."], ["Where is {text}?"], 0.0, 0) == ["In Ostby."]
    assert writer.asked[0].startswith("The {question} text.\n\nWhere is {text}?\n\n")
    assert "Not stated" in writer.asked[0]
