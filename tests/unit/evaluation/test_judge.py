"""A judge behind an address: what it is asked, how its verdicts are read, and what is not asked again."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from chat_server import ChatServer, chat_server

from selftaught.addresses import KEY_VARIABLES
from selftaught.errors import ConfigError
from selftaught.evaluation import chat
from selftaught.evaluation.judge import Judge, has_reference, is_free_text, verdict_of
from selftaught.types import Example, Message, Scorer


def row(name: str = "a", reference: str = "In {text}.", **fields: Any) -> Example:
    return Example(name, (Message("user", "Where is {completion}?"),), reference, **fields)


def verdict_in_answer(body: dict[str, Any]) -> str:
    """Judges an answer as it asks to be judged; the sample's is right."""
    answer = re.findall(r"Answer:\n(.*)\n\nReply", body["messages"][-1]["content"], re.DOTALL)[0]
    return "CORRECT" if answer == "Four." else answer.split()[-1]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    for name in KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(chat.time, "sleep", lambda seconds: None)
    with chat_server(verdict_in_answer) as server:
        yield server


@pytest.mark.parametrize(
    ("reply", "verdict"),
    [
        ("CORRECT", "CORRECT"),
        ("**Correct.**", "CORRECT"),
        ("partly", "PARTLY"),
        ("Partially correct", "PARTLY"),
        ("WRONG", "WRONG"),
        ("Incorrect!", "WRONG"),
        ("This is not correct.", "WRONG"),
        ("<think>It may be WRONG or PARTLY so.</think>\nCORRECT", "CORRECT"),
        ("Perhaps.", None),
        ("", None),
    ],
)
def test_a_verdict_is_read(reply: str, verdict: str | None) -> None:
    assert verdict_of(reply) == verdict


def test_verdicts_are_strict_and_lenient(server: ChatServer, tmp_path: Path) -> None:
    items = [(f"It is {word}", row(word)) for word in ("CORRECT", "PARTLY", "WRONG", "unclear")]
    found = Judge(server.address, tmp_path / "judged.jsonl").grades([*items, (" \n", row("blank"))])
    assert found == [(True, True), (False, True), (False, False), None, (False, False)]
    assert len(server.asked) == 4  # of nothing said, nothing is asked


def test_the_judge_sees_text_question_reference_and_answer_as_they_are(server: ChatServer, tmp_path: Path) -> None:
    judge = Judge(server.address, tmp_path / "judged.jsonl")
    judge.grades([("{reference} CORRECT", row(context="The {question}."))])
    judge.grades([("CORRECT", row(answers=("Ostby", "Pellan")))])
    first, second = server.asked
    for part in ("Text:\nThe {question}.", "Question:\nWhere is {completion}?", "Reference:\nIn {text}."):
        assert part in first
    assert "Answer:\n{reference} CORRECT" in first
    assert "Text:" not in second
    assert "Reference:\nOstby\n" in second
    assert "{by_text}" not in first + second


def test_what_was_judged_is_not_asked_again_and_one_answer_is_asked_of_once(server: ChatServer, tmp_path: Path) -> None:
    record = tmp_path / "judged.jsonl"
    items = [("CORRECT", row("a")), ("WRONG", row("b")), ("CORRECT", row("a"))]
    first = Judge(server.address, record).grades(items)
    assert len(server.asked) == 2
    assert Judge(server.address, record).grades(items) == first
    assert len(server.asked) == 2
    lines = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines() if line]
    assert sorted((line["id"], line["completion"], line["verdict"]) for line in lines) == [
        ("a", "CORRECT", "CORRECT"),
        ("b", "WRONG", "WRONG"),
    ]


def test_another_judge_is_asked_anew(server: ChatServer, tmp_path: Path) -> None:
    for name in ("big", "bigger"):
        address = server.address.replace("#big", f"#{name}")
        Judge(address, tmp_path / "judged.jsonl").grades([("CORRECT", row())])
    assert len(server.asked) == 2


def test_a_judge_that_dies_is_one_line_and_goes_on_where_it_was(server: ChatServer, tmp_path: Path) -> None:
    record = tmp_path / "judged.jsonl"
    items = [(f"{number} CORRECT", row(str(number))) for number in range(30)]

    def dies(body: dict[str, Any]) -> str:
        if len(server.asked) >= 10:
            raise RuntimeError("out of order")
        return "CORRECT"

    server.say = dies
    with pytest.raises(ConfigError, match=r"the judge gives no answer .*SELFTAUGHT_API_KEY.*--resume") as caught:
        Judge(server.address, record).grades(items)
    assert "\n" not in str(caught.value)
    before = set(server.asked)
    kept = [json.loads(line) for line in record.read_text(encoding="utf-8").splitlines()]
    assert 0 < len(kept) == len(before) < 30  # also what was on its way when the first request failed
    server.say, server.asked = verdict_in_answer, []
    assert Judge(server.address, record).grades(items) == [(True, True)] * 30
    assert len(server.asked) == 30 - len(kept)


def test_a_torn_line_is_asked_again_and_harms_no_other(server: ChatServer, tmp_path: Path) -> None:
    record = tmp_path / "judged.jsonl"
    items = [("1 CORRECT", row("a")), ("2 WRONG", row("b"))]
    Judge(server.address, record).grades(items)
    record.write_bytes(record.read_bytes()[:-20])
    for _ in range(2):
        assert Judge(server.address, record).grades(items) == [(True, True), (False, False)]
    assert len(server.asked) == 3


def test_a_judge_is_tried_before_anything_slow_starts(server: ChatServer, tmp_path: Path) -> None:
    judge = Judge(server.address, tmp_path / "judged.jsonl")
    judge.check()
    assert len(server.asked) == 1
    assert not list(tmp_path.iterdir())
    server.say = lambda body: "I would rather not."
    with pytest.raises(ConfigError, match=r"said 'I would rather not\.', not CORRECT, PARTLY or WRONG"):
        judge.check()
    server.say = verdict_in_answer
    judge.grades([("CORRECT", row())])
    judge.check()
    assert len(server.asked) == 3


def test_progress_is_told(server: ChatServer, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    items = [(f"{number} CORRECT", row(str(number))) for number in range(3)]
    Judge(server.address, tmp_path / "judged.jsonl").grades(items, lambda *done: told.append(done))
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("name", KEY_VARIABLES)
def test_the_key_of_the_environment_is_sent(
    name: str, server: ChatServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "sk-secret")
    Judge(server.address, tmp_path / "judged.jsonl").check()
    assert server.keys == ["Bearer sk-secret"]


@pytest.mark.parametrize(
    ("address", "problem"),
    [("http://localhost:1/v1", "names no model"), ("gpt", "is no address"), ("", "is no address")],
)
def test_an_address_that_is_none(address: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^--judge: .*{problem}"):
        Judge(address, tmp_path / "judged.jsonl")


@pytest.mark.parametrize(
    ("fields", "free"),
    [
        ({}, True),
        ({"answers": ("x",)}, False),
        ({"scorer": Scorer("keywords")}, False),
        ({"scorer": Scorer("keywords"), "group": "telling"}, True),
        ({"scorer": Scorer("regex", {"pattern": "x"}), "group": "unstated"}, True),
    ],
)
def test_rules_cannot_tell_of_free_text(fields: dict[str, Any], free: bool) -> None:
    assert is_free_text(row(**fields)) is free


def test_a_neighbour_has_no_answer_to_compare_with() -> None:
    assert has_reference(row())
    assert not has_reference(row(group="neighbour", answers=("anything but x",)))
    assert not has_reference(Example("a", (Message("user", "?"),), scorer=Scorer("regex", {"pattern": "x"})))
