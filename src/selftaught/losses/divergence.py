"""Divergences between the teacher's and the student's next-token distributions.

This is the readable specification: one function an equation, on logits, in float32 or better.

Legend: N tokens, V vocabulary, K the teacher's likeliest tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from selftaught.config import FullSupport, Support

LOG_ZERO = -1e30  # stands for log 0 where −inf would turn 0·(−inf) into nan


def kl(p_log: Tensor, q_log: Tensor) -> Tensor:
    """KL(p‖q) = Σ_v p(v) (log p(v) − log q(v)), in nats: [N, V] → [N]."""
    return (p_log.exp() * (p_log - q_log)).sum(-1)


def forward_kl(teacher_logprobs: Tensor, student_logprobs: Tensor) -> Tensor:
    """KL(teacher‖student), in nats: [N, V] → [N].

    What the authors of SDFT (arXiv 2601.19897) trained with, by their own later account.
    """
    return kl(teacher_logprobs, student_logprobs)


def reverse_kl(teacher_logprobs: Tensor, student_logprobs: Tensor) -> Tensor:
    """KL(student‖teacher), in nats: [N, V] → [N]. Equation 1 of arXiv 2601.19897."""
    return kl(student_logprobs, teacher_logprobs)


def jsd(teacher_logprobs: Tensor, student_logprobs: Tensor) -> Tensor:
    """Jensen–Shannon divergence ½ KL(T‖M) + ½ KL(S‖M) with M = ½ (T + S), in nats: [N, V] → [N]."""
    middle = torch.logaddexp(teacher_logprobs, student_logprobs) - math.log(2)
    return 0.5 * (kl(teacher_logprobs, middle) + kl(student_logprobs, middle))


DIVERGENCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "forward_kl": forward_kl,
    "reverse_kl": reverse_kl,
    "jsd": jsd,
}


def divergence(name: str, teacher_logits: Tensor, student_logits: Tensor, support: Support | None = None) -> Tensor:
    """The named divergence between two next-token distributions, in nats.

    Args:
        name: "forward_kl", "reverse_kl" or "jsd".
        teacher_logits: [N, V]; no gradient flows into them.
        student_logits: [N, V].
        support: the whole vocabulary, or the teacher's k likeliest tokens and one bucket for the rest.

    Returns:
        [N], each ≥ 0 up to rounding.
    """
    teacher_logprobs = teacher_logits.detach().log_softmax(-1)
    student_logprobs = student_logits.log_softmax(-1)
    if support is not None and not isinstance(support, FullSupport) and support.k < teacher_logits.shape[-1]:
        likeliest = teacher_logprobs.topk(support.k, dim=-1).indices  # [N, K]
        teacher_logprobs = with_tail(teacher_logprobs, likeliest)  # [N, K + 1]
        student_logprobs = with_tail(student_logprobs, likeliest)
    return DIVERGENCES[name](teacher_logprobs, student_logprobs)


def with_tail(logprobs: Tensor, kept: Tensor) -> Tensor:
    """Log-probabilities of the kept tokens, and of all others together in a last column.

    The tail is summed over the others themselves, not as 1 − Σ kept, which would lose it to rounding.

    Args:
        logprobs: [N, V].
        kept: [N, K] token ids.

    Returns:
        [N, K + 1]
    """
    others = logprobs.scatter(-1, kept, LOG_ZERO)
    tail = others.logsumexp(-1, keepdim=True)
    return torch.cat([logprobs.gather(-1, kept), tail], dim=-1)
