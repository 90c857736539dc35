"""How the paper scores: the tagged letter, the multiset of calls, and a judge behind a small server."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from selftaught.errors import ConfigError, DataError
from selftaught.evaluation import chat
from selftaught.evaluation.paper_scorers import judge, science, tools
from selftaught.evaluation.scorers import check_scorers, score
from selftaught.types import Example, Message, Scorer


def row(*answers: str, demonstration: str | None = None, question: str = "?") -> Example:
    return Example("r1", (Message("user", question),), demonstration, answers=answers)


# ------------------------------------------------------------------------------------------ science


@pytest.mark.parametrize(
    ("completion", "right"),
    [
        ("<answer>B</answer>", True),
        ("<reasoning>\nA has C and C.\n</reasoning>\n<answer>\nB\n</answer>\n", True),
        ("<answer>A</answer> no: <answer> B </answer>", True),  # the last one counts
        ("<answer>B", True),
        ("B", True),
        ("<answer>B: lead</answer>", False),
        ("<answer>A</answer>", False),
        ("The answer is B", False),
        ("<answer></answer>", False),
        ("", False),
    ],
)
def test_science(completion: str, right: bool) -> None:
    assert science(completion, row("B")) is right
    assert science(completion, row(demonstration="<answer>\nB\n</answer>")) is right


# -------------------------------------------------------------------------------------------- tools


def called(*calls: tuple[str, Any]) -> str:
    return "\n".join(
        f"Thought: so\nAction: {name}\nAction Input: {given if isinstance(given, str) else json.dumps(given)}"
        for name, given in calls
    )


def wanted(*calls: tuple[str, Any]) -> Example:
    return row(json.dumps([{"Action": name, "Action_Input": given} for name, given in calls]))


def test_tools_take_calls_in_any_order_and_arguments_in_any_order() -> None:
    asked = wanted(("find", '{"city": "Oslo", "beds": 2}'), ("book", '{"id": 7}'))
    assert tools(called(("find", {"beds": 2, "city": "Oslo"}), ("book", {"id": 7})), asked)
    assert tools(called(("book", {"id": 7}), ("find", {"city": "Oslo", "beds": 2})), asked)


def test_tools_count_each_action() -> None:
    asked = wanted(("find", "{}"), ("find", "{}"), ("book", "{}"))
    assert tools(called(("find", {}), ("book", {}), ("find", {})), asked)
    assert not tools(called(("find", {}), ("book", {})), asked)
    assert not tools(called(("find", {}), ("book", {}), ("book", {})), asked)
    assert not tools(called(("find", {}), ("find", {}), ("book", {}), ("pay", {})), asked)


def test_tools_merge_the_inputs() -> None:
    asked = wanted(("find", '{"city": "Oslo"}'), ("book", '{"id": 7}'))
    assert tools(called(("find", {"id": 7}), ("book", {"city": "Oslo"})), asked)  # whichever call has them
    assert tools(called(("find", {"city": "Oslo", "id": 7}), ("book", {})), asked)
    assert not tools(called(("find", {"city": "Oslo"}), ("book", {"id": 8})), asked)
    assert not tools(called(("find", {"city": "Oslo"}), ("book", {})), asked)
    twice = wanted(("find", '{"size": "small"}'), ("find", '{"size": "large"}'))
    assert tools(called(("find", {"size": "medium"}), ("find", {"size": "large"})), twice)  # of one name, the last


def test_tools_read_nested_inputs_and_objects() -> None:
    asked = wanted(("put", {"user": {"name": "Bo", "tags": ["a", {"b": 1}]}, "text": "a } b"}))
    assert tools(called(("put", {"text": "a } b", "user": {"tags": ["a", {"b": 1}], "name": "Bo"}})), asked)
    assert not tools(called(("put", {"user": {"name": "Bo", "tags": []}, "text": "a } b"})), asked)


@pytest.mark.parametrize("given", ['{"city": "Oslo"', "{city: Oslo}", "Oslo", "", "[1]", "{" * 3000])
def test_an_input_that_is_not_json_adds_nothing(given: str) -> None:
    assert not tools(called(("find", given)), wanted(("find", '{"city": "Oslo"}')))
    assert tools(called(("find", given)), wanted(("find", "{}")))
    assert tools(called(("find", {})), wanted(("find", given)))


def test_tools_without_a_call_and_with_a_demonstration_alone() -> None:
    assert not tools("I cannot do that.", wanted(("find", "{}")))
    taught = row(demonstration=called(("find", {"city": "Oslo"})))
    assert tools(called(("find", {"city": "Oslo"})), taught)
    assert not tools("", taught)


@pytest.mark.parametrize("answer", ["no JSON", "3", '[{"Action": "find"}]', "[1]"])
def test_a_reference_that_is_no_list_of_calls(answer: str) -> None:
    with pytest.raises(DataError, match="'r1': its answer is no list of calls"):
        tools("Action: find", row(answer))


def test_a_row_with_nothing_to_compare_with() -> None:
    for function in (science, tools):
        with pytest.raises(DataError, match="neither answers nor a demonstration"):
            function("B", row())


# -------------------------------------------------------------------------------------------- judge


class Server:
    """A chat endpoint on this machine that answers as it is told to, and keeps what it was asked."""

    def __init__(self) -> None:
        self.replies: list[tuple[int, Any]] = []
        self.asked: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                assert self.path == "/v1/chat/completions"
                outer.asked.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                outer.headers.append(dict(self.headers))
                status, text = outer.replies.pop(0)
                body = {"choices": [{"message": {"content": text}}]} if isinstance(text, str) else text
                data = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *words: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    found = Server()
    thread = threading.Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("SELFTAUGHT_JUDGE_URL", found.url)
    monkeypatch.setenv("SELFTAUGHT_JUDGE_MODEL", "small-judge")
    monkeypatch.delenv("SELFTAUGHT_JUDGE_KEY", raising=False)
    monkeypatch.setattr(chat.time, "sleep", lambda seconds: None)
    yield found
    found.server.shutdown()
    thread.join()
    found.server.server_close()


JUDGED = row("Paracetamol {x}", question="What lowers {reference}?")


@pytest.mark.parametrize(
    ("reply", "right"), [("CORRECT", True), ("correct.", True), ("INCORRECT", False), ("**Incorrect**", False)]
)
def test_the_judge_says_right_or_wrong(server: Server, reply: str, right: bool) -> None:
    server.replies = [(200, reply)]
    assert judge("It is {question}.", JUDGED) is right
    (asked,) = server.asked
    assert asked["model"] == "small-judge"
    text = asked["messages"][0]["content"]
    for part in ("Question:\nWhat lowers {reference}?", "Reference:\nParacetamol {x}", "Answer:\nIt is {question}."):
        assert part in text
    assert "Authorization" not in server.headers[0]


def test_the_judge_as_a_callable_scorer_with_a_key(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SELFTAUGHT_JUDGE_KEY", "secret")
    path = {"path": "selftaught.evaluation.paper_scorers:judge"}
    example = Example("r1", (Message("user", "?"),), answers=("x",), scorer=Scorer("callable", path))
    check_scorers([example])
    assert server.asked == []
    server.replies = [(200, "CORRECT")]
    assert score("x", example)
    assert server.headers[0]["Authorization"] == "Bearer secret"


def test_a_blank_completion_is_wrong_without_asking(server: Server) -> None:
    assert not judge(" \n", JUDGED)
    assert server.asked == []


def test_a_busy_judge_is_asked_again(server: Server) -> None:
    server.replies = [(429, {}), (503, {}), (200, "CORRECT")]
    assert judge("x", JUDGED)
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("replies", "message"),
    [
        ([(401, {})], "gives no answer .HTTP Error 401"),
        ([(500, {})] * 4, "gives no answer .HTTP Error 500"),
        ([(200, {"error": "no"})], "gives no answer .'choices'"),
        ([(200, "Perhaps.")], "said 'PERHAPS.', not CORRECT or INCORRECT"),
    ],
)
def test_a_judge_that_fails_is_one_line(server: Server, replies: list[tuple[int, Any]], message: str) -> None:
    server.replies = list(replies)
    with pytest.raises(ConfigError, match=message) as caught:
        judge("x", JUDGED)
    assert "\n" not in str(caught.value)
    assert server.replies == []


@pytest.mark.parametrize(
    ("url", "model"), [(None, "m"), ("", "m"), ("http://localhost:1/v1", None), ("file:///etc/x", "m")]
)
def test_no_judge_is_named(monkeypatch: pytest.MonkeyPatch, url: str | None, model: str | None) -> None:
    for name, value in (("SELFTAUGHT_JUDGE_URL", url), ("SELFTAUGHT_JUDGE_MODEL", model)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match="set SELFTAUGHT_JUDGE_URL") as caught:
        judge.check()
    assert "\n" not in str(caught.value)
