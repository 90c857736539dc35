"""Hidden states at completion positions: the student's with gradient, the teacher's from kept prefills.

Legend: B rows, T longest completion, N = Σ completion lengths (packed), H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from selftaught.models.load import LanguageModel
from selftaught.models.prefill import Prefill, expanded_prefix, shared_prefix


def student_hidden(
    model: LanguageModel, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
) -> Tensor:
    """States that predict each completion token, from one pass over prompt and completion.

    What all prompts begin with (a system prompt) is run once for all rows, with gradient. Rows are padded
    on the right, where causal attention never looks, so no padding mask is needed.

    Returns:
        [N, H], row after row, with gradient where gradients are enabled.
    """
    start = shared_prefix(prompts)
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
def teacher_hidden(model: LanguageModel, prompts: Prefill, completions: Sequence[Sequence[int]]) -> Tensor:
    """States that predict each completion token, going on from prompts already run.

    Returns:
        [N, H], row after row.
    """
    longest = max(map(len, completions))
    if longest == 1:
        return prompts.last_hidden
    ids = torch.zeros(len(completions), longest - 1, dtype=torch.long)
    for row, completion in enumerate(completions):
        ids[row, : len(completion) - 1] = torch.as_tensor(completion[:-1])
    ids = ids.to(model.device)
    mask = torch.cat([prompts.mask, torch.ones_like(ids)], dim=1)
    first = prompts.mask.sum(-1, keepdim=True)  # [B, 1] position of the first completion token
    positions = first + torch.arange(ids.shape[1], device=ids.device)
    output = model.hidden_states(
        ids, attention_mask=mask, position_ids=positions, past_key_values=prompts.cache(), use_cache=True
    )
    hidden = torch.cat([prompts.last_hidden[:, None], output.last_hidden_state], dim=1)  # [B, T, H]
    return torch.cat([hidden[row, : len(completion)] for row, completion in enumerate(completions)])
