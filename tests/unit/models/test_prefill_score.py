"""States at completion positions: however prompts are run, kept or joined, the numbers are one plain pass's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from selftaught.models import prefill, score
from selftaught.models.decoder import Decoder, KeysValues, NewTokens, PlainDecoder
from selftaught.models.fast_decoder import FastDecoder, make_decoder
from selftaught.models.load import LanguageModel, load_model
from selftaught.models.prefill import FreshPrompts, PrefixStore, Prompts, shared_prefix
from selftaught.models.score import student_hidden, teacher_hidden

PROMPTS = [[5, 9, 33, 71, 2, 14], [8], [100, 101, 102], [44, 3, 60, 61, 62, 63, 64, 65]]
COMPLETIONS = [[7, 20, 21], [90, 91, 92, 93, 2], [50], [11, 12]]
CLOSE = {"rtol": 1e-4, "atol": 1e-4}
# some in common, some twice, one that begins another, one of a single token, one that ends where a block does
DOCUMENT = [9, 8, 7, 6, 30, 31, 32, 33, 34, 35]
MANY = [
    [*DOCUMENT, 40, 41, 42],
    [*DOCUMENT, 50],
    [3],
    [*DOCUMENT, 40, 41, 42],
    DOCUMENT,
    [*DOCUMENT[:5], 60, 61, 62],
    [9, 8, 7, 6, 30, 31, 32, 33],
    [3],
    [77] * 17,
]


@pytest.fixture(scope="module")
def model(sharp_model: Path) -> LanguageModel:
    return load_model(sharp_model, dtype="float32")


@pytest.fixture(params=[FastDecoder, PlainDecoder])
def decoder(model: LanguageModel, request: pytest.FixtureRequest) -> Decoder:
    made: Decoder = request.param(model)
    return made


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything that is long for a real model becomes short."""
    monkeypatch.setattr(prefill, "PREFILL_TOKENS", 5)
    monkeypatch.setattr(prefill, "BLOCK_TOKENS", 4)
    monkeypatch.setattr(prefill, "MIN_SHARED", 3)


class Counted:
    """A decoder that notes how many tokens each extension runs."""

    def __init__(self, decoder: Decoder) -> None:
        self.model, self.new_cache, self.logits, self._decoder = (
            decoder.model,
            decoder.new_cache,
            decoder.logits,
            decoder,
        )
        self.runs: list[int] = []

    def extend(self, cache: KeysValues, new: NewTokens, first_row: int = 0) -> Tensor:
        self.runs.append(len(new.ids))
        return self._decoder.extend(cache, new, first_row)


def alone(model: LanguageModel, prompt: Sequence[int], completion: Sequence[int]) -> Tensor:
    """One row, one pass of transformers itself, no padding and no cache."""
    ids = torch.tensor([[*prompt, *completion]])
    with torch.no_grad():
        states = model.plain_model(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states[-1]
    return states[0, len(prompt) - 1 : -1]


def reference(model: LanguageModel) -> Tensor:
    return torch.cat([alone(model, p, c) for p, c in zip(PROMPTS, COMPLETIONS, strict=True)])


def loaded(prompts: Prompts, chosen: Sequence[int], first_row: int = 0, spare: int = 0) -> tuple[Tensor, KeysValues]:
    """Last states, and a cache that holds more rows and slots than are needed."""
    slots = max(len(prompts.tokens[index]) for index in chosen) + 1 + spare
    cache = prompts.decoder.new_cache(first_row + len(chosen) + 1, slots)
    return prompts.load(cache, first_row, chosen), cache


def assert_holds(prompts: Prompts, chosen: Sequence[int], first_row: int = 0, spare: int = 0) -> None:
    """What is loaded predicts, and what is decoded on from it, is what the plain model says."""
    last, cache = loaded(prompts, chosen, first_row, spare)
    assert last.shape[0] == len(chosen)
    starts = [len(prompts.tokens[index]) for index in chosen]
    new = NewTokens.of([[11]] * len(chosen), starts, torch.device("cpu"))
    after = prompts.decoder.extend(cache, new, first_row)
    for place, index in enumerate(chosen):
        expected = alone(prompts.decoder.model, prompts.tokens[index], [11, 0])
        torch.testing.assert_close(torch.stack([last[place], after[place]]), expected, **CLOSE)


# -------------------------------------------------------------------------------------------- fresh


def test_last_state_is_the_plain_models(model: LanguageModel, decoder: Decoder) -> None:
    last, _ = loaded(FreshPrompts(decoder, PROMPTS), range(4))
    for row, prompt in enumerate(PROMPTS):
        torch.testing.assert_close(last[row], alone(model, prompt, [0])[0], **CLOSE)


@pytest.mark.usefixtures("small_pieces")
def test_fresh_prompts_hold_whatever_they_share(decoder: Decoder) -> None:
    prompts = FreshPrompts(decoder, MANY)
    for chosen in (range(9), [0, 3], [0, 1, 3, 4], [1, 0, 5], [4, 4, 4], [8], [2, 7], [8, 3, 2, 0]):
        assert_holds(prompts, list(chosen))
    assert_holds(prompts, [3, 1, 0], first_row=2, spare=9)


@pytest.mark.usefixtures("small_pieces")
def test_what_prompts_share_is_run_once(model: LanguageModel) -> None:
    counted = Counted(FastDecoder(model))
    loaded(FreshPrompts(counted, MANY), [0, 3, 0, 3])
    assert sum(counted.runs) == 13, "equal prompts"
    counted.runs.clear()
    loaded(FreshPrompts(counted, MANY), [0, 1, 3])
    assert sum(counted.runs) == 10 + 3 + 1, "and a common beginning"
    assert max(counted.runs) <= 5, "a piece at a time"


def test_the_longest_piece_is_bounded_in_every_row(model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefill, "PREFILL_TOKENS", 5)
    counted = Counted(FastDecoder(model))
    loaded(FreshPrompts(counted, [[1] * 12, [2] * 7, [3] * 2]), range(3))
    assert counted.runs == [5 + 5 + 2, 5 + 2, 2]


@pytest.mark.parametrize(
    ("prompts", "shared"),
    [
        ([[1] * 20], 0),
        ([[1] * 9, [1] * 9], 8),
        ([[1] * 8, [1] * 8], 0),
        ([[1] * 20, [1] * 10 + [2] * 3, [1] * 15], 10),
        ([[1] * 20, [2] * 20], 0),
        ([[*range(9), 50], [*range(9), 60, 61], list(range(9))], 8),
    ],
)
def test_a_shared_beginning_is_long_enough_and_leaves_each_a_token(prompts: list[list[int]], shared: int) -> None:
    assert shared_prefix(prompts) == shared


# --------------------------------------------------------------------------------------------- store


@pytest.mark.usefixtures("small_pieces")
def test_kept_prompts_hold_the_first_time_and_the_next(decoder: Decoder) -> None:
    store = PrefixStore(decoder, 1 << 30)
    for chosen in (range(9), [0, 3], [8, 2], [5, 1, 0, 4]):
        assert_holds(store.prompts(MANY), list(chosen))
    assert_holds(store.prompts(MANY), [3, 1, 0], first_row=2, spare=9)


def bytes_a_token(model: LanguageModel) -> int:
    config = model.plain_model.config
    return 2 * model.dtype.itemsize * int(config.num_hidden_layers * config.num_key_value_heads * config.head_dim)


@pytest.mark.usefixtures("small_pieces")
def test_what_prompts_begin_with_is_held_and_run_once(model: LanguageModel) -> None:
    counted = Counted(FastDecoder(model))
    store = PrefixStore(counted, 1 << 30)
    loaded(store.prompts(MANY), [0])
    assert counted.runs == [4, 4, 4, 1]
    last = 4 * model.plain_model.config.hidden_size  # each block's last state
    assert store.used_bytes == 13 * bytes_a_token(model) + 4 * last
    loaded(store.prompts(MANY), [1, 3, 6])  # eight tokens of the first, and three more; the first; two whole blocks
    assert counted.runs == [4, 4, 4, 1, 3]
    assert store.used_bytes == 16 * bytes_a_token(model) + 5 * last
    loaded(store.prompts(MANY), [0, 1, 3, 6])
    assert len(counted.runs) == 5


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("kept_tokens", [0, 1, 6, 14, 30, 1000])
def test_kept_recomputed_and_evicted_prompts_give_the_same_numbers(
    sharp_model: Path, dtype: str, kept_tokens: int
) -> None:
    """Bit for bit, in any order and company, at any row of any cache; and the limit is respected."""
    model = load_model(sharp_model, dtype=dtype)
    limit = kept_tokens * bytes_a_token(model)
    decoder = make_decoder(model)
    expected = [loaded(PrefixStore(decoder, 0).prompts([prompt]), [0]) for prompt in MANY]
    store = PrefixStore(decoder, limit)
    orders = [list(range(9)), [8, 7, 6, 5, 4, 3, 2, 1, 0], [4, 0, 2], [5], [0, 8, 0, 8], list(range(9))]
    for number, order in enumerate(orders):
        last, cache = loaded(store.prompts(MANY), order, number % 3, 5 * number)
        assert store.used_bytes <= limit
        for place, index in enumerate(order):
            state, alone_cache = expected[index]
            assert torch.equal(last[place], state[0]), (order, index)
            for layer, other in zip((*cache.keys, *cache.values), (*alone_cache.keys, *alone_cache.values)):
                length = len(MANY[index])
                assert torch.equal(layer[number % 3 + place, :, :length], other[0, :, :length]), (order, index)


def test_numbers_do_not_depend_on_what_shares_the_batch(model: LanguageModel) -> None:
    store = PrefixStore(make_decoder(model), 0)
    (together, _), (single, _) = loaded(store.prompts(PROMPTS), range(4)), loaded(store.prompts(PROMPTS[:1]), [0])
    assert torch.equal(together[0], single[0])
    assert store.used_bytes == 0


@pytest.mark.usefixtures("small_pieces")
def test_the_least_recently_used_block_is_dropped_an_end_before_its_beginning(model: LanguageModel) -> None:
    counted = Counted(FastDecoder(model))
    a, b, c = [1] * 8, [2] * 8, [3] * 8
    block = 4 * bytes_a_token(model) + 4 * model.plain_model.config.hidden_size
    store = PrefixStore(counted, 5 * block)
    prompts = store.prompts([a, b, c])
    loaded(prompts, [0, 1])
    loaded(prompts, [0])  # b is now the oldest
    loaded(prompts, [2])
    counted.runs.clear()
    loaded(prompts, [0, 2])
    assert counted.runs == []
    assert store.used_bytes == 5 * block
    loaded(store.prompts([b[:4]]), [0])
    assert counted.runs == [], "its beginning is still there"
    loaded(prompts, [1])
    assert counted.runs == [4], "its end was dropped"


# --------------------------------------------------------------------------------------------- score

KINDS: dict[str, Callable[[Decoder, Sequence[Sequence[int]]], Prompts]] = {
    "fresh": FreshPrompts,
    "kept": lambda decoder, tokens: PrefixStore(decoder, 1 << 20).prompts(tokens),
    "not kept": lambda decoder, tokens: PrefixStore(decoder, 0).prompts(tokens),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cache_tokens", [1, 20, 8192])
def test_teacher_states_equal_one_full_pass(
    model: LanguageModel, decoder: Decoder, kind: str, cache_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score, "CACHE_TOKENS", cache_tokens)
    prompts = KINDS[kind](decoder, PROMPTS)
    states = teacher_hidden(prompts, COMPLETIONS)
    assert states.shape[0] == sum(map(len, COMPLETIONS))
    assert not states.requires_grad
    torch.testing.assert_close(states, reference(model), **CLOSE)
    assert torch.equal(teacher_hidden(prompts, COMPLETIONS), states), "scoring leaves the prompts as they were"


def test_student_states_equal_one_full_pass_and_carry_gradient(model: LanguageModel) -> None:
    states = student_hidden(model, PROMPTS, COMPLETIONS)
    torch.testing.assert_close(states, reference(model), **CLOSE)
    assert states.requires_grad


def test_student_states_do_not_depend_on_padding_or_order(model: LanguageModel) -> None:
    order = [3, 1, 0, 2]
    with torch.no_grad():
        forward = student_hidden(model, PROMPTS, COMPLETIONS).split([len(c) for c in COMPLETIONS])
        permuted = student_hidden(model, [PROMPTS[i] for i in order], [COMPLETIONS[i] for i in order])
        singles = [student_hidden(model, [p], [c]) for p, c in zip(PROMPTS, COMPLETIONS, strict=True)]
        longer = student_hidden(model, [*PROMPTS, [9] * 40], [*COMPLETIONS, [9] * 10])[: sum(map(len, COMPLETIONS))]
    torch.testing.assert_close(permuted, torch.cat([forward[i] for i in order]), **CLOSE)
    torch.testing.assert_close(torch.cat(singles), torch.cat(forward), **CLOSE)
    torch.testing.assert_close(longer, torch.cat(forward), **CLOSE)


SHARED = {
    "system prompt": [[9, 8, 7, 6, 30], [9, 8, 7, 6, 31, 32, 33], [9, 8, 7, 40], [9, 8, 7, 6, 30, 50]],
    "one begins another": [[9, 8, 7, 6], [9, 8, 7, 6, 5], [9, 8, 7, 6, 5, 4], [9, 8, 7, 6]],
    "all the same": [[9, 8, 7, 6]] * 4,
    "first token": [[9], [9, 1], [9, 2, 3], [9, 4]],
}


@pytest.mark.parametrize("prompts", SHARED.values(), ids=SHARED.keys())
def test_a_shared_beginning_changes_neither_states_nor_gradients(
    sharp_model: Path, monkeypatch: pytest.MonkeyPatch, prompts: list[list[int]]
) -> None:
    monkeypatch.setattr(prefill, "MIN_SHARED", 1)
    assert shared_prefix(prompts) == (0 if len(min(prompts, key=len)) == 1 else 3)
    ours, plain = (load_model(sharp_model, dtype="float32", masters=True) for _ in range(2))
    states = student_hidden(ours, prompts, COMPLETIONS)
    pieces = []
    for prompt, completion in zip(prompts, COMPLETIONS, strict=True):
        output = plain.hidden_states(torch.tensor([[*prompt, *completion]]), use_cache=False)
        pieces.append(output.last_hidden_state[0, len(prompt) - 1 : -1])
    expected = torch.cat(pieces)
    torch.testing.assert_close(states, expected, **CLOSE)
    slope = torch.randn(expected.shape, generator=torch.Generator().manual_seed(0))
    (states * slope).sum().backward()
    (expected * slope).sum().backward()
    for a, b in zip(ours.model.parameters(), plain.model.parameters(), strict=True):
        assert a.grad is not None and b.grad is not None
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-3, atol=1e-3 * b.grad.abs().max().item())
    for kind in KINDS.values():
        teachers = teacher_hidden(kind(make_decoder(ours), prompts), COMPLETIONS)
        torch.testing.assert_close(teachers, expected.detach(), **CLOSE)


def test_completions_of_one_token_need_no_further_pass(model: LanguageModel) -> None:
    ones = [[7], [90], [50], [11]]
    expected = torch.cat([alone(model, p, c) for p, c in zip(PROMPTS, ones, strict=True)])
    counted = Counted(make_decoder(model))
    torch.testing.assert_close(teacher_hidden(FreshPrompts(counted, PROMPTS), ones), expected, **CLOSE)
    assert len(counted.runs) == 1, "the prompts' own"
    torch.testing.assert_close(student_hidden(model, PROMPTS, ones).detach(), expected, **CLOSE)
