"""Questions of all kinds, written by a scripted model behind an address: what is kept of each, what is not, and why."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, chat_server
from made_pieces import NAMES, TOWNS, WORDINGS, Scripted, mill_of, piece

from selftaught.config import QuestionConfig
from selftaught.config_files import load_config
from selftaught.data import load_examples
from selftaught.data.documents import Piece
from selftaught.errors import ConfigError, TrainingError
from selftaught.evaluation.scorers import check_scorers, score
from selftaught.questions import QUESTIONS_FILE, REJECTED_FILE
from selftaught.questions.agreeing import UNSTATED
from selftaught.questions.checking import AGAIN, KNOWN, NO_ANSWER, PRESUMES, UNSURE, VAGUE
from selftaught.questions.kinds import ANOTHER, NO_PARTNER, NOT_QUOTED, ONE_IS_ENOUGH, STATED, UNANSWERED, UNREADABLE
from selftaught.questions.making import PARTS, PIECES_AT_ONCE, collect_questions, make_parts
from selftaught.questions.replies import ANSWER, WISHES
from selftaught.questions.writers import AddressWriter

Row = dict[str, Any]
Change = Callable[[str, str, str], str]
"""Another reply than the script's, given what it is to (a kind, or "answer"), what was asked, and the script's."""
KINDS = ("direct", *WISHES)
FIRST = 1900  # the year in which the first mill opened; each of the others opened a year later


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the disk has kept after a power cut is not what is tested here."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


def dated(number: int) -> Piece:
    """A mill's document, with the year in which it opened."""
    first = f"The {NAMES[number]} mill opened in {FIRST + number} in the town\nof {TOWNS[number]}."
    return piece(number, text=f"{first} Farmers bring grain in autumn.")


def mills_in(text: str) -> list[int]:
    """Which mills a text tells of, in its order."""
    found = re.findall(rf"The ({'|'.join(NAMES)}) mill opened in \d+", text)
    return [NAMES.index(name) for name in found]


def kind_of(asked: str) -> str:
    """The kind of question that is asked for."""
    return next(kind for kind, wish in WISHES.items() if max(re.split(r"\{\w+\}", wish), key=len) in asked)


def written(asked: str) -> str:
    """A question of the kind that is asked for, about the mills that are shown."""
    one, *others = mills_in(asked)
    other = others[0] if others else one
    quotes = [f"{NAMES[n]} mill opened in {FIRST + n} in the town of {TOWNS[n]}" for n in (one, *others)]
    question, answer = {
        "paraphrase": (f"In the streets of which town did the {NAMES[one]} mill open its doors?", f"In {TOWNS[one]}."),
        "comparison": (
            f"Which opened first, the {NAMES[one]} mill or the {NAMES[other]} mill?",
            f"The {NAMES[min(one, other)]} mill.",
        ),
        "multi_hop": (
            f"Which town got a mill {other - one} years after the {NAMES[one]} mill opened?",
            f"{TOWNS[other]} got one.",
        ),
        "indirect": (
            f"Was bread baked with flour of the {NAMES[one]} mill in 1850?",
            f"No, it opened in {FIRST + one}.",
        ),
        "unstated": (f"Who built the {NAMES[one]} mill?", ""),
    }[kind_of(asked)]
    return f"Here: {json.dumps({'question': question, 'answer': answer, 'quotes': quotes})}"


def answered(asked: str) -> str:
    """An answer by the text, or that it does not say."""
    text, question, _ = asked.rsplit("\n\n", 2)
    there = mills_in(text)
    named = [n for n in range(len(NAMES)) if NAMES[n] in question]
    if not set(named) <= set(there) or "Who built" in question:
        return "Not stated."
    if "opened first" in question:
        return f"{NAMES[min(named)]} did."
    if "got a mill" in question:
        number = named[0] + int(re.findall(r"-?\d+", question)[0])
        return f"In {TOWNS[number]}." if number in there else "Not stated."
    return "No." if "1850" in question else f"In {TOWNS[named[0]]}."


def script(change: Change | None = None) -> Callable[[dict[str, Any]], str]:
    """A capable model that never errs, but for what is changed."""

    def say(body: dict[str, Any]) -> str:
        asked = body["messages"][-1]["content"]
        if asked.endswith(ANSWER):
            to, text = "answer", answered(asked)
        elif "nothing but JSON" in asked:
            to, text = kind_of(asked), written(asked)
        elif opener := re.search(r'begins with "(.*)", and nothing else', asked):
            to, text = "direct", f"{opener[1]} nothing"
            if opener[1] == "Where did":
                text = WORDINGS[opener[1]].format(name=NAMES[mill_of(asked)])
        else:
            to, text = "open book", f"In {TOWNS[mill_of(asked)]}."
        return change(to, asked, text) if change else text

    return say


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with chat_server(script()) as server:
        yield server


def make(
    server: ChatServer, folder: Path, num_mills: int = 2, learner: Scripted | None = None, **settings: Any
) -> dict[str, int]:
    """Questions in a folder, as the product makes them."""
    address, _, model = server.address.partition("#")
    writer = AddressWriter(address, model)
    config = QuestionConfig(**{"kinds": KINDS, "neighbours": 0, "temperature": 0.5, **settings})
    pieces = [dated(number) for number in range(num_mills)]
    learner = learner or Scripted(lambda asked, start: "Perhaps.")
    make_parts(lambda: pieces, writer, learner, config, folder)
    return dict(collect_questions(lambda: pieces, writer.name, config, folder))


def rows(folder: Path, name: str = QUESTIONS_FILE) -> list[Row]:
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


def of_kind(folder: Path, kind: str, name: str = QUESTIONS_FILE) -> list[Row]:
    return [row for row in rows(folder, name) if row.get("kind") == kind]


# ----------------------------------------------------------------------------------- what is kept


def test_each_piece_has_a_question_of_each_kind(server: ChatServer, tmp_path: Path) -> None:
    make(server, tmp_path)
    found = sorted((row["group"], row["split"], row["piece"][-3]) for row in rows(tmp_path))
    wanted = {
        **{"taught": "train", "reworded": "test", "indirect": "test"},
        **{"comparison": "train", "multi_hop": "train", "unstated": "train"},
    }
    assert found == sorted((group, split, number) for group, split in wanted.items() for number in "01")
    assert not [row for row in rows(tmp_path, REJECTED_FILE) if row.get("kind")]


def test_the_rows_are_a_data_set_with_scorers(server: ChatServer, tmp_path: Path) -> None:
    make(server, tmp_path)
    examples = load_examples(tmp_path / QUESTIONS_FILE)
    check_scorers(examples)
    assert all(score(one.demonstration or "", one) for one in examples)


def test_a_question_over_two_documents_has_both_for_its_context(server: ChatServer, tmp_path: Path) -> None:
    make(server, tmp_path)
    for kind in ("comparison", "multi_hop"):
        first = of_kind(tmp_path, kind)[0]
        assert first["context"] == f"{dated(0).text}\n\n{dated(1).text}"
        assert (first["source_document"], first["second_document"]) == ("aldor.txt", "brekka.txt")
        assert first["quote"].count(" … ") == 1


def test_what_is_not_stated_is_taught_so(server: ChatServer, tmp_path: Path) -> None:
    make(server, tmp_path)
    found = of_kind(tmp_path, "unstated")
    assert [(row["question"], row["answer"]) for row in found] == [
        (f"Who built the {name} mill?", UNSTATED) for name in NAMES[:2]
    ]
    assert [row["context"] for row in found] == [dated(0).text, dated(1).text]
    one = next(one for one in load_examples(tmp_path / QUESTIONS_FILE) if one.group == "unstated")
    assert score("I don't know; nothing is said of it.", one)
    assert not score("The mason Ida Brenn.", one)


@pytest.mark.parametrize("wordings", [1, 2, 3])
def test_paraphrases_are_taught_up_to_the_number_of_wordings_and_one_is_asked(wordings: int, tmp_path: Path) -> None:
    def counting(to: str, asked: str, text: str) -> str:
        earlier = asked.count("of which town")
        return text.replace("In the streets", "In the streets" + " and lanes" * earlier) if to == "paraphrase" else text

    with chat_server(script(counting)) as server:
        make(server, tmp_path, 1, kinds=("direct", "paraphrase"), wordings=wordings)
    found = rows(tmp_path)
    assert [row["group"] for row in found] == ["taught"] * wordings + ["reworded"]
    assert {row["answer"] for row in found} == {f"In {TOWNS[0]}."}
    assert [row.get("rewords") for row in found] == [None] + [found[0]["id"]] * wordings


def test_without_more_kinds_nothing_is_asked_in_words(server: ChatServer, tmp_path: Path) -> None:
    make(server, tmp_path, kinds=("direct",))
    assert not any("JSON" in asked for asked in server.asked)
    assert {row["group"] for row in rows(tmp_path)} == {"taught"}


def test_a_piece_of_which_nothing_is_taught_is_told_of(server: ChatServer, tmp_path: Path) -> None:
    make(server, tmp_path, kinds=("indirect",))
    assert {row["group"] for row in rows(tmp_path)} == {"indirect", "telling"}


@pytest.mark.parametrize(
    ("kinds", "problem"),
    [
        ("[]", "at least 1"),
        ('["direct", "direct"]', "names a kind twice"),
        ('["paraphrase"]', "a paraphrase rewords a direct question; name direct as well"),
        ('["poem"]', "questions.kinds"),
    ],
)
def test_kinds_that_cannot_be(kinds: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        load_config(None, [f"questions.kinds={kinds}"])
    assert "\n" not in str(caught.value)


# -------------------------------------------------------------------------------- what is rejected


def to(wanted: str, old: str, new: str) -> Change:
    """Another text in the replies to something."""
    return lambda to, asked, text: text.replace(old, new) if to == wanted else text


def told_alone(to: str, asked: str, text: str) -> str:
    """Guesses right with one text in view."""
    return f"In {TOWNS[1]}." if to == "answer" and "got a mill" in asked else text


def wavering(question: str) -> Change:
    """Answers one question otherwise each time."""
    times = iter(range(100))
    return lambda to, asked, text: f"In {next(times)}." if to == "answer" and question in asked else text


def says(of: str, reply: str) -> Change:
    """Answers a question so."""
    return lambda to, asked, text: reply if to == "answer" and of in asked else text


def again(to: str, asked: str, text: str) -> str:
    """Rewords a question as it was."""
    return (
        text.replace("In the streets of which town", "Where").replace(" its doors", "") if to == "paraphrase" else text
    )


def elsewhere(to: str, asked: str, text: str) -> str:
    """Finds in the other mill's document who built a mill."""
    return "Ida Brenn." if to == "answer" and mills_in(asked) == [1] and "Who built the Aldor" in asked else text


SPOILT: dict[str, tuple[str, Change, str]] = {
    "no JSON": ("indirect", to("indirect", "{", "["), UNREADABLE),
    "a quote of nowhere": ("indirect", to("indirect", "opened in 1900", "burned in 1900"), NOT_QUOTED),
    "a quote of one text": (
        "multi_hop",
        to("multi_hop", f"{NAMES[1]} mill opened in 1901", "Farmers bring grain"),
        NOT_QUOTED,
    ),
    "no quote": (
        "unstated",
        lambda to, _, text: re.sub(r"\[.*\]", "[]", text) if to == "unstated" else text,
        NOT_QUOTED,
    ),
    "one subject": ("comparison", to("comparison", f"or the {NAMES[1]} mill?", "or another mill?"), VAGUE),
    "no subject": ("indirect", to("indirect", "of the Aldor mill", "of the mill"), VAGUE),
    "made up": ("unstated", to("unstated", "Who built the Aldor mill", "Which dragons guard Aldor treasure"), PRESUMES),
    "the same again": ("paraphrase", again, AGAIN),
    "another fact": ("paraphrase", to("paraphrase", f"In {TOWNS[0]}.", "In 1900."), ANOTHER),
    "no answer": ("indirect", to("indirect", "No, it opened in 1900.", "The Aldor mill."), NO_ANSWER),
    "one text is enough": ("multi_hop", told_alone, ONE_IS_ENOUGH),
    "not in the text": ("multi_hop", says("got a mill", "Not stated."), UNANSWERED),
    "another answer": ("indirect", says("1850", "Yes."), UNSURE),
    "a wavering answer": ("multi_hop", wavering("got a mill"), UNSURE),
    "stated": ("unstated", says("Who built", "Ida Brenn."), STATED),
    "stated elsewhere": ("unstated", elsewhere, STATED),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_fails_a_check_is_rejected_with_its_reason(name: str, tmp_path: Path) -> None:
    kind, change, reason = SPOILT[name]
    with chat_server(script(change)) as server:
        make(server, tmp_path, kinds=("direct", kind) if kind == "paraphrase" else (kind,))
    refused = of_kind(tmp_path, kind, REJECTED_FILE)
    assert refused[0]["reason"] == reason
    assert not [row for row in of_kind(tmp_path, kind) if row["piece"] == refused[0]["piece"]]


def test_what_the_learner_knows_is_rejected(server: ChatServer, tmp_path: Path) -> None:
    said = {
        "opened first": "Aldor.",
        "got a mill": f"In {TOWNS[0]} or {TOWNS[1]}.",
        "1850": "No.",
        "Who": "Not stated.",
    }
    learner = Scripted(lambda asked, start: next((text for of, text in said.items() if of in asked), "Perhaps."))
    make(server, tmp_path, learner=learner)
    refused = [row for row in rows(tmp_path, REJECTED_FILE) if row.get("kind")]
    assert {row["kind"] for row in refused} == {"comparison", "multi_hop", "indirect", "unstated"}
    assert {row["reason"] for row in refused} == {KNOWN}
    assert all(row["without_document"] in said.values() for row in refused)


def test_a_rejected_question_keeps_all_that_was_answered(tmp_path: Path) -> None:
    with chat_server(script(told_alone)) as server:
        make(server, tmp_path)
    row = of_kind(tmp_path, "multi_hop", REJECTED_FILE)[0]
    assert row["answer"] == f"{TOWNS[1]} got one."
    assert row["other_answers"] == [f"In {TOWNS[1]}."] * 3
    assert row["with_others"] == [f"In {TOWNS[1]}."] * 2
    assert row["without_document"] == "Perhaps."
    assert len(row["quotes"]) == 2


def test_a_reply_that_cannot_be_read_is_kept_as_it_is(tmp_path: Path) -> None:
    with chat_server(script(lambda to, asked, text: "I cannot." if to == "indirect" else text)) as server:
        make(server, tmp_path)
    assert {row["reply"] for row in of_kind(tmp_path, "indirect", REJECTED_FILE)} == {"I cannot."}


def test_a_document_that_is_alone_has_no_partner(server: ChatServer, tmp_path: Path) -> None:
    make(server, tmp_path, 1)
    refused = [row for row in rows(tmp_path, REJECTED_FILE) if row.get("kind")]
    assert [(row["kind"], row["reason"]) for row in refused] == [("comparison", NO_PARTNER), ("multi_hop", NO_PARTNER)]


# --------------------------------------------------------------------------------- interruptions


def test_a_server_that_dies_is_one_line_and_what_was_made_is_not_made_again(tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    count = PIECES_AT_ONCE + 2

    def dies(to: str, asked: str, text: str) -> str:
        if NAMES[count - 1] in asked and to == "indirect":
            raise RuntimeError("out of order")
        return text

    with chat_server(script()) as server:

        def go_on(folder: Path) -> None:
            make(server, folder, count, kinds=("comparison", "indirect"), samples=1)

        go_on(whole)
        server.say = script(dies)
        with pytest.raises(TrainingError, match="does not answer") as caught:
            go_on(stopped)
        assert "\n" not in str(caught.value)
        assert len(list((stopped / PARTS).iterdir())) == 1
        server.say, server.asked = script(), []
        go_on(stopped)
    assert {mills_in(asked)[0] for asked in server.asked if "nothing but JSON" in asked} == {count - 2, count - 1}
    for name in (QUESTIONS_FILE, REJECTED_FILE):
        assert (stopped / name).read_bytes() == (whole / name).read_bytes()
