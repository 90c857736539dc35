"""The interface: what clients of OpenAI's rely on, what is refused, and what is kept."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import make_tiny_model
from fastapi import FastAPI
from fastapi.testclient import TestClient
from served import add_version, chat, events, in_float32

from selftaught.continual.workspace import FOLDER, Workspace
from selftaught.interactions import Interactions
from selftaught.models.load import load_model
from selftaught.prompts import render
from selftaught.serve.app import create_app
from selftaught.serve.engine import Limits
from selftaught.serve.keys import Key, Keys
from selftaught.serve.settings import ServeSettings
from selftaught.types import Message

Serve = Callable[..., TestClient]


@pytest.fixture(scope="session")
def bare_workspace(sharp_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("served") / "work"
    Workspace.create(root, str(sharp_model))
    return root


@pytest.fixture
def root(bare_workspace: Path, tmp_path: Path) -> Path:
    """A workspace of its own."""
    return Path(shutil.copytree(bare_workspace, tmp_path / "work"))


@pytest.fixture
def serve(root: Path) -> Iterator[Serve]:
    """Starts a server of the workspace, and gives a client of it."""
    clients: list[TestClient] = []

    def start(**settings: Any) -> TestClient:
        app: FastAPI = create_app(root, ServeSettings(**settings))
        client = TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)
        client.__enter__()
        clients.append(client)
        return client

    yield start
    for client in clients:
        client.__exit__(None, None, None)


def interactions(root: Path) -> Interactions:
    return Interactions(root / FOLDER / "interactions.db")


# ----------------------------------------------------------------------------------------- completions


def test_a_chat_completion_is_the_greedy_answer_of_the_model(serve: Serve, sharp_model: Path) -> None:
    import torch

    with in_float32():
        answer = chat(serve(), "Where is Ola?", max_tokens=30).json()
    model = load_model(sharp_model, dtype="float32")
    prompt = render((Message("user", "Where is Ola?"),), model.tokenizer)
    ids = model.plain_model.generate(
        torch.tensor([prompt]), do_sample=False, max_new_tokens=30, eos_token_id=sorted(model.stop_ids), pad_token_id=0
    )[0, len(prompt) :].tolist()
    (choice,) = answer["choices"]
    assert choice["message"] == {
        "role": "assistant",
        "content": model.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False),
        "refusal": None,
    }
    assert choice["finish_reason"] == ("stop" if ids[-1] in model.stop_ids else "length")
    assert answer["usage"] == {
        "prompt_tokens": len(prompt), "completion_tokens": len(ids), "total_tokens": len(prompt) + len(ids)
    }  # fmt: skip
    assert (answer["object"], answer["model"]) == ("chat.completion", "v0")


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_stream_says_what_the_whole_answer_says(serve: Serve, seed: int) -> None:
    client = serve()
    asked: dict[str, Any] = {"temperature": 1.2, "seed": seed, "n": 3, "max_tokens": 25, "stop": ["\x02", "é"]}
    whole = chat(client, **asked).json()
    chunks = events(chat(client, **asked, stream=True, stream_options={"include_usage": True}).text)
    *parts, last = chunks
    assert last["choices"] == [] and last["usage"] == whole["usage"]
    assert {chunk["id"] for chunk in chunks} == {chunks[0]["id"]} and chunks[0]["object"] == "chat.completion.chunk"
    for index, choice in enumerate(whole["choices"]):
        mine = [part["choices"][0] for part in parts if part["choices"][0]["index"] == index]
        assert "".join(one["delta"].get("content", "") for one in mine) == choice["message"]["content"]
        assert [one["delta"].get("role") for one in mine] == ["assistant"] + [None] * (len(mine) - 1)
        assert [one["finish_reason"] for one in mine] == [None] * (len(mine) - 1) + [choice["finish_reason"]]
    assert len({choice["message"]["content"] for choice in whole["choices"]}) > 1, "choices are drawn apart"


def test_one_seed_one_answer(serve: Serve) -> None:
    client = serve()
    drawn = [chat(client, temperature=1.5, max_tokens=20, seed=seed).json() for seed in (5, 5, 6, None, None)]
    texts = [answer["choices"][0]["message"]["content"] for answer in drawn]
    assert texts[0] == texts[1] != texts[2]
    assert texts[3] != texts[4]


def test_a_stop_string_ends_an_answer_and_is_not_in_it(serve: Serve) -> None:
    client = serve()
    free = chat(client, max_tokens=40).json()["choices"][0]["message"]["content"]
    stop = free[len(free) // 2 :][:2]
    assert len(stop) == 2, "the model says enough"
    ended = chat(client, max_tokens=40, stop=stop).json()
    assert ended["choices"][0]["message"]["content"] == free[: free.index(stop)]
    assert ended["choices"][0]["finish_reason"] == "stop"
    chunks = events(chat(client, max_tokens=40, stop=[stop], stream=True).text)
    assert "".join(one["choices"][0]["delta"].get("content", "") for one in chunks) == free[: free.index(stop)]


def test_text_completions_go_on_from_each_prompt(serve: Serve) -> None:
    client = serve()
    body = {"prompt": ["Ola is in", "Bex"], "max_tokens": 6, "temperature": 0, "logprobs": 2, "n": 2}
    answer = client.post("/v1/completions", json=body).json()
    assert answer["object"] == "text_completion" and len(answer["choices"]) == 4
    first, second, third, _ = answer["choices"]
    assert first["text"] == second["text"], "greedy"
    assert len(first["logprobs"]["tokens"]) == len(first["logprobs"]["token_logprobs"]) <= 6
    assert all(len(top) <= 2 for top in first["logprobs"]["top_logprobs"])
    alone = client.post("/v1/completions", json={**body, "prompt": "Bex", "n": 1, "stream": True})
    chunks = [one["choices"][0] for one in events(alone.text)]
    assert "".join(chunk["text"] for chunk in chunks) == third["text"]
    offsets = [offset for chunk in chunks if chunk["logprobs"] for offset in chunk["logprobs"]["text_offset"]]
    assert offsets == sorted(offsets) and offsets[0] == 0


def test_chat_logprobs_name_each_token(serve: Serve) -> None:
    answer = chat(serve(), logprobs=True, top_logprobs=3, max_tokens=6).json()
    content = answer["choices"][0]["logprobs"]["content"]
    assert 0 < len(content) <= 6
    for entry in content:
        assert len(entry["top_logprobs"]) == 3
        assert entry["logprob"] == max(top["logprob"] for top in entry["top_logprobs"]), "greedy takes the likeliest"


def test_an_answer_without_a_named_length_takes_the_default_or_what_is_left(serve: Serve) -> None:
    client = serve(max_tokens=5)
    body = {"messages": [{"role": "user", "content": "Hi"}], "temperature": 0}
    assert client.post("/v1/chat/completions", json=body).json()["usage"]["completion_tokens"] <= 5
    body["messages"] = [{"role": "user", "content": "x" * 2020}]
    answer = client.post("/v1/chat/completions", json=body).json()
    assert answer["usage"]["total_tokens"] <= 2048


# ------------------------------------------------------------------------------------------- refusals

WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no messages": ({"messages": []}, "messages"),
    "an unknown role": ({"messages": [{"role": "wizard", "content": "Hi"}]}, "role"),
    "an image": ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "content"),
    "too hot": ({"temperature": 3}, "temperature"),
    "too many choices": ({"n": 99}, "n"),
    "no length": ({"max_tokens": 0}, "max_tokens"),
    "a length for another model": ({"max_tokens": 4000}, "2048 tokens"),
    "an empty stop": ({"stop": [""]}, "stop"),
    "a prompt that is too long": ({"messages": [{"role": "user", "content": "x" * 5000}]}, "2048 tokens"),
    "not a number": ({"temperature": "NaN"}, "temperature"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_request_is_told_what_is_wrong(serve: Serve, name: str) -> None:
    changes, told = WRONG[name]
    answer = chat(serve(), **changes)
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert told in error["message"] and error["type"] == "invalid_request_error"


def test_what_is_not_there_is_not_found(serve: Serve) -> None:
    client = serve()
    answer = chat(client, model="gpt-9")
    assert answer.status_code == 404 and answer.json()["error"]["code"] == "model_not_found"
    assert client.get("/v1/models/v9").status_code == 404
    assert client.get("/v2/anything").json()["error"]["message"] == "Not Found"
    assert client.get("/v1/chat/completions").status_code == 405
    bad = client.post("/v1/chat/completions", content=b'{"messages": ', headers={"content-type": "application/json"})
    assert bad.status_code == 400 and "not JSON" in bad.json()["error"]["message"]


def test_a_body_that_is_too_long_is_refused_before_it_is_read(serve: Serve) -> None:
    client = serve(max_body_bytes=2000)
    assert chat(client).status_code == 200
    answer = chat(client, "x" * 3000)
    assert answer.status_code == 413 and "2000 bytes" in answer.json()["error"]["message"]


def test_an_answer_that_takes_too_long_is_given_up(serve: Serve) -> None:
    client = serve(request_seconds=0.0)
    answer = chat(client)
    assert answer.status_code == 504 and answer.json()["error"]["code"] == "timeout"
    (told,) = events(chat(client, stream=True).text)
    assert told["error"]["code"] == "timeout"


def test_more_than_can_wait_are_told_to_come_again(serve: Serve) -> None:
    client = serve(limits=Limits(max_rows=1, max_waiting=2))
    answer = chat(client, n=3)
    assert answer.status_code == 429 and answer.headers["retry-after"] == "1"
    assert answer.json()["error"]["code"] == "queue_full"
    assert chat(client, n=2).status_code == 200


def test_other_hosts_and_pages_are_kept_out(serve: Serve) -> None:
    client = serve()
    rebound = client.get("/v1/models", headers={"host": "evil.example"})
    assert rebound.status_code == 400
    asked = {"origin": "https://page.example", "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in client.options("/v1/chat/completions", headers=asked).headers
    allowed = serve(origins=("https://page.example",)).options("/v1/chat/completions", headers=asked)
    assert allowed.headers["access-control-allow-origin"] == "https://page.example"


# --------------------------------------------------------------------------------------- keys and records


def as_key(secret: str) -> dict[str, str]:
    return {"authorization": f"Bearer {secret}"}


def test_with_the_first_key_everyone_needs_one(serve: Serve, root: Path) -> None:
    client = serve()
    assert chat(client).status_code == 200
    keys = Keys.of_workspace(root)
    secret = keys.add(Key("shop"))
    assert chat(client).status_code == 401
    for wrong in ("", "Bearer", "Bearer st-wrong", f"Basic {secret}", f"Bearer {secret}x"):
        answer = client.get("/v1/models", headers={"authorization": wrong})
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
    assert client.get("/metrics").status_code == 401
    assert client.get("/health").status_code == 200
    assert client.get("/v1/models", headers=as_key(secret)).status_code == 200
    keys.revoke("shop")
    assert client.get("/v1/models", headers=as_key(secret)).status_code == 401


def test_a_key_has_a_pace_and_a_day_of_feedback(serve: Serve, root: Path) -> None:
    keys = Keys.of_workspace(root)
    slow = keys.add(Key("slow", requests_per_minute=2))
    teller = keys.add(Key("teller", store=True, feedback_per_day=1))
    client = serve()
    client.headers.update(as_key(slow))
    codes = [chat(client).status_code for _ in range(3)]
    assert codes == [200, 200, 429]
    assert 1 <= int(chat(client).headers["retry-after"]) <= 30
    client.headers.update(as_key(teller))
    name = chat(client).json()["id"]
    said = [client.post("/v1/feedback", json={"completion_id": name, "kind": "up"}).status_code for _ in range(2)]
    assert said == [201, 429]


def test_only_a_keys_that_is_willing_is_kept(serve: Serve, root: Path) -> None:
    keys = Keys.of_workspace(root)
    willing = keys.add(Key("willing", store=True, retention_days=2))
    private = keys.add(Key("private"))
    client = serve()
    client.headers.update(as_key(private))
    unkept = chat(client, "My secret").json()["id"]
    answer = client.post("/v1/feedback", json={"completion_id": unkept, "kind": "up"})
    assert answer.status_code == 400 and "no such completion is kept" in answer.json()["error"]["message"]

    client.headers.update(as_key(willing))
    told = chat(client, "Who?", n=2, temperature=1).json()
    streamed = events(chat(client, "Who else?", stream=True).text)
    first, second, third = list(interactions(root).interactions())
    assert [first.id, second.id, third.id] == [told["id"], f"{told['id']}-1", streamed[0]["id"]]
    assert first.messages == (Message("user", "Who?"),) and first.key == "willing" and first.version == "v0"
    assert [first.completion, second.completion] == [one["message"]["content"] for one in told["choices"]]
    assert third.completion == "".join(one["choices"][0]["delta"].get("content", "") for one in streamed)
    assert first.expires is not None and first.expires > first.created
    assert not any(b"My secret" in file.read_bytes() for file in (root / FOLDER).glob("*.db*"))


def test_feedback_and_what_a_user_says_next_are_noted(serve: Serve, root: Path) -> None:
    client = serve(store=True)
    told = chat(client, "Who repairs lamps?").json()
    said = client.post("/v1/feedback", json={"completion_id": told["id"], "kind": "correction", "text": "Odile does."})
    assert said.status_code == 201 and said.json()["kind"] == "correction"
    assert client.post("/v1/feedback", json={"completion_id": told["id"], "kind": "text"}).status_code == 400
    turns = [
        {"role": "user", "content": "Who repairs lamps?"},
        told["choices"][0]["message"],
        {"role": "user", "content": "No, she does."},
    ]
    assert client.post("/v1/chat/completions", json={"messages": turns, "max_tokens": 3}).status_code == 200
    noted = [(one.kind, one.text, about.id) for one, about in interactions(root).feedback()]
    assert noted == [("correction", "Odile does.", told["id"]), ("follow_up", "No, she does.", told["id"])]


def test_no_key_is_in_any_file_or_log(
    serve: Serve, root: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    secret = Keys.of_workspace(root).add(Key("shop", store=True))
    client = serve()
    client.headers.update(as_key(secret))
    chat(client)
    client.post("/v1/feedback", json={"completion_id": "no", "kind": "up"})
    client.get("/metrics")
    texts = [caplog.text, *capfd.readouterr()]
    assert not any(secret in text for text in texts)
    assert not any(secret.encode() in file.read_bytes() for file in root.rglob("*") if file.is_file())


# ------------------------------------------------------------------------------------------- versions


def test_a_new_head_takes_over_and_the_old_one_is_asked_by_name(serve: Serve, root: Path, tmp_path: Path) -> None:
    client = serve()
    before = chat(client).json()
    other = make_tiny_model(tmp_path / "other", seed=7, scale=12.0)
    add_version(root, other, "rejected")
    add_version(root, other)
    assert {one["id"] for one in client.get("/v1/models").json()["data"]} == {"HEAD", "v0", "v2"}
    end = time.monotonic() + 30
    while client.get("/health").json()["head"] != "v2":
        assert time.monotonic() < end
        time.sleep(0.05)
    after, again = chat(client).json(), chat(client, model="v0").json()
    assert (after["model"], again["model"]) == ("v2", "v0")
    assert again["choices"] == before["choices"] != after["choices"]
    assert chat(client, model="v1").status_code == 404, "it was rejected"
    assert client.get("/v1/models/HEAD").json()["version"] == "v2"


def test_only_so_many_versions_stay_loaded(serve: Serve, root: Path, tmp_path: Path) -> None:
    for seed in (7, 8):
        add_version(root, make_tiny_model(tmp_path / str(seed), seed=seed, scale=12.0), parent=seed - 7)
    client = serve(max_loaded=2)
    versions = client.app.state.versions  # type: ignore[attr-defined]
    answers = [chat(client, model=name).json()["choices"] for name in ("v0", "v1", "HEAD", "v1", "v0")]
    assert answers[0] == answers[4] and answers[1] == answers[3]
    assert set(versions.loaded) == {"v2", "v0"}


def test_a_head_that_cannot_be_loaded_leaves_the_old_one(
    serve: Serve, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = serve()
    version = add_version(root, make_tiny_model(tmp_path / "other", seed=7))
    (weights,) = (root / FOLDER / "artifacts").rglob(f"*{version.model_artifact[2:]}*/model.safetensors")
    weights.chmod(0o644)
    weights.write_bytes(b"broken")
    end = time.monotonic() + 30
    while "cannot be served" not in caplog.text:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert chat(client).json()["model"] == "v0"
    assert chat(client, model="v1").status_code == 503


def test_metrics_count_what_happened(serve: Serve) -> None:
    client = serve(store=True)
    told = chat(client).json()
    chat(client, model="nobody")
    client.post("/v1/feedback", json={"completion_id": told["id"], "kind": "up"})
    text = client.get("/metrics").text
    for line in (
        'selftaught_requests_total{path="/v1/chat/completions",status="200"} 1.0',
        'selftaught_requests_total{path="/v1/chat/completions",status="404"} 1.0',
        f'selftaught_tokens_total{{kind="prompt"}} {told["usage"]["prompt_tokens"]:.1f}',
        f'selftaught_tokens_total{{kind="completion"}} {told["usage"]["completion_tokens"]:.1f}',
        'selftaught_feedback_total{kind="up"} 1.0',
        'selftaught_head{version="v0"} 1.0',
        'selftaught_running{version="v0"} 0.0',
    ):
        assert line in text, line


def test_the_schema_is_served_and_names_every_route(serve: Serve) -> None:
    schema = serve().get("/openapi.json").json()
    assert set(schema["paths"]) == {
        "/v1/chat/completions", "/v1/completions", "/v1/feedback", "/v1/models", "/v1/models/{name}", "/health",
        "/metrics", "/page/state", "/page/flips/{version}", "/page/feedback/{number}",
    }  # fmt: skip
    assert json.dumps(schema)
