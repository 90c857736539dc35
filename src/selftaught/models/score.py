"""Hidden states at completion positions: the student's with gradient, the teacher's from its kept prompts.

Legend: B rows, T longest completion, N = Σ completion lengths (packed), H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from selftaught.models.batching import microbatches
from selftaught.models.decoder import NewTokens
from selftaught.models.load import LanguageModel
from selftaught.models.prefill import Prompts, expanded_prefix, shared_prefix

CACHE_TOKENS = 8192  # slots of keys and values held at a time while completions are scored


def student_hidden(
    model: LanguageModel, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
) -> Tensor:
    """States that predict each completion token, from one pass over prompt and completion.

    What all prompts begin with (a system prompt) is run once for all rows, with gradient, unless the layers' weights
    come and go, or their inputs alone are kept. Rows are padded on the right, where causal attention never looks, so no
    padding mask is needed.

    Returns:
        [N, H], row after row, with gradient where gradients are enabled.
    """
    start = 0 if model.shards is not None or model.recomputes else shared_prefix(prompts)
    longest = max(len(p) + len(c) for p, c in zip(prompts, completions, strict=True)) - start
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        tokens = torch.tensor([*prompt[start:], *completion])
        ids[row, : len(tokens)] = tokens
    ids = ids.to(model.device)
    if start:
        cache = expanded_prefix(model, prompts[0][:start], len(prompts))
        positions = torch.arange(start, start + longest, device=ids.device)[None]
        output = model.hidden_states(ids, past_key_values=cache, position_ids=positions, use_cache=True)
    else:
        output = model.hidden_states(ids, use_cache=False)
    hidden = output.last_hidden_state  # [B, P + T − start, H]
    ends = [len(prompt) - start for prompt in prompts]
    return torch.cat([hidden[row, end - 1 : end + len(completions[row]) - 1] for row, end in enumerate(ends)])


@torch.no_grad()
def teacher_hidden(prompts: Prompts, completions: Sequence[Sequence[int]]) -> Tensor:
    """States that predict each completion token, going on from prompts that are run or kept.

    Returns:
        [N, H], row after row.
    """
    states: list[Tensor] = [torch.empty(0)] * len(completions)
    lengths = [len(p) + len(c) for p, c in zip(prompts.tokens, completions, strict=True)]
    for group in microbatches(lengths, CACHE_TOKENS):
        decoder = prompts.decoder
        cache = decoder.new_cache(len(group), max(lengths[row] for row in group))
        last = prompts.load(cache, 0, group)  # [R, H]
        followed = [row for row in group if len(completions[row]) > 1]
        following = last.new_zeros(0, last.shape[1])
        if followed:
            inputs = [completions[row][:-1] for row in group]
            starts = [len(prompts.tokens[row]) for row in group]
            following = decoder.extend(cache, NewTokens.of(inputs, starts, decoder.model.device))
        pieces = following.split([len(completions[row]) - 1 for row in group])
        for place, row in enumerate(group):
            states[row] = torch.cat([last[place : place + 1], pieces[place]])
    return torch.cat(states)
