"""The chunked losses against plain autograd over all positions at once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from largest_tensor import LargestTensor
from torch import Tensor
from torch.nn import functional as F

from selftaught.config import FullSupport, LossConfig, TeacherTopK
from selftaught.losses import distillation
from selftaught.losses.distillation import (
    Head,
    chunked_loss,
    distillation_loss,
    likelihood_loss,
    sequence_weights,
)
from selftaught.losses.divergence import DIVERGENCES, divergence

N, H, V = 7, 5, 13
SUPPORTS = [FullSupport(), TeacherTopK(k=4)]


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of sizes that divide neither the chunks nor the vocabulary."""
    monkeypatch.setattr(distillation, "FLOAT_ROWS", 2)
    monkeypatch.setattr(distillation, "HEAD_ROWS", 5)


class Case:
    """Random states and heads; `leaves` are the tensors that may get a gradient."""

    def __init__(self, bias: bool = True, dtype: torch.dtype = torch.float32) -> None:
        generator = torch.Generator().manual_seed(0)

        def random(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator).to(dtype)

        self.hidden = random(N, H).requires_grad_()
        self.weight = random(V, H).requires_grad_()
        self.bias = random(V).requires_grad_() if bias else None
        self.teacher_hidden = random(N, H + 2).requires_grad_()  # a teacher of another width
        self.teacher_weight = random(V, H + 2).requires_grad_()
        self.teacher_bias = random(V).requires_grad_()
        self.targets = torch.randint(V, (N,), generator=generator)
        self.weights = torch.rand(N, generator=generator)

    @property
    def leaves(self) -> list[Tensor]:
        return [self.hidden, self.weight] + ([] if self.bias is None else [self.bias])

    def distil(self, config: LossConfig) -> tuple[Tensor, Tensor]:
        output = distillation_loss(
            self.hidden,
            Head(self.weight, self.bias),
            self.teacher_hidden,
            Head(self.teacher_weight, self.teacher_bias),
            self.weights,
            config,
        )
        return output.loss, output.nats

    def plain(self, config: LossConfig) -> tuple[Tensor, Tensor]:
        teacher = F.linear(self.teacher_hidden, self.teacher_weight, self.teacher_bias).float()
        student = F.linear(self.hidden, self.weight, self.bias).float()
        nats = divergence(config.divergence, teacher / config.teacher_temperature, student, config.support)
        bounded = nats if config.clip_nats is None else torch.where(nats < config.clip_nats, nats, config.clip_nats)
        return (self.weights * bounded).sum(), nats.detach()


@pytest.mark.parametrize("chunk", [1, 3, N, N + 5])
@pytest.mark.parametrize("support", SUPPORTS, ids=lambda s: s.kind)
@pytest.mark.parametrize("name", sorted(DIVERGENCES))
@pytest.mark.parametrize("clip", [None, 1.0])
@pytest.mark.parametrize("bias", [True, False])
def test_chunks_change_nothing(name: Any, support: Any, chunk: int, clip: float | None, bias: bool) -> None:
    case = Case(bias)
    config = LossConfig(divergence=name, support=support, chunk_tokens=chunk, clip_nats=clip)
    loss, nats = case.distil(config)
    expected, expected_nats = case.plain(config)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(nats, expected_nats)
    assert not nats.requires_grad
    scale = 2.5  # gradients follow what is done with the loss later
    for ours, plain in zip(
        torch.autograd.grad(scale * loss, case.leaves), torch.autograd.grad(scale * expected, case.leaves), strict=True
    ):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("temperature", [0.3, 0.5, 2.0])
def test_the_teachers_temperature_divides_its_logits_and_nobody_elses(temperature: float) -> None:
    case = Case()
    config = LossConfig(teacher_temperature=temperature, chunk_tokens=3)
    loss, _ = case.distil(config)
    expected, _ = case.plain(config)
    torch.testing.assert_close(loss, expected)
    (ours,), (plain,) = (torch.autograd.grad(value, case.hidden) for value in (loss, expected))
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-6)
    assert loss.item() != pytest.approx(
        case.distil(LossConfig(chunk_tokens=3, teacher_temperature=1.0))[0].item(), rel=1e-2
    )


def test_gradients_pass_a_numerical_check() -> None:
    """Against finite differences: not our formulas twice."""
    case = Case()
    config = LossConfig(divergence="jsd", chunk_tokens=2)
    loss, _ = case.distil(config)
    (gradient,) = torch.autograd.grad(loss, case.hidden)
    step = 1e-2
    for row, column in [(0, 0), (3, 2), (6, 4)]:
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                case.hidden[row, column] += sign * step
                values.append(case.distil(config)[0].item())
                case.hidden[row, column] -= sign * step
        assert float(gradient[row, column]) == pytest.approx((values[0] - values[1]) / (2 * step), abs=1e-3)


def test_no_gradient_reaches_the_teacher() -> None:
    case = Case()
    case.distil(LossConfig())[0].backward()
    assert case.hidden.grad is not None
    assert case.teacher_hidden.grad is None
    assert case.teacher_weight.grad is None
    assert case.teacher_bias.grad is None


def test_clipped_tokens_give_no_gradient_and_others_are_unchanged() -> None:
    case = Case()
    free, nats = case.distil(LossConfig(chunk_tokens=3))
    (free_gradient,) = torch.autograd.grad(free, case.hidden)
    bound = float(nats.sort().values[N // 2])
    clipped, same_nats = case.distil(LossConfig(chunk_tokens=3, clip_nats=bound))
    (gradient,) = torch.autograd.grad(clipped, case.hidden)
    above = nats > bound
    assert 0 < int(above.sum()) < N
    assert torch.equal(nats, same_nats), "what is reported is not clipped"
    assert torch.equal(gradient[above], torch.zeros_like(gradient[above]))
    assert torch.equal(gradient[~above], free_gradient[~above])
    assert clipped.item() == pytest.approx(float((case.weights * nats.clamp(max=bound)).sum()), rel=1e-5)


def test_a_frozen_head_gets_no_gradient_and_changes_none() -> None:
    free, frozen = Case(), Case()
    frozen.weight.requires_grad_(False)
    assert frozen.bias is not None
    frozen.bias.requires_grad_(False)
    free.distil(LossConfig())[0].backward()
    frozen.distil(LossConfig())[0].backward()
    assert frozen.weight.grad is None and frozen.bias.grad is None
    assert free.hidden.grad is not None and frozen.hidden.grad is not None
    assert torch.equal(free.hidden.grad, frozen.hidden.grad)


def test_a_frozen_bias_leaves_the_weights_gradient_as_it_is() -> None:
    free, frozen = Case(), Case()
    assert frozen.bias is not None
    frozen.bias.requires_grad_(False)
    free.distil(LossConfig())[0].backward()
    frozen.distil(LossConfig())[0].backward()
    assert frozen.bias.grad is None
    assert free.weight.grad is not None and frozen.weight.grad is not None
    assert torch.equal(free.weight.grad, frozen.weight.grad)


@pytest.mark.parametrize("support", SUPPORTS, ids=lambda s: s.kind)
@pytest.mark.parametrize("clip", [None, 1.0])
def test_the_loss_of_any_function_of_the_logits_is_what_training_reports(support: Any, clip: float | None) -> None:
    case = Case()
    loss, nats = case.distil(LossConfig(support=support, clip_nats=clip, teacher_temperature=1.0))
    teacher = F.linear(case.teacher_hidden, case.teacher_weight, case.teacher_bias)

    def token_loss(logits: Tensor, where: slice) -> Tensor:
        return divergence("forward_kl", teacher[where], logits, support)

    output = chunked_loss(case.hidden, Head(case.weight, case.bias), token_loss, case.weights, 3, clip)
    torch.testing.assert_close(output.loss, loss.detach())
    torch.testing.assert_close(output.nats, nats)
    assert not output.loss.requires_grad


def test_small_gradients_are_not_lost_in_the_sum_of_many_chunks() -> None:
    """A bfloat16 sum of 1024 equal terms would stop growing at 256 of them."""
    tokens = 1024
    hidden, head = torch.ones(tokens, H, dtype=torch.bfloat16), torch.zeros(V, H, dtype=torch.bfloat16)
    weight = head.requires_grad_()
    targets, weights = torch.zeros(tokens, dtype=torch.long), torch.ones(tokens)
    likelihood_loss(hidden, Head(weight), targets, weights, chunk_tokens=1).loss.backward()
    assert weight.grad is not None
    expected = torch.full((V, H), tokens / V)
    expected[0] -= tokens
    torch.testing.assert_close(weight.grad.float(), expected, rtol=0.01, atol=0)


def test_without_any_gradient_only_the_value_is_computed() -> None:
    case = Case()
    with torch.no_grad():
        loss, nats = case.distil(LossConfig(chunk_tokens=3))
    expected, expected_nats = case.plain(LossConfig())
    torch.testing.assert_close(loss, expected.detach())
    torch.testing.assert_close(nats, expected_nats)


@pytest.mark.parametrize("chunk", [1, 3, N, N + 5])
@pytest.mark.parametrize("bias", [True, False])
def test_cross_entropy_equals_torchs(chunk: int, bias: bool) -> None:
    case = Case(bias)
    output = likelihood_loss(case.hidden, Head(case.weight, case.bias), case.targets, case.weights, chunk)
    nats = F.cross_entropy(F.linear(case.hidden, case.weight, case.bias), case.targets, reduction="none")
    expected = (case.weights * nats).sum()
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(output.nats, nats.detach())
    for ours, plain in zip(
        torch.autograd.grad(output.loss, case.leaves), torch.autograd.grad(expected, case.leaves), strict=True
    ):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-6)


def test_bfloat16_states_give_bfloat16_gradients_near_the_float32_ones() -> None:
    half, single = Case(dtype=torch.bfloat16), Case(dtype=torch.bfloat16)
    for name in ("hidden", "weight", "bias", "teacher_hidden", "teacher_weight", "teacher_bias"):
        setattr(single, name, getattr(single, name).detach().float().requires_grad_())
    loss, _ = half.distil(LossConfig(chunk_tokens=2))
    expected, _ = single.distil(LossConfig(chunk_tokens=2))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=0.02)
    for ours, exact in zip(
        torch.autograd.grad(loss, half.leaves), torch.autograd.grad(expected, single.leaves), strict=True
    ):
        assert ours.dtype == torch.bfloat16
        assert (ours.float() - exact).norm() < 0.03 * exact.norm()


# ------------------------------------------------------------------------------------------- weights

LENGTHS = st.lists(st.integers(1, 9), min_size=1, max_size=6)


@settings(max_examples=60, deadline=None)
@given(lengths=LENGTHS, skip=st.integers(0, 12))
def test_every_sequence_weighs_the_same(lengths: list[int], skip: int) -> None:
    pieces = sequence_weights(lengths, len(lengths), skip).split(lengths)
    for length, piece in zip(lengths, pieces, strict=True):
        assert float(piece.sum()) == pytest.approx(1 / len(lengths), rel=1e-5)
        kept = piece[piece > 0]
        assert len(kept) == max(1, length - skip), "a completion shorter than the skip keeps its last token"
        assert torch.equal(piece[: length - len(kept)], torch.zeros(length - len(kept)))
        assert torch.equal(kept, kept[:1].expand_as(kept))


@settings(max_examples=40, deadline=None)
@given(lengths=LENGTHS, skip=st.integers(0, 3), data=st.data())
def test_weights_do_not_depend_on_the_microbatch(lengths: list[int], skip: int, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(lengths)))
    parts = [sequence_weights(part, len(lengths), skip) for part in (lengths[:cut], lengths[cut:]) if part]
    assert torch.equal(torch.cat(parts), sequence_weights(lengths, len(lengths), skip))


def test_microbatches_add_up_to_the_batch() -> None:
    case, lengths = Case(), [2, 4, 1]
    case.weights = sequence_weights(lengths, 3, skip_tokens=1)
    case.distil(LossConfig())[0].backward()
    parts = Case()
    head, teacher = Head(parts.weight, parts.bias), Head(parts.teacher_weight, parts.teacher_bias)
    for where, part in ((slice(0, 2), [2]), (slice(2, 7), [4, 1])):
        output = distillation_loss(
            parts.hidden[where],
            head,
            parts.teacher_hidden[where],
            teacher,
            sequence_weights(part, 3, skip_tokens=1),
            LossConfig(),
        )
        output.loss.backward()
    for whole, summed in zip(case.leaves, parts.leaves, strict=True):
        torch.testing.assert_close(whole.grad, summed.grad)


# -------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("support", SUPPORTS, ids=lambda s: s.kind)
def test_all_positions_times_the_vocabulary_are_never_held(support: Any) -> None:
    tokens, hidden_size, vocabulary, chunk = 96, 4, 50, 8
    hidden = torch.randn(tokens, hidden_size, requires_grad=True)
    weight = torch.randn(vocabulary, hidden_size, requires_grad=True)
    weights = torch.full((tokens,), 1 / tokens)
    config = LossConfig(support=support, chunk_tokens=chunk)
    with LargestTensor() as ours:
        output = distillation_loss(hidden, Head(weight), torch.randn_like(hidden), Head(weight), weights, config)
        output.loss.backward()
    with LargestTensor() as control:
        F.linear(hidden, weight).log_softmax(-1).sum().backward()
    assert control.numel == tokens * vocabulary, "the recorder sees what it should"
    assert ours.numel == chunk * vocabulary
