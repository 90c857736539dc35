"""Hidden states at completion positions: the student's with gradient, the teacher's from kept prefills.

Legend: B rows, T longest completion, N = Σ completion lengths (packed), H hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from selftaught.models.load import LanguageModel
from selftaught.models.prefill import Prefill


def student_hidden(
    model: LanguageModel, prompts: Sequence[Sequence[int]], completions: Sequence[Sequence[int]]
) -> Tensor:
    """States that predict each completion token, from one pass over prompt and completion.

    Rows are padded on the right, where causal attention never looks, so no mask is needed.

    Returns:
        [N, H], row after row, with gradient where gradients are enabled.
    """
    longest = max(len(p) + len(c) for p, c in zip(prompts, completions, strict=True))
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        ids[row, : len(prompt) + len(completion)] = torch.tensor([*prompt, *completion])
    hidden = model.hidden_states(ids.to(model.device), use_cache=False).last_hidden_state  # [B, P + T, H]
    pieces = [hidden[row, len(p) - 1 : len(p) + len(c) - 1] for row, (p, c) in enumerate(zip(prompts, completions))]
    return torch.cat(pieces)


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
