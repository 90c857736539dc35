"""The sampler against full forward passes, transformers' own greedy decoding, and the distribution itself."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from selftaught.models.load import LanguageModel, load_model
from selftaught.models.prefill import prefill
from selftaught.rollout.sampler import Completion, Sampling
from selftaught.rollout.torch_sampler import draw, sample

PROMPTS = [[5, 9, 33, 71, 2, 14], [8], [100, 101, 102], [44, 3, 60, 61], [77, 78], [30] * 9, [200, 3, 4], [12, 250]]
SEEDS = [11, 22, 33, 44, 55, 66, 77, 88]


@pytest.fixture(scope="module")
def model(sharp_model: Path) -> LanguageModel:
    return load_model(sharp_model, dtype="float32")


@pytest.fixture(scope="module")
def stopping(model: LanguageModel) -> LanguageModel:
    """The same, with so many stop tokens that rows end at every length."""
    return dataclasses.replace(model, stop_ids=frozenset(range(0, 259, 6)))


def complete(
    model: LanguageModel, sampling: Sampling, rows: list[int] | None = None, seeds: list[int] | None = None
) -> list[Completion]:
    rows = list(range(len(PROMPTS))) if rows is None else rows
    prompts = prefill(model, [PROMPTS[row] for row in rows])
    return sample(model, prompts, sampling, [SEEDS[row] for row in rows] if seeds is None else seeds)


def full_pass(model: LanguageModel, prompt: list[int], completion: tuple[int, ...]) -> Tensor:
    """Logits that predict each completion token, from transformers, without cache or padding: [T, V]."""
    with torch.no_grad():
        logits = model.plain_model(input_ids=torch.tensor([[*prompt, *completion]]), use_cache=False).logits
    return logits[0, len(prompt) - 1 : -1].float()


@pytest.mark.parametrize("sampling", [Sampling(12), Sampling(12, temperature=0.7, top_p=0.8), Sampling(12, 0.0)])
def test_logprobs_are_the_models_own_at_temperature_one(stopping: LanguageModel, sampling: Sampling) -> None:
    for prompt, completion in zip(PROMPTS, complete(stopping, sampling), strict=True):
        expected = full_pass(stopping, prompt, completion.ids).log_softmax(-1)
        picked = expected.gather(-1, torch.tensor(completion.ids)[:, None])[:, 0]
        assert len(completion.logprobs) == len(completion.ids)
        torch.testing.assert_close(torch.tensor(completion.logprobs), picked, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sampling", [Sampling(16), Sampling(16, temperature=0.7, top_p=0.8)])
def test_a_rows_draw_does_not_depend_on_its_neighbours(stopping: LanguageModel, sampling: Sampling) -> None:
    together = [c.ids for c in complete(stopping, sampling)]
    assert len({len(ids) for ids in together}) > 2, "rows end at several lengths"
    assert [complete(stopping, sampling, [row])[0].ids for row in range(8)] == together
    order = [6, 2, 7, 0, 5, 1, 4, 3]
    assert [c.ids for c in complete(stopping, sampling, order)] == [together[row] for row in order]


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


class Watched(LanguageModel):
    """Notes how many rows each pass has."""

    def hidden_states(self, input_ids: Tensor, **options: Any) -> Any:
        self.sizes.append(input_ids.shape[0])
        return super().hidden_states(input_ids, **options)

    @property
    def sizes(self) -> list[int]:
        found: list[int] = self.__dict__.setdefault("_sizes", [])
        return found


def test_finished_rows_leave_the_batch(stopping: LanguageModel) -> None:
    watched = Watched(**{field.name: getattr(stopping, field.name) for field in dataclasses.fields(stopping)})
    completions = complete(watched, Sampling(40))
    sizes = watched.sizes[1:]  # the first pass is the prompts'
    assert all(a >= b for a, b in itertools.pairwise(sizes))
    assert sizes[-1] < len(PROMPTS)
    assert len(sizes) == max(len(c.ids) for c in completions) - 1
    alive = [sum(len(c.ids) > step + 1 for c in completions) for step in range(len(sizes))]
    assert all(need <= size for need, size in zip(alive, sizes, strict=True))


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_the_length_limit_holds(model: LanguageModel, limit: int) -> None:
    endless = dataclasses.replace(model, stop_ids=frozenset())
    assert {len(completion.ids) for completion in complete(endless, Sampling(limit))} == {limit}
    longer = complete(endless, Sampling(6))
    assert [c.ids for c in complete(endless, Sampling(limit))] == [c.ids[:limit] for c in longer]


@pytest.mark.parametrize("seeds", [None, [], [1], list(range(9))])
def test_sampling_needs_one_seed_a_row(model: LanguageModel, seeds: list[int] | None) -> None:
    with pytest.raises(ValueError, match="seed"):
        sample(model, prefill(model, PROMPTS), Sampling(4), seeds)
    assert len(sample(model, prefill(model, PROMPTS), Sampling(4, temperature=0.0), None)) == len(PROMPTS)


# ---------------------------------------------------------------------------------------------- draw


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_match_the_softmax(temperature: float) -> None:
    number = 20_000
    logits = torch.tensor([2.0, -1.0, 0.5, 0.0, -3.0, 1.5, 0.3, -0.5, 1.0, -2.0])
    uniform = torch.rand(number, generator=torch.Generator().manual_seed(5))
    tokens = draw(logits.expand(number, -1), Sampling(1, temperature), uniform)
    expected = number * (logits.double() / temperature).softmax(-1)
    counts = torch.bincount(tokens, minlength=10).double()
    chi_square = float(((counts - expected) ** 2 / expected).sum())
    assert chi_square < 33.7  # 9 degrees of freedom: exceeded once in 10,000


def test_an_even_grid_of_uniforms_gives_every_token_its_exact_share() -> None:
    number = 4096
    logits = torch.tensor([0.1, 2.0, -1.0, 0.7, -8.0])
    grid = (torch.arange(number, dtype=torch.float64) + 0.5) / number
    counts = torch.bincount(draw(logits.expand(number, -1), Sampling(1), grid), minlength=5)
    assert (counts - number * logits.double().softmax(-1)).abs().max() <= 1.01


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.01, {3}), (0.49, {3}), (0.51, {3, 0}), (0.79, {3, 0}), (0.81, {3, 0, 2}), (1.0, {0, 1, 2, 3})],
)
def test_top_p_keeps_the_likeliest_tokens_that_hold_the_mass(top_p: float, kept: set[int]) -> None:
    probs = torch.tensor([0.3, 0.05, 0.15, 0.5])
    number = 2000
    grid = (torch.arange(number, dtype=torch.float64) + 0.5) / number
    tokens = draw(probs.log().expand(number, -1), Sampling(1, 1.0, top_p), grid)
    assert set(tokens.tolist()) == kept
    mass = sum(float(probs[token]) for token in kept)
    counts = torch.bincount(tokens, minlength=4)
    for token in kept:
        assert abs(int(counts[token]) - number * float(probs[token]) / mass) <= 2, "renormalised among the kept"


def test_the_ends_of_the_interval_draw_a_possible_token() -> None:
    logits = torch.tensor([[-1e9, 1.0, 0.0, -1e9]] * 2)
    edges = torch.tensor([0.0, 1 - 2**-24])
    assert draw(logits, Sampling(1), edges).tolist() == [1, 2]


def test_temperature_zero_takes_the_likeliest() -> None:
    logits = torch.randn(50, 30, generator=torch.Generator().manual_seed(1))
    assert torch.equal(draw(logits, Sampling(1, 0.0), torch.rand(50)), logits.argmax(-1))
    assert torch.equal(draw(logits, Sampling(1, 0.0)), logits.argmax(-1))
