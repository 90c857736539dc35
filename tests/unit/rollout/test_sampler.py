"""The sampler against full forward passes, transformers' own greedy decoding, and itself by other ways."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from draw_reference import drawn

from selftaught.models.decoder import Decoder, KeysValues, NewTokens, PlainDecoder
from selftaught.models.fast_decoder import make_decoder
from selftaught.models.load import LanguageModel, load_model
from selftaught.models.prefill import FreshPrompts, PrefixStore
from selftaught.models.score import student_hidden
from selftaught.rollout import torch_sampler
from selftaught.rollout.sampler import Completion, Sampling
from selftaught.rollout.torch_sampler import sample

PROMPTS = [[5, 9, 33, 71, 2, 14], [8], [100, 101, 102], [44, 3, 60, 61], [77, 78], [30] * 9, [200, 3, 4], [12, 250]]
SEEDS = [11, 22, 33, 44, 55, 66, 77, 88]
SAMPLINGS = [Sampling(16), Sampling(16, temperature=0.7, top_p=0.8), Sampling(16, temperature=0.0)]
LONGEST = 9 + 16  # slots of a row


@pytest.fixture(scope="module")
def model(sharp_model: Path) -> LanguageModel:
    return load_model(sharp_model, dtype="float32")


@pytest.fixture(scope="module")
def stopping(model: LanguageModel) -> LanguageModel:
    """The same, with so many stop tokens that rows end at every length."""
    return dataclasses.replace(model, stop_ids=frozenset(range(0, 259, 6)))


class Counted:
    """A decoder that notes how many rows, and how many tokens, each extension runs."""

    def __init__(self, decoder: Decoder) -> None:
        self.model, self.logits, self._decoder = decoder.model, decoder.logits, decoder
        self.rows: list[int] = []
        self.tokens: list[int] = []
        self.cache_rows = 0

    def new_cache(self, rows: int, slots: int) -> KeysValues:
        self.cache_rows = max(rows, self.cache_rows)
        return self._decoder.new_cache(rows, slots)

    def extend(self, cache: KeysValues, new: NewTokens, first_row: int = 0) -> torch.Tensor:
        self.rows.append(new.num_rows)
        self.tokens.append(len(new.ids))
        return self._decoder.extend(cache, new, first_row)


def complete(
    model: LanguageModel,
    sampling: Sampling,
    rows: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
    make_one: Callable[[LanguageModel], Decoder] = make_decoder,
    **options: Any,
) -> list[Completion]:
    rows = range(len(PROMPTS)) if rows is None else rows
    prompts = FreshPrompts(make_one(model), [PROMPTS[row] for row in rows])
    return sample(prompts, sampling, [SEEDS[row] for row in rows] if seeds is None else seeds, **options)


@torch.no_grad()
def plain_loop(model: LanguageModel, prompt: list[int], sampling: Sampling, seed: int) -> Completion:
    """One completion from full passes of transformers, drawn in float64, token by token."""
    uniform = torch.rand(sampling.max_new_tokens, generator=torch.Generator().manual_seed(seed)).double()
    ids: list[int] = []
    while len(ids) < sampling.max_new_tokens and not (ids and ids[-1] in model.stop_ids):
        logits = model.plain_model(input_ids=torch.tensor([[*prompt, *ids]]), use_cache=False).logits[0, -1].double()
        greedy = sampling.temperature == 0
        ids.append(int(logits.argmax()) if greedy else drawn(logits, sampling, uniform[len(ids)]))
    return Completion(tuple(ids), ids[-1] in model.stop_ids)


@pytest.mark.parametrize("make_one", [make_decoder, PlainDecoder])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_equals_a_plain_loop_over_full_passes(
    stopping: LanguageModel, sampling: Sampling, make_one: Callable[[LanguageModel], Decoder]
) -> None:
    expected = [plain_loop(stopping, prompt, sampling, seed) for prompt, seed in zip(PROMPTS, SEEDS, strict=True)]
    assert complete(stopping, sampling, make_one=make_one) == expected
    assert len({len(completion.ids) for completion in expected}) > 2, "rows end at several lengths"


@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_rows_draw_does_not_depend_on_its_neighbours(stopping: LanguageModel, sampling: Sampling) -> None:
    together = complete(stopping, sampling)
    assert [complete(stopping, sampling, [row])[0] for row in range(8)] == together
    order = [6, 2, 7, 0, 5, 1, 4, 3]
    assert complete(stopping, sampling, order) == [together[row] for row in order]


def test_the_seed_decides(stopping: LanguageModel) -> None:
    first = complete(stopping, Sampling(16))
    assert complete(stopping, Sampling(16)) == first
    other = complete(stopping, Sampling(16), seeds=[seed + 1 for seed in SEEDS])
    assert sum(a.ids != b.ids for a, b in zip(first, other, strict=True)) > 5
    shared = complete(stopping, Sampling(16), rows=[0, 0, 0], seeds=[7, 7, 8])
    assert shared[0] == shared[1] != shared[2]


def test_greedy_equals_transformers_token_for_token(stopping: LanguageModel) -> None:
    ours = complete(stopping, Sampling(20, temperature=0.0), seeds=[])
    for prompt, completion in zip(PROMPTS, ours, strict=True):
        ids = torch.tensor([prompt])
        generated = stopping.plain_model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=20,
            eos_token_id=sorted(stopping.stop_ids),
            pad_token_id=0,
        )
        assert list(completion.ids) == generated[0, len(prompt) :].tolist()
    assert len({len(completion.ids) for completion in ours}) > 2, "some rows end early, some do not"


def test_kept_prompts_are_gone_on_from_like_fresh_ones(stopping: LanguageModel) -> None:
    store = PrefixStore(make_decoder(stopping), 1 << 20)
    for _ in range(2):
        assert sample(store.prompts(PROMPTS), Sampling(16), SEEDS) == complete(stopping, Sampling(16))


@pytest.mark.parametrize("drafted", [False, True])
def test_kept_states_are_what_predicted_each_token(
    stopping: LanguageModel, monkeypatch: pytest.MonkeyPatch, drafted: bool
) -> None:
    monkeypatch.setattr(torch_sampler, "CACHE_TOKENS", 3 * LONGEST)  # some rows wait for a place
    drafts = [row[:4] for row in PROMPTS] if drafted else None
    drawn = complete(stopping, Sampling(16), drafts=drafts, keep_states=True)
    assert drawn == complete(stopping, Sampling(16))
    for prompt, completion in zip(PROMPTS, drawn, strict=True):
        expected = student_hidden(stopping, [prompt], [completion.ids]).detach()
        torch.testing.assert_close(completion.states, expected, rtol=1e-4, atol=1e-4)


def test_every_stop_token_ends_its_row_and_is_kept(stopping: LanguageModel) -> None:
    completions = complete(stopping, Sampling(10))
    for completion in completions:
        assert not any(token in stopping.stop_ids for token in completion.ids[:-1])
        assert completion.ended == (completion.ids[-1] in stopping.stop_ids)
        assert completion.ended or len(completion.ids) == 10
    assert {c.ended for c in completions} == {True, False}


def test_rows_that_stop_at_once(model: LanguageModel) -> None:
    firsts = [completion.ids[0] for completion in complete(model, Sampling(1))]
    at_once = dataclasses.replace(model, stop_ids=frozenset(firsts[:3]))
    free = complete(model, Sampling(8))
    for row, completion in enumerate(complete(at_once, Sampling(8))):
        cut = next((i for i, token in enumerate(free[row].ids) if token in at_once.stop_ids), 7)
        assert completion.ids == free[row].ids[: cut + 1], "the same draw, cut at the first stop token"
    assert all(len(completion.ids) == 1 for completion in complete(at_once, Sampling(8))[:3])
    everything = dataclasses.replace(model, stop_ids=frozenset(range(259)))
    assert [completion.ids for completion in complete(everything, Sampling(8))] == [(first,) for first in firsts]


def test_finished_rows_leave_the_batch(stopping: LanguageModel) -> None:
    counted = Counted(make_decoder(stopping))
    completions = complete(stopping, Sampling(40), make_one=lambda _: counted)
    sizes = counted.rows[1:]  # the first pass is the prompts'
    assert all(a >= b for a, b in itertools.pairwise(sizes))
    assert sizes == [sum(len(c.ids) > step + 1 for c in completions) for step in range(len(sizes))]
    assert len(sizes) == max(len(c.ids) for c in completions) - 1


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_the_length_limit_holds(model: LanguageModel, limit: int) -> None:
    endless = dataclasses.replace(model, stop_ids=frozenset())
    assert {len(completion.ids) for completion in complete(endless, Sampling(limit))} == {limit}
    longer = complete(endless, Sampling(6))
    assert [c.ids for c in complete(endless, Sampling(limit))] == [c.ids[:limit] for c in longer]


@pytest.mark.parametrize("seeds", [None, [], [1], list(range(9))])
def test_sampling_needs_one_seed_a_row(model: LanguageModel, seeds: list[int] | None) -> None:
    prompts = FreshPrompts(make_decoder(model), PROMPTS)
    with pytest.raises(ValueError, match="seed"):
        sample(prompts, Sampling(4), seeds)
    assert len(sample(prompts, Sampling(4, temperature=0.0), None)) == len(PROMPTS)
    assert sample(FreshPrompts(make_decoder(model), []), Sampling(4), []) == []


# ----------------------------------------------------------------------------- finished rows make room


@pytest.mark.parametrize("share", [0.1, 0.6, 1.0])
@pytest.mark.parametrize("slots", [1, 2, 3, 5])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_waiting_prompts_are_drawn_as_if_they_had_not_waited(
    stopping: LanguageModel, sampling: Sampling, slots: int, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = complete(stopping, sampling)
    monkeypatch.setattr(torch_sampler, "CACHE_TOKENS", slots * LONGEST + 3)
    monkeypatch.setattr(torch_sampler, "REFILL_SHARE", share)
    counted = Counted(make_decoder(stopping))
    done: list[int] = []
    assert complete(stopping, sampling, make_one=lambda _: counted, on_done=done.append) == expected
    assert counted.cache_rows == slots == max(counted.rows)
    assert done[-1] == len(PROMPTS) and done == sorted(done)


def test_a_row_longer_than_the_room_is_drawn_alone(stopping: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = complete(stopping, Sampling(16))
    monkeypatch.setattr(torch_sampler, "CACHE_TOKENS", 1)
    assert complete(stopping, Sampling(16)) == expected


def test_room_that_is_free_is_used_before_all_are_done(
    stopping: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch_sampler, "CACHE_TOKENS", 4 * LONGEST)
    passes = {}
    for share in (0.25, 1.0):
        monkeypatch.setattr(torch_sampler, "REFILL_SHARE", share)
        counted = Counted(make_decoder(stopping))
        complete(stopping, Sampling(16), make_one=lambda _: counted)  # noqa: B023
        passes[share] = len(counted.rows)
    assert passes[0.25] < passes[1.0]


# --------------------------------------------------------------------------------------------- drafts


def altered(ids: Sequence[int], place: int) -> list[int]:
    """Wrong from a place on."""
    return [(token + (7 if number >= place else 0)) % 259 for number, token in enumerate(ids)]


DRAFTS: dict[str, Callable[[Sequence[int]], list[int]]] = {
    "none": lambda ids: [],
    "right": list,
    "right so far": lambda ids: list(ids[:3]),
    "right and too long": lambda ids: [*ids, *range(100, 140)],
    "wrong at once": lambda ids: altered(ids, 0),
    "half right": lambda ids: altered(ids, len(ids) // 2),
    "wrong only at the end": lambda ids: altered(ids, len(ids) - 1),
    "stops too soon": lambda ids: [*ids[:2], 6, *ids[2:]],
    "goes on after the stop": lambda ids: [*ids, 6, *ids],
    "one token": lambda ids: list(ids[:1]),
}


@pytest.mark.parametrize("name", DRAFTS)
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_a_draft_changes_no_completion(stopping: LanguageModel, sampling: Sampling, name: str) -> None:
    expected = complete(stopping, sampling)
    drafts = [DRAFTS[name](completion.ids) for completion in expected]
    assert complete(stopping, sampling, drafts=drafts) == expected


@pytest.mark.parametrize("slots", [2, 8])
def test_each_row_may_have_a_draft_of_its_own_kind(
    stopping: LanguageModel, slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for sampling in SAMPLINGS:
        expected = complete(stopping, sampling)
        kinds = list(DRAFTS.values())
        monkeypatch.setattr(torch_sampler, "CACHE_TOKENS", slots * LONGEST)
        for shift in range(len(kinds)):
            drafts = [kinds[(row + shift) % len(kinds)](completion.ids) for row, completion in enumerate(expected)]
            assert complete(stopping, sampling, drafts=drafts) == expected
        monkeypatch.undo()


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_draft_does_not_lengthen_a_completion(model: LanguageModel, limit: int) -> None:
    endless = dataclasses.replace(model, stop_ids=frozenset())
    longer = [completion.ids for completion in complete(endless, Sampling(9))]
    drawn = complete(endless, Sampling(limit), drafts=longer)
    assert [completion.ids for completion in drawn] == [ids[:limit] for ids in longer]


def test_good_guesses_save_passes(stopping: LanguageModel) -> None:
    expected = complete(stopping, Sampling(16))
    passes = {}
    for name in ("none", "wrong at once", "half right", "right"):
        counted = Counted(make_decoder(stopping))
        drafts = [DRAFTS[name](completion.ids) for completion in expected]
        complete(stopping, Sampling(16), make_one=lambda _: counted, drafts=drafts)  # noqa: B023
        passes[name] = len(counted.rows)
    assert passes["right"] == 2, "the prompts, and the drafts"
    assert passes["right"] < passes["half right"] < passes["none"]
    assert passes["wrong at once"] == passes["none"] + 1


# ------------------------------------------------------------------------------------------ as on a GPU


@pytest.mark.parametrize("look_every", [2, 5, 100])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_looking_seldom_changes_nothing(
    stopping: LanguageModel, sampling: Sampling, look_every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = complete(stopping, sampling)
    plain = torch_sampler.Batch

    class Seldom(plain):  # type: ignore[misc, valid-type]
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            assert self.look_every == 1, "on a CPU"
            self.look_every = look_every

    monkeypatch.setattr(torch_sampler, "Batch", Seldom)
    kept = complete(stopping, sampling, keep_states=True)
    assert kept == expected
    assert [len(completion.states) for completion in kept] == [len(completion.ids) for completion in expected]
    monkeypatch.setattr(torch_sampler, "CACHE_TOKENS", 3 * LONGEST)
    for kind in DRAFTS.values():
        drafts = [kind(completion.ids) for completion in expected]
        assert complete(stopping, sampling, drafts=drafts) == expected
