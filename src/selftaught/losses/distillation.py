"""The loss over completion positions, with the vocabulary visited in chunks.

A batch's completions are packed into N positions. Their hidden states are projected onto the
vocabulary `chunk_tokens` at a time; each chunk's gradient is computed in the forward pass, in closed
form and in place of its logits, so that neither B×T×V nor N×V is ever held.

Legend: N packed completion tokens, H hidden size, V vocabulary, n tokens of one chunk, r some rows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from selftaught.config import LossConfig
from selftaught.losses.divergence import cross_entropy_gradient, dft_gradient, divergence_gradient

TokenLoss = Callable[[Tensor, slice], Tensor]
"""(student logits [n, V], which of the N positions they are) → nats per token [n]."""

Reference = Callable[[slice], Tensor]
"""(which of the N positions) → what their logits are compared with [n, …]."""

RowGradient = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""(rows of a reference [r, …], float32 logits [r, V]) → nats [r], ∂nats/∂logits [r, V]; may overwrite the logits."""

FLOAT_ROWS = 32  # logits turned to float32 at a time: few enough to stay in the processor's cache
HEAD_ROWS = 4096  # rows of the head's gradient summed at a time, for the same reason


@dataclass(frozen=True)
class Head:
    """The last layer of a language model: logits = hidden @ weight.T + bias."""

    weight: Tensor  # [V, H]
    bias: Tensor | None = None  # [V]

    def __call__(self, hidden: Tensor) -> Tensor:
        """[n, H] → float32 logits [n, V]."""
        return self.project(hidden).float()

    def project(self, hidden: Tensor) -> Tensor:
        """[n, H] → logits [n, V] in the type of the hidden states."""
        return F.linear(hidden, self.weight, self.bias)

    def detached(self) -> Head:
        """The same head, through which no gradient flows."""
        return Head(self.weight.detach(), None if self.bias is None else self.bias.detach())


@dataclass(frozen=True)
class LossOutput:
    """What a loss function hands back."""

    loss: Tensor  # scalar with gradient: Σ_n weights[n] · min(nats[n], clip)
    nats: Tensor  # [N] per-token value before clipping, detached


def sequence_weights(lengths: list[int], num_sequences: int, skip_tokens: int = 0) -> Tensor:
    """Weight of each packed token so that the loss is the mean over a sequence's tokens, then over sequences.

    Args:
        lengths: completion tokens of each sequence here (a micro-batch).
        num_sequences: sequences of the whole batch, so that micro-batches add up to its mean.
        skip_tokens: first tokens of each completion that weigh nothing; a completion that has no
            more than these keeps its last token, so that no sequence vanishes from the mean.

    Returns:
        [N] float32, N = Σ lengths; over a whole batch they sum to 1.
    """
    pieces = []
    for length in lengths:
        skipped = min(skip_tokens, length - 1)
        weight = torch.zeros(length)
        weight[skipped:] = 1.0 / ((length - skipped) * num_sequences)
        pieces.append(weight)
    return torch.cat(pieces)


def distillation_loss(
    student_hidden: Tensor,
    student_head: Head,
    teacher_hidden: Tensor,
    teacher_head: Head,
    weights: Tensor,
    config: LossConfig,
) -> LossOutput:
    """Weighted divergence from teacher to student at every completion token.

    L = Σ_n w_n · min(D(teacher_n, student_n), clip); the teacher is detached, its logits divided by its temperature.

    Args:
        student_hidden: [N, H] states that predict the completion tokens, with gradient.
        student_head: the student's last layer.
        teacher_hidden: [N, H'] the teacher's states at the same tokens.
        teacher_head: the teacher's last layer.
        weights: [N], from `sequence_weights`.
        config: which divergence, over which support, clipped where.
    """
    frozen_head = teacher_head.detached()
    frozen_hidden = teacher_hidden.detach()

    def teacher_logits(where: slice) -> Tensor:
        return frozen_head.project(frozen_hidden[where])

    def gradient(teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
        sharpened = teacher.float().div_(config.teacher_temperature)
        return divergence_gradient(config.divergence, sharpened, student, config.support)

    return _trained_loss(
        student_hidden, student_head, teacher_logits, gradient, weights, config.chunk_tokens, config.clip_nats
    )


def likelihood_loss(
    hidden: Tensor,
    head: Head,
    targets: Tensor,
    weights: Tensor,
    chunk_tokens: int = LossConfig().chunk_tokens,
    dft: bool = False,
) -> LossOutput:
    """Weighted negative log-likelihood of given tokens (SFT): L = −Σ_n w_n log p(target_n).

    DFT weighs each token by its own probability besides, detached: L = −Σ_n w_n sg(p(target_n)) log p(target_n).

    Args:
        hidden: [N, H] states that predict the targets, with gradient.
        head: the model's last layer.
        targets: [N] token ids.
        weights: [N], from `sequence_weights`.
        chunk_tokens: positions projected at a time.
        dft: the latter.
    """
    of_token = dft_gradient if dft else cross_entropy_gradient

    def gradient(target: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        return of_token(logits, target)

    return _trained_loss(hidden, head, lambda where: targets[where], gradient, weights, chunk_tokens)


@torch.no_grad()
def chunked_loss(
    hidden: Tensor,
    head: Head,
    token_loss: TokenLoss,
    weights: Tensor,
    chunk_tokens: int,
    clip_nats: float | None = None,
) -> LossOutput:
    """Σ_n w_n · min(token_loss_n, clip) over all positions, holding one chunk's logits at a time; no gradient."""
    nats = torch.cat([token_loss(head(hidden[where]), where) for where in _chunks(hidden.shape[0], chunk_tokens)])
    return LossOutput(_weighted_sum(nats, weights, clip_nats), nats)


def _trained_loss(
    hidden: Tensor,
    head: Head,
    reference: Reference,
    gradient: RowGradient,
    weights: Tensor,
    chunk_tokens: int,
    clip_nats: float | None = None,
) -> LossOutput:
    """Σ_n w_n · min(nats_n, clip), with its gradient for the hidden states and the head where they require one."""
    apply: Any = _ChunkedLoss.apply  # torch leaves it untyped
    loss, nats = apply(hidden, head.weight, head.bias, reference, gradient, weights, chunk_tokens, clip_nats)
    return LossOutput(loss, nats)


def _chunks(count: int, size: int) -> Iterator[slice]:
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def _weighted_sum(nats: Tensor, weights: Tensor, clip_nats: float | None) -> Tensor:
    bounded = nats if clip_nats is None else nats.clamp(max=clip_nats)
    return (weights.to(nats.device) * bounded).sum()


class _ChunkedLoss(torch.autograd.Function):
    """Projects, scores and differentiates chunk by chunk in the forward pass.

    Memory beside the gradients handed back: logits [chunk_tokens, V] of student and teacher in the type of their
    hidden states and, for more than one chunk, a float32 sum [V, H] of the head's gradients.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        reference: Reference,
        gradient: RowGradient,
        weights: Tensor,
        chunk_tokens: int,
        clip_nats: float | None,
    ) -> tuple[Tensor, Tensor]:
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        grad_weight = None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if need_bias and bias is not None else None
        weights = weights.to(hidden.device)
        nats = torch.empty(hidden.shape[0], device=hidden.device)
        head = Head(weight, bias)
        for where in _chunks(hidden.shape[0], chunk_tokens):
            logits, chunk_reference = head.project(hidden[where]), reference(where)  # [n, V], [n, …]
            # from here on, `logits` turns into the loss's gradient in them, some rows at a time
            for rows in _chunks(logits.shape[0], FLOAT_ROWS):
                values, grad_logits = gradient(chunk_reference[rows], logits[rows].float())  # [r], [r, V]
                nats[where][rows] = values
                factor = weights[where][rows]
                if clip_nats is not None:
                    factor = factor * (values <= clip_nats)
                logits[rows] = grad_logits.mul_(factor[:, None])
                if grad_bias is not None:
                    grad_bias += grad_logits.sum(0)
            if grad_hidden is not None:
                torch.mm(logits, weight, out=grad_hidden[where])
            if need_weight:
                grad_weight = _add_product(grad_weight, logits, hidden[where])
        ctx.grads = (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None or bias is None else grad_bias.to(bias.dtype),
        )
        ctx.mark_non_differentiable(nats)
        return _weighted_sum(nats, weights, clip_nats), nats

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor, _grad_nats: Tensor) -> tuple[Tensor | None, ...]:
        grads, ctx.grads = ctx.grads, None  # handed over, not copied: the head's is the largest array here
        return (*(None if grad is None else grad.mul_(grad_total) for grad in grads), *[None] * 5)


def _add_product(total: Tensor | None, grad_logits: Tensor, hidden: Tensor) -> Tensor:
    """total + grad_logitsᵀ·hidden [V, H]: a first product in its own type, sums of several in float32."""
    if total is None:
        return grad_logits.T @ hidden
    total = total.float()
    for rows in _chunks(total.shape[0], HEAD_ROWS):
        total[rows] += (grad_logits[:, rows].T @ hidden).float()  # adding another type to it would be slow
    return total
