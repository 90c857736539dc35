"""Text completions whose prompt comes back with its scores, as evaluation harnesses ask for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fastapi.testclient import TestClient
from served import in_float32

from selftaught.continual.workspace import Workspace
from selftaught.models.load import LanguageModel, load_model
from selftaught.serve.app import create_app
from selftaught.serve.engine import Limits
from selftaught.serve.settings import ServeSettings

TEXTS = ["Ola is in Bergen.", "Où est Bex ?"]


@pytest.fixture(scope="module")
def client(sharp_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    root = tmp_path_factory.mktemp("scored") / "work"
    Workspace.create(root, str(sharp_model))
    app = create_app(root, ServeSettings(max_tokens=6, limits=Limits(cache_tokens=4096)))
    with in_float32(), TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


@pytest.fixture(scope="module")
def model(sharp_model: Path) -> LanguageModel:
    return load_model(sharp_model, dtype="float32")


def tokens(model: LanguageModel, text: str) -> list[int]:
    return list(model.tokenizer(text)["input_ids"])


def logprobs(model: LanguageModel, ids: list[int]) -> torch.Tensor:
    """[tokens, V] of the plain model."""
    with torch.no_grad():
        return model.plain_model(torch.tensor([ids])).logits[0].float().log_softmax(-1)


def ask(client: TestClient, prompt: Any, **more: Any) -> Any:
    body = {"prompt": prompt, "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0, **more}
    return client.post("/v1/completions", json=body)


@pytest.mark.parametrize("as_tokens", [True, False])
@pytest.mark.parametrize("max_tokens", [0, 1])
def test_a_prompt_comes_back_with_the_plain_models_log_probabilities(
    client: TestClient, model: LanguageModel, as_tokens: bool, max_tokens: int
) -> None:
    prompts = [tokens(model, text) for text in TEXTS]
    answer = ask(client, prompts if as_tokens else TEXTS, max_tokens=max_tokens, logprobs=3).json()
    for text, ids, choice in zip(TEXTS, prompts, answer["choices"], strict=True):
        expected, told = logprobs(model, ids), choice["logprobs"]
        assert choice["text"].startswith(text) and (max_tokens or choice["text"] == text)
        assert len(told["tokens"]) == len(ids) + max_tokens == len(told["text_offset"])
        assert (told["token_logprobs"][0], told["top_logprobs"][0]) == (None, None)
        following = [*ids[1:], *([int(expected[-1].argmax())] * max_tokens)]
        for place, token in enumerate(following):
            assert told["token_logprobs"][place + 1] == pytest.approx(float(expected[place, token]), abs=1e-3)
            top = told["top_logprobs"][place + 1]
            assert max(top.values()) == pytest.approx(float(expected[place].max()), abs=1e-3)
    num_prompt = sum(map(len, prompts))
    assert answer["usage"] == {
        "prompt_tokens": num_prompt, "completion_tokens": 2 * max_tokens, "total_tokens": num_prompt + 2 * max_tokens
    }  # fmt: skip


def test_tokens_and_offsets_spell_the_text(client: TestClient, model: LanguageModel) -> None:
    (choice,) = ask(client, tokens(model, TEXTS[0]), max_tokens=0).json()["choices"]
    told = choice["logprobs"]
    assert "".join(told["tokens"]) == choice["text"] == TEXTS[0]
    assert [TEXTS[0][offset] for offset in told["text_offset"]] == list(TEXTS[0]), "a token a letter here"
    assert choice["finish_reason"] == "length"


def test_one_list_of_tokens_is_one_prompt(client: TestClient, model: LanguageModel) -> None:
    ids = tokens(model, TEXTS[0])
    said = ask(client, TEXTS[0], max_tokens=8, logprobs=None, echo=None).json()["choices"]
    assert len(said) == 1
    for prompt in (ids, [ids], [TEXTS[0]]):
        assert ask(client, prompt, max_tokens=8, logprobs=None, echo=None).json()["choices"] == said
    repeated = ask(client, ids, max_tokens=8, logprobs=None).json()["choices"][0]
    assert repeated == {**said[0], "text": TEXTS[0] + said[0]["text"]}


def test_a_prompt_that_the_model_ends_at_once_has_a_score_for_each_place(
    client: TestClient, model: LanguageModel
) -> None:
    """lm-eval leaves the last score out, as that of the one token that it has drawn."""
    (stop,) = model.stop_ids
    pairs = [[first, second] for first in range(3, 259) for second in range(3, 259, 9)]
    with torch.no_grad():
        likeliest = model.plain_model(torch.tensor(pairs)).logits[:, -1].argmax(-1)
    prompt = pairs[int((likeliest == stop).nonzero()[0, 0])]
    (choice,) = ask(client, prompt).json()["choices"]
    assert choice["finish_reason"] == "stop"
    assert len(choice["logprobs"]["token_logprobs"]) == 3
    assert choice["logprobs"]["token_logprobs"][-1] == max(choice["logprobs"]["top_logprobs"][-1].values())


def test_a_likeliest_token_is_seen_as_such(client: TestClient, model: LanguageModel) -> None:
    """lm-eval asks whether a token's score equals the highest, to the last bit."""
    ids = tokens(model, TEXTS[0])
    with torch.no_grad():
        ids = model.plain_model.generate(torch.tensor([ids]), do_sample=False, max_new_tokens=12)[0].tolist()
    expected = logprobs(model, ids)[:-1].argmax(-1).tolist()
    told = ask(client, ids).json()["choices"][0]["logprobs"]
    for place, token in enumerate(ids[1:], 1):
        greedy = told["token_logprobs"][place] == max(told["top_logprobs"][place].values())
        assert greedy is (expected[place - 1] == token)


@pytest.mark.parametrize("max_tokens", [0, 1])
def test_a_prompt_as_long_as_the_model_takes_is_scored_and_no_longer_one(client: TestClient, max_tokens: int) -> None:
    fits = ask(client, [70] * (2048 - max_tokens), max_tokens=max_tokens)
    assert len(fits.json()["choices"][0]["logprobs"]["token_logprobs"]) == 2048
    longer = ask(client, [70] * (2049 - max_tokens), max_tokens=max_tokens)
    assert longer.status_code == 400 and longer.json()["error"]["code"] == "context_length_exceeded"


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "an id that is none": ([70, 259], {}, "259 is no token"),
    "a negative id": ([[70], [70, -1]], {}, "-1 is no token"),
    "a huge id": ([10**400], {}, "is no token"),
    "a stream": ([70], {"stream": True}, "echo: a stream"),
    "nothing to draw": ([70], {"echo": False, "max_tokens": 0}, "max_tokens: 0 draws nothing"),
    "no prompt": ([], {}, "prompt: 0 prompts"),
    "no tokens": ([[]], {}, "the prompt is empty"),
    "more scores than fit": ([[70] * 2000] * 13, {"logprobs": 20}, "546000 scores"),
    "too many": ([[70]] * 33, {"n": 2}, "33 prompts"),
    "halves of tokens": ([70.5], {}, "prompt"),
    "texts and tokens": (["a", 70], {}, "prompt"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_prompt_is_told_what_is_wrong(client: TestClient, name: str) -> None:
    prompt, changes, told = WRONG[name]
    answer = ask(client, prompt, **changes)
    assert answer.status_code == 400, answer.text
    error = answer.json()["error"]
    assert told in error["message"] and error["type"] == "invalid_request_error" and len(error["message"]) < 300
