"""The loss over completion positions, with the vocabulary visited in chunks.

A batch's completions are packed into N positions. Their hidden states are projected onto the
vocabulary `chunk_tokens` at a time; each chunk's gradient is computed in the forward pass and its
logits are dropped, so that neither B×T×V nor N×V is ever held.

Legend: N packed completion tokens, H hidden size, V vocabulary, n tokens of one chunk.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from selftaught.config import LossConfig
from selftaught.losses.divergence import divergence

TokenLoss = Callable[[Tensor, slice], Tensor]
"""(student logits [n, V], which of the N positions they are) → nats per token [n]."""


@dataclass(frozen=True)
class Head:
    """The last layer of a language model: logits = hidden @ weight.T + bias."""

    weight: Tensor  # [V, H]
    bias: Tensor | None = None  # [V]

    def __call__(self, hidden: Tensor) -> Tensor:
        """[n, H] → float32 logits [n, V]."""
        return F.linear(hidden, self.weight, self.bias).float()

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

    L = Σ_n w_n · min(D(teacher_n, student_n), clip); the teacher is detached.

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

    def token_loss(student_logits: Tensor, where: slice) -> Tensor:
        with torch.no_grad():
            teacher_logits = frozen_head(frozen_hidden[where])
        return divergence(config.divergence, teacher_logits, student_logits, config.support)

    return chunked_loss(student_hidden, student_head, token_loss, weights, config.chunk_tokens, config.clip_nats)


def cross_entropy_loss(
    hidden: Tensor, head: Head, targets: Tensor, weights: Tensor, chunk_tokens: int = LossConfig().chunk_tokens
) -> LossOutput:
    """Weighted negative log-likelihood of given tokens (SFT): L = −Σ_n w_n log p(target_n).

    Args:
        hidden: [N, H] states that predict the targets, with gradient.
        head: the model's last layer.
        targets: [N] token ids.
        weights: [N], from `sequence_weights`.
        chunk_tokens: positions projected at a time.
    """

    def token_loss(logits: Tensor, where: slice) -> Tensor:
        return F.cross_entropy(logits, targets[where], reduction="none")

    return chunked_loss(hidden, head, token_loss, weights, chunk_tokens)


def chunked_loss(
    hidden: Tensor,
    head: Head,
    token_loss: TokenLoss,
    weights: Tensor,
    chunk_tokens: int,
    clip_nats: float | None = None,
) -> LossOutput:
    """Σ_n w_n · min(token_loss_n, clip) over all positions, holding one chunk's logits at a time."""
    apply: Any = _ChunkedLoss.apply  # torch leaves it untyped
    loss, nats = apply(hidden, head.weight, head.bias, token_loss, weights, chunk_tokens, clip_nats)
    return LossOutput(loss, nats)


class _ChunkedLoss(torch.autograd.Function):
    """Projects, scores and differentiates chunk by chunk in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        token_loss: TokenLoss,
        weights: Tensor,
        chunk_tokens: int,
        clip_nats: float | None,
    ) -> tuple[Tensor, Tensor]:
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.zeros_like(hidden) if need_hidden else None
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if need_weight else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if need_bias and bias is not None else None
        weights = weights.to(hidden.device)
        total = torch.zeros((), device=hidden.device)
        nats = torch.empty(hidden.shape[0], device=hidden.device)
        head = Head(weight, bias)
        for start in range(0, hidden.shape[0], chunk_tokens):
            where = slice(start, min(start + chunk_tokens, hidden.shape[0]))
            logits = head(hidden[where]).requires_grad_()  # [n, V]
            with torch.enable_grad():
                values = token_loss(logits, where)  # [n]
                clipped = values if clip_nats is None else values.clamp(max=clip_nats)
                chunk_total = (weights[where] * clipped).sum()
            total += chunk_total.detach()
            nats[where] = values.detach()
            if not (need_hidden or need_weight or need_bias):
                continue
            (grad_logits,) = torch.autograd.grad(chunk_total, logits)  # [n, V]
            if grad_bias is not None:
                grad_bias += grad_logits.sum(0)
            grad_logits = grad_logits.to(hidden.dtype)
            if grad_hidden is not None:
                grad_hidden[where] = grad_logits @ weight
            if grad_weight is not None:
                grad_weight += grad_logits.T @ hidden[where]
        ctx.grads = (grad_hidden, grad_weight, grad_bias)
        ctx.dtypes = (weight.dtype, None if bias is None else bias.dtype)
        ctx.mark_non_differentiable(nats)
        return total, nats

    @staticmethod
    def backward(ctx: Any, grad_total: Tensor, _grad_nats: Tensor) -> tuple[Tensor | None, ...]:
        grad_hidden, grad_weight, grad_bias = ctx.grads
        weight_dtype, bias_dtype = ctx.dtypes
        return (
            None if grad_hidden is None else grad_hidden * grad_total,
            None if grad_weight is None else (grad_weight * grad_total).to(weight_dtype),
            None if grad_bias is None else (grad_bias * grad_total).to(bias_dtype),
            None,
            None,
            None,
            None,
        )
