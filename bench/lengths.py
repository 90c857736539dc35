"""Makes our sampler end each completion at a length of its own, as trl_worker.py does for TRL's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from selftaught.rollout import torch_sampler


def set_lengths(lengths: Mapping[tuple[int, ...], int]) -> None:
    """From now on, completions of these prompts end at so many tokens, and those of others at the sampler's limit.

    Only for this process, and for a model without stop tokens, which would end them sooner.
    """

    def room(run: Any, prompt: int) -> int:
        return lengths.get(tuple(run.prompts.tokens[prompt]), run.sampling.max_new_tokens) - len(run.ids[prompt])

    torch_sampler._Run._room = room  # type: ignore[method-assign]
