"""Rows that are decoded together, a token each at a time: what `sample` and the server are made of.

Rows come and go while others go on: a row that is done leaves its place in the cache to the next one. Every row has
its own settings and its own stream of uniform numbers, so what it draws depends on its seed and its prompt alone,
never on its neighbours, and not on the draft that it is offered.

Legend: R rows being decoded, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from selftaught.models.decoder import Decoder, KeysValues, NewTokens
from selftaught.rollout.draw import draw
from selftaught.rollout.sampler import NOT_KEPT, Completion, Sampling

LOOK_EVERY = 16  # steps between looks at what a GPU has drawn: each look waits for it

Load = Callable[[KeysValues, int], Tensor]
"""(a cache, its first free row) → [R, H] states of the prompts' last tokens, after their rows were filled."""


@dataclass(eq=False)
class Row:
    """A completion that is being drawn.

    Attributes:
        prompt: its token ids.
        sampling: its settings; where it may draw nothing, only its prompt is run.
        uniforms: [max_new_tokens] numbers in [0, 1), where it is drawn at a temperature.
        stop_ids: tokens that end it.
        ids: drawn so far.
        states: [tokens, H] pieces of what predicted them, if they are to be kept.
    """

    prompt: Sequence[int]
    sampling: Sampling
    uniforms: Tensor | None
    stop_ids: frozenset[int]
    ids: list[int] = field(default_factory=list)
    states: list[Tensor] | None = None

    @property
    def length(self) -> int:
        """Tokens of prompt and completion so far."""
        return len(self.prompt) + len(self.ids)

    @property
    def span(self) -> int:
        """Tokens of prompt and completion at most."""
        return len(self.prompt) + self.sampling.max_new_tokens

    @property
    def room(self) -> int:
        """Tokens that it may still draw."""
        return self.sampling.max_new_tokens - len(self.ids)

    @property
    def ended(self) -> bool:
        """Whether it has ended itself."""
        return bool(self.ids) and self.ids[-1] in self.stop_ids

    @property
    def done(self) -> bool:
        """Whether nothing more is to be drawn."""
        return self.ended or not self.room

    def take(self, tokens: Sequence[int], states: Tensor) -> None:
        """Adds tokens, up to the first that ends it or fills it; `states` [≥ tokens, H] are what predicted them."""
        tokens = tokens[: self.room]
        end = next((place + 1 for place, token in enumerate(tokens) if token in self.stop_ids), len(tokens))
        self.ids += tokens[:end]
        if self.states is not None:
            self.states.append(states[:end])

    def completion(self) -> Completion:
        """All that was drawn."""
        return Completion(tuple(self.ids), self.ended, NOT_KEPT if self.states is None else torch.cat(self.states))


def new_row(
    prompt: Sequence[int], sampling: Sampling, seed: int | None, decoder: Decoder, keep_states: bool = False
) -> Row:
    """A row of which nothing is drawn yet.

    Args:
        prompt: its token ids.
        sampling: its settings.
        seed: of its uniform numbers; needed unless the temperature is 0.
        decoder: who will decode it.
        keep_states: keep the states that predict each token.
    """
    uniforms = None
    if sampling.temperature > 0 and sampling.max_new_tokens:
        assert seed is not None
        uniforms = torch.rand(sampling.max_new_tokens, generator=torch.Generator().manual_seed(seed))
    return Row(prompt, sampling, uniforms, decoder.model.stop_ids, states=[] if keep_states else None)


class Batch:
    """The rows being decoded, packed into the first places of a cache.

    Args:
        decoder: who runs them.
        num_rows: places at first.
        num_slots: tokens that a place holds at first.
    """

    def __init__(self, decoder: Decoder, num_rows: int, num_slots: int) -> None:
        self.decoder = decoder
        self.cache = decoder.new_cache(num_rows, num_slots)
        self.rows: list[Row] = []
        self._last = torch.zeros(0, dtype=torch.long, device=decoder.model.device)  # [R] drawn last, not yet run
        self.look_every = 1 if self._last.device.type == "cpu" else LOOK_EVERY

    def fit(self, num_rows: int, most: int) -> None:
        """Makes room for `num_rows` rows, and keeps no more than `most` places: they all grow with the longest row.

        Args:
            num_rows: that are there or about to be admitted; at most `most`.
            most: places that memory allows.
        """
        places = self.cache.keys[0].shape[0]
        if num_rows > places or places > most:
            longest = max([row.length for row in self.rows], default=1)
            self.cache.resize(min(most, max(num_rows, 2 * places)), len(self.rows), longest)

    def admit(self, rows: Sequence[Row], load: Load, drafts: Sequence[Sequence[int]] | None = None) -> None:
        """Puts rows behind those that are there, and draws their first tokens.

        Args:
            rows: of which nothing is drawn.
            load: fills their places with their prompts.
            drafts: a guess at each one's completion, run at once and kept as far as it is what is drawn anyway.
        """
        first = len(self.rows)
        hidden = load(self.cache, first)  # [R, H]
        states = list(hidden.split(1))
        guesses = [list(guess[: row.room - 1]) for row, guess in zip(rows, drafts or [()] * len(rows), strict=True)]
        if any(guesses):
            starts = [len(row.prompt) for row in rows]
            new = NewTokens.of(guesses, starts, hidden.device)
            following = self.decoder.extend(self.cache, new, first).split([len(guess) for guess in guesses])
            states = [torch.cat(pair) for pair in zip(states, following, strict=True)]
        logits = self.decoder.logits(torch.cat(states)).split([len(piece) for piece in states])
        for row, guess, scores, predicting in zip(rows, guesses, logits, states, strict=True):
            tokens = draw(scores, row.sampling, self._uniforms([row], len(scores))[0]).tolist()
            right = next((place for place, token in enumerate(guess) if token != tokens[place]), len(guess))
            row.take(tokens[: right + 1], predicting)
        self.rows += rows
        self.release()

    def step(self) -> list[Row]:
        """Draws the next token of every row, or on a GPU the next few, and lets finished rows go.

        Returns:
            The rows that had more drawn.
        """
        rows = list(self.rows)
        if not rows:
            return rows
        num_steps = min(self.look_every, *(row.room for row in rows))
        lengths = [row.length for row in rows]
        positions = torch.tensor(lengths, device=self._last.device) - 1  # of the token drawn last
        uniforms, groups = self._uniforms(rows, num_steps), _alike(rows)
        drawn, states = [], []
        for step in range(num_steps):
            new = NewTokens.one_each(self._last, positions + step, max(lengths) + step)
            hidden = self.decoder.extend(self.cache, new)  # [R, H]
            self._last = _drawn(self.decoder.logits(hidden), uniforms[:, step], groups)
            drawn.append(self._last)
            states.append(hidden)
        for row, tokens, predicting in zip(rows, torch.stack(drawn, 1).tolist(), torch.stack(states, 1), strict=True):
            row.take(tokens, predicting)
        self.release()
        return rows

    def _uniforms(self, rows: Sequence[Row], count: int) -> Tensor:
        """[R, count] each row's next numbers; zeros for rows that take the likeliest token."""
        nothing = torch.zeros(count)
        numbers = [
            nothing if row.uniforms is None else row.uniforms[len(row.ids) : len(row.ids) + count] for row in rows
        ]
        return torch.stack(numbers).to(self._last.device)

    def release(self, given_up: frozenset[Row] = frozenset()) -> None:
        """Takes rows out that are done, or given up: the last row moves into the gap."""
        for place in reversed(range(len(self.rows))):
            if not self.rows[place].done and self.rows[place] not in given_up:
                continue
            row = self.rows.pop()
            if place < len(self.rows):
                self.cache.copy_row(len(self.rows), place, row.length)
                self.rows[place] = row
        last = [row.ids[-1] for row in self.rows]
        self._last = torch.tensor(last, dtype=torch.long, device=self._last.device)


def _alike(rows: Sequence[Row]) -> dict[tuple[float, float], list[int]]:
    """Places of rows that are drawn in the same way."""
    groups: dict[tuple[float, float], list[int]] = {}
    for place, row in enumerate(rows):
        groups.setdefault((row.sampling.temperature, row.sampling.top_p), []).append(place)
    return groups


def _drawn(logits: Tensor, uniforms: Tensor, groups: dict[tuple[float, float], list[int]]) -> Tensor:
    """[R, V] and [R] → [R] a token for each row."""
    tokens = torch.empty(len(logits), dtype=torch.long, device=logits.device)
    for (temperature, top_p), places in groups.items():
        sampling = Sampling(1, temperature, top_p)
        if len(places) == len(logits):
            return draw(logits, sampling, uniforms)
        tokens[places] = draw(logits[places], sampling, uniforms[places])
    return tokens
