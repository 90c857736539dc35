"""Runs new tokens on top of keys and values that are kept: what sampling and scoring are made of.

One operation, `extend`: some rows of a cache get new tokens, as many as each row has, and the states
of these tokens come back packed, without padding. A prompt, a drawn token, a draft to verify and a
completion to score are all such extensions. Two decoders do it:

* `PlainDecoder` calls the transformers model: it takes any architecture, and says what is right.
* `fast_decoder.FastDecoder` runs the Llama family on the live weights itself.

Legend: R rows, N = Σ new tokens of all rows (packed), T new tokens of the longest row, S slots that are
seen (the longest row's tokens, old and new), H hidden size, D head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import Cache

from selftaught.models.load import LanguageModel

MASKED = -3e4  # added to a score that must not count; finite in every type
SLOTS = 32  # a cache grows by so many at a time


@dataclass(frozen=True)
class KeysValues:
    """Keys and values of rows: the token at position p of a row is in its slot p. They grow as needed.

    Attributes:
        keys: one tensor a layer, [rows, heads, slots, D].
        values: the same.
    """

    keys: list[Tensor]
    values: list[Tensor]

    @property
    def num_slots(self) -> int:
        """Longest row that fits at present."""
        return self.keys[0].shape[2]

    def make_room(self, span: int) -> None:
        """Grows to rows of at least `span` tokens."""
        more = rounded_up(span) - self.num_slots
        if more > 0:
            for layers in (self.keys, self.values):
                layers[:] = [torch.nn.functional.pad(layer, (0, 0, 0, more)) for layer in layers]

    def resize(self, num_rows: int, num_kept: int, span: int) -> None:
        """Has `num_rows` rows from now on; the first `num_kept` keep their first `span` tokens. A layer at a time."""
        for layers in (self.keys, self.values):
            for number, layer in enumerate(layers):
                kept = layer[:num_kept, :, :span]
                layers[number] = layer.new_zeros(num_rows, layer.shape[1], rounded_up(span), layer.shape[3])
                layers[number][:num_kept, :, : kept.shape[2]] = kept

    def copy_row(self, source: int, target: int, num_slots: int) -> None:
        """Copies the first slots of a row over another's."""
        for layer in (*self.keys, *self.values):
            layer[target, :, :num_slots] = layer[source, :, :num_slots]


def rounded_up(num_slots: int) -> int:
    """Caches have so many slots, so that they seldom grow."""
    return -(-num_slots // SLOTS) * SLOTS


@dataclass(frozen=True)
class NewTokens:
    """New tokens of R neighbouring rows of a cache, packed.

    Attributes:
        ids: [N] token ids, row after row.
        row: [N] which of the R rows each belongs to.
        position: [N] where in its row.
        place: [N] the how-manieth of its row's new tokens it is.
        num_rows: R.
        width: T.
        span: S.
    """

    ids: Tensor
    row: Tensor
    position: Tensor
    place: Tensor
    num_rows: int
    width: int
    span: int

    @classmethod
    def of(cls, tokens: Sequence[Sequence[int]], starts: Sequence[int], device: torch.device) -> NewTokens:
        """Each row's new tokens, the first of them at position `starts[row]`; rows may have none."""
        counts = [len(row) for row in tokens]
        ids = torch.tensor([token for row in tokens for token in row], dtype=torch.long)
        row = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        place = torch.cat([torch.arange(count) for count in counts])
        position = torch.tensor(list(starts))[row] + place
        span = max(start + count for start, count in zip(starts, counts, strict=True))
        ids, row, position, place = (tensor.to(device) for tensor in (ids, row, position, place))
        return cls(ids, row, position, place, num_rows=len(counts), width=max(counts), span=span)

    @classmethod
    def one_each(cls, ids: Tensor, position: Tensor, span: int) -> NewTokens:
        """One token a row: ids [R] at position [R], the last position being `span` − 1."""
        row = torch.arange(len(ids), device=ids.device)
        return cls(ids, row, position, torch.zeros_like(row), num_rows=len(ids), width=1, span=span)

    def padded(self, packed: Tensor) -> Tensor:
        """[N, …] → [R, T, …], zero where a row has no more tokens."""
        if self.width * self.num_rows == len(self.ids):
            return packed.reshape(self.num_rows, self.width, *packed.shape[1:])
        result = packed.new_zeros(self.num_rows, self.width, *packed.shape[1:])
        result[self.row, self.place] = packed
        return result

    def packed(self, padded: Tensor) -> Tensor:
        """[R, T, …] → [N, …], the reverse of `padded`."""
        if self.width * self.num_rows == len(self.ids):
            return padded.reshape(len(self.ids), *padded.shape[2:])
        return padded[self.row, self.place]

    def visible(self, window: int | None = None) -> Tensor:
        """[R, T, S] whether a new token sees a slot: those up to its own, or the last `window` of them."""
        position = self.padded(self.position)[:, :, None]
        slots = torch.arange(self.span, device=position.device)
        seen = slots <= position
        return seen if window is None else seen & (slots > position - window)


class Decoder(Protocol):
    """Extends the rows of a cache with new tokens."""

    model: LanguageModel

    def new_cache(self, rows: int, slots: int) -> KeysValues:
        """Room for so many rows, of so many tokens at first."""
        ...

    def extend(self, cache: KeysValues, new: NewTokens, first_row: int = 0) -> Tensor:
        """Runs new tokens of the rows from `first_row` on, and stores their keys and values; the cache grows to fit.

        Returns:
            [N, H] the states of the last layer.
        """
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """[n, H] → [n, V] float32."""
        ...


class PlainDecoder:
    """Any causal language model of transformers, through its own forward pass."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        config = model.plain_model.config.get_text_config(decoder=True)
        self._window = getattr(config, "sliding_window", None)
        self._layer_types = set(getattr(config, "layer_types", None) or ())
        self._shapes: list[tuple[Tensor, torch.Size, torch.Size]] | None = None

    @torch.no_grad()
    def new_cache(self, rows: int, slots: int) -> KeysValues:
        """See `Decoder`."""
        if self._shapes is None:  # a first token shows how each layer stores it
            one = torch.zeros(1, 1, dtype=torch.long, device=self.model.device)
            layers = self.model.hidden_states(one, use_cache=True).past_key_values.layers
            self._shapes = [(layer.keys.new_empty(0), layer.keys.shape, layer.values.shape) for layer in layers]
        size = rounded_up(slots)
        keys = [like.new_zeros(rows, key[1], size, key[3]) for like, key, _ in self._shapes]
        values = [like.new_zeros(rows, value[1], size, value[3]) for like, _, value in self._shapes]
        return KeysValues(keys, values)

    @torch.no_grad()
    def extend(self, cache: KeysValues, new: NewTokens, first_row: int = 0) -> Tensor:
        """See `Decoder`."""
        cache.make_room(new.span)
        output = self.model.hidden_states(
            new.padded(new.ids),
            attention_mask=self._mask(new),
            position_ids=new.padded(new.position),
            past_key_values=_Slots(cache, new, first_row),
            use_cache=True,
        )
        return new.packed(output.last_hidden_state)

    def logits(self, hidden: Tensor) -> Tensor:
        """See `Decoder`."""
        return self.model.head(hidden)

    def _mask(self, new: NewTokens) -> Any:
        """[R, 1, T, S] added to the scores; one for each kind of layer where a model has several."""
        masks = {
            "full_attention": added_mask(new.visible(), self.model.dtype)[:, None],
            "sliding_attention": added_mask(new.visible(self._window), self.model.dtype)[:, None],
        }
        if len(self._layer_types) > 1:
            return masks
        sliding = self._layer_types == {"sliding_attention"} or (not self._layer_types and self._window is not None)
        return masks["sliding_attention" if sliding else "full_attention"]


class _Slots(Cache):  # type: ignore[misc]  # transformers is untyped
    """Lets a transformers model write into, and read, our cache."""

    def __init__(self, cache: KeysValues, new: NewTokens, first_row: int) -> None:
        super().__init__(layers=[])
        self._cache, self._new, self._first = cache, new, first_row

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *_: Any, **__: Any) -> Any:
        """Stores [R, heads, T, D] and returns [R, heads, S, D]."""
        cache, new = self._cache, self._new
        rows = slice(self._first, self._first + new.num_rows)
        seen = []
        for layers, states in ((cache.keys, key_states), (cache.values, value_states)):
            layers[layer_idx][self._first + new.row, :, new.position] = new.packed(states.transpose(1, 2))
            seen.append(layers[layer_idx][rows, :, : new.span])
        return tuple(seen)

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002  # all layers are alike
        """Tokens before the new ones, in a batch whose rows are alike; ours says positions and mask itself."""
        return self._new.span - self._new.width


def added_mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to the scores: 0 where a slot is seen, `MASKED` elsewhere."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, MASKED)
