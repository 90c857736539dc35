"""A real server process: OpenAI's own client, clients that misbehave, and a kill."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import schemathesis
from command import run
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance
from serving import Server

from selftaught.interactions import Interactions


@pytest.fixture(scope="module")
def root(sharp_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served") / "work"
    assert run("init", root, "-m", sharp_model).code == 0
    return root


@pytest.fixture(scope="module")
def server(root: Path) -> Iterator[Server]:
    server = Server(root, "--store")
    yield server
    server.end()


ASKED = [{"role": "user", "content": "Where is Ola?"}]


def test_openais_client_is_served_unchanged(server: Server) -> None:
    client = server.client()
    assert [model.id for model in client.models.list()] == ["HEAD", "v0"]
    whole = client.chat.completions.create(model="HEAD", messages=ASKED, max_tokens=20, temperature=0, logprobs=True)  # type: ignore[arg-type]
    said = whole.choices[0].message.content
    assert said and whole.usage and whole.usage.completion_tokens <= 20 and whole.choices[0].logprobs
    stream = client.chat.completions.create(
        model="v0",
        messages=ASKED,
        max_tokens=20,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},  # type: ignore[arg-type]
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == said
    assert chunks[-1].usage == whole.usage
    text = client.completions.create(model="HEAD", prompt="Ola is", max_tokens=5, seed=1, logprobs=2)
    assert text.choices[0].finish_reason in ("stop", "length")


def test_openais_client_understands_what_is_refused(server: Server) -> None:
    client = server.client()
    with pytest.raises(openai.NotFoundError, match="no such model"):
        client.chat.completions.create(model="gpt-9", messages=ASKED)  # type: ignore[arg-type]
    with pytest.raises(openai.BadRequestError, match="2048 tokens"):
        client.chat.completions.create(model="HEAD", messages=[{"role": "user", "content": "x" * 3000}])
    with pytest.raises(openai.BadRequestError, match="temperature"):
        client.chat.completions.create(model="HEAD", messages=ASKED, temperature=9)  # type: ignore[arg-type]
    with pytest.raises(openai.APIStatusError, match="bytes") as caught:
        client.chat.completions.create(model="HEAD", messages=[{"role": "user", "content": "x" * (2 << 20)}])
    assert caught.value.status_code == 413


def test_many_clients_at_once_get_what_each_would_get_alone(server: Server) -> None:
    client = server.client()

    def ask(n: int) -> str:
        answer = client.chat.completions.create(
            model="HEAD",
            messages=[{"role": "user", "content": f"Question {n}?"}],
            max_tokens=5 + n,
            temperature=n % 3 / 2,
            seed=n,
        )
        return answer.choices[0].message.content or ""

    alone = [ask(n) for n in range(12)]
    found: dict[int, str] = {}
    threads = [threading.Thread(target=lambda n=n: found.update({n: ask(n)})) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[n] for n in range(12)] == alone


def test_a_client_that_leaves_is_not_answered_to_the_end(server: Server) -> None:
    body = json.dumps({"messages": ASKED, "max_tokens": 1900, "temperature": 2, "n": 8}).encode()
    with server.connect() as leaving:
        leaving.sendall(_head(len(body)) + body)
        _wait(lambda: _metric(server, 'selftaught_running{version="v0"}') > 0)
    given_up = 'selftaught_requests_total{path="/v1/chat/completions",status="499"}'
    _wait(lambda: _metric(server, given_up) > 0)  # answered to the end, it would be counted as a 200
    _wait(lambda: _metric(server, 'selftaught_running{version="v0"}') == 0)


def test_clients_that_are_too_slow_are_hung_up_on(server: Server) -> None:
    heads = [b"", b"POST /v1/chat/comp", b"POST /v1/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nA"]
    slow = [server.connect() for _ in range(4)]
    for one, sent in zip(slow, [*heads, _head(100) + b"{"], strict=True):
        one.sendall(sent)
    assert server.client().models.list().data, "others are served meanwhile"
    assert [one.recv(1000)[:12] for one in slow] == [b"", b"", b"", b"HTTP/1.1 408"]
    for one in slow:
        one.close()


def test_whatever_fits_the_schema_or_not_is_answered_as_the_schema_says(server: Server) -> None:
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")
    modes = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
    asked = {}
    for found in schema.get_all_operations():
        operation = found.ok()
        for mode in modes:

            @settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
            @given(case=operation.as_strategy(generation_mode=mode))
            def check(case: Any) -> None:
                if isinstance(case.body, dict) and isinstance(case.body.get("max_tokens"), int):
                    case.body["max_tokens"] = min(case.body["max_tokens"], 8)  # for time
                answer = case.call_and_validate(
                    checks=[not_a_server_error, status_code_conformance, content_type_conformance]
                )
                asked[operation.label] = asked.get(operation.label, set()) | {answer.status_code}  # noqa: B023

            with contextlib.suppress(Unsatisfiable):  # nothing is wrong for a request without any part
                check()
    assert {200, 400} <= asked["POST /v1/chat/completions"], asked
    assert len(asked) == 10


def test_garbage_is_refused(server: Server) -> None:
    for garbage in (b"\x00\x01\x02\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"G" * 100_000 + b"\r\n\r\n"):
        with server.connect() as bad:
            bad.sendall(garbage)
            assert bad.recv(1000)[:12] in (b"HTTP/1.1 400", b"")
    assert server.client().models.list().data


def test_a_kill_loses_no_feedback_that_was_acknowledged(root: Path) -> None:
    server = Server(root, "--store")
    acknowledged: list[int] = []

    def user(n: int) -> None:
        client = server.client()
        try:
            while True:
                answer = client.chat.completions.create(model="HEAD", messages=ASKED, max_tokens=3, seed=n)  # type: ignore[arg-type]
                body = {"completion_id": answer.id, "kind": "correction", "text": f"by {n}"}
                acknowledged.append(client.post("/feedback", body=body, cast_to=object)["id"])  # type: ignore[index]
        except (openai.APIError, json.JSONDecodeError):
            return

    users = [threading.Thread(target=user, args=(n,)) for n in range(6)]
    for one in users:
        one.start()
    _wait(lambda: len(acknowledged) >= 30)
    server.running.signal(signal.SIGKILL)
    for one in users:
        one.join(timeout=30)
    server.running.wait()
    kept = {one.id for one, _ in Interactions(root / ".selftaught" / "interactions.db").feedback()}
    assert set(acknowledged) <= kept and len(set(acknowledged)) == len(acknowledged)


def test_what_cannot_be_served_is_one_line(root: Path, server: Server, tmp_path: Path) -> None:
    assert "no key is needed" in run("serve", "--host", "0.0.0.0", "-w", root).error_line
    assert "choose another --port" in run("serve", "--port", server.port, "-w", root).error_line
    assert "not in a workspace" in run("serve", "-w", tmp_path).error_line
    assert "write 30d or 12h" in run("serve", "--retention", "soon", "-w", root).error_line


def test_keys_are_made_listed_and_revoked(sharp_model: Path, tmp_path: Path) -> None:
    root = tmp_path / "work"
    assert run("init", root, "-m", sharp_model).code == 0
    assert "no keys" in run("keys", "list", "-w", root).out
    secret = run("keys", "add", "shop", "--store", "--retention", "30d", "-w", root).out.strip()
    assert secret.startswith("st-") and len(secret) > 40
    assert "there is, or was, a key of this name" in run("keys", "add", "shop", "-w", root).error_line
    listed = run("keys", "list", "-w", root).out
    assert "shop" in listed and "stores for 30 days" in listed and secret not in listed
    assert "is revoked" in run("keys", "revoke", "shop", "-w", root).out
    assert run("keys", "list", "--json", "-w", root).json[0]["revoked"]
    assert "no such key" in run("keys", "revoke", "nobody", "-w", root).error_line


def _head(length: int) -> bytes:
    lines = ["POST /v1/chat/completions HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"]
    return "\r\n".join([*lines, f"Content-Length: {length}", "", ""]).encode()


def _metric(server: Server, name: str) -> float:
    text = server.client().get("/../metrics", cast_to=str)
    found = re.search(re.escape(name) + r" (\S+)", text)
    return float(found[1]) if found else -1.0


def _wait(ready: object, timeout: float = 30) -> None:
    end = time.monotonic() + timeout
    while not ready():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.05)
