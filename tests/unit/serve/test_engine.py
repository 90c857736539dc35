"""The engine answers each request as if it were alone, whoever comes and goes."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import torch

from selftaught.models.load import LanguageModel, load_model
from selftaught.rollout.sampler import Sampling
from selftaught.serve.engine import ADMIT_TOKENS, Busy, Engine, Limits, Piece, Request
from selftaught.serve.scores import SCORE_TOKENS

PROMPTS = [[1, 40 + n, 50, 60, *range(70, 70 + 3 * n)] for n in range(9)]


@pytest.fixture(scope="module")
def model(sharp_model: Path) -> LanguageModel:
    return load_model(sharp_model, dtype="float32")


@pytest.fixture
def engine(model: LanguageModel) -> Iterator[Engine]:
    engine = Engine(model, Limits(max_rows=4, max_waiting=50, cache_tokens=600))
    yield engine
    engine.close()


class Asked:
    """A request whose pieces are collected."""

    def __init__(
        self,
        prompt: list[int],
        sampling: Sampling,
        seed: int = 0,
        num_scores: int | None = None,
        score_prompt: bool = False,
    ) -> None:
        self.pieces: queue.Queue[Piece] = queue.Queue()
        self.request = Request(prompt, sampling, seed, self.pieces.put, num_scores, score_prompt)

    def all(self) -> list[Piece]:
        found = [self.pieces.get(timeout=60)]
        while found[-1].finish is None:
            found.append(self.pieces.get(timeout=60))
        return found

    def ids(self) -> list[int]:
        return [token for piece in self.all() for token in piece.ids]


def test_greedy_answers_are_those_of_transformers_generate(model: LanguageModel, engine: Engine) -> None:
    asked = [Asked(prompt, Sampling(20, 0.0)) for prompt in PROMPTS]
    engine.submit([one.request for one in asked])
    for prompt, one in zip(PROMPTS, asked, strict=True):
        pieces = one.all()
        generated = model.plain_model.generate(
            torch.tensor([prompt]),
            do_sample=False,
            max_new_tokens=20,
            eos_token_id=sorted(model.stop_ids),
            pad_token_id=0,
        )
        ids = [token for piece in pieces for token in piece.ids]
        assert ids == generated[0, len(prompt) :].tolist()
        assert pieces[-1].finish == ("stop" if ids[-1] in model.stop_ids else "length")


def test_what_is_drawn_does_not_depend_on_the_company(engine: Engine) -> None:
    samplings = [Sampling(12, 1.0), Sampling(20, 0.7, 0.9), Sampling(16, 0.0), Sampling(3, 1.3), Sampling(1, 1.0)]
    wanted = [(prompt, samplings[n % len(samplings)], n) for n, prompt in enumerate(PROMPTS)]
    alone = []
    for one in wanted:
        asked = Asked(*one)
        engine.submit([asked.request])
        alone.append(asked.ids())
    together = [Asked(*one) for one in wanted]
    engine.submit([asked.request for asked in together])
    assert [asked.ids() for asked in together] == alone
    again = Asked(*wanted[0][:2], seed=99)
    engine.submit([again.request])
    assert again.ids() != alone[0], "another seed, another answer"


def test_scores_are_log_probabilities_of_the_plain_model(model: LanguageModel, engine: Engine) -> None:
    asked = Asked(PROMPTS[3], Sampling(10, 1.0), seed=4, num_scores=3)
    beside = Asked(PROMPTS[2], Sampling(10, 1.0), seed=5)
    engine.submit([asked.request, beside.request])
    pieces = asked.all()
    ids = [token for piece in pieces for token in piece.ids]
    scores = [score for piece in pieces for score in piece.scores]
    assert len(scores) == len(ids)
    with torch.no_grad():
        logits = model.plain_model(torch.tensor([PROMPTS[3] + ids])).logits[0, len(PROMPTS[3]) - 1 : -1]
    expected = logits.float().log_softmax(-1)
    for place, (token, score) in enumerate(zip(ids, scores, strict=True)):
        assert score.logprob == pytest.approx(float(expected[place, token]), abs=1e-3)
        values, indices = expected[place].topk(3)
        assert [token for token, _ in score.top] == indices.tolist()
        assert [value for _, value in score.top] == pytest.approx(values.tolist(), abs=1e-3)
    assert all(not piece.scores for piece in beside.all())


@pytest.mark.parametrize("length", [1, 2, 40, SCORE_TOKENS, SCORE_TOKENS + 1, 3 * SCORE_TOKENS - 1])
@pytest.mark.parametrize("num_drawn", [0, 1, 5])
def test_a_prompts_scores_are_the_plain_models(
    model: LanguageModel, engine: Engine, length: int, num_drawn: int
) -> None:
    prompt = [(7 * place * place + 3 * place) % 256 + 3 for place in range(length)]
    asked = Asked(prompt, Sampling(num_drawn, 1.0), seed=4, num_scores=2, score_prompt=True)
    beside = [Asked(one, Sampling(10, 1.0), seed=5) for one in PROMPTS[:2]]
    engine.submit([beside[0].request, asked.request, beside[1].request])
    first, *others = asked.all()
    with torch.no_grad():
        expected = model.plain_model(torch.tensor([prompt])).logits[0].float().log_softmax(-1)
    assert len(first.prompt_scores) == length - 1 and not any(piece.prompt_scores for piece in others)
    for place, score in enumerate(first.prompt_scores):
        assert score.logprob == pytest.approx(float(expected[place, prompt[place + 1]]), abs=1e-3)
        assert [value for _, value in score.top] == pytest.approx(expected[place].topk(2).values.tolist(), abs=1e-3)
    drawn = [token for piece in (first, *others) for token in piece.ids]
    assert len(drawn) <= num_drawn and bool(drawn) is bool(num_drawn)
    unscored = Asked(prompt, Sampling(max(1, num_drawn), 1.0), seed=4)
    again = Asked(PROMPTS[1], Sampling(10, 1.0), seed=5)
    engine.submit([unscored.request, again.request])
    assert unscored.ids()[:num_drawn] == drawn, "what is drawn is what would be drawn without scores"
    assert again.ids() == beside[1].ids(), "and those beside it are not disturbed"


def test_prompts_to_be_scored_are_let_in_as_others_are(model: LanguageModel) -> None:
    engine = Engine(model, Limits(max_rows=16, max_waiting=20, cache_tokens=4096))
    admitted: list[int] = []
    plain = engine._admit

    def watched(requests: Sequence[Request]) -> None:
        admitted.append(sum(len(request.prompt) for request in requests))
        plain(requests)

    engine._admit = watched  # type: ignore[method-assign]
    long = [Asked([5] * 1000, Sampling(1, 0.0), 0, 1, True) for _ in range(5)]
    engine.submit([one.request for one in long])
    assert [len(one.all()[0].prompt_scores) for one in long] == [999] * 5
    assert max(admitted) <= ADMIT_TOKENS and sum(admitted) == 5000
    full = Asked([5] * engine.max_tokens, Sampling(0, 0.0), 0, 1, True)
    engine.submit([full.request])
    (only,) = full.all()
    assert (only.ids, only.finish, len(only.prompt_scores)) == ((), "length", engine.max_tokens - 1)
    engine.close()


def test_memory_stays_within_the_limit_whoever_comes(model: LanguageModel) -> None:
    limits = Limits(max_rows=16, max_waiting=100, cache_tokens=256)
    engine = Engine(model, limits)
    largest = 0
    plain = engine._batch.step

    def watched() -> list[object]:
        nonlocal largest
        rows, _, slots, _ = engine._batch.cache.keys[0].shape
        largest = max(largest, rows * slots)
        return list(plain())

    engine._batch.step = watched  # type: ignore[method-assign, assignment]
    lengths = [8, 8, 8, 8, 200, 8, 8, 120, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8, 8]
    asked = [Asked([1, 30 + n], Sampling(length, 1.0), n) for n, length in enumerate(lengths)]
    engine.submit([one.request for one in asked])
    assert [0 < len(one.ids()) <= length for one, length in zip(asked, lengths, strict=True)]
    assert limits.cache_tokens / 2 < largest <= limits.cache_tokens
    engine.close()


def test_who_is_given_up_makes_room_and_the_others_go_on(model: LanguageModel) -> None:
    endless = LanguageModel(**{**vars(model), "stop_ids": frozenset()})
    engine = Engine(endless, Limits(max_rows=1, max_waiting=5, cache_tokens=2048))
    long, short = Asked(PROMPTS[0], Sampling(2000, 1.0)), Asked(PROMPTS[1], Sampling(3, 1.0))
    engine.submit([long.request, short.request])
    long.pieces.get(timeout=60)
    assert engine.num_waiting == 1, "there is one place"
    engine.cancel(long.request)
    assert len(short.ids()) == 3
    told = long.pieces.qsize()
    engine.close()
    assert told < 1500 and not any(long.pieces.get().finish for _ in range(told))


def test_a_full_queue_refuses_all_of_a_request(model: LanguageModel) -> None:
    endless = LanguageModel(**{**vars(model), "stop_ids": frozenset()})
    engine = Engine(endless, Limits(max_rows=1, max_waiting=2, cache_tokens=2048))
    running = Asked(PROMPTS[0], Sampling(2000, 1.0))
    engine.submit([running.request])
    running.pieces.get(timeout=60)
    waiting = [Asked(PROMPTS[1], Sampling(2, 1.0)) for _ in range(3)]
    with pytest.raises(Busy, match="wait"):
        engine.submit([one.request for one in waiting])
    assert engine.num_waiting == 0
    engine.submit([one.request for one in waiting[:2]])
    engine.cancel(running.request)
    assert all(len(one.ids()) == 2 for one in waiting[:2])
    engine.close()


def test_closing_answers_what_it_has_and_takes_no_more(engine: Engine) -> None:
    asked = [Asked(prompt, Sampling(15, 1.0)) for prompt in PROMPTS]
    engine.submit([one.request for one in asked])
    closing = threading.Thread(target=engine.close)
    closing.start()
    assert all(one.ids() for one in asked)
    closing.join(timeout=60)
    with pytest.raises(Busy, match="stopping"):
        engine.submit([Asked(PROMPTS[0], Sampling(1)).request])


def test_a_step_that_fails_is_told_and_the_next_request_is_answered(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(engine._batch, "step", broken)
    asked = Asked(PROMPTS[0], Sampling(5, 0.0))
    engine.submit([asked.request])
    assert asked.all()[-1].finish == "error"
    asked = Asked(PROMPTS[0], Sampling(5, 0.0))
    engine.submit([asked.request])
    assert asked.ids()
