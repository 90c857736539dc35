"""The embedded sampler: many prompts, decoded in batches whose finished rows make room for waiting ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from selftaught.models.prefill import Prompts
from selftaught.rollout.batch import Batch, new_row
from selftaught.rollout.sampler import Completion, Sampling

CACHE_TOKENS = 8192  # slots of keys and values held at a time; prompts that find no row wait
REFILL_SHARE = 0.25  # share of rows that must be free before waiting prompts are let in together


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
    decoder = prompts.decoder
    all_seeds: Sequence[int | None] = seeds or [None] * len(prompts.tokens)
    rows = [
        new_row(tokens, sampling, seed, decoder, keep_states)
        for tokens, seed in zip(prompts.tokens, all_seeds, strict=True)
    ]
    longest = max(map(len, prompts.tokens))
    num_places = min(len(rows), max(1, CACHE_TOKENS // (longest + sampling.max_new_tokens)))
    batch = Batch(decoder, num_places, longest)
    waiting = list(range(len(rows)))
    while waiting or batch.rows:
        free = num_places - len(batch.rows)
        if waiting and (free >= REFILL_SHARE * num_places or not batch.rows):
            chosen, waiting = waiting[:free], waiting[free:]
            guesses = None if drafts is None else [drafts[index] for index in chosen]
            batch.admit([rows[i] for i in chosen], lambda cache, row: prompts.load(cache, row, chosen), guesses)  # noqa: B023
        batch.step()
        on_done(len(rows) - len(waiting) - len(batch.rows))
    return [row.completion() for row in rows]
