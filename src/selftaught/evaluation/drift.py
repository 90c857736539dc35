"""Drift: how far a model has moved from its base on prompts that nobody taught it.

drift = mean over completion tokens of KL(base‖model), in nats, on answers that the base itself
sampled (temperature 1) to general prompts. It is an unbiased estimate of the divergence a token
between what the two models would say.

Legend: N completion tokens of all answers, H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from selftaught.evaluation.probes import general_prompts
from selftaught.evaluation.runner import answer
from selftaught.losses.distillation import Head, chunked_loss
from selftaught.losses.divergence import forward_kl
from selftaught.models.batching import microbatches
from selftaught.models.load import LanguageModel
from selftaught.models.score import student_hidden
from selftaught.processes import ALONE, ProcessGroup
from selftaught.prompts import render
from selftaught.rollout.sampler import Sampling
from selftaught.types import Message

NUM_PROMPTS = 128
MAX_NEW_TOKENS = 32
CHUNK_TOKENS = 64
BATCH_TOKENS = 512


@dataclass(frozen=True)
class DriftReference:
    """The base model's answers, and its states at each of their tokens; each process holds its share of them.

    States and head are kept rather than distributions: N×H instead of N×V numbers.
    """

    prompts: list[list[int]]
    completions: list[tuple[int, ...]]
    hidden: Tensor  # [N, H]
    head: Head
    num_tokens: int  # of all processes' completions
    processes: ProcessGroup


def drift_reference(
    base: LanguageModel, num_prompts: int = NUM_PROMPTS, processes: ProcessGroup = ALONE
) -> DriftReference:
    """Has the base model answer the first `num_prompts` general prompts."""
    texts = general_prompts()[:num_prompts]
    prompts = [render((Message("user", text),), base.tokenizer) for text in texts]
    seeds = list(range(len(prompts)))
    completions = [c.ids for c in answer(base, prompts, Sampling(MAX_NEW_TOKENS), seeds, processes=processes)]
    num_tokens = sum(map(len, completions))
    prompts, completions = processes.share(prompts), processes.share(completions)
    head = base.head.detached()
    head = Head(head.weight.clone(), None if head.bias is None else head.bias.clone())
    return DriftReference(prompts, completions, _states(base, prompts, completions), head, num_tokens, processes)


@torch.no_grad()
def drift_nats(reference: DriftReference, model: LanguageModel) -> float:
    """Mean KL(base‖model) in nats per token; 0 for the base itself."""
    hidden = _states(model, reference.prompts, reference.completions)

    def token_kl(model_logits: Tensor, where: slice) -> Tensor:
        base_logits = reference.head(reference.hidden[where])
        return forward_kl(base_logits.log_softmax(-1), model_logits.log_softmax(-1))

    weights = torch.full((len(hidden),), 1 / reference.num_tokens)
    loss = chunked_loss(hidden, model.head.detached(), token_kl, weights, CHUNK_TOKENS).loss
    return float(reference.processes.sum(float(loss)))


@torch.no_grad()
def _states(model: LanguageModel, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]) -> Tensor:
    """[N, H], answer after answer in the prompts' order."""
    pieces: list[Tensor | None] = [None] * len(prompts)
    for group in microbatches([len(p) + len(c) for p, c in zip(prompts, completions, strict=True)], BATCH_TOKENS):
        packed = student_hidden(model, [prompts[row] for row in group], [completions[row] for row in group])
        for row, states in zip(group, packed.split([len(completions[row]) for row in group]), strict=True):
            pieces[row] = states
    return torch.cat([piece for piece in pieces if piece is not None])
