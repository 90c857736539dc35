"""One token from logits: the distribution it is drawn from, and what its draw may not depend on."""

from __future__ import annotations

import pytest
import torch
from draw_reference import drawn
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from selftaught.rollout import draw as draw_module
from selftaught.rollout.draw import draw
from selftaught.rollout.sampler import Sampling

SIZES = [5, 255, 256, 257, 700, 1024]


def random_logits(rows: int, size: int, spread: float = 2.0, seed: int = 0) -> Tensor:
    return spread * torch.randn(rows, size, generator=torch.Generator().manual_seed(seed))


def reference(logits: Tensor, sampling: Sampling, uniform: Tensor) -> Tensor:
    """The same row by row, from the definition."""
    return torch.tensor([drawn(row, sampling, number) for row, number in zip(logits, uniform, strict=True)])


def chi_square(counts: Tensor, expected: Tensor) -> tuple[float, int]:
    """χ² over the cells that expect at least five draws, all others as one, and the degrees of freedom."""
    rare = expected < 5
    found = torch.cat([counts[~rare], counts[rare].sum()[None]]).double()
    wanted = torch.cat([expected[~rare], expected[rare].sum()[None]])
    found, wanted = found[wanted > 0], wanted[wanted > 0]
    return float(((found - wanted) ** 2 / wanted).sum()), len(wanted) - 1


def assert_drawn_from(
    logits: Tensor, sampling: Sampling, expected: Tensor, seed: int = 5, number: int = 40_000
) -> None:
    """That frequencies agree with probabilities: four standard deviations of χ² are exceeded once in 10,000."""
    uniform = torch.rand(number, generator=torch.Generator().manual_seed(seed))
    tokens = torch.cat([draw(logits.expand(len(part), -1), sampling, part) for part in uniform.split(2000)])
    counts = torch.bincount(tokens, minlength=len(logits))
    assert not counts[expected == 0].any(), "never a token without probability"
    value, freedom = chi_square(counts, number * expected)
    assert value < freedom + 4 * (2 * freedom) ** 0.5 + 6, (value, freedom)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_frequencies_match_the_softmax(temperature: float) -> None:
    logits = torch.tensor([2.0, -1.0, 0.5, 0.0, -3.0, 1.5, 0.3, -0.5, 1.0, -2.0])
    assert_drawn_from(logits, Sampling(1, temperature), (logits.double() / temperature).softmax(-1))


@pytest.mark.parametrize("size", [257, 700, 1024])
@pytest.mark.parametrize("temperature", [0.3, 1.0])
@pytest.mark.parametrize("top_p", [1.0, 0.9, 0.5])
def test_frequencies_match_over_a_larger_vocabulary(size: int, temperature: float, top_p: float) -> None:
    logits = random_logits(1, size)[0]
    probs = (logits.double() / temperature).softmax(-1)
    ordered, order = probs.sort(descending=True)
    kept = order[ordered.cumsum(-1) - ordered < top_p]
    expected = torch.zeros_like(probs)
    expected[kept] = probs[kept] / probs[kept].sum()
    assert_drawn_from(logits, Sampling(1, temperature, top_p), expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.3, 1.0), (1.0, 0.9), (2.0, 0.6)])
def test_equals_a_float64_reference(size: int, temperature: float, top_p: float) -> None:
    sampling = Sampling(1, temperature, top_p)
    logits = torch.cat([random_logits(100, size, spread, 3) for spread in (0.1, 2.0, 9.0)])
    uniform = torch.rand(300, generator=torch.Generator().manual_seed(6))
    assert torch.equal(draw(logits, sampling, uniform), reference(logits, sampling, uniform))


@pytest.mark.parametrize("size", SIZES)
def test_an_even_grid_of_uniforms_gives_every_token_its_exact_share(size: int) -> None:
    number = 1 << 15
    logits = random_logits(1, size)[0]
    grid = (torch.arange(number, dtype=torch.float64) + 0.5) / number
    tokens = torch.cat([draw(logits.expand(len(part), -1), Sampling(1), part) for part in grid.split(2048)])
    counts = torch.bincount(tokens, minlength=size)
    assert (counts - number * logits.double().softmax(-1)).abs().max() <= 1.01
    assert tokens.tolist() == sorted(tokens.tolist()), "it is the inverse of the cumulative distribution"


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


@pytest.mark.parametrize("top_p", [0.3, 0.9, 0.999])
def test_the_first_look_for_a_nucleus_finds_what_a_full_sort_does(
    top_p: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    logits = torch.cat([random_logits(60, 3000, spread, 8) for spread in (0.2, 2.0, 6.0)])
    uniform = torch.rand(len(logits), generator=torch.Generator().manual_seed(2))
    sampling = Sampling(1, 1.0, top_p)
    found = {}
    for look in (1, 20, 512, 3000, 10_000):
        monkeypatch.setattr(draw_module, "FIRST_LOOK", look)
        found[look] = draw(logits, sampling, uniform)
        single = [int(draw(row[None], sampling, one[None])) for row, one in zip(logits, uniform, strict=True)]
        assert found[look].tolist() == single, "whoever needs the full sort"
    assert all(torch.equal(tokens, found[3000]) for tokens in found.values())


@pytest.mark.parametrize("size", [4, 256, 600])
@pytest.mark.parametrize("top_p", [1.0, 0.9])
def test_the_ends_of_the_interval_draw_a_possible_token(size: int, top_p: float) -> None:
    logits = torch.full((2, size), -1e9)
    logits[:, [1, size - 2]] = torch.tensor([1.0, 0.0])
    edges = torch.tensor([0.0, 1 - 2**-24])
    assert draw(logits, Sampling(1, 1.0, top_p), edges).tolist() == [1, size - 2]
    infinite = logits.masked_fill(logits < -1e8, -torch.inf)
    assert draw(infinite, Sampling(1, 1.0, top_p), edges).tolist() == [1, size - 2]


@settings(max_examples=150, deadline=None)
@given(
    size=st.integers(1, 600),
    spread=st.sampled_from([0.0, 1.0, 30.0, 1000.0]),
    top_p=st.sampled_from([0.1, 0.9, 1.0]),
    temperature=st.sampled_from([0.05, 1.0, 5.0]),
    number=st.sampled_from([0.0, 2**-24, 0.5, 1 - 2**-24]),
    seed=st.integers(0, 100),
)
def test_a_token_that_is_drawn_has_probability(
    size: int, spread: float, top_p: float, temperature: float, number: float, seed: int
) -> None:
    logits = random_logits(3, size, spread, seed)
    tokens = draw(logits, Sampling(1, temperature, top_p), torch.full((3,), number))
    probs = (logits / temperature).softmax(-1)
    assert ((tokens >= 0) & (tokens < size)).all()
    assert (probs.gather(-1, tokens[:, None]) > 0).all()


def test_a_row_is_drawn_alike_alone_and_in_a_batch() -> None:
    logits = random_logits(64, 700)
    uniform = torch.rand(64, generator=torch.Generator().manual_seed(3))
    for sampling in (Sampling(1), Sampling(1, 0.5), Sampling(1, 1.0, 0.9)):
        single = [int(draw(row[None], sampling, one[None])) for row, one in zip(logits, uniform, strict=True)]
        assert draw(logits, sampling, uniform).tolist() == single


def test_temperature_zero_takes_the_likeliest() -> None:
    logits = torch.randn(50, 30, generator=torch.Generator().manual_seed(1))
    assert torch.equal(draw(logits, Sampling(1, 0.0), torch.rand(50)), logits.argmax(-1))
    assert torch.equal(draw(logits, Sampling(1, 0.0)), logits.argmax(-1))


def test_the_logits_are_left_as_they_were() -> None:
    logits = random_logits(4, 300)
    before = logits.clone()
    draw(logits, Sampling(1, 0.5), torch.rand(4))
    assert torch.equal(logits, before)
