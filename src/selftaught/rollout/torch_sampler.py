"""The embedded sampler: batched decoding on a key-value cache whose finished rows make room for waiting ones.

Every row has its own stream of uniform numbers, so what it draws depends on its seed and its prompt
alone, never on its neighbours, and not on the draft that it is offered.

Legend: R rows being decoded, H hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from selftaught.models.decoder import NewTokens
from selftaught.models.prefill import Prompts
from selftaught.rollout.draw import draw
from selftaught.rollout.sampler import NOT_KEPT, Completion, Sampling

CACHE_TOKENS = 8192  # slots of keys and values held at a time; prompts that find no row wait
REFILL_SHARE = 0.25  # share of rows that must be free before waiting prompts are let in together
LOOK_EVERY = 16  # steps between looks at what a GPU has drawn: each look waits for it


@torch.no_grad()
def sample(
    prompts: Prompts,
    sampling: Sampling,
    seeds: Sequence[int] | None = None,
    drafts: Sequence[Sequence[int]] | None = None,
    on_done: Callable[[int], None] = lambda done: None,
    keep_states: bool = False,
) -> list[Completion]:
    """Draws one completion for each prompt.

    Args:
        prompts: and the decoder that goes on from them.
        sampling: length, temperature and top-p.
        seeds: one a prompt; needed unless the temperature is 0.
        drafts: a guess at each completion. Its tokens are run at once, and kept as far as they are what
            is drawn anyway: the completions are the same (up to rounding), sooner if the guesses are good.
        on_done: called with the number of completions that are done, as they are.
        keep_states: give back the states that predicted each token too: who draws need not score.

    Returns:
        The completions, in the prompts' order.
    """
    if sampling.temperature > 0 and (seeds is None or len(seeds) != len(prompts.tokens)):
        raise ValueError("sampling at a temperature needs one seed a prompt")
    if not prompts.tokens:
        return []
    run = _Run(prompts, sampling, seeds, keep_states)
    waiting = list(range(len(prompts.tokens)))
    while waiting or run.rows:
        free = run.num_slots - len(run.rows)
        if waiting and (free >= REFILL_SHARE * run.num_slots or not run.rows):
            admitted, waiting = waiting[:free], waiting[free:]
            run.admit(admitted, drafts)
        run.step()
        on_done(len(prompts.tokens) - len(waiting) - len(run.rows))
    return run.completions()


class _Run:
    """The rows being decoded, packed into the first slots of the cache."""

    def __init__(self, prompts: Prompts, sampling: Sampling, seeds: Sequence[int] | None, keep_states: bool) -> None:
        self.prompts, self.sampling = prompts, sampling
        self.decoder = prompts.decoder
        self.device = self.decoder.model.device
        longest = max(map(len, prompts.tokens))
        self.num_slots = min(len(prompts.tokens), max(1, CACHE_TOKENS // (longest + sampling.max_new_tokens)))
        self.cache = self.decoder.new_cache(self.num_slots, longest)
        self.uniforms = _uniforms(seeds, sampling.max_new_tokens).to(self.device) if sampling.temperature > 0 else None
        self.look_every = 1 if self.device.type == "cpu" else LOOK_EVERY
        self.ids: list[list[int]] = [[] for _ in prompts.tokens]
        self.states: list[list[Tensor]] | None = [[] for _ in prompts.tokens] if keep_states else None  # [tokens, H]
        self.rows: list[int] = []  # which prompt each row of the cache holds
        self.last = torch.zeros(0, dtype=torch.long, device=self.device)  # [R] token drawn last, not yet run

    def admit(self, chosen: Sequence[int], drafts: Sequence[Sequence[int]] | None) -> None:
        """Puts prompts behind the rows that are there, and draws their first tokens."""
        first_row = len(self.rows)
        hidden = self.prompts.load(self.cache, first_row, chosen)  # [R, H]
        for prompt, tokens, states in self._first_tokens(hidden, chosen, first_row, drafts):
            self._take(prompt, tokens, states)
        self.rows += chosen
        self._leave()

    def step(self) -> None:
        """Draws the next token of every row, or on a GPU the next few, and lets finished rows go."""
        if not self.rows:
            return
        num_steps = min(self.look_every, *(self._room(row) for row in self.rows))
        rows = torch.tensor(self.rows, device=self.device)
        counts = torch.tensor([len(self.ids[row]) for row in self.rows], device=self.device)
        lengths = [len(self.prompts.tokens[row]) + len(self.ids[row]) for row in self.rows]
        positions = torch.tensor(lengths, device=self.device) - 1  # of the token drawn last
        drawn, states = [], []
        for step in range(num_steps):
            new = NewTokens.one_each(self.last, positions + step, max(lengths) + step)
            hidden = self.decoder.extend(self.cache, new)  # [R, H]
            logits = self.decoder.logits(hidden)  # [R, V]
            uniform = self.uniforms[rows, counts + step] if self.uniforms is not None else None
            self.last = draw(logits, self.sampling, uniform)
            drawn.append(self.last)
            states.append(hidden)
        for row, tokens, predicting in zip(
            self.rows, torch.stack(drawn, 1).tolist(), torch.stack(states, 1), strict=True
        ):
            self._take(row, self._until_stop(tokens), predicting)
        self._leave()

    def completions(self) -> list[Completion]:
        """All that was drawn."""
        states = [torch.cat(pieces) for pieces in self.states] if self.states else [NOT_KEPT] * len(self.ids)
        return [Completion(tuple(ids), self._stopped(ids), kept) for ids, kept in zip(self.ids, states, strict=True)]

    def _first_tokens(
        self, hidden: Tensor, chosen: Sequence[int], first_row: int, drafts: Sequence[Sequence[int]] | None
    ) -> list[tuple[int, list[int], Tensor]]:
        """Each prompt's first token, and its state; with drafts, all up to the first that the draft did not guess."""
        limit = self.sampling.max_new_tokens
        if drafts is None:
            uniform = self.uniforms[list(chosen), 0] if self.uniforms is not None else None
            tokens = draw(self.decoder.logits(hidden), self.sampling, uniform).tolist()
            return [(prompt, [tokens[place]], hidden[place : place + 1]) for place, prompt in enumerate(chosen)]
        guesses = [list(drafts[prompt][: limit - 1]) for prompt in chosen]
        states = [hidden[place : place + 1] for place in range(len(chosen))]
        if any(guesses):
            starts = [len(self.prompts.tokens[prompt]) for prompt in chosen]
            following = self.decoder.extend(self.cache, NewTokens.of(guesses, starts, self.device), first_row)
            pieces = following.split([len(guess) for guess in guesses])
            states = [torch.cat(pair) for pair in zip(states, pieces, strict=True)]
        result = []
        for prompt, guess, state in zip(chosen, guesses, states, strict=True):
            uniform = self.uniforms[prompt, : len(state)] if self.uniforms is not None else None
            tokens = draw(self.decoder.logits(state), self.sampling, uniform).tolist()
            right = next((place for place, token in enumerate(guess) if token != tokens[place]), len(guess))
            result.append((prompt, self._until_stop(tokens[: right + 1]), state))
        return result

    def _take(self, prompt: int, tokens: list[int], states: Tensor) -> None:
        """Adds to a completion; `states` may go on beyond its tokens."""
        self.ids[prompt] += tokens
        if self.states is not None:
            self.states[prompt].append(states[: len(tokens)])

    def _leave(self) -> None:
        """Takes finished rows out: the last row moves into the gap."""
        for place in reversed(range(len(self.rows))):
            if self._room(self.rows[place]) and not self._stopped(self.ids[self.rows[place]]):
                continue
            row = self.rows.pop()
            if place < len(self.rows):
                used = len(self.prompts.tokens[row]) + len(self.ids[row])
                self.cache.copy_row(len(self.rows), place, used)
                self.rows[place] = row
        self.last = torch.tensor([self.ids[row][-1] for row in self.rows], dtype=torch.long, device=self.device)

    def _room(self, prompt: int) -> int:
        return self.sampling.max_new_tokens - len(self.ids[prompt])

    def _stopped(self, ids: Sequence[int]) -> bool:
        return bool(ids) and ids[-1] in self.decoder.model.stop_ids

    def _until_stop(self, tokens: list[int]) -> list[int]:
        stop_ids = self.decoder.model.stop_ids
        end = next((place + 1 for place, token in enumerate(tokens) if token in stop_ids), len(tokens))
        return tokens[:end]


def _uniforms(seeds: Sequence[int] | None, length: int) -> Tensor:
    """[prompts, length] numbers in [0, 1), each row from its own seed."""
    assert seeds is not None
    return torch.stack([torch.rand(length, generator=torch.Generator().manual_seed(seed)) for seed in seeds])
