"""Divergences against torch's own, a float64 reference, and the inequalities they must obey."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch import Tensor
from torch.nn import functional as F

from selftaught.config import FullSupport, TeacherTopK
from selftaught.losses.divergence import (
    DIVERGENCES,
    cross_entropy_gradient,
    dft_gradient,
    divergence,
    divergence_gradient,
    with_tail,
)

NAMES = sorted(DIVERGENCES)
FLOOR = -2e-5  # "≥ 0 up to rounding" of float32 log-probabilities


def logits(seed: int, rows: int = 5, vocabulary: int = 17, scale: float = 3.0) -> Tensor:
    return scale * torch.randn(rows, vocabulary, generator=torch.Generator().manual_seed(seed))


def reference(name: str, teacher: Tensor, student: Tensor) -> np.ndarray:
    """The textbook sums in float64, on numpy."""

    def log_softmax(x: Tensor) -> np.ndarray:
        values = x.detach().numpy().astype(np.float64)
        values = values - values.max(-1, keepdims=True)
        return values - np.log(np.exp(values).sum(-1, keepdims=True))

    def kl(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (np.exp(a) * (a - b)).sum(-1)

    t, s = log_softmax(teacher), log_softmax(student)
    middle = np.log(0.5 * np.exp(t) + 0.5 * np.exp(s))
    return {"forward_kl": kl(t, s), "reverse_kl": kl(s, t), "jsd": 0.5 * (kl(t, middle) + kl(s, middle))}[name]


@pytest.mark.parametrize("name", NAMES)
def test_equals_a_float64_reference(name: str) -> None:
    teacher, student = logits(1), logits(2)
    np.testing.assert_allclose(
        divergence(name, teacher, student).numpy(), reference(name, teacher, student), rtol=2e-5, atol=1e-6
    )


def test_equals_torchs_kl_div_the_right_way_round() -> None:
    teacher, student = logits(3), logits(4)
    t, s = teacher.log_softmax(-1), student.log_softmax(-1)
    middle = (0.5 * (t.exp() + s.exp())).log()

    def kl(target: Tensor, approximation: Tensor) -> Tensor:
        return F.kl_div(approximation, target, log_target=True, reduction="none").sum(-1)

    torch.testing.assert_close(divergence("forward_kl", teacher, student), kl(t, s))
    torch.testing.assert_close(divergence("reverse_kl", teacher, student), kl(s, t))
    torch.testing.assert_close(divergence("jsd", teacher, student), 0.5 * kl(t, middle) + 0.5 * kl(s, middle))


@pytest.mark.parametrize("support", [FullSupport(), TeacherTopK(k=4)], ids=lambda s: s.kind)
@pytest.mark.parametrize("name", NAMES)
def test_equal_distributions_cost_nothing_and_pull_nowhere(name: str, support: FullSupport | TeacherTopK) -> None:
    student = logits(5).requires_grad_()
    shift = torch.arange(5.0)[:, None]  # logits are the same distribution up to a constant
    values = divergence(name, student.detach() + shift, student, support)
    (gradient,) = torch.autograd.grad(values.sum(), student)
    assert values.abs().max() < 2e-6
    assert gradient.abs().max() < 2e-6


def test_jsd_is_symmetric_and_the_kls_mirror_each_other() -> None:
    a, b = logits(6), logits(7)
    torch.testing.assert_close(divergence("jsd", a, b), divergence("jsd", b, a))
    torch.testing.assert_close(divergence("forward_kl", a, b), divergence("reverse_kl", b, a))
    assert not torch.allclose(divergence("forward_kl", a, b), divergence("forward_kl", b, a), rtol=0.05)


@pytest.mark.parametrize("name", NAMES)
def test_no_gradient_reaches_the_teacher(name: str) -> None:
    teacher, student = logits(8).requires_grad_(), logits(9).requires_grad_()
    divergence(name, teacher, student).sum().backward()
    assert teacher.grad is None
    assert student.grad is not None and student.grad.abs().max() > 0


@pytest.mark.parametrize("k", [17, 18, 1000])
@pytest.mark.parametrize("name", NAMES)
def test_topk_over_the_whole_vocabulary_is_full_support(name: str, k: int) -> None:
    teacher, student = logits(10), logits(11)
    assert torch.equal(divergence(name, teacher, student, TeacherTopK(k=k)), divergence(name, teacher, student))


@pytest.mark.parametrize("name", NAMES)
def test_topk_with_its_tail_equals_the_reference_over_the_buckets(name: str) -> None:
    teacher, student, k = logits(12), logits(13), 4
    buckets: list[tuple[list[float], list[float]]] = []
    for row in range(teacher.shape[0]):
        p, q = teacher[row].double().softmax(-1), student[row].double().softmax(-1)
        kept = sorted(range(17), key=lambda v: -float(p[v]))[:k]
        others = [v for v in range(17) if v not in kept]
        buckets.append(
            (
                [float(p[v]) for v in kept] + [float(p[others].sum())],
                [float(q[v]) for v in kept] + [float(q[others].sum())],
            )
        )
    t, s = (torch.tensor([pair[side] for pair in buckets]).log() for side in (0, 1))
    values = divergence(name, teacher, student, TeacherTopK(k=k)).numpy()
    np.testing.assert_allclose(values, reference(name, t, s), rtol=1e-4, atol=1e-6)


def test_the_tail_is_not_lost_to_rounding() -> None:
    rare = 1e-9  # 1 − Σ kept would be 0 in float32
    probs = torch.tensor([[1 - 2 * rare, rare, rare]], dtype=torch.float64)
    tail = with_tail(probs.log().float(), torch.tensor([[0]]))[0, -1]
    assert float(tail) == pytest.approx(math.log(2 * rare), rel=1e-5)


@pytest.mark.parametrize("k", [1, 3])
def test_a_token_that_only_the_teacher_likes_still_gets_its_gradient(k: int) -> None:
    """The trap: over the student's likeliest tokens, this one would lie in the tail and hardly move."""
    vocabulary, liked = 50, 41
    probs = torch.full((1, vocabulary), 0.2 / (vocabulary - 1))
    probs[0, liked] = 0.8
    student = torch.linspace(10, 0, vocabulary)[None].clone()
    student[0, liked] = -12.0  # far down the student's list
    student.requires_grad_()
    values = divergence("forward_kl", probs.log(), student, TeacherTopK(k=k))
    (gradient,) = torch.autograd.grad(values.sum(), student)
    assert float(gradient[0, liked]) == pytest.approx(-0.8, abs=1e-3)  # q − p, as with full support
    assert float(gradient.sum()) == pytest.approx(0, abs=1e-5)


def test_inputs_in_bfloat16_range_of_values_stay_float32() -> None:
    assert divergence("forward_kl", logits(14), logits(15)).dtype == torch.float32


@st.composite
def pairs(draw: st.DrawFn, bound: float = 80.0) -> tuple[Tensor, Tensor]:
    shape = (draw(st.integers(1, 3)), draw(st.integers(2, 9)))
    numbers = st.floats(-bound, bound, width=32)
    teacher = torch.from_numpy(draw(arrays(np.float32, shape, elements=numbers)))
    if draw(st.booleans()):
        return teacher, teacher.clone()
    return teacher, torch.from_numpy(draw(arrays(np.float32, shape, elements=numbers)))


@settings(max_examples=60, deadline=None)
@given(pair=pairs(), name=st.sampled_from(NAMES), k=st.integers(1, 10))
def test_any_logits_give_finite_bounded_values(pair: tuple[Tensor, Tensor], name: str, k: int) -> None:
    teacher, student = pair
    full = divergence(name, teacher, student)
    for support in (FullSupport(), TeacherTopK(k=k)):
        leaf = student.clone().requires_grad_()
        values = divergence(name, teacher, leaf, support)
        (gradient,) = torch.autograd.grad(values.sum(), leaf)
        assert torch.isfinite(values).all() and torch.isfinite(gradient).all()
        assert (values >= FLOOR).all()
        assert (values <= full + 1e-4 * (1 + full)).all(), "merging tokens can only lose information"
        if name == "jsd":
            assert (values <= math.log(2) + 1e-5).all()


@settings(max_examples=40, deadline=None)
@given(pair=pairs(20.0), name=st.sampled_from(NAMES))
def test_any_logits_agree_with_the_reference(pair: tuple[Tensor, Tensor], name: str) -> None:
    teacher, student = pair
    np.testing.assert_allclose(
        divergence(name, teacher, student).numpy(), reference(name, teacher, student), rtol=1e-4, atol=2e-5
    )


# ----------------------------------------------------------------------------- gradients in closed form

SUPPORTS = [FullSupport(), TeacherTopK(k=1), TeacherTopK(k=4), TeacherTopK(k=16), TeacherTopK(k=17)]


def by_autograd(name: str, teacher: Tensor, student: Tensor, support: FullSupport | TeacherTopK) -> list[Tensor]:
    """The specification's values, and the gradient of their sum in the student's logits."""
    leaf = student.clone().requires_grad_()
    values = divergence(name, teacher, leaf, support)
    return [values.detach(), *torch.autograd.grad(values.sum(), leaf)]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("support", SUPPORTS, ids=lambda s: f"{s.kind}-{getattr(s, 'k', '')}")
@pytest.mark.parametrize("name", NAMES)
def test_closed_form_equals_the_specification(
    name: str, support: FullSupport | TeacherTopK, dtype: torch.dtype
) -> None:
    teacher, student = logits(16).to(dtype) + 40, logits(17).to(dtype) - 25  # a constant changes no distribution
    expected = by_autograd(name, teacher, student, support)
    tolerance = {"rtol": 1e-11, "atol": 1e-13} if dtype == torch.float64 else {"rtol": 2e-4, "atol": 2e-5}
    for ours, spec in zip(divergence_gradient(name, teacher, student, support), expected, strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours, spec, **tolerance)


@pytest.mark.parametrize("support", SUPPORTS[:3], ids=lambda s: f"{s.kind}-{getattr(s, 'k', '')}")
@pytest.mark.parametrize("name", NAMES)
def test_closed_form_equals_finite_differences(name: str, support: FullSupport | TeacherTopK) -> None:
    """Of the specification, in float64: no derivative but by measuring."""
    teacher, student = logits(18, rows=2).double(), logits(19, rows=2).double()
    _, gradient = divergence_gradient(name, teacher.clone(), student.clone(), support)
    step = 1e-5
    for token in range(17):
        moved = torch.zeros(17, dtype=torch.float64)
        moved[token] = step
        slope = divergence(name, teacher, student + moved, support) - divergence(
            name, teacher, student - moved, support
        )
        torch.testing.assert_close(gradient[:, token], slope / (2 * step), rtol=1e-5, atol=1e-8)


@settings(max_examples=60, deadline=None)
@given(pair=pairs(), name=st.sampled_from(NAMES), k=st.integers(1, 10))
def test_closed_form_is_finite_and_as_specified_for_any_logits(pair: tuple[Tensor, Tensor], name: str, k: int) -> None:
    teacher, student = pair
    ordered = teacher.sort(-1).values
    ties = bool((ordered.diff(dim=-1) < 1e-3).any())  # then rounding decides which tokens are the k likeliest
    for support in (FullSupport(),) if ties else (FullSupport(), TeacherTopK(k=k)):
        expected = by_autograd(name, teacher.double(), student.double(), support)
        for ours, spec in zip(
            divergence_gradient(name, teacher.clone(), student.clone(), support), expected, strict=True
        ):
            torch.testing.assert_close(ours.double(), spec, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_tail_too_unlikely_for_float32_keeps_its_gradient(name: str) -> None:
    """The student's tail has probability e⁻¹²⁰, which is 0 in float32; the teacher's has a third."""
    teacher, student = torch.zeros(1, 3), torch.tensor([[60.0, -60.0, -61.0]])
    expected = by_autograd(name, teacher.double(), student.double(), TeacherTopK(k=1))
    ours = divergence_gradient(name, teacher.clone(), student.clone(), TeacherTopK(k=1))
    for value, spec in zip(ours, expected, strict=True):
        torch.testing.assert_close(value.double(), spec, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_cross_entropy_equals_torchs_and_its_gradient_autograds(dtype: torch.dtype) -> None:
    student, targets = logits(20).to(dtype), torch.tensor([0, 16, 3, 3, 8])
    leaf = student.clone().requires_grad_()
    expected = F.cross_entropy(leaf, targets, reduction="none")
    nats, gradient = cross_entropy_gradient(student, targets)
    torch.testing.assert_close(nats, expected.detach())
    torch.testing.assert_close(gradient, *torch.autograd.grad(expected.sum(), leaf))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_dft_equals_autograds_with_the_probability_detached(dtype: torch.dtype) -> None:
    student, targets = logits(21).to(dtype), torch.tensor([0, 16, 3, 3, 8])
    leaf = student.clone().requires_grad_()
    nats = F.cross_entropy(leaf, targets, reduction="none")
    expected = (-nats).exp().detach() * nats
    value, gradient = dft_gradient(student, targets)
    torch.testing.assert_close(value, expected.detach())
    torch.testing.assert_close(gradient, *torch.autograd.grad(expected.sum(), leaf))
