"""A real server process of the real default model, asked by OpenAI's own client and by lm-evaluation-harness."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest
import torch
from command import run
from serving import Server

from selftaught.evaluation.harness import offline_questions
from selftaught.interactions import Interactions
from selftaught.models.load import load_model
from selftaught.models.resolve import resolve_model

pytestmark = pytest.mark.slow

NAME = "smollm2-135m"
TOLD = "Tell me the capital of France."  # the plain question is a near tie between English and French


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("served") / "work"
    resolve_model(NAME)  # fetched and converted where need be: commands of these tests have no network
    assert run("init", root, "-m", NAME).code == 0
    server = Server(root, "--store")
    yield server
    server.end()


@pytest.fixture
def client(server: Server) -> openai.OpenAI:
    return server.client()


def user(text: str) -> Any:
    return [{"role": "user", "content": text}]


def ask(client: openai.OpenAI, text: str = TOLD, **more: Any) -> Any:
    settings = {"model": "HEAD", "max_tokens": 40, "temperature": 0, **more}
    return client.chat.completions.create(messages=user(text), **settings)


def test_it_answers_rightly_and_says_what_that_took(client: openai.OpenAI) -> None:
    answer = ask(client)
    (choice,) = answer.choices
    assert "Paris" in choice.message.content
    assert (choice.finish_reason, choice.message.role, answer.model) == ("stop", "assistant", "v0")
    tokenizer = load_model(resolve_model(NAME)).tokenizer
    prompt = tokenizer.apply_chat_template(user(TOLD), add_generation_prompt=True)["input_ids"]
    said = tokenizer(choice.message.content)["input_ids"]
    assert answer.usage.prompt_tokens == len(prompt)
    assert answer.usage.completion_tokens == len(said) + 1, "and the token that ends it"
    assert answer.usage.total_tokens == len(prompt) + len(said) + 1
    assert [model.id for model in client.models.list()] == ["HEAD", "v0"]
    cut = ask(client, max_tokens=3)
    assert (cut.choices[0].finish_reason, cut.usage.completion_tokens) == ("length", 3)


@pytest.mark.parametrize("settings", [{}, {"temperature": 1.0, "seed": 3, "n": 3, "stop": ["."]}])
def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI, settings: dict[str, Any]) -> None:
    whole = ask(client, "Write two sentences about the sea.", logprobs=True, top_logprobs=2, **settings)
    chunks = list(
        ask(
            client,
            "Write two sentences about the sea.",
            logprobs=True,
            top_logprobs=2,
            stream=True,
            stream_options={"include_usage": True},
            **settings,
        )
    )
    assert chunks[-1].usage == whole.usage
    for choice in whole.choices:
        mine = [one for chunk in chunks for one in chunk.choices if one.index == choice.index]
        assert "".join(one.delta.content or "" for one in mine) == choice.message.content
        assert [one.finish_reason for one in mine if one.finish_reason] == [choice.finish_reason]
        scored = [entry.token for one in mine if one.logprobs for entry in one.logprobs.content]
        assert scored == [entry.token for entry in choice.logprobs.content]


def test_log_probabilities_are_the_models(client: openai.OpenAI) -> None:
    content = ask(client, logprobs=True, top_logprobs=4).choices[0].logprobs.content
    assert "".join(entry.token for entry in content) == ask(client).choices[0].message.content
    assert all(entry.logprob == entry.top_logprobs[0].logprob for entry in content), "greedy takes the likeliest"
    model = load_model(resolve_model(NAME), dtype="float32")
    prompt = model.tokenizer.apply_chat_template(user(TOLD), add_generation_prompt=True)["input_ids"]
    ids = model.tokenizer("".join(entry.token for entry in content))["input_ids"]
    with torch.no_grad():
        expected = model.plain_model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
    for place, (token, entry) in enumerate(zip(ids, content, strict=True)):
        assert entry.logprob == pytest.approx(float(expected[place, token]), abs=0.3), "bfloat16 where there is some"


def test_a_seed_names_an_answer_and_choices_are_drawn_apart(client: openai.OpenAI) -> None:
    def texts(**more: Any) -> list[str]:
        answer = ask(client, "Invent a name for a boat.", temperature=1.0, n=4, max_tokens=12, **more)
        assert answer.usage.completion_tokens <= 4 * 12
        return [choice.message.content for choice in answer.choices]

    first = texts(seed=1)
    assert texts(seed=1) == first != texts(seed=2)
    assert len(set(first)) > 1


def test_a_stop_string_ends_an_answer(client: openai.OpenAI) -> None:
    free = ask(client).choices[0].message.content
    ended = ask(client, stop=["Paris"]).choices[0]
    assert (ended.message.content, ended.finish_reason) == (free[: free.index("Paris")], "stop")


def test_what_is_wrong_is_the_error_that_openais_client_knows(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no such model"):
        ask(client, model="gpt-9")
    with pytest.raises(openai.BadRequestError, match="8192 tokens") as caught:
        ask(client, "word " * 9000)
    assert caught.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError, match="temperature"):
        ask(client, temperature=9)
    with pytest.raises(openai.APIStatusError, match="bytes") as too_large:
        ask(client, "x" * (2 << 20))
    assert too_large.value.status_code == 413
    with pytest.raises(openai.BadRequestError, match="49152 is no token"):
        client.completions.create(model="HEAD", prompt=[1, 49152], max_tokens=1)
    assert ask(client, max_tokens=3).choices, "it goes on serving"


def test_a_conversation_is_kept_with_what_is_said_of_it(server: Server, client: openai.OpenAI) -> None:
    answer = ask(client)
    said = answer.choices[0].message.content
    body = {"completion_id": answer.id, "kind": "correction", "text": "Paris, on the Seine."}
    noted: Any = client.post("/feedback", body=body, cast_to=object)
    assert noted["kind"] == "correction"
    turns = [*user(TOLD), {"role": "assistant", "content": said}, *user("No, say it in one word.")]
    client.chat.completions.create(model="HEAD", messages=turns, max_tokens=5)
    kept = Interactions(server.root / ".selftaught" / "interactions.db")
    found = [(one.kind, one.text, about.completion) for one, about in kept.feedback() if about.id == answer.id]
    assert found == [("correction", "Paris, on the Seine.", said), ("follow_up", "No, say it in one word.", said)]


def test_a_prompt_is_repeated_with_the_plain_models_log_probabilities(client: openai.OpenAI) -> None:
    model = load_model(resolve_model(NAME), dtype="float32")
    text = "The capital of France is Paris. The capital of Italy is Rome."
    ids = list(model.tokenizer(text)["input_ids"])
    with torch.no_grad():
        expected = model.plain_model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
    for prompt in (text, ids, [ids]):
        answer = client.completions.create(
            model="HEAD", prompt=prompt, echo=True, logprobs=1, max_tokens=1, temperature=0
        )
        told = answer.choices[0].logprobs
        assert answer.choices[0].text.startswith(text) and told
        assert told.token_logprobs and len(told.token_logprobs) == len(ids) + 1
        own = expected.gather(-1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()
        assert told.token_logprobs[0] is None  # type: ignore[comparison-overlap]
        assert told.token_logprobs[1:-1] == pytest.approx(own, abs=0.5), "bfloat16 where there is some"


def test_lm_evals_own_models_are_served_unchanged(server: Server) -> None:
    models = pytest.importorskip("lm_eval.models.openai_completions", reason="lm-eval is not installed")
    instances = pytest.importorskip("lm_eval.api.instance")

    def asked(kind: str, *arguments: Any) -> Any:
        return instances.Instance(request_type=kind, doc={}, arguments=arguments, idx=0)

    loaded = load_model(resolve_model(NAME), dtype="float32")
    where = {"model": "HEAD", "tokenizer": str(loaded.path)}
    rows = offline_questions()[:6]
    pairs = [(row["text"], f" {letter}") for row in rows for letter in row["letters"]]
    expected = []
    for text, letter in pairs:
        begin, ids = len(loaded.tokenizer(text)["input_ids"]), loaded.tokenizer(text + letter)["input_ids"]
        with torch.no_grad():
            scores = loaded.plain_model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1)
        expected.append(sum(float(scores[place, ids[place + 1]]) for place in range(begin - 1, len(ids) - 1)))
    for more in ({}, {"batch_size": 4}, {"num_concurrent": 4}, {"tokenized_requests": False}):
        text_model = models.LocalCompletionsAPI(base_url=f"{server.url}/completions", **where, **more)
        found = text_model.loglikelihood([asked("loglikelihood", *pair) for pair in pairs])
        assert [one for one, _ in found] == pytest.approx(expected, abs=0.5), more
    until = {"until": ["\n"], "max_gen_toks": 8, "do_sample": False}
    (written,) = text_model.generate_until([asked("generate_until", "The capital of France is", dict(until))])
    assert "Paris" in written
    chat_model = models.LocalChatCompletion(base_url=f"{server.url}/chat/completions", model="HEAD")
    prompt = chat_model.apply_chat_template(user(TOLD))
    (said,) = chat_model.generate_until([asked("generate_until", prompt, {**until, "max_gen_toks": 30})])
    assert "Paris" in said
