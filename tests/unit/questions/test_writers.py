"""A writer on this machine (the tiny model), and one behind an address (a small server of our own)."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from selftaught.addresses import KEY_VARIABLES
from selftaught.errors import ConfigError, ModelError, TrainingError
from selftaught.models.load import LanguageModel, load_model
from selftaught.questions import open_writer, writers
from selftaught.questions.writers import AddressWriter, LocalWriter
from selftaught.rollout.sampler import Completion
from selftaught.types import Message

TEXT = "The Aldor mill opened its doors in the town of Ostby."
ASKED = [(Message("user", f"{TEXT}\n\n{question}"),) for question in ("Who?", "Where is it?", "When, then?")]
ASKED.append((Message("user", "Hi"), Message("assistant", "Hello."), Message("user", "Why?")))
STARTS = ["", "Where did", "Which", "How"]


# -------------------------------------------------------------------------------- on this machine


@pytest.fixture(scope="module")
def model(sharp_model: Path) -> LanguageModel:
    return load_model(sharp_model, dtype="float32")


@pytest.fixture(scope="module")
def local(model: LanguageModel) -> LocalWriter:
    return LocalWriter(model)


def test_a_local_writer_begins_with_its_starts(local: LocalWriter) -> None:
    found = local.write(ASKED, STARTS, 8, 0.0, 0)
    assert all(text.startswith(start) for text, start in zip(found, STARTS, strict=True))
    assert any(len(text) > len(start) for text, start in zip(found, STARTS, strict=True))


def test_the_likeliest_is_the_same_alone_and_among_others(local: LocalWriter, model: LanguageModel) -> None:
    alone = [LocalWriter(model).write([one], [start], 12, 0.0, 3)[0] for one, start in zip(ASKED, STARTS, strict=True)]
    assert local.write(ASKED, STARTS, 12, 0.0, 0) == alone


def test_a_start_goes_on_as_if_the_model_had_said_it(local: LocalWriter, model: LanguageModel) -> None:
    whole = local.write(ASKED[:1], [""], 12, 0.0, 0)[0]
    start = whole.partition("\N{REPLACEMENT CHARACTER}")[0]
    assert start
    assert local.write(ASKED[:1], [start], 12 - len(start.encode()), 0.0, 0) == [whole]


def test_a_start_is_apart_from_what_follows_where_tokens_hold_the_space_before_a_word(
    model: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    vocabulary = {"?": 0, "▁Where": 1, "▁did": 2, "▁it": 3, "▁go": 4}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    core.pre_tokenizer, core.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, chat_template=model.tokenizer.chat_template)
    monkeypatch.setattr(writers, "sample", lambda *words: [Completion((3, 4), False)])
    spaced = LocalWriter(dataclasses.replace(model, tokenizer=tokenizer))
    assert spaced.write(ASKED[:1], ["Where did"], 2, 0.0, 0) == ["Where did it go"]


def test_a_seed_decides_what_is_drawn(local: LocalWriter) -> None:
    first, again, other = (local.write(ASKED, STARTS, 12, 2.0, seed) for seed in (1, 1, 99))
    assert first == again != other


def test_nothing_asked_is_nothing_written(local: LocalWriter) -> None:
    assert local.write([], [], 8, 0.0, 0) == []


def test_a_prompt_that_does_not_fit_is_an_error_of_one_line(local: LocalWriter) -> None:
    long = (Message("user", "x" * 2048),)
    with pytest.raises(ConfigError, match=r"^a prompt of 20\d\d tokens does not fit the 2048 of [^\n]*$"):
        local.write([*ASKED, long], [""] * 5, 8, 0.0, 0)


def test_a_prompt_must_leave_room_for_its_answer(local: LocalWriter) -> None:
    with pytest.raises(ConfigError, match="does not fit"):
        local.write(ASKED[:1], [""], 2040, 0.0, 0)


def test_a_local_writer_is_named_by_its_model(local: LocalWriter, sharp_model: Path) -> None:
    assert local.name == str(sharp_model)


def test_the_learner_writes_itself_or_another_model_does(model: LanguageModel, tiny_model: Path) -> None:
    itself, other = open_writer("self", model), open_writer(str(tiny_model), model)
    assert isinstance(itself, LocalWriter)
    assert isinstance(other, LocalWriter)
    assert itself.model is model
    assert other.model.path == tiny_model


def test_a_model_that_is_not_there_is_an_error(model: LanguageModel, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model directory"):
        open_writer(str(tmp_path / "nowhere"), model)


# ------------------------------------------------------------------------------ behind an address

KEY = "sk-very-secret-0123456789"


class Server(ThreadingHTTPServer):
    """Speaks /v1/chat/completions: says the last turn back, or fails."""

    failures = 0  # requests that fail before one is answered
    failure = '{"error": "out of order"}'
    content: str | None = "Said: {}"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str | None, dict[str, Any]]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, self.headers["Authorization"], body))
        if self.server.failures:
            self.server.failures -= 1
            self._send(500, self.server.failure)
            return
        content = self.server.content and self.server.content.format(body["messages"][-1]["content"])
        message = {"role": "assistant", "content": content}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        self._send(200, json.dumps({"id": "1", "model": body["model"], "created": 0, "choices": [choice]}))

    def _send(self, status: int, text: str) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    for name in KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def writer(server: Server) -> AddressWriter:
    return AddressWriter(server.address, "big")


def test_an_address_is_asked_for_each_conversation(server: Server) -> None:
    found = writer(server).write(ASKED, [""] * 4, 8, 0.5, 10)
    assert found == [f"Said: {turns[-1].content}" for turns in ASKED]
    sent = {body["seed"]: body for _, _, body in server.requests}
    assert [path for path, _, _ in server.requests] == ["/v1/chat/completions"] * 4
    for number, turns in enumerate(ASKED):
        body = sent[10 + number]
        assert body["messages"] == [{"role": turn.role, "content": turn.content} for turn in turns]
        assert (body["model"], body["max_tokens"], body["temperature"]) == ("big", 8, 0.5)


def test_a_start_is_asked_for(server: Server) -> None:
    writer(server).write(ASKED[:2], ["", "Where did"], 8, 0.0, 0)
    last = {body["seed"]: body["messages"][-1]["content"] for _, _, body in server.requests}
    assert last[0] == ASKED[0][-1].content
    assert last[1].startswith(ASKED[1][-1].content)
    assert 'begins with "Where did"' in last[1]


def test_what_was_asked_stays_as_it_was(server: Server) -> None:
    before = [tuple(turns) for turns in ASKED]
    writer(server).write(ASKED, STARTS, 8, 0.0, 0)
    assert before == ASKED


@pytest.mark.parametrize("name", KEY_VARIABLES)
def test_the_key_of_the_environment_is_sent(name: str, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, KEY)
    writer(server).write(ASKED[:1], [""], 8, 0.0, 0)
    assert server.requests[0][1] == f"Bearer {KEY}"


def test_our_own_key_goes_before_the_other(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "another")
    monkeypatch.setenv("SELFTAUGHT_API_KEY", KEY)
    writer(server).write(ASKED[:1], [""], 8, 0.0, 0)
    assert server.requests[0][1] == f"Bearer {KEY}"


def test_a_request_that_fails_twice_is_made_again(server: Server) -> None:
    server.failures = 2
    assert writer(server).write(ASKED[:1], [""], 8, 0.0, 0) == [f"Said: {ASKED[0][-1].content}"]
    assert len(server.requests) == 3


@pytest.mark.parametrize("failure", ['{"error": "out\\nof order"}', f'{{"error": "wrong key: {KEY}"}}'])
def test_a_request_that_fails_three_times_is_one_line_without_the_key(
    failure: str, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY_VARIABLES[0], KEY)
    server.failures, server.failure = 3, failure
    with pytest.raises(TrainingError) as caught:
        writer(server).write(ASKED[:1], [""], 8, 0.0, 0)
    line = str(caught.value)
    assert len(server.requests) == 3
    assert line.startswith(f"{server.address}#big: does not answer")
    assert "\n" not in line
    assert KEY not in line


def test_an_answer_of_nothing_is_an_empty_text(server: Server) -> None:
    server.content = None
    assert writer(server).write(ASKED[:1], [""], 8, 0.0, 0) == [""]


def test_an_address_where_nobody_listens_is_an_error() -> None:
    with Server() as server:
        address = server.address
    with pytest.raises(TrainingError, match="does not answer"):
        AddressWriter(address, "big").write(ASKED[:1], [""], 8, 0.0, 0)


def test_an_address_and_a_model_open_a_writer(server: Server, model: LanguageModel) -> None:
    opened = open_writer(f"{server.address}#owner/big", model)
    assert opened.name == f"{server.address}#owner/big"
    opened.write(ASKED[:1], [""], 8, 0.0, 0)
    assert server.requests[0][2]["model"] == "owner/big"


@pytest.mark.parametrize("address", ["http://localhost:1/v1", "https://localhost/v1#"])
def test_an_address_that_names_no_model_is_an_error(address: str, model: LanguageModel) -> None:
    with pytest.raises(ConfigError, match="names no model"):
        open_writer(address, model)
