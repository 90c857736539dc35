"""Keys and values of prompts: computed once, then decoded from or scored against.

A prompt's keys and values ("prefill") do not depend on what follows. The student's are computed for
each batch. A frozen teacher's are kept from step to step, since its prompts hold the whole document
and would otherwise cost more than everything else.

Legend: B rows, P prompt tokens of the longest row, H hidden size.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from selftaught.models.load import LanguageModel

MIN_SHARED = 8  # a shorter common beginning is not worth a pass of its own

KeysValues = list[tuple[Tensor, Tensor]]
"""One pair a layer, each [B, heads, P, head_dim]."""


@dataclass(frozen=True)
class Prefill:
    """A batch of prompts, run through the model and padded to one length before their last tokens."""

    layers: KeysValues
    mask: Tensor  # [B, P] 1 for prompt tokens, 0 for padding
    last_hidden: Tensor  # [B, H] state of each prompt's last token, which predicts the first completion token

    def cache(self) -> DynamicCache:
        """A fresh key-value cache that starts with these prompts; growing it leaves them unchanged."""
        return DynamicCache(ddp_cache_data=self.layers)

    def rows(self, indices: Sequence[int]) -> Prefill:
        """The same for some of the rows."""
        at = torch.as_tensor(indices, device=self.mask.device)
        return Prefill([(k[at], v[at]) for k, v in self.layers], self.mask[at], self.last_hidden[at])


def shared_prefix(prompts: Sequence[Sequence[int]]) -> int:
    """Number of tokens that all prompts begin with, leaving each at least one of its own.

    0 where a pass of its own would not pay: for a single prompt, or for fewer than `MIN_SHARED` tokens.
    """
    ordered = sorted(tuple(prompt) for prompt in prompts)
    first, last = ordered[0], ordered[-1]  # what these two share, all share
    limit = min(map(len, prompts)) - 1
    shared = next((place for place in range(limit) if first[place] != last[place]), limit)
    return shared if len(prompts) > 1 and shared >= MIN_SHARED else 0


def expanded_prefix(model: LanguageModel, prefix: Sequence[int], num_rows: int) -> DynamicCache:
    """Keys and values of a prefix, run once and seen by every row; where gradients flow, the rows' add up in it."""
    output = model.hidden_states(
        torch.tensor([list(prefix)], device=model.device), past_key_values=DynamicCache(), use_cache=True
    )
    layers = output.past_key_values.layers
    return DynamicCache(
        ddp_cache_data=[(x.keys.expand(num_rows, -1, -1, -1), x.values.expand(num_rows, -1, -1, -1)) for x in layers]
    )


@torch.no_grad()
def prefill(model: LanguageModel, prompts: Sequence[Sequence[int]]) -> Prefill:
    """Runs prompts through the model, left-padded. What all of them begin with is run once for all.

    Args:
        prompts: B token lists, each at least one token long.
    """
    start = shared_prefix(prompts)
    longest = max(map(len, prompts)) - start
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    own = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        length = len(prompt) - start
        ids[row, longest - length :] = torch.as_tensor(prompt[start:])
        own[row, longest - length :] = 1
    ids, own = ids.to(model.device), own.to(model.device)
    mask = torch.cat([own.new_ones(len(prompts), start), own], dim=1)  # the shared beginning stands before the padding
    output = model.hidden_states(
        ids,
        attention_mask=mask if start or min(map(len, prompts)) < longest else None,
        position_ids=(start + own.cumsum(-1) - 1).clamp(min=0),
        past_key_values=expanded_prefix(model, prompts[0][:start], len(prompts)) if start else DynamicCache(),
        use_cache=True,
    )
    layers = [(layer.keys, layer.values) for layer in output.past_key_values.layers]
    return Prefill(layers, mask, output.last_hidden_state[:, -1])


def join(rows: Sequence[Prefill]) -> Prefill:
    """Puts single-row prefills side by side, left-padding the shorter ones."""
    longest = max(row.mask.shape[1] for row in rows)
    first_keys, first_values = rows[0].layers[0]
    mask = rows[0].mask.new_zeros(len(rows), longest)
    layers: KeysValues = []
    for layer in range(len(rows[0].layers)):
        keys = first_keys.new_zeros(len(rows), first_keys.shape[1], longest, first_keys.shape[3])
        values = first_values.new_zeros(len(rows), first_values.shape[1], longest, first_values.shape[3])
        for index, row in enumerate(rows):
            length = row.mask.shape[1]
            keys[index, :, longest - length :], values[index, :, longest - length :] = (
                row.layers[layer][0][0],
                row.layers[layer][1][0],
            )
        layers.append((keys, values))
    for index, row in enumerate(rows):
        mask[index, longest - row.mask.shape[1] :] = 1
    return Prefill(layers, mask, torch.cat([row.last_hidden for row in rows]))


class PrefillStore:
    """Prefills that are kept from step to step, up to a stated amount of memory.

    Each prompt is run on its own, so that its numbers do not depend on what shares its batch: a
    resumed run then equals an uninterrupted one bit for bit. When the memory is used up, the least
    recently used are dropped and computed again when next needed.

    Args:
        model: whose prefills these are. Call `clear` whenever its weights change.
        max_bytes: memory for kept keys and values.
    """

    def __init__(self, model: LanguageModel, max_bytes: int) -> None:
        self.model = model
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._kept: OrderedDict[tuple[int, ...], Prefill] = OrderedDict()

    def get(self, prompts: Sequence[Sequence[int]]) -> Prefill:
        """The prefill of a batch of prompts."""
        return join([self._one(tuple(prompt)) for prompt in prompts])

    def clear(self) -> None:
        """Forgets everything."""
        self._kept.clear()
        self.used_bytes = 0

    def _one(self, prompt: tuple[int, ...]) -> Prefill:
        if prompt in self._kept:
            self._kept.move_to_end(prompt)
            return self._kept[prompt]
        row = prefill(self.model, [prompt])
        if _size(row) > self.max_bytes:
            return row
        self._kept[prompt] = row
        self.used_bytes += _size(row)
        while self.used_bytes > self.max_bytes and self._kept:
            _, dropped = self._kept.popitem(last=False)
            self.used_bytes -= _size(dropped)
        return row


def _size(row: Prefill) -> int:
    return sum(tensor.nbytes for pair in row.layers for tensor in pair)
