"""Prompts, put into a cache's rows: run now, or copied from what was kept.

A prompt's keys and values ("prefill") do not depend on what follows. The student's are computed for
each batch. A frozen teacher's are kept from step to step, since its prompts hold the whole document
and would otherwise cost more than everything else; what prompts have in common is kept once.

Legend: R rows, H hidden size.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from transformers import DynamicCache

from selftaught.models.decoder import Decoder, KeysValues, NewTokens
from selftaught.models.load import LanguageModel

MIN_SHARED = 8  # a shorter common beginning is not worth a pass of its own
BLOCK_TOKENS = 64  # prompts are kept in blocks of so many tokens
PREFILL_TOKENS = 256  # longest piece of a prompt that is run at a time


class Prompts(Protocol):
    """Prompts that can be put into the rows of a cache."""

    @property
    def decoder(self) -> Decoder:
        """Who runs them, and goes on from them."""
        ...

    @property
    def tokens(self) -> Sequence[Sequence[int]]:
        """The token ids of each."""
        ...

    def load(self, cache: KeysValues, first_row: int, chosen: Sequence[int]) -> Tensor:
        """Fills one row for each chosen prompt, from `first_row` on.

        Returns:
            [R, H] state of each prompt's last token, which predicts the first completion token.
        """
        ...


@dataclass(frozen=True)
class FreshPrompts:
    """Prompts that are run when they are loaded. Equal ones, and what all begin with, are run once."""

    decoder: Decoder
    tokens: Sequence[Sequence[int]]

    def load(self, cache: KeysValues, first_row: int, chosen: Sequence[int]) -> Tensor:
        """See `Prompts`."""
        wanted = [tuple(self.tokens[index]) for index in chosen]
        distinct = list(dict.fromkeys(wanted))
        start = shared_prefix(distinct)
        if start:
            _run(self.decoder, cache, first_row, [distinct[0][:start]], 0)
            for row in range(1, len(distinct)):
                cache.copy_row(first_row, first_row + row, start)
        last = _run(self.decoder, cache, first_row, [prompt[start:] for prompt in distinct], start)
        if len(distinct) == len(wanted):
            return last
        sources = [distinct.index(prompt) for prompt in wanted]
        for row in reversed(range(len(wanted))):  # a prompt's first row comes no later than its copies
            if sources[row] != row:
                cache.copy_row(first_row + sources[row], first_row + row, len(wanted[row]))
        return last[sources]


def _run(decoder: Decoder, cache: KeysValues, first_row: int, tokens: Sequence[Sequence[int]], start: int) -> Tensor:
    """Runs tokens that begin at one position in all rows, a piece at a time; the state of each row's last."""
    last: Tensor | None = None
    for begin in range(0, max(map(len, tokens)), PREFILL_TOKENS):
        pieces = [row[begin : begin + PREFILL_TOKENS] for row in tokens]
        new = NewTokens.of(pieces, [start + begin] * len(pieces), decoder.model.device)
        hidden = decoder.extend(cache, new, first_row)
        counts = torch.tensor([len(piece) for piece in pieces], device=hidden.device)
        last = hidden.new_zeros(len(tokens), hidden.shape[1]) if last is None else last
        last[counts > 0] = hidden[(counts.cumsum(0) - 1)[counts > 0]]
    assert last is not None
    return last


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


# ------------------------------------------------------------------------------------- kept from step to step


@dataclass(frozen=True)
class _Block:
    """Keys and values of up to `BLOCK_TOKENS` tokens of a prompt, and the state of the last of them."""

    layers: list[Tensor]  # keys of each layer, then values of each: [heads, tokens, D]
    last_hidden: Tensor  # [H]

    @property
    def nbytes(self) -> int:
        return sum(layer.nbytes for layer in self.layers) + self.last_hidden.nbytes


class PrefixStore:
    """Prompts that are kept from step to step, up to a stated amount of memory.

    They are kept in blocks of 64 tokens, found by all tokens up to a block's end, so that a document
    that several prompts begin with is run once and held once. Each block is run on its own: its numbers
    do not depend on what else is asked for, and a resumed run equals an uninterrupted one bit for bit.
    When the memory is used up, the blocks that were not used for the longest time are dropped, a
    prompt's end before its beginning, and computed again when next needed.

    Args:
        decoder: runs the prompts; its weights must not change.
        max_bytes: memory for kept keys and values; a prompt that is being loaded comes on top.
    """

    def __init__(self, decoder: Decoder, max_bytes: int) -> None:
        self.decoder = decoder
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self._blocks: OrderedDict[tuple[int, ...], _Block] = OrderedDict()  # by all tokens up to the block's end

    def prompts(self, tokens: Sequence[Sequence[int]]) -> KeptPrompts:
        """These prompts, to be loaded from here."""
        return KeptPrompts(self, tokens)

    def load_row(self, cache: KeysValues, row: int, prompt: tuple[int, ...]) -> Tensor:
        """Fills a row with a prompt; [H] the state of its last token."""
        ends = [*range(BLOCK_TOKENS, len(prompt), BLOCK_TOKENS), len(prompt)]
        start = 0
        for end in ends:
            block = self._blocks.get(prompt[:end])
            if block is None:
                hidden = _run(self.decoder, cache, row, [prompt[start:end]], start)[0]
                block = _Block([x[row, :, start:end].clone() for x in (*cache.keys, *cache.values)], hidden)
                self._blocks[prompt[:end]] = block
                self.used_bytes += block.nbytes
            else:
                for layer, kept in zip((*cache.keys, *cache.values), block.layers, strict=True):
                    layer[row, :, start:end] = kept
            start = end
        last_hidden = self._blocks[prompt].last_hidden
        for end in reversed(ends):  # its beginning is the last to go
            self._blocks.move_to_end(prompt[:end])
        while self.used_bytes > self.max_bytes:
            _, dropped = self._blocks.popitem(last=False)
            self.used_bytes -= dropped.nbytes
        return last_hidden


@dataclass(frozen=True)
class KeptPrompts:
    """Prompts that are copied from a store, which runs them first where it does not hold them."""

    store: PrefixStore
    tokens: Sequence[Sequence[int]]

    @property
    def decoder(self) -> Decoder:
        """See `Prompts`."""
        return self.store.decoder

    def load(self, cache: KeysValues, first_row: int, chosen: Sequence[int]) -> Tensor:
        """See `Prompts`."""
        rows = [
            self.store.load_row(cache, first_row + place, tuple(self.tokens[index]))
            for place, index in enumerate(chosen)
        ]
        return torch.stack(rows)
