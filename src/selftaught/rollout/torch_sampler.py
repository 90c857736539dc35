"""The embedded sampler: batched decoding with a key-value cache; finished rows leave the batch.

Every row has its own stream of uniform numbers, so what it draws depends on its seed and its prompt
alone, never on its neighbours in the batch.

Legend: B rows still being decoded, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from selftaught.models.load import LanguageModel
from selftaught.models.prefill import Prefill
from selftaught.rollout.sampler import Completion, Sampling

LEAVE_SHARE = 0.25  # finished rows leave when they are this share: each leaving copies the cache once


@torch.no_grad()
def sample(
    model: LanguageModel, prompts: Prefill, sampling: Sampling, seeds: Sequence[int] | None = None
) -> list[Completion]:
    """Draws one completion for each prompt.

    Args:
        model: the model that the prompts were run through.
        prompts: B prompts' keys and values.
        sampling: length, temperature and top-p.
        seeds: one a row; needed unless the temperature is 0.

    Returns:
        B completions in the prompts' order, each with the model's own log-probabilities (at
        temperature 1) of the tokens drawn.
    """
    num_rows = prompts.mask.shape[0]
    if sampling.temperature > 0 and (seeds is None or len(seeds) != num_rows):
        raise ValueError("sampling at a temperature needs one seed a row")
    uniforms = _uniforms(seeds, sampling.max_new_tokens) if sampling.temperature > 0 and seeds is not None else None
    ids: list[list[int]] = [[] for _ in range(num_rows)]
    logprobs: list[list[float]] = [[] for _ in range(num_rows)]
    finished = [False] * num_rows
    rows = list(range(num_rows))  # which prompt each row of the batch is
    cache, mask = prompts.cache(), prompts.mask
    positions = mask.sum(-1, keepdim=True)  # [B, 1]
    logits = model.head(prompts.last_hidden)  # [B, V]
    stop_ids = model.stop_ids

    for step in range(sampling.max_new_tokens):
        uniform = uniforms[rows, step].to(logits.device) if uniforms is not None else None
        tokens = draw(logits, sampling, uniform)  # [B]
        drawn_logprobs = logits.log_softmax(-1).gather(-1, tokens[:, None])[:, 0].tolist()
        for row, token, logprob in zip(rows, tokens.tolist(), drawn_logprobs, strict=True):
            if not finished[row]:
                ids[row].append(token)
                logprobs[row].append(logprob)
                finished[row] = token in stop_ids
        alive = [index for index, row in enumerate(rows) if not finished[row]]
        if not alive or step + 1 == sampling.max_new_tokens:
            break
        if len(rows) - len(alive) >= LEAVE_SHARE * len(rows):
            kept = torch.tensor(alive, device=mask.device)
            cache.batch_select_indices(kept)
            mask, positions, tokens = mask[kept], positions[kept], tokens[kept]
            rows = [rows[index] for index in alive]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        output = model.hidden_states(
            tokens[:, None], attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True
        )
        logits = model.head(output.last_hidden_state[:, -1])
        positions = positions + 1
    return [Completion(tuple(i), tuple(p), f) for i, p, f in zip(ids, logprobs, finished, strict=True)]


def draw(logits: Tensor, sampling: Sampling, uniform: Tensor | None = None) -> Tensor:
    """One token a row, by inverting the cumulative distribution at a uniform number.

    Args:
        logits: [B, V] float32.
        sampling: temperature (0 takes the likeliest token) and top-p.
        uniform: [B] in [0, 1).

    Returns:
        [B] token ids.
    """
    if sampling.temperature == 0 or uniform is None:
        return logits.argmax(-1)
    probs = (logits / sampling.temperature).softmax(-1)
    if sampling.top_p < 1:
        ordered, order = probs.sort(-1, descending=True)
        before = ordered.cumsum(-1) - ordered
        probs = torch.zeros_like(probs).scatter(-1, order, ordered * (before < sampling.top_p))
    cumulative = probs.double().cumsum(-1)
    threshold = uniform.double()[:, None] * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, threshold, right=True)[:, 0]
    return tokens.clamp(max=logits.shape[-1] - 1)


def _uniforms(seeds: Sequence[int], length: int) -> Tensor:
    """[B, length] numbers in [0, 1), each row from its own seed."""
    return torch.stack([torch.rand(length, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
