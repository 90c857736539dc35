"""Divergences between the teacher's and the student's next-token distributions.

The upper part is the readable specification: one function an equation, on logits, in float32 or better.
The lower part is what training runs: the same values with their gradients in closed form, in a few passes
over the vocabulary and without an autograd graph. Tests hold it to the specification.

Legend: N tokens, V vocabulary, K the teacher's likeliest tokens, B buckets (V, or K + 1 with the tail).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

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
    likeliest = _likeliest(teacher_logprobs, support)  # [N, K]
    if likeliest is not None:
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


def _likeliest(teacher_logits: Tensor, support: Support | None) -> Tensor | None:
    """[N, K] the teacher's likeliest tokens; None where the support is the whole vocabulary."""
    if support is None or isinstance(support, FullSupport) or support.k >= teacher_logits.shape[-1]:
        return None
    return teacher_logits.topk(support.k, dim=-1).indices


# ----------------------------------------------------------------------------- gradients in closed form
# These compute in the memory of the logits they are given, which are spent afterwards.


@torch.no_grad()
def divergence_gradient(
    name: str, teacher_logits: Tensor, student_logits: Tensor, support: Support | None = None
) -> tuple[Tensor, Tensor]:
    """`divergence` and its gradient, from the same arguments; computed in the logits' own memory.

    With a tail, D is a function of K + 1 buckets: the kept logits, and z_tail = log Σ_others exp z. So a kept
    token's ∂D/∂z is its bucket's, and another token's is the tail's times its share exp(z − z_tail) of it.

    Returns:
        D [N] in nats, and ∂D/∂student_logits [N, V].
    """
    likeliest = _likeliest(teacher_logits, support)  # [N, K]
    if likeliest is None:
        return _bucket_gradient(name, teacher_logits, student_logits)
    teacher_buckets, _ = _merge_others(teacher_logits, likeliest)
    student_buckets, share = _merge_others(student_logits, likeliest)
    nats, gradient = _bucket_gradient(name, teacher_buckets, student_buckets)  # [N], [N, K + 1]
    return nats, share.mul_(gradient[:, -1:]).scatter_(-1, likeliest, gradient[:, :-1])


@torch.no_grad()
def cross_entropy_gradient(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """−log softmax(logits)[target] in nats [N], and its gradient softmax(logits) − onehot(target) [N, V],
    computed in the logits' own memory."""
    at = targets[:, None]
    logit = logits.gather(-1, at)  # [N, 1]
    probs, log_total = _softmax_(logits)
    return (log_total - logit)[:, 0], probs.scatter_add_(-1, at, -torch.ones_like(logit))


@torch.no_grad()
def dft_gradient(logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """−p log p in nats [N], p = softmax(logits)[target], and p (softmax(logits) − onehot(target)) [N, V]: the
    gradient of −sg(p) log p, where sg is detached (DFT, arXiv 2508.05629). Computed in the logits' own memory."""
    nats, gradient = cross_entropy_gradient(logits, targets)
    probability = (-nats).exp()
    return probability * nats, gradient.mul_(probability[:, None])


def _bucket_gradient(name: str, teacher_logits: Tensor, student_logits: Tensor) -> tuple[Tensor, Tensor]:
    """D [N] and ∂D/∂student_logits [N, B] of distributions over B buckets."""
    log_ratio = teacher_logits - student_logits
    teacher, teacher_total = _softmax_(teacher_logits)
    student, student_total = _softmax_(student_logits)
    return _GRADIENTS[name](teacher, student, log_ratio.sub_(teacher_total - student_total))


def _softmax_(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Probabilities [N, B], in place of the logits, and log Σ exp(logits) [N, 1]."""
    top = logits.amax(-1, keepdim=True)
    total = logits.sub_(top).exp_().sum(-1, keepdim=True)
    return logits.div_(total), top + total.log()


def _merge_others(logits: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of the kept tokens and of all others together [N, K + 1], and the others' shares of those [N, V]."""
    kept_logits = logits.gather(-1, kept)
    share, tail = _softmax_(logits.scatter_(-1, kept, LOG_ZERO))
    return torch.cat([kept_logits, tail], dim=-1), share


# Of t and s, the teacher's and the student's probabilities [N, B], and r = log t − log s, each gives D [N] and
# ∂D/∂z = G − s ΣG with G = ∂D/∂log s. All three are overwritten.


def _forward_kl_gradient(t: Tensor, s: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """D = Σ t r and G = −t, so ∂D/∂z = s − t."""
    return r.mul_(t).sum(-1), s.sub_(t)


def _reverse_kl_gradient(t: Tensor, s: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """D = −Σ s r and G = s (1 − r), so ∂D/∂z = −s (r + D)."""
    nats = -torch.mul(s, r, out=t).sum(-1, keepdim=True)
    return nats[:, 0], s.mul_(r.add_(nats)).neg_()


def _jsd_gradient(t: Tensor, s: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """D = ½ Σ t (r + u) + ½ Σ s u and G = ½ s u with u = log s − log m, so ∂D/∂z = ½ s (u − Σ s u)."""
    u = F.logsigmoid(-r).add_(math.log(2))  # m/s = ½ (1 + eʳ)
    of_teacher = t.mul_(r.add_(u)).sum(-1)
    of_student = torch.mul(s, u, out=t).sum(-1, keepdim=True)
    return 0.5 * (of_teacher + of_student[:, 0]), s.mul_(u.sub_(of_student)).mul_(0.5)


_GRADIENTS: dict[str, Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]] = {
    "forward_kl": _forward_kl_gradient,
    "reverse_kl": _reverse_kl_gradient,
    "jsd": _jsd_gradient,
}
